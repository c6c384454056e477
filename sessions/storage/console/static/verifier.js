// Verifies a receipt step by step, and says of each what it proves; as sessions/client/verifying.py does.
// No service is asked, and no token is needed: only these files, WebCrypto, and a node that the auditor chose.

import { depth, Node, NodeError, verifyAnchor } from "./chain.js";
import { checkEnvelopes } from "./envelope.js";
import { sha256, VerificationError, verifyInclusion } from "./merkle.js";
import { readProof, readReceipt, sessionLeaf, verifyProof } from "./receipt.js";
import { FormatError, toHex } from "./strict.js";

export const PROVEN = "proven";
export const NOTE = "note";
export const NOT_CHECKED = "not-checked";
export const FAILED = "failed";

/**
 * Verifies what is given: `receipt` and `proofs` are bytes, `envelopes` are files, `nodeUrl` is text or empty, `publisher`
 * is the address that the auditor expects, in hex, or empty. `tell(outcome, text, values)` hears each step, `progress`
 * how many envelopes were read. Gives the verdict: failed, proven (with the anchor) or proven in part.
 */
export async function verify({ receipt: file, proofs, envelopes, nodeUrl, publisher }, tell, progress) {
  const run = { failed: false, anchored: false };
  const say = (outcome, text, values = []) => {
    run.failed ||= outcome === FAILED;
    tell(outcome, text, values);
  };
  let receipt;
  try {
    receipt = readReceipt(file);
  } catch (error) {
    say(FAILED, `the file is not a receipt: ${reason(error, FormatError)}`);
    return "failed";
  }
  statement(receipt.manifest, say);
  await recording(receipt.manifest, proofs, envelopes, say, progress);
  await batch(receipt, { nodeUrl, publisher }, say, run);
  return run.failed ? "failed" : run.anchored ? "proven" : "proven in part";
}

function statement(said, say) {
  const by = said.sealedBy === "recorder" ? "the recorder" : "the service, after the recorder fell silent or at the day's end";
  say(PROVEN, `the receipt is well-formed. It states: session ${said.sessionId}, ${said.chunkCount} chunks, ${said.plaintextBytes} bytes, opened ${said.openedAt}, sealed ${said.sealedAt} by ${by}`);
  if (said.missing.length > 0) {
    const shown = said.missing.slice(0, 10).map(([first, last]) => (first === last ? `${first}` : `${first}-${last}`)).join(", ");
    const more = said.missing.length > 10 ? ` and ${said.missing.length - 10} more ranges` : "";
    say(NOTE, `the session was sealed with gaps: chunks ${shown}${more} never arrived`);
  }
}

async function recording(said, proofs, envelopes, say, progress) {
  if (envelopes.length > 0) {
    await check("the envelopes are exactly those that were sealed: count, bytes and root agree, none is missing, there twice, foreign or altered",
      () => checkEnvelopes(said, envelopes, progress), say);
  }
  for (const { name, bytes } of proofs) {
    await check(`${name}: its chunk is a part of this session`, () => verifyProof(readProof(bytes), said), say);
  }
  if (envelopes.length === 0 && proofs.length === 0) {
    say(NOT_CHECKED, "that any recording you hold is the one of this receipt: no envelopes were given");
  }
  say(NOT_CHECKED, "the recorder's metadata: the receipt holds only its hash (lucid-sessions verify --metadata checks it)");
}

async function check(text, act, say, values) {
  try {
    await act();
  } catch (error) {
    say(FAILED, `${text}: ${reason(error, VerificationError, FormatError)}`);
    return false;
  }
  say(PROVEN, text, values);
  return true;
}

async function batch({ manifest, batch: place, anchor }, { nodeUrl, publisher }, say, run) {
  if (place === null) {
    say(NOT_CHECKED, "not anchored yet: the session is in no batch, so nothing but the service's word says when it was sealed; fetch the receipt again later");
    return;
  }
  const leaf = await sessionLeaf(manifest);
  const values = [["SHA-256 of the manifest, in canonical JSON", toHex(await sha256(manifest.bytes))], ["leaf of the session", toHex(leaf)]];
  const tellNode = (node) => values.push([`node ${values.length - 1}`, toHex(node)]);
  const text = `the statement is session ${place.index + 1} of ${place.size} in the batch with root ${toHex(place.root)}`;
  if (!(await check(text, () => verifyInclusion(leaf, place.index, place.size, place.path, place.root, tellNode), say, values))) return;
  if (publisher && anchor.publisher !== null && publisher !== toHex(anchor.publisher)) {
    say(FAILED, `the publisher in the receipt is 0x${toHex(anchor.publisher)}, expected was 0x${publisher}`);
  }
  if (!["included", "confirmed"].includes(anchor.state)) {
    say(NOT_CHECKED, `not anchored yet: the anchor is ${anchor.state}; fetch the receipt again later`);
  } else if (!nodeUrl) {
    say(NOT_CHECKED, "that the batch root is on the chain: no node was named");
    whose(anchor, publisher, say, run);
  } else if (!run.failed) {
    await chain(anchor, place.root, nodeUrl, say, run);
    if (!run.failed) whose(anchor, publisher, say, run);
  }
}

async function chain(anchor, root, nodeUrl, say, run) {
  const node = new Node(nodeUrl);
  let found;
  try {
    found = await verifyAnchor(node, anchor, root, (text) => say(PROVEN, text));
  } catch (error) {
    say(FAILED, `the anchor does not hold: ${reason(error, VerificationError)}`);
    return;
  }
  const when = new Date(found.anchoredAt * 1000);
  const before = Number.isNaN(when.getTime()) ? `second ${found.anchoredAt} of the Unix epoch` : when.toISOString().replace("T", " ").replace(".000Z", " UTC");
  say(PROVEN, `all of the above existed before ${before}, and was not changed since`);
  if (found.unknown.length > 0) {
    say(NOT_CHECKED, `the transaction was not checked there: name another node. This one has no ${found.unknown.join(" and no ")}, as nodes that do not keep all history`);
    return;
  }
  run.anchored = true;
  const { above, final } = await depth(node, anchor.blockNumber);
  if (final) say(PROVEN, "the block is final");
  else say(NOTE, `the block has ${above} on top and is not final (or this chain does not say so)`);
}

function whose(anchor, publisher, say, run) {
  if (anchor.publisher === null) return;
  const proven = run.anchored ? "published by" : "said to be published by";
  if (!publisher) say(NOTE, `${proven} 0x${toHex(anchor.publisher)}: whether that is the operator you expect, only you can tell`);
  else if (run.anchored) say(PROVEN, "the publisher is the one that you expect");
}

/** The words of an error of these classes; any other is ours or the node's, and goes on its way. */
function reason(error, ...classes) {
  if (classes.some((one) => error instanceof one)) return error.message;
  throw error;
}

export { NodeError };
