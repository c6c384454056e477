// Plots as inline SVG. Each has its figures in words, too: in its label, and under it.

import { el, put, svg } from "./dom.js";

const WIDTH = 640;
const HEIGHT = 240;
const EDGE = { left: 76, right: 16, top: 12, bottom: 30 };
const SIGNS = ["", "6 4", "2 3"];

/**
 * A plot of lines or dots, in a figure of its own. `draw(series)` fills it with [{name, points: [[x, y], …], kind}];
 * `x` and `y` write values, in words that the axes and the label show. The values' axis begins at 0.
 */
export function plot({ title, x, y, none, kind = "line", base = 10 }) {
  const area = el("div", { class: "plot" });
  const words = el("figcaption", {});
  const element = el("figure", { class: "card" }, el("h2", {}, title), area, words);
  function draw(series, caption) {
    words.textContent = caption ?? "";
    const points = series.flatMap((one) => one.points);
    put(area, points.length < 2 ? el("p", { class: "quiet" }, none) : picture(title, series, { x, y, kind, base }));
    if (points.length >= 2 && series.length > 1) area.append(names(series));
  }
  draw([]);
  return { element, draw };
}

function picture(title, series, { x, y, kind, base }) {
  const points = series.flatMap((one) => one.points);
  const [left, right] = ends(points.map(([at]) => at));
  const steps = ticks(Math.max(...points.map(([, value]) => value)), base);
  const top = steps.at(-1);
  const place = ([at, value]) => [
    EDGE.left + ((at - left) / (right - left || 1)) * (WIDTH - EDGE.left - EDGE.right),
    HEIGHT - EDGE.bottom - (value / top) * (HEIGHT - EDGE.top - EDGE.bottom),
  ];
  const grid = steps.map((value) => {
    const height = place([left, value])[1];
    return svg("g", {},
      svg("line", { class: "grid-line", x1: EDGE.left, x2: WIDTH - EDGE.right, y1: height, y2: height }),
      svg("text", { class: "tick", x: EDGE.left - 8, y: height + 4, "text-anchor": "end" }, y(value)));
  });
  const times = [[left, "start"], [right, "end"]].map(([at, anchor]) =>
    svg("text", { class: "tick", x: place([at, 0])[0], y: HEIGHT - 8, "text-anchor": anchor }, x(at)));
  const marks = series.map((one, number) => kind === "dots" ? one.points.map((point) => dot(place(point), number)) : line(one.points.map(place), number));
  const last = series.map((one) => `${one.name} ${y(one.points.at(-1)?.[1] ?? 0)}`).join(", ");
  return svg("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, role: "img", "aria-label": `${title}, from ${x(left)} to ${x(right)}; at the end ${last}` }, grid, times, marks);
}

function line(points, number) {
  return svg("polyline", { class: `series series-${number}`, "stroke-dasharray": SIGNS[number], points: points.map((point) => point.map((value) => value.toFixed(1)).join(",")).join(" ") });
}

function dot([x, y], number) {
  return svg("circle", { class: `dot series-${number}`, cx: x.toFixed(1), cy: y.toFixed(1), r: 2.5 });
}

function names(series) {
  return el("ul", { class: "legend" }, series.map((one, number) => el("li", {},
    svg("svg", { viewBox: "0 0 28 8", class: "line-sample", "aria-hidden": "true" }, line([[0, 4], [28, 4]], number)), one.name)));
}

function ends(values) {
  return [Math.min(...values), Math.max(...values)];
}

/** Up to six values from 0 to `most` or above, round as numbers of this base are written: 10, or 2 for bytes. */
export function ticks(most, base) {
  const span = Math.max(most, base === 2 ? 1024 : 1) / 5;
  const power = 10 ** Math.floor(Math.log10(span));
  const step = base === 2
    ? 2 ** Math.ceil(Math.log2(span))
    : [1, 2, 2.5, 5, 10].map((part) => part * power).find((size) => size >= span);
  return Array.from({ length: Math.ceil(Math.max(most, step) / step) + 1 }, (_, at) => at * step);
}
