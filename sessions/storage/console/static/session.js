// One session: what is known of it, from recording to anchored, as it is now without a reload.

import { poll, sessionPath } from "./api.js";
import { card, el, empty, facts, hash, message, put, save } from "./dom.js";
import { bytes, count, range, ratio, several, time, unix } from "./format.js";
import { playback } from "./playback.js";
import { badges } from "./states.js";
import { timeline } from "./timeline.js";

const POLL_SECONDS = 2;
/** Under this name the verifier's page, which holds no token, finds the receipt it is to look at. */
export const HANDED_OVER = "lucid-receipt";

/** The view of the session with this id. */
export function sessionView(api, id) {
  const parts = {
    trouble: el("div"), badges: el("div"), summary: el("div"), anchor: el("div"), keeping: el("div"),
    keys: el("div"), metadata: el("div"), manifest: el("div"), findings: el("div"), unheard: el("div"),
  };
  const told = {};
  const chunks = timeline(api, id);
  const player = playback(api, id);
  const receipt = { text: null, for: null };
  const download = el("button", { type: "button", class: "primary", disabled: true, click: () => save(`${id}.receipt.json`, receipt.text, "application/json") }, "Download receipt");
  const verify = el("a", { class: "button", href: "/console/verify", target: "_blank", rel: "opener", hidden: true,
    click: () => sessionStorage.setItem(HANDED_OVER, receipt.text) }, "Verify here");

  /** Writes a part anew, but only when what it shows has changed: who reads or copies it is not disturbed. */
  function part(name, value, make) {
    const text = JSON.stringify(value);
    if (told[name] === text) return;
    told[name] = text;
    put(parts[name], make());
  }

  async function refresh() {
    try {
      const session = await api.json(sessionPath(id));
      const [anchors, found] = await Promise.all([
        session.anchor?.block_number ? api.json("/api/v1/anchors", { limit: 1 }) : null,
        api.json("/api/v1/scrub/findings", { session_id: id, limit: 100 }),
      ]);
      await readReceipt(session);
      show(session, anchors?.head_block ?? null, found.findings);
      put(parts.trouble);
      void chunks.follow(session);
    } catch (error) {
      put(parts.trouble, message("fault", error.detail ?? String(error)));
    }
  }

  async function readReceipt(session) {
    const wanted = JSON.stringify(session.anchor);
    if (session.anchor === null || receipt.for === wanted) return;
    receipt.text = await api.text(sessionPath(id, "receipt"));
    receipt.for = wanted;
    download.disabled = false;
    verify.hidden = false;
  }

  function show(session, head, findings) {
    const said = receipt.text === null ? null : JSON.parse(receipt.text);
    part("badges", [session, findings.length], () => badges(session, findings.length));
    part("summary", session, () => summary(session, said));
    part("anchor", [session.anchor, head, said?.batch], () => anchorFacts(session.anchor, head, said?.batch));
    part("keeping", [session.held, session.retained_until, session.delete_at, session.shredded_at], () => keeping(session));
    part("keys", session.key_ids, () => keyRing(session.key_ids));
    part("metadata", session.metadata, () => metadata(session.metadata));
    part("manifest", said?.manifest ?? null, () => manifest(said));
    part("unheard", session.unheard, () => session.unheard.length > 0 && message("note", unheard(session.unheard)));
    part("findings", findings, () => findings.length > 0 && card("Findings", list(findings)));
  }

  const element = el("div", {},
    el("p", { class: "back" }, el("a", { href: "#/sessions" }, "‹ All sessions")),
    el("div", { class: "title" }, el("h1", { class: "id" }, id), parts.badges),
    el("div", { class: "actions" }, download, verify),
    parts.trouble, parts.unheard, parts.findings,
    el("div", { class: "grid" },
      card("Summary", parts.summary), card("Anchor", parts.anchor),
      card("Keeping", parts.keeping), card("Key ring", parts.keys)),
    chunks.element, player.element,
    el("div", { class: "grid" }, card("Metadata", parts.metadata), card("Manifest", parts.manifest)));
  const stop = poll(POLL_SECONDS, refresh);
  return { element, title: id, stop: () => { stop(); player.stop(); } };
}

