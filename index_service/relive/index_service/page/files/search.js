// The search form and what it found.
import { post } from "./api.js";
import { byId, el, linkTo, put, scrolled, table } from "./dom.js";
import { number, percent, time } from "./words.js";

const NUMBERS = ["min_reward", "max_reward", "min_success_rate", "max_success_rate"];

const way = () => document.querySelector('input[name="way"]:checked').value;

const chosen = () => {
  for (const part of document.querySelectorAll("[data-way]")) part.hidden = part.dataset.way !== way();
  byId("record-label").hidden = way() === "words";
};

// A value that is a JSON scalar is that, anything else is text: as for `relive search --where`.
const scalar = (text) => {
  try {
    const value = JSON.parse(text);
    return typeof value === "object" && value !== null ? text : value;
  } catch {
    return text;
  }
};

const filter = () => {
  const found = {};
  const where = {};
  for (const line of byId("where").value.split("\n").map((each) => each.trim()).filter(Boolean)) {
    const at = line.indexOf("=");
    if (at < 0) throw new Error(`Metadata: “${line}” is not KEY=VALUE.`);
    (where[line.slice(0, at).trim()] ??= []).push(scalar(line.slice(at + 1).trim()));
  }
  if (Object.keys(where).length) found.where = where;
  for (const name of ["since", "until"]) {
    if (byId(name).value) found[name] = new Date(byId(name).value).getTime() * 1000;
  }
  for (const name of NUMBERS) if (byId(name).value !== "") found[name] = Number(byId(name).value);
  return Object.keys(found).length ? found : null;
};

const vector = (name) => {
  const text = byId(name).value.trim();
  if (!text) return null;
  try {
    return JSON.parse(text);
  } catch {
    throw new Error(`The ${name} embedding is not JSON like [0.1, 0.2].`);
  }
};

const query = () => {
  if (way() === "words") return { words: byId("words").value };
  if (way() === "like") return { like: byId("like").value };
  return { visual: vector("visual"), text: vector("text") };
};

const summary = (found) => {
  const many = `${number(found.hits.length)} found`;
  if (found.looked_at) return `${many}; the newest ${number(found.looked_at.experiences)} of ${number(found.looked_at.of)} experiences were looked at.`;
  const words = [many];
  if (found.approximate) words.push("nearest by lists, a few may be missed");
  if (found.degraded) words.push("searched on the CPU");
  words.push(found.recorded ? "recorded as retrieval" : "not recorded");
  return `${words.join(", ")}${found.recorded ? " " : "."}`;
};

const search = async (event) => {
  event.preventDefault();
  const said = byId("search-summary");
  try {
    const asked = { ...query(), k: Number(byId("k").value), filter: filter() };
    if (way() !== "words" && byId("record").checked) asked.record = true;
    put(said, "Searching …");
    const found = await post("api/search", asked);
    put(said, summary(found), found.recorded ? el("a", { href: `#/explain/${encodeURIComponent(found.retrieval_id)}` }, found.retrieval_id) : null);
    if (!found.hits.length) return byId("hits").replaceChildren();
    scrolled(byId("hits"), "Results", table("Experiences found", [
      ["Experience", (hit) => linkTo(hit.id)],
      ...(found.hits[0].score === null ? [] : [["Score", (hit) => number(hit.score), true]]),
      ["Question", (hit) => hit.question], ["Answer", (hit) => hit.final_answer], ["Reward", (hit) => number(hit.total_reward), true],
      ["Success", (hit) => (hit.retrieval_count ? `${percent(hit.success_rate)} of ${number(hit.retrieval_count)}` : null), true], ["When", (hit) => time(hit.time_us)],
    ], found.hits));
  } catch (error) {
    put(said, error.message);
    byId("hits").replaceChildren();
  }
};

export const start = () => {
  for (const radio of document.querySelectorAll('input[name="way"]')) radio.addEventListener("change", chosen);
  byId("search-form").addEventListener("submit", search);
  chosen();
};

export const moreLike = (id) => {
  document.querySelector('input[name="way"][value="like"]').checked = true;
  byId("like").value = id;
  chosen();
  byId("search-form").requestSubmit();
};
