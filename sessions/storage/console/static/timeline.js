// A session's chunks in order: a bar each, with the gaps between them, and the same as a table.

import { sessionPath } from "./api.js";
import { card, cells, el, empty, message, put, save, svg, table } from "./dom.js";
import { bytes, count, range, ratio } from "./format.js";

const PAGE = 100;
const WIDTH = 1000;
const HEIGHT = 120;
const COLUMNS = [
  { title: "Chunk", numeric: true }, { title: "Recorded", numeric: true }, { title: "Stored", numeric: true },
  { title: "Stored share", numeric: true }, { title: "SHA-256 of what is stored" }, { title: "Proof" },
];

/** The card of a session's chunks. `follow(session)` brings it up to date when the session has changed. */
export function timeline(api, id) {
  const picture = el("div", { class: "plot" });
  const list = table("Chunks", COLUMNS);
  const trouble = el("div");
  const where = el("span", { class: "page-number", role: "status" });
  const state = { start: 0, next: null, shown: "", session: null };
  const first = el("button", { type: "button", click: () => to(0) }, "« First");
  const more = el("button", { type: "button", click: () => to(state.next) }, "Next ›");
  const go = el("input", { type: "number", id: "chunk-index", min: "0", step: "1", change: () => to(Math.max(0, Math.trunc(Number(go.value)) || 0)) });
  const controls = el("div", { class: "toolbar" },
    el("div", { class: "pager" }, first, where, more),
    el("div", { class: "field" }, el("label", { for: "chunk-index" }, "From chunk"), go));
  const body = el("div");

  async function to(start) {
    state.start = start;
    state.shown = "";
    await follow(state.session);
  }

  async function follow(session) {
    state.session = session;
    // An open session grows at its end; of one that is sealed nothing changes but by shredding.
    const version = JSON.stringify([state.start, session.status, session.next_index, session.chunk_count]);
    if (version === state.shown) return;
    try {
      const page = await api.json(sessionPath(id, "chunks"), { start: state.start, limit: PAGE });
      state.shown = version;
      state.next = page.next_start;
      show(session, page.chunks);
      put(trouble);
    } catch (error) {
      put(trouble, message("fault", error.detail ?? String(error)));
    }
  }

  async function saveProof(index) {
    try {
      save(`${id}.${index}.proof.json`, await api.text(sessionPath(id, "chunks", index, "proof")), "application/json");
    } catch (error) {
      put(trouble, message("fault", error.detail ?? String(error)));
    }
  }

  function show(session, chunks) {
    const entries = withGaps(session, chunks, state.start, state.next);
    if (entries.length === 0) {
      put(body, state.start === 0
        ? empty("No chunks yet", "Each one appears here once it is stored.")
        : empty("No chunks from here on", "Begin at a lower index."));
    } else {
      put(picture, drawing(entries), legend());
      put(list.body, entries.map((entry) => row(session, entry, saveProof)));
      put(body, picture, list.element);
    }
    const last = entries.at(-1);
    where.textContent = last === undefined ? "none" : `${count(entries[0].gap?.[0] ?? entries[0].index)}–${count(last.gap?.[1] ?? last.index)}`;
    first.disabled = state.start === 0;
    more.disabled = state.next === null;
  }

  return { element: card("Chunks", trouble, controls, body), follow };
}

/** Chunks and gaps in order, from `start` up to the beginning of the next page. */
export function withGaps(session, chunks, start, next) {
  const end = next ?? session.next_index;
  const gaps = session.missing
    .filter(([from, to]) => to >= start && from < end)
    .map(([from, to]) => ({ gap: [Math.max(from, start), Math.min(to, end - 1)] }));
  return [...chunks, ...gaps].sort((one, other) => (one.gap?.[0] ?? one.index) - (other.gap?.[0] ?? other.index));
}

function row(session, entry, saveProof) {
  if (entry.gap) {
    const [from, to] = entry.gap;
    const text = `${to === from ? "Chunk" : "Chunks"} ${range(entry.gap)} missing`;
    return el("tr", { role: "row", class: "gap" }, el("td", { role: "cell", colspan: COLUMNS.length }, text));
  }
  const proof = ["sealed", "shredded"].includes(session.status)
    ? el("button", { type: "button", class: "small", "aria-label": `Download the proof of chunk ${entry.index}`, click: () => saveProof(entry.index) }, "Download")
    : el("span", { class: "quiet" }, "after the seal");
  return el("tr", { role: "row" }, cells(COLUMNS, [
    count(entry.index), bytes(entry.plaintext_bytes), bytes(entry.envelope_bytes),
    ratio(entry.envelope_bytes, entry.plaintext_bytes),
    el("code", { class: "hash short", title: entry.envelope_sha256 }, entry.envelope_sha256), proof,
  ]));
}

function drawing(entries) {
  const largest = Math.max(1, ...entries.map((entry) => Math.max(entry.plaintext_bytes ?? 0, entry.envelope_bytes ?? 0)));
  const step = WIDTH / Math.max(entries.length, 20);
  const width = Math.max(1, step - Math.min(4, step / 4));
  const bar = (kind, at, size) => {
    const height = Math.max(1, (size / largest) * HEIGHT);
    return svg("rect", { class: kind, x: at * step, y: HEIGHT - height, width, height });
  };
  const bars = entries.map((entry, at) => {
    if (entry.gap) {
      const shape = svg("rect", { class: "missing", x: at * step, y: 0, width, height: HEIGHT });
      return svg("g", {}, svg("title", {}, `chunks ${range(entry.gap)} missing`), shape);
    }
    const title = `chunk ${entry.index}: ${bytes(entry.plaintext_bytes)} recorded, ${bytes(entry.envelope_bytes)} stored`;
    return svg("g", {}, svg("title", {}, title), bar("recorded", at, entry.plaintext_bytes), bar("stored", at, entry.envelope_bytes));
  });
  const gaps = entries.filter((entry) => entry.gap).length;
  const label = `${entries.length - gaps} chunks and ${gaps} gaps; the largest has ${bytes(largest)}. The table has the figures.`;
  return svg("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, preserveAspectRatio: "none", class: "chunks", role: "img", "aria-label": label }, bars);
}

function legend() {
  const entry = (kind, word) => el("li", {}, el("span", { class: `swatch ${kind}`, "aria-hidden": "true" }), word);
  return el("ul", { class: "legend" }, entry("recorded", "recorded (outer bar)"), entry("stored", "stored (inner bar)"), entry("missing", "missing (full height)"));
}
