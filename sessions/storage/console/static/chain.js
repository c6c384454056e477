// What a node of the chain says about an anchor, by plain JSON-RPC. Whose node it is, the auditor chooses.

import { joined, sha256, VerificationError } from "./merkle.js";
import { fromHex, same, toHex } from "./strict.js";

const SECONDS_MAX = 20;
const ANSWER_MAX = 8 * 1024 * 1024;
const QUANTITY = /^0x(?:0|[1-9a-f][0-9a-f]{0,63})$/;
const DATA = /^0x(?:[0-9a-fA-F]{2})*$/;
// Of sessions/core/anchor_contract.py: selectors of anchor(bytes32) and anchoredAt(address,bytes32), and the SHA-256 of
// the code that LucidAnchors has at every address on every chain.
export const ANCHOR = "eecdf927";
export const ANCHORED_AT = "f8c2919d";
export const CODE_SHA256 = "c829281611b07c7c01dc905291f8e9390c078da4f10d88ca07b0a3fb2cd731e3";

const PRUNED_HISTORY = 4444; // JSON-RPC code for what a node no longer keeps (EIP-4444)

/** The node did not do its part: nothing is said about the receipt. */
export class NodeError extends Error {}

export class Node {
  #url;
  #id = 0;

  constructor(text) {
    let url;
    try {
      url = new URL(text);
    } catch {
      throw new NodeError("the node's address is none: write it like https://node.example/key");
    }
    if (!["http:", "https:"].includes(url.protocol)) throw new NodeError("the node's address begins with https:// or http://");
    this.#url = url;
    this.name = url.origin; // the rest is often an access key
  }

  async call(method, ...params) {
    const id = (this.#id += 1);
    let text;
    try {
      const answer = await fetch(this.#url, {
        method: "POST",
        headers: { "Content-Type": "application/json" },
        body: JSON.stringify({ jsonrpc: "2.0", id, method, params }),
        signal: AbortSignal.timeout(SECONDS_MAX * 1000),
        credentials: "omit",
        redirect: "error",
        referrerPolicy: "no-referrer",
      });
      text = await answer.text();
    } catch {
      throw new NodeError(`${this.name} cannot be asked from this page: is it up, does it let pages of other origins ask it (CORS), and is it https, unless it is on this machine?`);
    }
    if (text.length > ANSWER_MAX) throw new NodeError(`${this.name} answered ${method} with more than ${ANSWER_MAX} bytes`);
    let value;
    try {
      value = JSON.parse(text);
    } catch {
      value = null;
    }
    if (typeof value !== "object" || value === null) throw new NodeError(`${this.name} answered no JSON-RPC: is this a node's address?`);
    if (value.error?.code === PRUNED_HISTORY) return null;
    if (value.error) throw new NodeError(`the node at ${this.name} refused ${method}: ${String(value.error.message ?? value.error).slice(0, 200)}`);
    if (value.id !== id || !("result" in value)) throw new NodeError(`${this.name} answered ${method} with something that is not its answer`);
    return value.result;
  }

  async data(method, ...params) {
    const value = await this.call(method, ...params);
    if (typeof value !== "string" || !DATA.test(value)) throw new NodeError(`the node answered ${method} with something that is not bytes in hex`);
    return fromHex(value.slice(2));
  }

  /** An object, or null for what the node does not have, or not any more. */
  async object(method, ...params) {
    const value = await this.call(method, ...params);
    if (typeof value !== "object") throw new NodeError(`the node answered ${method} with something that is not an object`);
    return value;
  }
}

function quantity(value, what) {
  if (typeof value !== "string" || !QUANTITY.test(value)) throw new NodeError(`the node gave ${what} as something that is not a number`);
  return Number(BigInt(value));
}

function optional(members, name) {
  const value = members[name];
  if (value === null || value === undefined) return null;
  if (typeof value !== "string" || !DATA.test(value)) throw new NodeError(`the node gave ${name} as something that is not bytes in hex`);
  return fromHex(value.slice(2));
}

/**
 * Holds a receipt's anchor against the chain, word by word; `tell(text)` hears what was proven on the way.
 * Returns `anchoredAt`, the time in seconds since 1970 at which the contract noted the root, and `unknown`, what the node
 * does not have of the transaction. Nodes forget history (EIP-4444), so nothing follows from that.
 */
