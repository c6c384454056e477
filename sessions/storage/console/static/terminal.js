// A terminal's screen, as far as recordings of a shell need one: the part of ECMA-48 and xterm that moves the cursor,
// erases, scrolls and sets colours. What it does not know it passes over.

import { el } from "./dom.js";

const BLANK = { text: " ", style: "" };
// ESC [ parameters final | ESC ] … BEL or ESC \ | ESC intermediate final | a control | what is printed
const TOKEN = /\x1b\[([?>=!]?)([\d;:]*)[ -/]*([@-~])|\x1b[\]P_^][^\x07\x1b]*(?:\x07|\x1b\\)?|\x1b[ -/]*([0-~])|([\x00-\x1f\x7f])|([^\x00-\x1f\x7f]+)/g;

export class Terminal {
  constructor(cols, rows) {
    Object.assign(this, { cols, rows, x: 0, y: 0, style: {}, top: 0, bottom: rows - 1, saved: null, other: null, left: "" });
    this.cells = this.#blank();
  }

  /** Takes output; an escape sequence may be cut in two by the end of an event. */
  write(data) {
    const text = this.left + data;
    const cut = /\x1b(?:\[[?>=!]?[\d;:]*[ -/]*|[ -/]*|\][^\x07\x1b]*)?$/.exec(text);
    this.left = cut ? cut[0].slice(0, 4096) : "";
    for (const [, mark, numbers, final, escape, control, printed] of text.slice(0, cut?.index).matchAll(TOKEN)) {
      if (final) this.#csi(mark, numbers.split(/[;:]/).map(Number), final);
      else if (escape) this.#escape(escape);
      else if (control) this.#control(control);
      else if (printed) for (const character of printed) this.#print(character);
    }
  }

  /** Changes the size; what does not fit is cut off. */
  resize(cols, rows) {
    if (!(cols > 0 && cols <= 1000 && rows > 0 && rows <= 1000)) return;
    const old = this.cells;
    Object.assign(this, { cols, rows, top: 0, bottom: rows - 1, x: Math.min(this.x, cols - 1), y: Math.min(this.y, rows - 1) });
    this.cells = this.#blank().map((line, y) => line.map((blank, x) => old[y]?.[x] ?? blank));
  }

  /** The screen as elements, a line each, equal neighbours joined. */
  lines() {
    return this.cells.map((line, y) => {
      const spans = [];
      line.forEach((cell, x) => {
        const style = y === this.y && x === this.x ? `${cell.style} cursor` : cell.style;
        if (spans.at(-1)?.style === style) spans.at(-1).text += cell.text;
        else spans.push({ style, text: cell.text });
      });
      return el("span", { class: "line" }, spans.map(({ style, text }) => styled(style, text)), "\n");
    });
  }

