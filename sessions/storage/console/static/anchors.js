// The batches and the transactions that anchor them, newest first.

import { poll } from "./api.js";
import { cells, el, empty, message, put, table } from "./dom.js";
import { count, time, unix } from "./format.js";
import { anchorState } from "./states.js";

const PAGE = 50;
const POLL_SECONDS = 3;
const COLUMNS = [
  { title: "Batch", numeric: true }, { title: "State" }, { title: "Sessions", numeric: true }, { title: "Made" },
  { title: "Block", numeric: true }, { title: "Time of the block" }, { title: "Gas", numeric: true },
  { title: "Gas per session", numeric: true }, { title: "Transaction" },
];

/** The view. */
export function anchorsView(api) {
  const list = table("Anchors", COLUMNS);
  const trouble = el("div");
  const nothing = el("div");
  const lead = el("p", { class: "quiet" });
  const state = { cursors: [null], next: null, told: "" };
  const pageNumber = el("span", { class: "page-number" });
  const older = el("button", { type: "button", click: () => turn(1) }, "Older ›");
  const newer = el("button", { type: "button", click: () => turn(-1) }, "‹ Newer");

  function turn(step) {
    if (step > 0) state.cursors.push(state.next);
    else state.cursors.pop();
    older.disabled = newer.disabled = true;
    void refresh();
  }

  async function refresh() {
    try {
      show(await api.json("/api/v1/anchors", { limit: PAGE, cursor: state.cursors.at(-1) }));
      put(trouble);
    } catch (error) {
      put(trouble, message("fault", error.detail ?? String(error)));
    }
  }

  function show(page) {
    state.next = page.next_cursor;
    newer.disabled = state.cursors.length === 1;
    older.disabled = state.next === null;
    pageNumber.textContent = `Page ${state.cursors.length}`;
    lead.textContent = page.head_block === null
      ? "This replica does not know the chain's newest block: another one anchors, or nothing was anchored since it started."
      : `The chain's newest block was ${count(page.head_block)} when it was looked at last.`;
    const told = JSON.stringify(page.anchors);
    if (told === state.told) return;
    state.told = told;
    list.element.hidden = page.anchors.length === 0;
    put(nothing, page.anchors.length === 0 && empty("No anchors yet", "Sealed sessions are put into a batch, and its root on the chain, by themselves."));
    put(list.body, page.anchors.map(row));
  }

  const element = el("div", {},
    el("div", { class: "title" }, el("h1", {}, "Anchors")), lead, trouble, list.element, nothing,
    el("nav", { class: "pager", "aria-label": "Pages" }, newer, pageNumber, older));
  return { element, title: "Anchors", stop: poll(POLL_SECONDS, refresh) };
}

function row(batch) {
  const { anchor } = batch;
  const each = batch.gas_used === null ? null : Math.round(batch.gas_used / batch.size);
  return el("tr", { role: "row" }, cells(COLUMNS, [
    count(batch.sequence), anchorState(anchor), count(batch.size), time(batch.created_at), count(anchor.block_number),
    unix(anchor.block_timestamp), count(batch.gas_used), count(each),
    anchor.transaction === null ? "–" : el("code", { class: "hash short", title: anchor.transaction }, anchor.transaction),
  ]));
}
