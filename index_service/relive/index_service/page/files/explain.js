// What a retrieval returned, why, and how it turned out.
import { get } from "./api.js";
import { byId, linkTo, put, scrolled, table } from "./dom.js";
import { factorColumns } from "./experience.js";
import { number, time } from "./words.js";

let current = null;
let before = null;
let known = null;

export const open = async (id) => {
  current = id;
  before = null;
  known = null;
  byId("retrieval").value = id;
  byId("explained").replaceChildren();
  byId("explain-more").hidden = true;
  await look();
};

// What two looks at parts of the log found, together.
const joined = (newer, older) => {
  if (!newer) return older;
  const items = new Map(newer.items.map((item) => [item.id, item]));
  for (const item of older.items) {
    const other = items.get(item.id);
    const outcomes = [other?.outcome, item.outcome].filter(Boolean).sort((a, b) => b.revision - a.revision);
    items.set(item.id, { ...item, ...(older.kind ? {} : { factors: other?.factors ?? item.factors }), score: item.score ?? other?.score ?? null, outcome: outcomes[0] ?? null });
  }
  return { ...older, ...(older.kind ? {} : { kind: newer.kind, seed: newer.seed, time_us: newer.time_us, source: newer.source }), items: [...items.values()], of: Math.max(items.size, newer.of, older.of) };
};

const look = async () => {
  const id = current;
  const said = byId("explain-summary");
  put(said, "Reading the log …");
  try {
    const found = await get("api/retrieval", { id, before });
    if (current !== id) return;
    known = joined(known, found);
    before = found.before;
    byId("explain-more").hidden = found.complete;
    put(said, summary(known));
    show(known);
  } catch (error) {
    if (current === id) put(said, error.message);
  }
};

const summary = (found) => {
  const more = found.complete ? "" : " The log goes further back.";
  if (!found.items.length) return `Nothing found so far.${more}`;
  if (!found.kind) return `Not recorded where the log was looked at; outcomes cite it.${more}`;
  const seed = found.seed === null ? "" : `, seed ${found.seed}`;
  const some = found.items.length < found.of ? `the first ${number(found.items.length)} of ${number(found.of)} experiences` : `${number(found.of)} experiences`;
  return `A ${found.kind} by ${found.source} at ${time(found.time_us)}${seed}, which returned ${some}.${more}`;
};

const show = (found) => {
  if (!found.items.length) return;
  const score = found.kind === "sample" ? "Probability" : "Score";
  scrolled(byId("explained"), "Explanation", table(
    "Priorities are as of the retrieval, by the outcomes and updates known now; relive explain tells those known then.", [
      ["Experience", (item) => linkTo(item.id)], [score, (item) => number(item.score), true],
      ...factorColumns.map(([name, cell, isNumber]) => [name, (item) => (item.factors ? cell(item.factors) : null), isNumber]),
      ["Outcome", (item) => (item.outcome ? (item.outcome.success ? "success" : "failure") : "not known")],
      ["Successes now", (item) => (item.now ? `${number(item.now.success_count)} of ${number(item.now.retrieval_count)}` : "gone"), true],
    ], found.items));
};

export const start = () => {
  byId("explain-more").addEventListener("click", look);
  byId("explain-form").addEventListener("submit", (event) => {
    event.preventDefault();
    const target = `#/explain/${encodeURIComponent(byId("retrieval").value.trim())}`;
    if (location.hash === target) open(byId("retrieval").value.trim());
    else location.hash = target;
  });
};
