// Receipts, manifests and chunk proofs as sessions/core/FORMAT.md has them, and the leaves that stand for them.

import { joined, leafHash, sha256, VerificationError, verifyInclusion } from "./merkle.js";
import { FormatError, MAX_CHUNK_INDEX, Reader, parse, same } from "./strict.js";

const HASH = 32;
const ADDRESS = 20;
const MISSING_MAX = 100_000;
const STATES = ["pending", "submitted", "included", "confirmed"];
const MANIFEST = ["version", "session_id", "chunk_count", "missing", "plaintext_bytes", "envelope_bytes", "root", "opened_at", "sealed_at", "sealed_by", "metadata_sha256"];
const ANCHOR = ["state", "chain_id", "contract", "publisher", "transaction", "block_number", "block_hash", "block_timestamp"];
const PROOF = ["version", "session_id", "index", "envelope_bytes", "envelope_sha256", "leaf_hash", "tree_size", "root", "path"];

/** Reads a receipt file. */
export function readReceipt(bytes) {
  const read = new Reader("receipt", parse(bytes, "receipt"), ["version", "manifest", "batch", "anchor"]);
  read.integer("version", 1, 1);
  return {
    manifest: readManifest(read.members.manifest),
    batch: read.optional("batch", () => readBatch(read.members.batch)),
    anchor: readAnchor(read.members.anchor),
  };
}

function readManifest(value) {
  const read = new Reader("manifest", value, MANIFEST);
  read.integer("version", 1, 1);
  const chunkCount = read.integer("chunk_count", 0, MAX_CHUNK_INDEX + 1);
  return {
    sessionId: read.session("session_id"),
    chunkCount,
    missing: readMissing(read, chunkCount),
    plaintextBytes: read.integer("plaintext_bytes"),
    envelopeBytes: read.integer("envelope_bytes"),
    root: read.hex("root", HASH),
    openedAt: read.timestamp("opened_at"),
    sealedAt: read.timestamp("sealed_at"),
    sealedBy: read.oneOf("sealed_by", ["recorder", "idle"]),
    metadataSha256: read.hex("metadata_sha256", HASH),
    bytes: canonical(value),
  };
}

function readMissing(read, chunkCount) {
  let free = 0;
  return read.items("missing", MISSING_MAX).map((gap) => {
    if (!Array.isArray(gap) || gap.length !== 2 || !gap.every(Number.isSafeInteger)) throw read.fail("missing", "a list of [first, last]");
    const [first, last] = gap;
    if (!(free <= first && first <= last && last < chunkCount)) throw read.fail("missing", "ascending ranges, apart from each other, below chunk_count");
    free = last + 2;
    return gap;
  });
}

function readBatch(value) {
  const read = new Reader("receipt's batch", value, ["root", "size", "index", "path"]);
  return { root: read.hex("root", HASH), size: read.integer("size", 1), index: read.integer("index"), path: read.hexes("path", HASH) };
}

function readAnchor(value) {
  const read = new Reader("receipt's anchor", value, ANCHOR);
  const hex = (name, size) => read.optional(name, () => read.hex(name, size, "0x"));
  const number = (name) => read.optional(name, () => read.integer(name));
  return {
    state: read.oneOf("state", STATES),
    chainId: number("chain_id"),
    contract: hex("contract", ADDRESS),
    publisher: hex("publisher", ADDRESS),
    transaction: hex("transaction", HASH),
    blockNumber: number("block_number"),
    blockHash: hex("block_hash", HASH),
    blockTimestamp: number("block_timestamp"),
  };
}

/** Reads a chunk proof file. */
export function readProof(bytes) {
  const read = new Reader("chunk proof", parse(bytes, "chunk proof"), PROOF);
  read.integer("version", 1, 1);
  return {
    sessionId: read.session("session_id"),
    index: read.integer("index", 0, MAX_CHUNK_INDEX),
    envelopeBytes: read.integer("envelope_bytes"),
    envelopeSha256: read.hex("envelope_sha256", HASH),
    leafHash: read.hex("leaf_hash", HASH),
    treeSize: read.integer("tree_size", 1, MAX_CHUNK_INDEX + 1),
    root: read.hex("root", HASH),
    path: read.hexes("path", HASH),
  };
}

/**
 * The canonical form (RFC 8785) of a value of objects, lists, texts, integers and null: members by the UTF-16 units of
 * their names, without spaces; texts and numbers as ECMAScript writes them.
 */
export function canonical(value) {
  return new TextEncoder().encode(written(value));
}

function written(value) {
  if (Array.isArray(value)) return `[${value.map(written).join(",")}]`;
  if (typeof value !== "object" || value === null) return JSON.stringify(value);
  return `{${Object.keys(value).sort().map((name) => `${JSON.stringify(name)}:${written(value[name])}`).join(",")}}`;
}

/** The leaf that stands for a session in its batch. */
export async function sessionLeaf(manifest) {
  return leafHash(joined("lucid/session/v1\0", await sha256(manifest.bytes)));
}

/** The leaf that stands for a chunk in its session: over ciphertext, so that no key is needed. */
export function chunkLeaf(sessionId, index, envelopeBytes, envelopeSha256) {
  return leafHash(joined("lucid/chunk/v1\0", nameAndIndex(sessionId, index), u64(envelopeBytes), envelopeSha256));
}

/** What stands in the tree for a chunk that never arrived. */
export function missingLeaf(sessionId, index) {
  return leafHash(joined("lucid/missing/v1\0", nameAndIndex(sessionId, index)));
}

function nameAndIndex(sessionId, index) {
  return joined(Uint8Array.of(sessionId.length >> 8, sessionId.length & 255), sessionId, u64(index));
}

function u64(value) {
  const bytes = new Uint8Array(8);
  new DataView(bytes.buffer).setBigUint64(0, BigInt(value));
  return bytes;
}

/** Checks that a chunk proof is for a chunk of the session that a manifest states. */
export async function verifyProof(proof, manifest) {
  const leaf = await chunkLeaf(proof.sessionId, proof.index, proof.envelopeBytes, proof.envelopeSha256);
  if (!same(leaf, proof.leafHash)) throw new VerificationError("the leaf hash is not the hash of this chunk's leaf input");
  await verifyInclusion(leaf, proof.index, proof.treeSize, proof.path, proof.root);
  if (proof.sessionId !== manifest.sessionId || proof.treeSize !== manifest.chunkCount || !same(proof.root, manifest.root)) {
    throw new VerificationError("the chunk proof is for another session or tree than the manifest's");
  }
}

/** Whether a file is a chunk proof, or means to be one. */
export function looksLikeProof(bytes) {
  try {
    return "leaf_hash" in parse(bytes, "file");
  } catch (error) {
    if (error instanceof FormatError || error instanceof TypeError) return false;
    throw error;
  }
}
