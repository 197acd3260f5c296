// Elements are made here and nowhere else, and what they say is only ever text: nothing that a
// producer put into an id, a question or metadata can become markup.

const SVG = "http://www.w3.org/2000/svg";

const fill = (node, attributes, children) => {
  for (const [name, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (name === "on") for (const [event, listener] of Object.entries(value)) node.addEventListener(event, listener);
    else node.setAttribute(name, value === true ? "" : String(value));
  }
  node.append(...children.flat().filter((child) => child !== null && child !== undefined));
  return node;
};

export const el = (name, attributes = {}, ...children) => fill(document.createElement(name), attributes, children);
export const svg = (name, attributes = {}, ...children) =>
  fill(document.createElementNS(SVG, name), attributes, children);
export const byId = (id) => document.getElementById(id);

// Replaces what an element holds only where it differs: a person may be reading or selecting it.
export const put = (node, ...children) => {
  const next = node.cloneNode(false);
  next.append(...children.flat().filter((child) => child !== null && child !== undefined));
  if (!node.isEqualNode(next)) node.replaceChildren(...next.childNodes);
};

export const show = (node, text) => {
  node.hidden = !text;
  if (node.textContent !== (text ?? "")) node.textContent = text ?? "";
};

export const details = (pairs) =>
  pairs.filter(([, value]) => value !== null && value !== undefined).flatMap(([name, value]) => [
    el("dt", {}, name),
    el("dd", {}, value instanceof Node ? value : String(value)),
  ]);

// columns: [heading, row => cell, whether it is a number]
export const table = (caption, columns, rows) =>
  el("table", {}, el("caption", {}, caption),
    el("thead", {}, el("tr", {}, columns.map(([heading, , number]) =>
      el("th", { scope: "col", class: number ? "number" : null }, heading)))),
    el("tbody", {}, rows.map((row) => el("tr", {}, columns.map(([, cell, number]) =>
      el("td", { class: number ? "number" : null }, cell(row) ?? "–"))))));

// A table may be wider than the window; then it is scrolled, also with keys.
export const scrolled = (place, label, content) => {
  place.tabIndex = 0;
  place.setAttribute("role", "region");
  place.setAttribute("aria-label", label);
  place.replaceChildren(content);
};

export const linkTo = (id) => el("a", { href: `#/experience/${encodeURIComponent(id)}` }, id);
