// What state a session is in, in a word and a sign: colour only repeats what both say.

import { el } from "./dom.js";
import { several } from "./format.js";

const SIGNS = {
  recording: ["●", "Recording"],
  sealing: ["◐", "Sealing"],
  sealed: ["■", "Sealed"],
  submitted: ["▷", "Submitted"],
  included: ["▣", "In a block"],
  anchored: ["✓", "Anchored"],
  shredded: ["✕", "Shredded"],
  held: ["⚑", "Held"],
  findings: ["⚠", "Findings"],
};
const BY_ANCHOR = { pending: "sealed", submitted: "submitted", included: "included", confirmed: "anchored" };

/** The one word for how far a session has come. */
export function stateOf(session) {
  if (session.status === "open") return "recording";
  if (session.status === "sealed") return BY_ANCHOR[session.anchor?.state ?? "pending"];
  return session.status;
}

/** The same for an anchor. */
export function anchorState(anchor) {
  return anchor.state === "pending" ? badge("sealed", "Pending") : badge(BY_ANCHOR[anchor.state]);
}

/** A word in a frame, with its sign. */
export function badge(state, word = SIGNS[state][1]) {
  return el("span", { class: `badge ${state}` }, el("span", { "aria-hidden": "true" }, SIGNS[state][0]), ` ${word}`);
}

/** All that is to be said of a session's state; `findings` is how many scrubs have made about it. */
export function badges(session, findings) {
  const all = [badge(stateOf(session))];
  // What was shredded stays proven.
  if (session.status === "shredded" && session.anchor?.state === "confirmed") all.push(badge("anchored"));
  if (session.held) all.push(badge("held"));
  if (findings) all.push(badge("findings", several(findings, "finding")));
  return el("span", { class: "badges" }, all);
}
