// How numbers and times are written. Sizes are in powers of 1024, times in the reader's own zone.

const UNITS = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"];
const NONE = "–";

/** A size in bytes. */
export function bytes(value) {
  if (value === null || value === undefined) return NONE;
  let unit = 0;
  let size = value;
  while (size >= 1024 && unit < UNITS.length - 1) {
    size /= 1024;
    unit += 1;
  }
  return `${unit === 0 ? size : size.toFixed(size < 10 ? 2 : size < 100 ? 1 : 0)} ${UNITS[unit]}`;
}

/** A count. */
export function count(value) {
  return value === null || value === undefined ? NONE : value.toLocaleString();
}

/** Some things, of one kind. */
export function several(value, one, many = `${one}s`) {
  return `${count(value)} ${value === 1 ? one : many}`;
}

/** Stored bytes as a share of recorded ones. */
export function ratio(stored, recorded) {
  return stored === null || stored === undefined || !recorded ? NONE : `${((100 * stored) / recorded).toFixed(1)} %`;
}

/** A time of RFC 3339, to the second. */
export function time(text) {
  if (!text) return NONE;
  return new Date(text).toLocaleString(undefined, {
    year: "numeric", month: "short", day: "numeric", hour: "2-digit", minute: "2-digit", second: "2-digit",
  });
}

/** Seconds since 1970. */
export function unix(seconds) {
  return seconds === null || seconds === undefined ? NONE : time(new Date(seconds * 1000).toISOString());
}

/** The first and last index of a gap. */
export function range([first, last]) {
  return first === last ? count(first) : `${count(first)}–${count(last)}`;
}
