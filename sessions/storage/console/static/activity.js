// How storage grows, how fast it takes chunks, and how well they compress.

import { poll } from "./api.js";
import { el, message, put } from "./dom.js";
import { bytes, count, ratio, several, time } from "./format.js";
import { plot } from "./plots.js";

const SESSIONS_MAX = 1000;
const POLL_SECONDS = 2;
const SAMPLES_MAX = 300;
const SESSIONS_EVERY = 15;
// Without the zeros behind the point, as ticks are round.
const axis = (value) => bytes(Math.round(value)).replace(/(\.\d*?)0+ /, "$1 ").replace(". ", " ");
const clock = (at) => new Date(at).toLocaleTimeString();
const date = (at) => time(new Date(at).toISOString());

/** The view. */
export function activityView(api) {
  const trouble = el("div");
  const growth = plot({ title: "Storage growth", x: date, y: axis, base: 2, none: "Shown once two sessions are sealed." });
  const compression = plot({ title: "Compression", x: date, y: (value) => `${Math.round(value)} %`, none: "Shown once two sessions are sealed.", kind: "dots" });
  const ingest = plot({ title: "Ingest rate", x: clock, y: (value) => `${axis(value)}/s`, base: 2, none: "Measured while this page is open: a few seconds." });
  const disk = plot({ title: "Free space on the database's disk", x: clock, y: axis, base: 2, none: "Measured while this page is open: a few seconds." });
  const rates = [];
  const free = [];
  let before = null;
  let rounds = 0;

  async function refresh() {
    try {
      measure(await api.metrics());
      if (rounds % SESSIONS_EVERY === 0) sum((await api.json("/api/v1/sessions", { limit: SESSIONS_MAX })).sessions);
      rounds += 1;
      put(trouble);
    } catch (error) {
      put(trouble, message("fault", error.detail ?? String(error)));
    }
  }

  function measure(metrics) {
    const now = Date.now();
    const stored = metrics.get("lucid_envelope_bytes_total") ?? 0;
    const envelopes = metrics.get("lucid_envelopes_total") ?? 0;
    // A counter that went back is that of a service which was started anew.
    if (before !== null && stored >= before.stored) {
      const seconds = (now - before.now) / 1000;
      keep(rates, [now, (stored - before.stored) / seconds]);
      ingest.draw([{ name: "stored", points: rates }], `Now ${bytes(Math.round(rates.at(-1)[1]))}/s, ${count(Math.max(0, Math.round((envelopes - before.envelopes) / seconds)))} envelopes/s. Of this replica, every ${POLL_SECONDS} seconds.`);
    }
    before = { now, stored, envelopes };
    if (metrics.get("lucid_database_disk_free_bytes")) {
      keep(free, [now, metrics.get("lucid_database_disk_free_bytes")]);
      disk.draw([{ name: "free", points: free }], `Now ${bytes(free.at(-1)[1])}.`);
    }
  }

  function sum(sessions) {
    const sealed = sessions.filter((session) => session.sealed_at !== null)
      .sort((one, other) => one.sealed_at.localeCompare(other.sealed_at));
    const recorded = [];
    const stored = [];
    const shares = [];
    let [all, kept] = [0, 0];
    for (const session of sealed) {
      const at = Date.parse(session.sealed_at);
      recorded.push([at, (all += session.plaintext_bytes)]);
      stored.push([at, (kept += session.envelope_bytes)]);
      if (session.plaintext_bytes) shares.push([at, (100 * session.envelope_bytes) / session.plaintext_bytes]);
    }
    const which = sessions.length === SESSIONS_MAX ? `the newest ${count(SESSIONS_MAX)} sessions` : "all sessions";
    growth.draw([{ name: "recorded", points: recorded }, { name: "stored", points: stored }],
      sealed.length ? `${bytes(all)} recorded and ${bytes(kept)} stored in ${several(sealed.length, "sealed session")}, of ${which}.` : "");
    compression.draw([{ name: "share", points: shares }],
      sealed.length ? `A dot is a session: what is stored, as a share of what was recorded; ${ratio(kept, all)} over all. Below 100 % is smaller.` : "");
  }

  const element = el("div", {}, el("div", { class: "title" }, el("h1", {}, "Activity")), trouble,
    el("div", { class: "grid" }, growth.element, compression.element, ingest.element, disk.element));
  return { element, title: "Activity", stop: poll(POLL_SECONDS, refresh) };
}

function keep(samples, sample) {
  samples.push(sample);
  if (samples.length > SAMPLES_MAX) samples.shift();
}
