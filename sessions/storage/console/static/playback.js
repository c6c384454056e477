// Replays a recording in the page, as far as the browser can: MP4, WebM, asciicast, plain text.

import { card, el, message, put, save } from "./dom.js";
import { bytes } from "./format.js";
import { castPlayer, isCast } from "./asciicast.js";

/** The most that is fetched into the page, in bytes. A longer recording is for the command line. */
export const MAX_BYTES = 1024 * 1024 * 1024;
const TEXT_SHOWN = 1024 * 1024;

/** What a recording is, by its first bytes; null: nothing that is played here. */
export function kindOf(head) {
  const ascii = String.fromCharCode(...head.subarray(0, 12));
  if (ascii.slice(4, 8) === "ftyp") return { type: "video/mp4", suffix: "mp4" };
  if (ascii.startsWith("\x1aE\xdf\xa3")) return { type: "video/webm", suffix: "webm" };
  if (isCast(head)) return { type: "application/x-asciicast", suffix: "cast" };
  try {
    // The last character may be cut in two.
    const text = new TextDecoder("utf-8", { fatal: true }).decode(head, { stream: true });
    if (!/[\0-\x08\x0e-\x1a]/.test(text)) return { type: "text/plain", suffix: "txt" };
  } catch {
    // not text
  }
  return null;
}

/** The card that replays. */
export function playback(api, id) {
  const stage = el("div", { class: "stage" });
  if (api.processorUrl === null) {
    put(stage, el("p", { class: "quiet" }, "Replays are off here: CONSOLE_PROCESSOR_URL of session-storage is not set."));
    return { element: card("Playback", stage), stop: () => undefined };
  }
  let stopShown = () => undefined;
  let abort = null;
  const token = el("input", { id: "replay-token", type: "password", autocomplete: "off" });
  const other = el("div", { class: "field grow", hidden: true }, el("label", { for: "replay-token" }, "Token with the role replay"), token);
  const play = el("button", { type: "button", class: "primary", click: () => start() }, "Play");
  const cancel = el("button", { type: "button", hidden: true, click: () => abort?.abort() }, "Stop loading");

  async function start() {
    stopShown();
    abort = new AbortController();
    play.disabled = true;
    cancel.hidden = false;
    try {
      const data = await fetched(await api.recording(id, token.value.trim() || null, abort.signal));
      other.hidden = true;
      await show(data);
    } catch (error) {
      // Who looks at sessions may have another token for replays.
      if ([401, 403].includes(error.status)) other.hidden = false;
      put(stage, error.name === "AbortError" ? message("note", "Stopped.") : message("fault", error.detail ?? String(error)));
    } finally {
      play.disabled = false;
      cancel.hidden = true;
    }
  }

  async function fetched(answer) {
    const total = Number(answer.headers.get("content-length")) || null;
    if (total > MAX_BYTES) throw tooLarge(total);
    const bar = el("progress", { max: total ?? 1, value: 0, "aria-label": "Loading" });
    const said = el("span", { class: "quiet" });
    put(stage, el("p", { class: "loading" }, bar, said));
    const parts = [];
    let size = 0;
    const reader = answer.body.getReader();
    for (let { done, value } = await reader.read(); !done; { done, value } = await reader.read()) {
      parts.push(value);
      size += value.length;
      if (size > MAX_BYTES) {
        await reader.cancel();
        throw tooLarge(size);
      }
      if (total) bar.value = size;
      said.textContent = ` ${bytes(size)}${total ? ` of ${bytes(total)}` : ""}`;
    }
    return new Blob(parts);
  }

  async function show(data) {
    const kind = kindOf(new Uint8Array(await data.slice(0, 4096).arrayBuffer()));
    const keep = el("button", { type: "button", click: () => save(`${id}.${kind?.suffix ?? "bin"}`, data, "application/octet-stream") }, `Save (${bytes(data.size)})`);
    if (kind === null) {
      put(stage, message("note", "This is nothing that a browser plays: neither MP4, WebM, asciicast nor text."), keep);
    } else if (kind.type.startsWith("video/")) {
      const url = URL.createObjectURL(data.slice(0, data.size, kind.type));
      const fault = el("div");
      const video = el("video", { controls: true, muted: true, playsinline: true, src: url, "aria-label": `Recording of ${id}`,
        loadedmetadata: () => video.scrollIntoView({ block: "nearest" }),
        error: () => put(fault, message("fault", "The browser cannot play this: it may lack the codec, or the recording is cut short.")) });
      video.muted = true; // the attribute alone does not mute what a script made, and what is not muted may not start by itself
      stopShown = () => URL.revokeObjectURL(url);
      put(stage, video, fault, keep);
      // Not by the attribute: what plays by that is held while it is out of view. Where it may not, there are controls.
      video.play().catch(() => undefined);
    } else if (kind.suffix === "cast") {
      const player = castPlayer(await data.text());
      stopShown = player.stop;
      put(stage, player.element, keep);
    } else {
      const text = await data.slice(0, TEXT_SHOWN).text();
      put(stage, el("pre", { class: "recorded-text", tabindex: "0", role: "region", "aria-label": "Recording" }, text),
        data.size > TEXT_SHOWN && message("note", `The first ${bytes(TEXT_SHOWN)} of ${bytes(data.size)} are shown.`), keep);
    }
  }

  const element = card("Playback",
    el("p", { class: "quiet" }, "Needs the role replay. Each replay leaves an event in the audit trail."),
    el("div", { class: "toolbar" }, other, play, cancel), stage);
  return { element, stop: () => { abort?.abort(); stopShown(); } };
}

function tooLarge(size) {
  return Object.assign(new Error(), { detail: `This recording is larger (${bytes(size)}) than the page plays; use lucid-sessions replay.` });
}
