// Envelopes: what their header says in clear, and whether they are exactly those that a manifest stands for.

import { chunkLeaf, missingLeaf } from "./receipt.js";
import { Frontier, sha256, VerificationError } from "./merkle.js";
import { FormatError, MAX_CHUNK_INDEX, same } from "./strict.js";

const FIXED = 54;
const TAG = 16;
const LEAVES_MAX = 5_000_000;
const ENVELOPE_MAX = 64 * 1024 * 1024 + FIXED + 128 + TAG;
const SESSION_ID = /^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$/;

/** The header of an envelope v1, read strictly: there is exactly one way to write each. */
export function readEnvelope(bytes) {
  if (bytes.length < FIXED + 1 + TAG) throw new FormatError("it is shorter than any envelope");
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const text = (from, to) => String.fromCharCode(...bytes.subarray(from, to));
  if (text(0, 4) !== "LSE1") throw new FormatError("this is not an envelope v1 (magic)");
  const codec = view.getUint8(4);
  if (codec > 1) throw new FormatError(`codec ${codec} is not known`);
  if (view.getUint16(5) !== 0 || view.getUint8(7) !== 0) throw new FormatError("the reserved bytes are not zero");
  const index = view.getBigUint64(36);
  const plaintextBytes = view.getBigUint64(44);
  const header = FIXED + view.getUint16(52);
  if (bytes.length < header + TAG) throw new FormatError("the envelope ends within its header or tag");
  const sessionId = text(FIXED, header);
  if (!SESSION_ID.test(sessionId)) throw new FormatError("its session id is none");
  if (index > BigInt(MAX_CHUNK_INDEX)) throw new FormatError("its index is none that a chunk can have");
  if (codec === 0 && BigInt(bytes.length) !== BigInt(header + TAG) + plaintextBytes) {
    throw new FormatError("the length does not fit the plaintext length of a chunk stored as is");
  }
  return { sessionId, index: Number(index), plaintextBytes: Number(plaintextBytes) };
}

/** Checks that these files are exactly the envelopes that a manifest stands for; one at a time is in memory. */
export async function checkEnvelopes(manifest, files, tell) {
  const leaves = new Map();
  let [envelopeBytes, plaintextBytes] = [0, 0];
  for (const [at, file] of files.entries()) {
    const { header, leaf, size } = await one(manifest, file);
    if (leaves.has(header.index)) throw new VerificationError(`chunk ${header.index} is there twice: ${file.name} is the second`);
    leaves.set(header.index, leaf);
    envelopeBytes += size;
    plaintextBytes += header.plaintextBytes;
    if (at % 50 === 0) tell(at + 1, files.length);
  }
  checkComplete(manifest, leaves);
  if (!same(await root(manifest, leaves), manifest.root)) throw new VerificationError("a chunk is altered: the envelopes lead to another root");
  if (envelopeBytes !== manifest.envelopeBytes || plaintextBytes !== manifest.plaintextBytes) {
    throw new VerificationError(`the envelopes have ${envelopeBytes} bytes for ${plaintextBytes} bytes of plaintext, the manifest says ${manifest.envelopeBytes} for ${manifest.plaintextBytes}`);
  }
  return leaves.size;
}

async function one(manifest, file) {
  if (file.size > ENVELOPE_MAX) throw new VerificationError(`${file.name} is foreign: it is larger than any envelope`);
  const bytes = new Uint8Array(await file.arrayBuffer());
  let header;
  try {
    header = readEnvelope(bytes);
  } catch (error) {
    throw new VerificationError(`${file.name} is foreign or altered: ${error.message}`);
  }
  if (header.sessionId !== manifest.sessionId) throw new VerificationError(`${file.name} is foreign: it is chunk ${header.index} of session ${header.sessionId}`);
  if (header.index >= manifest.chunkCount) throw new VerificationError(`${file.name} is foreign: chunk ${header.index} of a session of ${manifest.chunkCount} chunks`);
  return { header, size: bytes.length, leaf: await chunkLeaf(header.sessionId, header.index, bytes.length, await sha256(bytes)) };
}

function checkComplete(manifest, leaves) {
  if (manifest.chunkCount > LEAVES_MAX) throw new VerificationError(`${manifest.chunkCount} chunks are too many to check here: use lucid-sessions verify`);
  let expected = 0;
  let at = 0;
  for (const [first, last] of [...manifest.missing, [manifest.chunkCount, manifest.chunkCount]]) {
    for (let index = at; index < first; index += 1, expected += 1) {
      if (!leaves.has(index)) throw new VerificationError(`chunk ${index} is missing`);
    }
    at = last + 1;
  }
  if (leaves.size !== expected) throw new VerificationError("there is a chunk that the session was sealed without");
}

async function root(manifest, leaves) {
  const tree = new Frontier();
  for (let index = 0; index < manifest.chunkCount; index += 1) {
    await tree.append(leaves.get(index) ?? await missingLeaf(manifest.sessionId, index));
  }
  return tree.root();
}
