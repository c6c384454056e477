// Reading JSON that others wrote, strictly, as sessions/core/strict.py does: exact members, exact types, one spelling
// for each value. JSON.parse would let a member come twice, and round large numbers.

const DEPTH_MAX = 100;
const NUMBER = /-?(?:0|[1-9]\d*)(\.\d+)?([eE][+-]?\d+)?/y;
const STRING = /"(?:[^"\\\x00-\x1f]|\\(?:["\\/bfnrt]|u[0-9a-fA-F]{4}))*"/y;
const SPACE = /[ \t\n\r]*/y;
const TIME = /^(\d{4})-(0[1-9]|1[0-2])-(0[1-9]|[12]\d|3[01])T(?:[01]\d|2[0-3]):[0-5]\d:[0-5]\d\.\d{3}Z$/;
const SESSION_ID = /^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$/;
export const MAX_CHUNK_INDEX = Number.MAX_SAFE_INTEGER - 1;

/** What is said of a file is wrong, or contradicts itself. */
export class FormatError extends Error {}

/** Parses bytes in UTF-8. Numbers have to be integers that are held exactly. */
export function parse(bytes, what) {
  let text;
  try {
    text = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(bytes);
  } catch {
    throw new FormatError(`the ${what} is not JSON: it is not text in UTF-8`);
  }
  return new Parser(text, what).whole();
}

class Parser {
  constructor(text, what) {
    Object.assign(this, { text, what, at: 0 });
  }

  whole() {
    const value = this.value(0);
    this.take(SPACE);
    if (this.at !== this.text.length) throw this.error("something comes behind its end");
    return value;
  }

  value(depth) {
    if (depth > DEPTH_MAX) throw this.error("it is nested too deeply");
    this.take(SPACE);
    const next = this.text[this.at];
    if (next === "{") return this.object(depth);
    if (next === "[") return this.list(depth);
    if (next === '"') return this.string();
    for (const [word, value] of [["true", true], ["false", false], ["null", null]]) {
      if (this.text.startsWith(word, this.at)) {
        this.at += word.length;
        return value;
      }
    }
    return this.number();
  }

  object(depth) {
    const members = Object.create(null); // so that no name means anything
    for (let more = this.open("}"); more; more = this.more("}")) {
      this.take(SPACE);
      const name = this.string();
      if (name in members) throw this.error("a member comes twice");
      this.take(SPACE);
      this.expect(":");
      members[name] = this.value(depth + 1);
    }
    return members;
  }

  list(depth) {
    const items = [];
    for (let more = this.open("]"); more; more = this.more("]")) items.push(this.value(depth + 1));
    return items;
  }

  open(end) {
    this.at += 1;
    this.take(SPACE);
    if (this.text[this.at] !== end) return true;
    this.at += 1;
    return false;
  }

  more(end) {
    this.take(SPACE);
    if (this.text[this.at] === ",") {
      this.at += 1;
      return true;
    }
    this.expect(end);
    return false;
  }

  expect(character) {
    if (this.text[this.at] !== character) throw this.error(`${character} is missing at ${this.at}`);
    this.at += 1;
  }

  string() {
    return JSON.parse(this.take(STRING) ?? this.fail());
  }

  number() {
    const found = this.take(NUMBER) ?? this.fail();
    const value = Number(found);
    if (/[.eE]/.test(found) || !Number.isSafeInteger(value)) throw this.error(`${found} is no integer that JSON holds`);
    return value === 0 ? 0 : value; // -0 is 0
  }

  take(pattern) {
    pattern.lastIndex = this.at;
    const found = pattern.exec(this.text);
    if (found === null) return null;
    this.at = pattern.lastIndex;
    return found[0];
  }

  fail() {
    throw this.error(`nothing that can be read is at ${this.at}`);
  }

  error(reason) {
    return new FormatError(`the ${this.what} is not JSON: ${reason}`);
  }
}

/** Reads the members of one object, which has exactly these. */
export class Reader {
  constructor(what, value, members) {
    this.what = what;
    if (typeof value !== "object" || value === null || Array.isArray(value)) throw new FormatError(`a ${what} is a JSON object`);
    const missing = members.filter((name) => !(name in value));
    const unknown = Object.keys(value).filter((name) => !members.includes(name));
    if (missing.length) throw new FormatError(`the ${what} lacks ${missing.join(", ")}`);
    if (unknown.length) throw new FormatError(`the ${what} has unknown members: ${unknown.join(", ").slice(0, 200)}`);
    this.members = value;
  }

  fail(name, should) {
    return new FormatError(`${name} of the ${this.what} should be ${should}`);
  }

  text(name) {
    if (typeof this.members[name] !== "string") throw this.fail(name, "a string");
    return this.members[name];
  }

  oneOf(name, words) {
    if (!words.includes(this.text(name))) throw this.fail(name, `one of ${words.join(", ")}`);
    return this.members[name];
  }

  integer(name, least = 0, most = Number.MAX_SAFE_INTEGER) {
    const value = this.members[name];
    if (!Number.isSafeInteger(value) || value < least || value > most) throw this.fail(name, `an integer from ${least} to ${most}`);
    return value;
  }

  hex(name, size, prefix = "") {
    return this.#hex(name, this.members[name], size, prefix);
  }

  hexes(name, size, most = 64) {
    return this.items(name, most).map((item) => this.#hex(name, item, size, ""));
  }

  items(name, most) {
    const value = this.members[name];
    if (!Array.isArray(value) || value.length > most) throw this.fail(name, `a list of at most ${most}`);
    return value;
  }

  timestamp(name) {
    const found = TIME.exec(this.text(name));
    const days = found && new Date(Date.UTC(2000 + (Number(found[1]) % 400), Number(found[2]), 0)).getUTCDate();
    if (!found || Number(found[3]) > days) throw this.fail(name, "a time such as 2026-01-31T23:59:59.000Z");
    return this.members[name];
  }

  session(name) {
    if (!SESSION_ID.test(this.text(name))) throw this.fail(name, "a session id");
    return this.members[name];
  }

  optional(name, read) {
    return this.members[name] === null ? null : read(name);
  }

  #hex(name, value, size, prefix) {
    if (typeof value !== "string" || !value.startsWith(prefix) || !new RegExp(`^[0-9a-f]{${2 * size}}$`).test(value.slice(prefix.length))) {
      throw this.fail(name, `${size} bytes in lower-case hex`);
    }
    return fromHex(value.slice(prefix.length));
  }
}

/** Bytes of hex digits. */
export function fromHex(text) {
  return Uint8Array.from(text.match(/../g) ?? [], (pair) => Number.parseInt(pair, 16));
}

/** Hex digits of bytes. */
export function toHex(bytes) {
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
}

/** Whether two values of bytes are the same. */
export function same(one, other) {
  return one !== null && other !== null && one.length === other.length && one.every((byte, at) => byte === other[at]);
}
