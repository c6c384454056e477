// Plays asciicast files of versions 2 and 3 (docs.asciinema.org/manual/asciicast): a line of header, then events.

import { el, message, put } from "./dom.js";
import { Terminal } from "./terminal.js";

const IDLE_SECONDS_MAX = 2;
const FRAME_SECONDS = 1 / 30;

/** Whether a file begins like one. */
export function isCast(head) {
  const line = new TextDecoder().decode(head).split("\n", 1)[0];
  return /^\{.*"version"\s*:\s*[23]\b/.test(line);
}

/** The events [seconds, kind, data] with times from the beginning, and the size. Throws what it cannot read. */
export function readCast(text) {
  const [first, ...lines] = text.split("\n").filter((line) => line.trim() !== "" && !line.startsWith("#"));
  const header = JSON.parse(first);
  const size = header.version === 3 ? header.term : { cols: header.width, rows: header.height };
  if (![size?.cols, size?.rows].every((value) => Number.isInteger(value) && value > 0 && value <= 1000)) {
    throw new Error("the header has no size of a terminal");
  }
  let at = 0;
  let before = 0;
  const events = [];
  for (const line of lines) {
    let event;
    try {
      event = JSON.parse(line);
    } catch {
      break; // a recording that was cut short ends within a line
    }
    const [time, kind, data] = event;
    // Version 2 has times from the beginning, version 3 from the event before; long pauses are cut in both.
    const pause = Math.max(0, header.version === 3 ? time : time - before);
    before = time;
    at += Math.min(pause, IDLE_SECONDS_MAX);
    if (kind === "o" || kind === "r") events.push([at, kind, String(data)]);
  }
  return { cols: size.cols, rows: size.rows, events, seconds: at };
}

/** A player with its controls. */
export function castPlayer(text) {
  let cast;
  try {
    cast = readCast(text);
  } catch (error) {
    return { element: message("fault", `This asciicast cannot be read: ${error.message}`), stop: () => undefined };
  }
  const screen = el("pre", { class: "terminal", tabindex: "0", role: "region", "aria-label": "Terminal" });
  const state = { terminal: null, next: 0, seconds: 0, timer: null };
  const button = el("button", { type: "button", click: () => (state.timer === null ? run() : pause()) });
  const slider = el("input", { type: "range", min: "0", max: String(Math.max(cast.seconds, 0.01)), step: "any", value: "0", "aria-label": "Position", input: () => seek(Number(slider.value)) });

  function seek(seconds) {
    if (seconds < state.seconds || state.terminal === null) {
      state.terminal = new Terminal(cast.cols, cast.rows);
      state.next = 0;
    }
    state.seconds = seconds;
    for (; state.next < cast.events.length && cast.events[state.next][0] <= seconds; state.next += 1) {
      const [, kind, data] = cast.events[state.next];
      if (kind === "o") state.terminal.write(data);
      else state.terminal.resize(...data.split("x").map(Number));
    }
    slider.value = String(seconds);
    put(screen, state.terminal.lines());
  }

  function run() {
    if (state.seconds >= cast.seconds) seek(0);
    let last = performance.now();
    button.textContent = "Pause";
    state.timer = setInterval(() => {
      const now = performance.now();
      seek(Math.min(cast.seconds, state.seconds + (now - last) / 1000));
      last = now;
      if (state.seconds >= cast.seconds) pause();
    }, FRAME_SECONDS * 1000);
  }

  function pause() {
    clearInterval(state.timer);
    state.timer = null;
    button.textContent = "Play";
  }

  seek(0);
  run();
  return { element: el("div", { class: "cast" }, screen, el("div", { class: "toolbar" }, button, slider)), stop: pause };
}
