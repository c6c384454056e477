// Elements, made by calls alone. Whatever comes from the service becomes text, never markup: there is no innerHTML here,
// and the page's policy (Trusted Types) would refuse it.

const SVG = "http://www.w3.org/2000/svg";

/** An element. Attributes that are functions are listeners; null, undefined and false leave one out. */
export function el(name, attributes = {}, ...children) {
  return fill(document.createElement(name), attributes, children);
}

/** The same for SVG. */
export function svg(name, attributes = {}, ...children) {
  return fill(document.createElementNS(SVG, name), attributes, children);
}

function fill(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (typeof value === "function") element.addEventListener(name, value);
    else element.setAttribute(name, value === true ? "" : String(value));
  }
  element.append(...present(children));
  return element;
}

function present(children) {
  return children.flat(9).filter((child) => child !== null && child !== undefined && child !== false);
}

/** Puts other children in the place of an element's own. */
export function put(element, ...children) {
  element.replaceChildren(...present(children));
  return element;
}

/** A card with a heading. */
export function card(title, ...children) {
  return el("section", { class: "card" }, el("h2", {}, title), ...children);
}

/** Names and values; those without a value are left out. */
export function facts(pairs) {
  const shown = pairs.filter(([, value]) => value !== null && value !== undefined && value !== "" && value !== false);
  return el("dl", { class: "facts" }, shown.map(([name, value]) => el("div", {}, el("dt", {}, name), el("dd", {}, value))));
}

/**
 * A table of `columns` [{title, numeric}] without rows, in a region that may be scrolled by the keyboard. Its roles are
 * said, too, since on a narrow screen the style takes its form away and each row becomes a card.
 */
export function table(caption, columns) {
  const head = columns.map(({ title, numeric }) =>
    el("th", { scope: "col", role: "columnheader", class: numeric ? "numeric" : null }, title));
  const body = el("tbody", { role: "rowgroup" });
  const whole = el("table", { role: "table" },
    el("caption", {}, caption),
    el("thead", { role: "rowgroup" }, el("tr", { role: "row" }, head)),
    body);
  return { element: el("div", { class: "scroll", role: "region", tabindex: "0", "aria-label": caption }, whole), body };
}

/** The cells of a row of such a table. */
export function cells(columns, values) {
  return values.map((value, at) =>
    el("td", { role: "cell", "data-label": columns[at].title, class: columns[at].numeric ? "numeric" : null }, value));
}

/** What is said in place of a list that is empty. */
export function empty(title, text) {
  return el("div", { class: "empty" }, el("p", { class: "empty-title" }, title), el("p", {}, text));
}

/** A long hex value, which may break anywhere and is chosen whole by one click. */
export function hash(value) {
  return value === null || value === undefined ? null : el("code", { class: "hash" }, value);
}

/** A message: `kind` is note or fault. Faults are read out at once. */
export function message(kind, text) {
  return el("p", { class: `message ${kind}`, role: kind === "fault" ? "alert" : "status" },
    el("strong", {}, kind === "fault" ? "Fault: " : "Note: "), text);
}

/** Saves bytes or text as a file. */
export function save(name, content, type) {
  const url = URL.createObjectURL(new Blob([content], { type }));
  const link = el("a", { href: url, download: name });
  document.body.append(link);
  link.click();
  link.remove();
  setTimeout(() => URL.revokeObjectURL(url), 60_000);
}
