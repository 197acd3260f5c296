// One experience, what its priority is made of, and what the log says of it.
import { get } from "./api.js";
import { byId, details, el, put, scrolled, table } from "./dom.js";
import { number, percent, time } from "./words.js";

const WHAT = {
  ExperienceRecorded: () => "recorded",
  OutcomeReported: (event) => `${event.success ? "success" : "failure"}${event.reward === null ? "" : `, reward ${number(event.reward)}`}`,
  ExperiencesRetrieved: (event) => `${event.kind === "sample" ? "sampled, probability" : "found by a search, score"} ${number(event.score)}`,
  PriorityUpdated: (event) => `priority ${number(event.priority)}, expected version ${event.expected_version}`,
  PrioritiesUpdated: (event) => `priority ${number(event.priority)}, expected version ${event.expected_version}`,
  ExperienceRetired: (event) => `removed${event.reason ? `: ${event.reason}` : ""}`,
};

export const factorColumns = [
  ["Given", (f) => number(f.given), true], ["Confidence", (f) => number(f.confidence), true], ["Reward", (f) => number(f.reward), true],
  ["Age", (f) => number(f.age), true], ["Floor", (f) => (f.floored ? "yes" : "no")], ["× Value", (f) => number(f.value), true], ["Priority", (f) => number(f.priority), true],
];

let current = null;
let events = [];
let before = null;

const long = (name, text) => el("div", { class: "panel" }, el("h3", {}, name), el("pre", { tabindex: 0, role: "region", "aria-label": name }, text));

export const open = async (id) => {
  current = id;
  events = [];
  before = null;
  put(byId("experience-title"), `Experience ${id}`);
  byId("experience-content").replaceChildren();
  byId("history").replaceChildren();
  byId("history-more").hidden = true;
  put(byId("history-summary"), "");
  let found = null;
  try {
    found = await get("api/experience", { id });
  } catch (error) {
    if (error.status !== 404) throw error;
    if (current === id) byId("experience-content").replaceChildren(el("p", { class: "warning" }, error.message));
  }
  if (current !== id) return;
  if (found) byId("experience-content").replaceChildren(...content(found));
  await look();
};

const content = (found) => [
  el("p", {}, el("a", { href: `#/search/${encodeURIComponent(found.id)}` }, "Search for more like this")),
  el("div", { class: "columns" },
    el("div", {}, el("h2", {}, "What happened"), el("dl", { class: "details" }, details([
      ["when", time(found.time_us)], ["reward", number(found.total_reward)], ["confidence", number(found.model_confidence)],
      ["episode", found.episode_id], ["step", found.step], ["visual embedding", found.visual_dim && `${number(found.visual_dim)} numbers`],
      ["text embedding", found.text_dim && `${number(found.text_dim)} numbers`], ["input", found.input_uri], ["input SHA-256", found.input_sha256],
      ["record", `partition ${found.partition}, position ${found.position}`],
    ]))),
    el("div", {}, el("h2", {}, "What came of it"), el("dl", { class: "details" }, details([
      ["retrievals", number(found.retrieval_count)], ["known outcomes", number(found.outcome_count)], ["successes", number(found.success_count)],
      ["success rate", found.outcome_count ? percent(found.success_rate) : "no outcome known"], ["priority updates", number(found.version)],
      ["drawn next", found.share === null ? null : `${found.share_is_exact ? "" : "about "}${percent(found.share)} of draws by priority`],
    ])))),
  el("h2", {}, "What its priority is made of now"),
  el("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": "Priority" }, table("(Given, or confidence + reward; + age; at least the floor) × value", factorColumns, [found.factors])),
  el("h2", {}, "Content"),
  el("div", { class: "columns" }, long("Question", found.question || "–"), long("Answer", found.final_answer), long("Metadata", found.metadata), long("Trajectory", found.trajectory)),
];

const look = async () => {
  const id = current;
  const said = byId("history-summary");
  put(said, "Reading the log …");
  let found;
  try {
    found = await get("api/history", { id, before });
  } catch (error) {
    if (current === id) put(said, error.message);
    return;
  }
  if (current !== id) return;
  events = events.concat(found.events);
  before = found.before;
  byId("history-more").hidden = found.complete;
  put(said, `${number(events.length)} events, newest first.${found.complete ? (found.trimmed ? " Older ones were removed from the log." : "") : " The log goes further back."}`);
  if (!events.length) return;
  scrolled(byId("history"), "History", table("Events of this experience", [
    ["When", (event) => time(event.time_us)], ["What", (event) => (WHAT[event.type] ?? (() => event.type))(event)],
    ["Retrieval", (event) => (event.retrieval_id ? el("a", { href: `#/explain/${encodeURIComponent(event.retrieval_id)}` }, event.retrieval_id) : null)],
    ["By", (event) => event.source], ["Position", (event) => `${event.partition}:${event.position}`, true],
  ], events));
};

export const start = () => byId("history-more").addEventListener("click", look);