  #blank() {
    return Array.from({ length: this.rows }, () => Array(this.cols).fill(BLANK));
  }

  #print(character) {
    if (this.x >= this.cols) {
      this.x = 0;
      this.#down();
    }
    this.cells[this.y][this.x] = { text: character, style: styleOf(this.style) };
    this.x += 1;
  }

  #down() {
    if (this.y === this.bottom) this.#scroll(1);
    else if (this.y < this.rows - 1) this.y += 1;
  }

  #scroll(lines, from = this.top) {
    for (let line = 0; line < Math.min(Math.abs(lines), this.rows); line += 1) {
      if (lines > 0) {
        this.cells.splice(from, 1);
        this.cells.splice(this.bottom, 0, Array(this.cols).fill(BLANK));
      } else {
        this.cells.splice(this.bottom, 1);
        this.cells.splice(from, 0, Array(this.cols).fill(BLANK));
      }
    }
  }

  #control(code) {
    if (code === "\r") this.x = 0;
    else if (code === "\n" || code === "\v" || code === "\f") this.#down();
    else if (code === "\b") this.x = Math.max(0, Math.min(this.x, this.cols) - 1);
    else if (code === "\t") this.x = Math.min(this.cols - 1, (Math.floor(this.x / 8) + 1) * 8);
  }

  #escape(final) {
    if (final === "7") this.saved = [this.x, this.y, this.style];
    else if (final === "8" && this.saved) [this.x, this.y, this.style] = this.saved;
    else if (final === "D") this.#down();
    else if (final === "E") this.#control("\r"), this.#down();
    else if (final === "M" && this.y === this.top) this.#scroll(-1);
    else if (final === "M") this.y = Math.max(0, this.y - 1);
    else if (final === "c") Object.assign(this, new Terminal(this.cols, this.rows));
  }

  #csi(mark, given, final) {
    if (mark) {
      if (mark === "?" && "hl".includes(final) && [47, 1047, 1049].includes(given[0])) this.#alternate(final === "h");
      return;
    }
    const n = Math.max(1, given[0] || 1);
    const line = this.cells[this.y];
    const to = (x, y) => {
      this.x = Math.max(0, Math.min(this.cols - 1, x));
      this.y = Math.max(0, Math.min(this.rows - 1, y));
    };
    switch (final) {
      case "A": to(this.x, this.y - n); break;
      case "B": case "e": to(this.x, this.y + n); break;
      case "C": case "a": to(this.x + n, this.y); break;
      case "D": to(Math.min(this.x, this.cols - 1) - n, this.y); break;
      case "E": to(0, this.y + n); break;
      case "F": to(0, this.y - n); break;
      case "G": case "`": to(n - 1, this.y); break;
      case "d": to(this.x, n - 1); break;
      case "H": case "f": to((given[1] || 1) - 1, n - 1); break;
      case "J": this.#eraseScreen(given[0] || 0); break;
      case "K": this.#erase(this.y, given[0] === 1 || given[0] === 2 ? 0 : this.x, given[0] === 1 ? this.x + 1 : this.cols); break;
      case "X": this.#erase(this.y, this.x, this.x + n); break;
      case "P": line.splice(this.x, n), line.push(...Array(this.cols - line.length).fill(BLANK)); break;
      case "@": line.splice(this.x, 0, ...Array(Math.min(n, this.cols)).fill(BLANK)), (line.length = this.cols); break;
      case "L": this.#scroll(-n, this.y); break;
      case "M": this.#scroll(n, this.y); break;
      case "S": this.#scroll(n); break;
      case "T": this.#scroll(-n); break;
      case "r": this.#region(given); break;
      case "m": this.style = rendition(this.style, given); break;
      case "s": this.#escape("7"); break;
      case "u": this.#escape("8"); break;
    }
  }

  #region([top, bottom]) {
    const [first, last] = [(top || 1) - 1, Math.min(bottom || this.rows, this.rows) - 1];
    if (first < last) Object.assign(this, { top: first, bottom: last, x: 0, y: 0 });
  }

  #alternate(on) {
    if (on && this.other === null) {
      this.other = { cells: this.cells, x: this.x, y: this.y };
      this.cells = this.#blank();
    } else if (!on && this.other !== null) {
      Object.assign(this, this.other, { other: null });
      this.resize(this.cols, this.rows);
    }
  }

  #erase(y, from, to) {
    this.cells[y].fill(BLANK, Math.max(0, from), Math.min(this.cols, to));
  }

  #eraseScreen(which) {
    for (let y = 0; y < this.rows; y += 1) {
      if (which >= 2 || (which === 0 && y > this.y) || (which === 1 && y < this.y)) this.#erase(y, 0, this.cols);
    }
    if (which === 0) this.#erase(this.y, this.x, this.cols);
    if (which === 1) this.#erase(this.y, 0, this.x + 1);
  }
}

/** Select Graphic Rendition: what a style becomes. Colours are numbers of the palette, or `#rrggbb`. */
function rendition(before, numbers) {
  let style = { ...before };
  for (let at = 0; at < numbers.length; at += 1) {
    const n = numbers[at] || 0;
    if (n === 0) style = {};
    else if (n === 1) style.bold = true;
    else if (n === 4) style.underline = true;
    else if (n === 7) style.inverse = true;
    else if (n === 22) delete style.bold;
    else if (n === 24) delete style.underline;
    else if (n === 27) delete style.inverse;
    else if (n === 39) delete style.front;
    else if (n === 49) delete style.back;
    else if ((n >= 30 && n <= 37) || (n >= 90 && n <= 97)) style.front = n >= 90 ? n - 82 : n - 30;
    else if ((n >= 40 && n <= 47) || (n >= 100 && n <= 107)) style.back = n >= 100 ? n - 92 : n - 40;
    else if (n === 38 || n === 48) {
      const named = numbers[at + 1] === 5;
      const colour = named ? palette(numbers[at + 2] || 0) : rgb(numbers.slice(at + 2, at + 5));
      style[n === 38 ? "front" : "back"] = colour;
      at += named ? 2 : 4;
    }
  }
  return style;
}

function rgb(parts) {
  return `#${[0, 1, 2].map((at) => Math.min(255, parts[at] || 0).toString(16).padStart(2, "0")).join("")}`;
}

/** The 256 colours: 16 that the style sheet names, a cube of 6, and greys. */
function palette(n) {
  if (n < 16) return n;
  if (n > 231) return rgb(Array(3).fill(8 + (n - 232) * 10));
  return rgb([36, 6, 1].map((step) => Math.floor((n - 16) / step) % 6).map((level) => level && 55 + level * 40));
}

function styleOf({ bold, underline, inverse, front, back }) {
  const [ink, paper] = inverse ? [back ?? "paper", front ?? "ink"] : [front, back];
  const words = [bold && "bold", underline && "underline", ink !== undefined && `front=${ink}`, paper !== undefined && `back=${paper}`];
  return words.filter(Boolean).join(" ");
}

function styled(style, text) {
  if (style === "") return text;
  const span = el("span", {}, text);
  for (const word of style.trim().split(" ")) {
    const [name, value] = word.split("=");
    if (value?.startsWith("#")) span.style[name === "front" ? "color" : "backgroundColor"] = value;
    else span.classList.add(value === undefined ? name : `${name}-${value}`);
  }
  return span;
}
