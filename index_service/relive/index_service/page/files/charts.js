// Bars and lines. Behind each chart is a table of the same numbers.
import { el, svg, table } from "./dom.js";

const WIDTH = 480, HEIGHT = 180, LEFT = 44, BOTTOM = 22, TOP = 10;

// caption, hint: text. summary: what a screen reader says of the picture. columns: of the table.
export const chart = (figure, { caption, hint, summary, bars, lines, ends, columns, rows }) => {
  const open = figure.querySelector("details")?.open ?? false;
  const picture = rows.length
    ? svg("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, role: "img", "aria-label": summary }, frame(ends), bars ?? [], lines ?? [])
    : el("p", { class: "hint" }, "Nothing to show yet.");
  const behind = rows.length
    ? el("details", { open }, el("summary", {}, "Table"), el("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": caption }, table(caption, columns, rows)))
    : null;
  const content = [el("figcaption", {}, caption, hint ? el("p", { class: "hint" }, hint) : null), picture, behind];
  const focused = figure.contains(document.activeElement);
  if (!focused) figure.replaceChildren(...content.filter(Boolean));
  else figure.querySelector("svg")?.replaceWith(picture);
};

const frame = ({ low, high, first, last }) => [
  svg("line", { class: "axis", x1: LEFT, x2: WIDTH, y1: HEIGHT - BOTTOM, y2: HEIGHT - BOTTOM }),
  svg("text", { x: LEFT - 6, y: HEIGHT - BOTTOM, "text-anchor": "end" }, low),
  svg("text", { x: LEFT - 6, y: TOP + 8, "text-anchor": "end" }, high),
  svg("text", { x: LEFT, y: HEIGHT - 6 }, first),
  svg("text", { x: WIDTH, y: HEIGHT - 6, "text-anchor": "end" }, last),
];

const x = (at, of) => LEFT + ((WIDTH - LEFT) * at) / of;
const y = (share) => HEIGHT - BOTTOM - (HEIGHT - BOTTOM - TOP) * share;

// shares: from 0 to 1; behind: a line is drawn over them
export const barsOf = (shares, behind = false) =>
  shares.map((share, at) => svg("rect", {
    class: behind ? "bar behind" : "bar", x: x(at, shares.length) + 1, width: Math.max(1, x(1, shares.length) - LEFT - 2), y: y(share), height: Math.max(0, HEIGHT - BOTTOM - y(share)),
  }));

// shares: from 0 to 1, null where there is none; what lies next to each other is joined
export const lineOf = (shares) => {
  const runs = [[]];
  shares.forEach((share, at) => {
    if (share === null || share === undefined) runs.push([]);
    else runs.at(-1).push([x(at + 0.5, shares.length), y(share)]);
  });
  return runs.filter((run) => run.length).flatMap((run) => [
    svg("polyline", { class: "line", points: run.map((point) => point.join(",")).join(" ") }),
    ...(shares.length <= 40 ? run.map(([cx, cy]) => svg("circle", { class: "dot", cx, cy, r: 3 })) : []),
  ]);
};
