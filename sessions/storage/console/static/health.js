// How each part of both services is, and what scrubs have found.

import { poll } from "./api.js";
import { card, cells, el, empty, message, put, table } from "./dom.js";
import { count, time } from "./format.js";

const POLL_SECONDS = 5;
const FINDINGS_MAX = 200;
const SIGNS = { ok: "✓", degraded: "⚠", failed: "✕" };
const COLUMNS = [{ title: "Session" }, { title: "What" }, { title: "Chunk", numeric: true }, { title: "Detail" }, { title: "First seen" }, { title: "Last seen" }];

/** The view. */
export function healthView(api) {
  const trouble = el("div");
  const services = el("div", { class: "grid" });
  const list = table("Findings", COLUMNS);
  const nothing = el("div");
  let told = "";

  async function refresh() {
    const asked = [service(api, "session-storage", "")];
    if (api.processorUrl !== null) asked.push(service(api, "chunk-processor", api.processorUrl));
    put(services, await Promise.all(asked));
    try {
      const page = await api.json("/api/v1/scrub/findings", { limit: FINDINGS_MAX });
      show(page);
      put(trouble);
    } catch (error) {
      put(trouble, message("fault", error.detail ?? String(error)));
    }
  }

  function show(page) {
    if (JSON.stringify(page) === told) return;
    told = JSON.stringify(page);
    list.element.hidden = page.findings.length === 0;
    put(nothing,
      page.findings.length === 0 && empty("No findings", "No scrub has found anything missing, altered or misplaced. Nothing is taken off this list by itself."),
      page.next_cursor !== null && message("note", `The first ${count(FINDINGS_MAX)} are shown; GET /api/v1/scrub/findings has all.`));
    put(list.body, page.findings.map((found) => el("tr", { role: "row" }, cells(COLUMNS, [
      el("a", { href: `#/session/${encodeURIComponent(found.session_id)}` }, found.session_id), `${found.part} ${found.kind}`,
      count(found.index), found.detail, time(found.first_seen), time(found.last_seen),
    ]))));
  }

  const element = el("div", {}, el("div", { class: "title" }, el("h1", {}, "Health")), trouble, services,
    el("section", { class: "card" }, el("h2", {}, "Findings of scrubs"), list.element, nothing));
  return { element, title: "Health", stop: poll(POLL_SECONDS, refresh) };
}

async function service(api, name, base) {
  try {
    const health = await api.health(base);
    return card(name,
      el("p", { class: "lead" }, part(health.status), ` version ${health.version}`),
      el("ul", { class: "parts" }, Object.entries(health.checks).map(([check, { status, detail }]) =>
        el("li", {}, el("strong", {}, check), part(status), detail && el("span", { class: "quiet" }, detail)))));
  } catch (error) {
    return card(name, message("fault", error.detail ?? String(error)));
  }
}

function part(status) {
  return el("span", { class: `badge ${status}` }, el("span", { "aria-hidden": "true" }, SIGNS[status] ?? "?"), ` ${status}`);
}