export async function verifyAnchor(node, anchor, root, tell) {
  if ([anchor.contract, anchor.publisher, anchor.transaction].includes(null)) {
    throw new VerificationError(`the anchor is ${anchor.state} and lacks its contract, publisher or transaction`);
  }
  equal("chain id", quantity(await node.call("eth_chainId"), "the chain's id"), anchor.chainId);
  tell(`the node is of chain ${anchor.chainId}, as the receipt says`);
  const contract = `0x${toHex(anchor.contract)}`;
  const code = toHex(await sha256(await node.data("eth_getCode", contract, "latest")));
  if (code !== CODE_SHA256) throw new VerificationError("the contract's code is not that of LucidAnchors, so its answers prove nothing");
  tell(`the code at ${contract} is that of LucidAnchors: nobody can take back or backdate what it noted`);
  const call = joined(fromHex(ANCHORED_AT), new Uint8Array(12), anchor.publisher, root);
  const answer = await node.data("eth_call", { to: contract, data: `0x${toHex(call)}` }, "latest");
  if (answer.length !== 32 || answer.subarray(0, 24).some((byte) => byte !== 0)) throw new NodeError("the contract's answer is not a uint64: is this address a LucidAnchors contract?");
  const anchoredAt = Number(new DataView(answer.buffer).getBigUint64(24));
  if (anchoredAt === 0) throw new VerificationError("the chain has no anchor of this batch root by this publisher");
  tell("the contract has noted this batch root, of this publisher");
  const unknown = await verifyTransaction(node, anchor, root);
  if (unknown.length === 0) tell(`transaction 0x${toHex(anchor.transaction)} in block ${anchor.blockNumber} anchored it, as the receipt says`);
  return { anchoredAt, unknown };
}

async function verifyTransaction(node, anchor, root) {
  const hash = `0x${toHex(anchor.transaction)}`;
  const transaction = await node.object("eth_getTransactionByHash", hash);
  const outcome = await node.object("eth_getTransactionReceipt", hash);
  const unknown = [];
  if (transaction === null) unknown.push("transaction of that hash");
  else {
    equal("transaction's contract", optional(transaction, "to"), anchor.contract);
    equal("transaction's publisher", optional(transaction, "from"), anchor.publisher);
    const input = optional(transaction, "input");
    if (input === null || !same(input, joined(fromHex(ANCHOR), root))) throw mismatch("transaction's root");
  }
  if (outcome === null) unknown.push("receipt of the transaction");
  else {
    // A transaction that failed is in a block, too, and anchored nothing.
    equal("block number", outcome.status === "0x1" ? quantity(outcome.blockNumber, "the block's number") : null, anchor.blockNumber);
  }
  const number = anchor.blockNumber;
  const block = number === null ? {} : await node.object("eth_getBlockByNumber", `0x${number.toString(16)}`, false);
  if (block === null) unknown.push("block of that number");
  else {
    equal("block hash", optional(block, "hash"), anchor.blockHash);
    equal("block time", "timestamp" in block ? quantity(block.timestamp, "the block's time") : null, anchor.blockTimestamp);
  }
  return unknown;
}

/** How many blocks are on top of a block, and whether it is final. A chain without finality says no. */
export async function depth(node, blockNumber) {
  const latest = (await node.object("eth_getBlockByNumber", "latest", false)) ?? {};
  let finalized = {};
  try {
    finalized = (await node.object("eth_getBlockByNumber", "finalized", false)) ?? {};
  } catch (error) {
    if (!(error instanceof NodeError)) throw error;
  }
  const final = "number" in finalized && quantity(finalized.number, "the block's number") >= blockNumber;
  return { above: Math.max(0, quantity(latest.number, "the block's number") - blockNumber), final };
}

function equal(what, onChain, inReceipt) {
  const equals = onChain instanceof Uint8Array ? same(onChain, inReceipt) : onChain === inReceipt;
  if (onChain === null || !equals) throw mismatch(what);
}

function mismatch(what) {
  return new VerificationError(`the ${what} on the chain is not that of the receipt`);
}
