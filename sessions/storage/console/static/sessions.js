// The list of sessions: filter, search by the beginning of their ids, pages by cursor; it stays as it is now by itself.

import { poll } from "./api.js";
import { cells, el, empty, message, put, table } from "./dom.js";
import { bytes, count, ratio, time } from "./format.js";
import { badges } from "./states.js";

const PAGE = 100;
const POLL_SECONDS = 3;
const SEARCH_PAUSE_MS = 250;
const FILTERS = [
  ["", "All"], ["open", "Recording"], ["sealed", "Sealed and anchored"], ["held", "Held"], ["shredded", "Shredded"],
];
const COLUMNS = [
  { title: "Session" }, { title: "State" }, { title: "Opened" }, { title: "Chunks", numeric: true },
  { title: "Recorded", numeric: true }, { title: "Stored", numeric: true }, { title: "Stored share", numeric: true },
];
const ID_CHARACTERS = /[^A-Za-z0-9._-]/g;

/** The view. `query` is what the address says: filter and prefix. */
export function sessionsView(api, query, go) {
  const chosen = { filter: query.get("filter") ?? "", prefix: query.get("prefix") ?? "" };
  const list = table("Sessions", COLUMNS);
  const rows = new Map();
  const state = { cursors: [null], next: null, findings: new Map(), asked: 0 };
  const trouble = el("div");
  const nothing = el("div");
  const pageNumber = el("span", { class: "page-number" });
  const older = el("button", { type: "button", click: () => turn(1) });
  const newer = el("button", { type: "button", click: () => turn(-1) });
  const announced = el("p", { class: "sr-only", role: "status" });

  const byId = () => chosen.prefix !== "" || chosen.filter === "held";

  function turn(step) {
    if (step > 0) state.cursors.push(state.next);
    else state.cursors.pop();
    older.disabled = newer.disabled = true;
    void refresh().then(() => list.element.scrollIntoView({ block: "nearest" }));
  }

  async function refresh() {
    const asked = (state.asked += 1);
    const status = ["", "held"].includes(chosen.filter) ? null : chosen.filter;
    try {
      const page = await api.json("/api/v1/sessions", {
        limit: PAGE, cursor: state.cursors.at(-1), prefix: chosen.prefix, status, held: chosen.filter === "held" ? "true" : null,
      });
      if (asked === state.asked) show(page); // else another question was asked since
      put(trouble);
    } catch (error) {
      put(trouble, message("fault", error.detail ?? String(error)));
    }
  }

  function show(page) {
    state.next = page.next_cursor;
    const seen = new Set();
    page.sessions.forEach((session, at) => {
      seen.add(session.session_id);
      const row = rowOf(session);
      if (list.body.children[at] !== row) list.body.insertBefore(row, list.body.children[at] ?? null);
    });
    for (const [id, { row }] of rows) {
      if (!seen.has(id)) {
        row.remove();
        rows.delete(id);
      }
    }
    const none = page.sessions.length === 0;
    list.element.hidden = none;
    put(nothing, none && (chosen.filter || chosen.prefix
      ? empty("No session fits", "Another filter, or a shorter beginning of the id, may find some.")
      : empty("No sessions yet", "As soon as a recorder opens one, it appears here by itself.")));
    pageNumber.textContent = `Page ${state.cursors.length}`;
    put(newer, byId() ? "‹ Back" : "‹ Newer");
    put(older, byId() ? "More ›" : "Older ›");
    newer.disabled = state.cursors.length === 1;
    older.disabled = state.next === null;
  }

  // A row that is there stays, and so does the focus on its link; only what changed is written anew.
  function rowOf(session) {
    const findings = state.findings.get(session.session_id) ?? 0;
    const told = JSON.stringify([session, findings]);
    let entry = rows.get(session.session_id);
    if (entry?.told === told) return entry.row;
    const link = entry?.row.firstChild.firstChild
      ?? el("a", { href: `#/session/${encodeURIComponent(session.session_id)}` }, session.session_id);
    const values = [
      link, badges(session, findings), el("time", { datetime: session.opened_at }, time(session.opened_at)), count(session.chunk_count),
      bytes(session.plaintext_bytes), bytes(session.envelope_bytes), ratio(session.envelope_bytes, session.plaintext_bytes),
    ];
    const made = cells(COLUMNS, values);
    if (entry) {
      [...entry.row.children].slice(1).forEach((cell, at) => cell.replaceWith(made[at + 1]));
      entry.row.firstChild.append(link);
      entry.told = told;
    } else {
      entry = { row: el("tr", { role: "row" }, made), told };
      rows.set(session.session_id, entry);
    }
    return entry.row;
  }

  async function readFindings() {
    try {
      const { findings } = await api.json("/api/v1/scrub/findings", { limit: 1000 });
      state.findings = new Map();
      for (const { session_id: id } of findings) state.findings.set(id, (state.findings.get(id) ?? 0) + 1);
    } catch {
      // the list itself says what is wrong
    }
  }

  function choose(change) {
    Object.assign(chosen, change);
    state.cursors = [null];
    go("sessions", { filter: chosen.filter, prefix: chosen.prefix }, { quiet: true });
    void refresh().then(() => put(announced, `${rows.size} sessions shown`));
  }

  let pause = null;
  const search = el("input", {
    id: "prefix", type: "search", autocomplete: "off", spellcheck: "false", maxlength: "128", value: chosen.prefix,
    placeholder: "desk-…", input: () => {
      clearTimeout(pause);
      // No id has another character, nor begins with a mark.
      pause = setTimeout(() => choose({ prefix: search.value.replace(ID_CHARACTERS, "").replace(/^[._-]+/, "") }), SEARCH_PAUSE_MS);
    },
  });
  const filter = el("select", { id: "filter", change: () => choose({ filter: filter.value }) },
    FILTERS.map(([value, word]) => el("option", { value, selected: value === chosen.filter }, word)));

  const element = el("div", {},
    el("div", { class: "title" }, el("h1", {}, "Sessions")),
    el("div", { class: "toolbar" },
      el("div", { class: "field grow" }, el("label", { for: "prefix" }, "Id begins with"), search),
      el("div", { class: "field" }, el("label", { for: "filter" }, "State"), filter)),
    trouble, list.element, nothing, announced,
    el("nav", { class: "pager", "aria-label": "Pages" }, newer, pageNumber, older));
  // The findings are not waited for: the table is what was asked for.
  const stops = [poll(POLL_SECONDS, refresh), poll(POLL_SECONDS * 5, readFindings), () => clearTimeout(pause)];
  return { element, title: "Sessions", stop: () => stops.forEach((stop) => stop()) };
}
