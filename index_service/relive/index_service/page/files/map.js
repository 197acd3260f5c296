// Embeddings on a plane, each by what came of it: by shape as well as by colour.
import { get } from "./api.js";
import { byId, el, linkTo, put, scrolled, svg, table } from "./dom.js";
import { number, outcome, percent } from "./words.js";

const SIZE = 1000, HEIGHT = 620, EDGE = 20;
const NAMES = { good: "succeeded at least every other time", bad: "failed more often", open: "no outcome known" };

const mark = (kind, x, y, more = {}) => {
  const attributes = { class: `point ${kind}-mark`, ...more };
  if (kind === "bad") return svg("path", { d: `M${x - 4} ${y - 4}l8 8m0 -8l-8 8`, ...attributes });
  return svg("circle", { cx: x, cy: y, r: kind === "good" ? 4 : 3.5, ...attributes });
};

const span = (values) => {
  const low = values.reduce((a, b) => Math.min(a, b), Infinity), high = values.reduce((a, b) => Math.max(a, b), -Infinity);
  return { middle: (low + high) / 2, width: Math.max(high - low, 0.01) };
};

let shown = null;

export const refresh = async () => {
  const found = await get("api/map");
  const key = JSON.stringify(found);
  if (key === shown) return;
  shown = key;
  const kinds = found.success_rate.map(outcome);
  const counts = { good: 0, bad: 0, open: 0 };
  kinds.forEach((kind) => { counts[kind] += 1; });
  const explained = found.shares[0] + found.shares[1];
  put(byId("map-summary"), found.shown
    ? `${found.shown < found.of ? `${number(found.shown)} of ${number(found.of)}` : number(found.of)} experiences where their embeddings of ${number(found.width)} numbers differ the most. These two directions hold ${percent(explained)} of all difference${explained < 0.5 ? ": most of it is not to be seen here" : ""}.`
    : "There are no experiences yet.");
  put(byId("map-legend"), Object.keys(NAMES).map((kind) =>
    el("span", {}, svg("svg", { width: 14, height: 14, "aria-hidden": "true" }, mark(kind, 7, 7)), `${NAMES[kind]} (${number(counts[kind])})`)));
  const across = span(found.x), up = span(found.y);
  // One scale for both directions, or distances would not be what they look like.
  const scale = Math.min((SIZE - 2 * EDGE) / across.width, (HEIGHT - 2 * EDGE) / up.width);
  const points = found.ids.map((id, at) => {
    const x = SIZE / 2 + (found.x[at] - across.middle) * scale;
    const y = HEIGHT / 2 - (found.y[at] - up.middle) * scale;
    const said = `${id}: ${found.success_rate[at] === null ? "no outcome known" : `success rate ${percent(found.success_rate[at])}`}`;
    const point = mark(kinds[at], Math.round(x * 10) / 10, Math.round(y * 10) / 10, {
      on: { click: () => { location.hash = `#/experience/${encodeURIComponent(id)}`; } },
    });
    point.append(svg("title", {}, said));
    return point;
  });
  byId("map-plot").replaceChildren(svg("svg", {
    viewBox: `0 0 ${SIZE} ${HEIGHT}`, role: "img",
    "aria-label": `Map of ${number(found.shown)} experiences: ${Object.keys(NAMES).map((kind) => `${number(counts[kind])} ${NAMES[kind]}`).join(", ")}.`,
  }, points));
  const behind = byId("map-table");
  const fill = () => {
    if (!behind.open) return;
    scrolled(behind.querySelector("div"), "Points of the map", table("Points of the map", [
      ["Experience", (at) => linkTo(found.ids[at])], ["Across", (at) => number(found.x[at]), true], ["Up", (at) => number(found.y[at]), true],
      ["Retrievals", (at) => number(found.retrievals[at]), true], ["Success rate", (at) => percent(found.success_rate[at]), true],
    ], [...found.ids.keys()]));
  };
  behind.ontoggle = fill;
  fill();
};