function summary(session, receipt) {
  const by = { recorder: "the recorder", idle: "the service, after silence" };
  return facts([
    ["Opened", time(session.opened_at)],
    ["Sealed", session.sealed_at === null ? "not yet: it still takes chunks" : time(session.sealed_at)],
    ["Sealed by", receipt && by[receipt.manifest.sealed_by]],
    ["Chunks", count(session.chunk_count)],
    ["Missing", session.missing.length > 0 && `${session.missing.slice(0, 5).map(range).join(", ")}${session.missing.length > 5 || session.missing_truncated ? ", …" : ""}`],
    ["Recorded", bytes(session.plaintext_bytes)],
    ["Stored", `${bytes(session.envelope_bytes)} (${ratio(session.envelope_bytes, session.plaintext_bytes)} of what was recorded)`],
    ["Session root", hash(session.root)],
  ]);
}

const ANCHOR_WORDS = {
  pending: "Waits for its batch, or for the batch's transaction.",
  submitted: "The transaction is signed and sent, and in no block yet.",
  included: "In a block that a reorganisation may still take away.",
  confirmed: "In a block that is as deep as the operator asked for.",
};

function anchorFacts(anchor, head, batch) {
  if (anchor === null) return empty("Nothing to anchor yet", "A session is anchored after it was sealed.");
  const above = head === null || anchor.block_number === null ? null : Math.max(0, head - anchor.block_number);
  return [
    el("p", { class: "lead" }, ANCHOR_WORDS[anchor.state]),
    facts([
      ["Confirmations", above !== null && `${above > 0 || anchor.state === "confirmed" ? "at least " : ""}${several(above, "block")} on top`],
      ["Block", anchor.block_number !== null && count(anchor.block_number)],
      ["Time of the block", anchor.block_timestamp !== null && unix(anchor.block_timestamp)],
      ["Batch", batch && `session ${count(batch.index + 1)} of ${count(batch.size)}`],
      ["Transaction", hash(anchor.transaction)],
      ["Batch root", hash(batch?.root)],
      ["Contract", hash(anchor.contract)],
      ["Publisher", hash(anchor.publisher)],
      ["Chain", anchor.chain_id],
    ]),
  ];
}

function keeping(session) {
  const reasons = { requested: "on request", retention: "as its time was up" };
  return facts([
    ["Legal hold", session.held ? "yes: nobody can shred it" : "no"],
    ["Kept at least until", session.retained_until ? time(session.retained_until) : "no term"],
    ["Deleted by itself", session.delete_at ? time(session.delete_at) : "never"],
    ["Shredded", session.shredded_at && `${time(session.shredded_at)}, ${reasons[session.shred_reason]}, by ${session.shredded_by}`],
  ]);
}

function keyRing(keys) {
  if (keys.length === 0) return empty("No keys", "They were destroyed: what is stored of this session opens no more.");
  return keys.map((key) => facts([
    ["Data key", hash(key.dek_id)],
    ["Wrapped under", key.kek_id],
    ["Recovery recipient", key.recipient === null ? "none" : hash(key.recipient)],
  ]));
}

function metadata(value) {
  if (Object.keys(value).length === 0) return empty("No metadata", "The recorder said nothing of this session.");
  return el("pre", { tabindex: "0", role: "region", "aria-label": "Metadata" }, JSON.stringify(value, null, 2));
}

function manifest(receipt) {
  if (receipt === null) return empty("No manifest yet", "It is made when the session is sealed.");
  const text = JSON.stringify(receipt.manifest, null, 2);
  return el("pre", { tabindex: "0", role: "region", "aria-label": "Manifest" }, text);
}

function unheard(processors) {
  return `Sealed without hearing from ${processors.join(", ")}, which did not report any more: chunks that were recorded there may be left out.`;
}

function list(findings) {
  return el("ul", { class: "findings" }, findings.map((found) => el("li", {},
    el("strong", {}, `${found.part} ${found.kind}`), found.index === null ? "" : ` (chunk ${count(found.index)})`,
    `: ${found.detail} `, el("span", { class: "quiet" }, `first seen ${time(found.first_seen)}`))));
}
