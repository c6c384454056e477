// Merkle trees and inclusion proofs of RFC 9162 section 2.1, over SHA-256 by WebCrypto; as sessions/core/merkle.py.

import { same } from "./strict.js";

const LEAF = Uint8Array.of(0);
const NODE = Uint8Array.of(1);

/** It is not proven, or the contrary is. */
export class VerificationError extends Error {}

/** Bytes one behind the other; strings as ASCII. */
export function joined(...parts) {
  const all = parts.map((part) => (typeof part === "string" ? new TextEncoder().encode(part) : part));
  const whole = new Uint8Array(all.reduce((size, part) => size + part.length, 0));
  let at = 0;
  for (const part of all) {
    whole.set(part, at);
    at += part.length;
  }
  return whole;
}

/** SHA-256. */
export async function sha256(bytes) {
  return new Uint8Array(await crypto.subtle.digest("SHA-256", bytes));
}

/** Hash of a leaf: SHA-256(0x00 || input). */
export function leafHash(input) {
  return sha256(joined(LEAF, input));
}

/** Hash of an inner node: SHA-256(0x01 || left || right). */
export function nodeHash(left, right) {
  return sha256(joined(NODE, left, right));
}

/** The root of leaf hashes that come one after the other: one hash is kept for each one-bit of their number. */
export class Frontier {
  #hashes = [];
  #size = 0;

  async append(leaf) {
    let node = leaf;
    // Halved as a number: a session may have more chunks than 32 bits count.
    for (let size = this.#size; size % 2 === 1; size = Math.floor(size / 2)) node = await nodeHash(this.#hashes.pop(), node);
    this.#hashes.push(node);
    this.#size += 1;
  }

  async root() {
    if (this.#size === 0) return sha256(new Uint8Array());
    let node = this.#hashes.at(-1);
    for (const left of this.#hashes.slice(0, -1).reverse()) node = await nodeHash(left, node);
    return node;
  }
}

/** The root that an inclusion path leads to (RFC 9162 section 2.1.3.2); each step is told to `tell(node)`. */
export async function rootFromPath(leaf, index, size, path, tell = () => undefined) {
  if (!(index >= 0 && index < size)) throw new VerificationError(`there is no leaf ${index} in a tree of ${size}`);
  let [fn, sn, node] = [index, size - 1, leaf];
  const up = () => {
    fn = Math.floor(fn / 2);
    sn = Math.floor(sn / 2);
  };
  for (const sibling of path) {
    if (sn === 0) throw new VerificationError("the inclusion path is too long");
    if (fn % 2 === 1 || fn === sn) {
      node = await nodeHash(sibling, node);
      while (fn % 2 === 0 && fn !== 0) up();
    } else {
      node = await nodeHash(node, sibling);
    }
    up();
    tell(node);
  }
  if (sn !== 0) throw new VerificationError("the inclusion path is too short");
  return node;
}

/** Checks that a leaf is leaf number `index` of the tree of `size` leaves with that root. */
export async function verifyInclusion(leaf, index, size, path, root, tell) {
  if (!same(await rootFromPath(leaf, index, size, path, tell), root)) throw new VerificationError("the inclusion path leads to another root");
}
