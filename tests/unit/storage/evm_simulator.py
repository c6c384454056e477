"""An EVM chain in memory, spoken to in JSON-RPC: blocks that fork, backends that lag, and what a bad node makes of it."""

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from eth_account.typed_transactions import TypedTransaction
from eth_utils.crypto import keccak
from hexbytes import HexBytes

from sessions.storage.anchor import ChainUnavailableError
from sessions.storage.contract import artefact

CODE = artefact()["deployedBytecode"]
CHAIN_ID = 31337
GENESIS_TIME = 1_700_000_000
FINALITY = 3
"""Blocks on top of a final one."""


@dataclass(frozen=True)
class Tx:
    hash: bytes
    nonce: int
    root: bytes | None
    tip: int


@dataclass(frozen=True)
class Block:
    number: int
    parent: "Block | None"
    time: int
    txs: tuple[Tx, ...]
    nonce: int
    anchored: dict[bytes, int]
    salt: int

    @property
    def hash(self) -> bytes:
        return hashlib.sha256(b"%d %d %d" % (self.number, self.time, self.salt)).digest()

    def line(self) -> "Iterator[Block]":
        block: Block | None = self
        while block is not None:
            yield block
            block = block.parent

    def at(self, number: int) -> "Block | None":
        return next((block for block in self.line() if block.number == number), None)


def hexed(value: bytes) -> str:
    return "0x" + value.hex()


@dataclass
class Fault:
    """What becomes of the answers to one method.

    Attributes:
        lag: The backend that answers is so many blocks behind.
        fork: It is on the side branch, where there is one.
        null: The result is null.
        error: Code and words that come in place of a result, and under which HTTP status.
        odd: How the numbers of a result are spelled.
        garbage: The body, in place of JSON-RPC; empty is no answer at all.
        swallow: A transaction is acknowledged, and goes nowhere.
        every: Of so many answers one is so, as behind a URL that shares calls out among backends.
    """

    lag: int = 0
    fork: bool = False
    null: bool = False
    error: tuple[int, str, int] | None = None
    odd: str | None = None
    garbage: bytes | None = None
    swallow: bool = False
    every: int = 1


@dataclass
class Chain:
    """The honest chain, its side branch, and the transactions that were ever sent to it."""

    tip: Block = field(default_factory=lambda: Block(0, None, GENESIS_TIME, (), 0, {}, 0))
    side: Block | None = None
    pool: dict[bytes, Tx] = field(default_factory=dict)
    blocks: dict[bytes, Block] = field(default_factory=dict)
    salts: int = 0
    time: int = GENESIS_TIME

    def __post_init__(self) -> None:
        self.blocks[self.tip.hash] = self.tip

    def on(self, parent: Block, *, newest: bool) -> Block:
        """A block with what waits in the pool: of several at one nonce the newest, or the oldest."""
        txs, nonce, anchored = [], parent.nonce, dict(parent.anchored)
        time = max(self.time, parent.time + 1)
        while same := [tx for tx in self.pool.values() if tx.nonce == nonce]:
            taken = same[-1 if newest else 0]
            txs.append(taken)
            nonce += 1
            if taken.root is not None:
                anchored.setdefault(taken.root, time)
        self.salts += 1
        block = Block(parent.number + 1, parent, time, tuple(txs), nonce, anchored, self.salts)
        self.blocks[block.hash] = block
        return block

    def mine(self, blocks: int = 1, *, newest: bool = True) -> None:
        for _ in range(blocks):
            self.tip = self.on(self.tip, newest=newest)

    def branch(self, depth: int, length: int, *, newest: bool) -> None:
        """A side branch that leaves the chain so many blocks below its tip."""
        block = self.tip.at(max(0, self.tip.number - depth)) or self.tip
        for _ in range(length):
            block = self.on(block, newest=newest)
        self.side = block

    def reorganise(self, depth: int, *, newest: bool) -> None:
        """The last blocks are replaced by as many and one more."""
        block = self.tip.at(max(0, self.tip.number - depth)) or self.tip
        for _ in range(self.tip.number - block.number + 1):
            block = self.on(block, newest=newest)
        self.tip = block

    def foreign(self) -> None:
        """Another program uses the key."""
        tx = Tx(hashlib.sha256(b"foreign %d" % self.salts).digest(), self.tip.nonce, None, 0)
        self.salts += 1
        for known, one in list(self.pool.items()):
            if one.nonce == tx.nonce:
                del self.pool[known]
        self.pool[tx.hash] = tx

    def forget(self) -> None:
        """Pools lose what they hold of ours."""
        self.pool = {known: tx for known, tx in self.pool.items() if tx.root is None}

    def paid(self, root: bytes) -> int:
        return sum(tx.root == root for block in self.tip.line() for tx in block.txs)


class BadNode:
    """Answers for `sessions.storage.rpc.Node._post`; what its `faults` name is answered wrongly."""

    def __init__(self, chain: Chain) -> None:
        self.chain, self.faults, self.calls = chain, dict[str, Fault](), 0

    async def post(self, method: str, parameters: tuple[Any, ...]) -> tuple[int, bytes]:
        fault = self.faults.get(method) or self.faults.get("*") or Fault()
        self.calls += 1
        if self.calls % fault.every:
            fault = Fault()
        if fault.garbage is not None:
            if not fault.garbage:
                raise ChainUnavailableError("simulated: TimeoutError")
            return 200, fault.garbage
        if method == "eth_sendRawTransaction" and fault.swallow:
            return self._body(hexed(keccak(HexBytes(parameters[0]))))
        try:
            result = self._answer(method, json.loads(json.dumps(parameters)), self._view(fault))
        except _RefusedError as refusal:
            return self._refuse(-32000, str(refusal), 200)
        if fault.error is not None:
            return self._refuse(*fault.error)
        return self._body(None if fault.null else odd(result, fault.odd) if fault.odd else result)

    def _view(self, fault: Fault) -> Block:
        tip = self.chain.side if fault.fork and self.chain.side else self.chain.tip
        return tip.at(max(0, tip.number - fault.lag)) or tip

    def _body(self, result: Any) -> tuple[int, bytes]:
        return 200, json.dumps({"jsonrpc": "2.0", "id": 1, "result": result}).encode()

    def _refuse(self, code: int, words: str, status: int) -> tuple[int, bytes]:
        body = {"jsonrpc": "2.0", "id": 1, "error": {"code": code, "message": words}}
        return status, json.dumps(body).encode()

    def _answer(self, method: str, parameters: list[Any], tip: Block) -> Any:  # noqa: PLR0911 - one for each method
        match method:
            case "eth_chainId":
                return hex(CHAIN_ID)
            case "eth_getCode":
                return CODE
            case "eth_blockNumber":
                return hex(tip.number)
            case "eth_getBalance":
                return hex(10**18)
            case "eth_estimateGas":
                return hex(46_000)
            case "eth_maxPriorityFeePerGas":
                return hex(10**9)
            case "eth_getTransactionCount":
                return hex(self._state(parameters[-1], tip).nonce)
            case "eth_call":
                root = bytes.fromhex(parameters[0]["data"][-64:])
                return "0x" + self._state(parameters[-1], tip).anchored.get(root, 0).to_bytes(32, "big").hex()
            case "eth_getBlockByNumber":
                return self._block(self._numbered(parameters[0], tip))
            case "eth_getBlockByHash":
                block = self.chain.blocks.get(bytes.fromhex(parameters[0][2:]))
                return self._block(block if block is not None and block.number <= tip.number else None)
            case "eth_getTransactionReceipt":
                return self._receipt(bytes.fromhex(parameters[0][2:]), tip)
            case "eth_getTransactionByHash":
                tx = bytes.fromhex(parameters[0][2:])
                there = tx in self.chain.pool or self._receipt(tx, tip) is not None
                return {"hash": parameters[0]} if there else None
            case "eth_sendRawTransaction":
                return self._send(parameters[0], tip)
        raise AssertionError(method)

    def _numbered(self, which: str, tip: Block) -> Block | None:
        if which == "latest":
            return tip
        return tip.at(max(0, tip.number - FINALITY) if which == "finalized" else int(which, 16))

    def _state(self, which: Any, tip: Block) -> Block:
        if isinstance(which, dict):
            block = self.chain.blocks.get(bytes.fromhex(which["blockHash"][2:]))
            if block is not None and tip.at(block.number) is block:
                return block
        elif (block := self._numbered(which, tip)) is not None:
            return block
        raise _RefusedError("header not found")

    def _block(self, block: Block | None) -> dict[str, Any] | None:
        if block is None:
            return None
        return {
            "number": hex(block.number),
            "hash": hexed(block.hash),
            "parentHash": hexed(block.parent.hash if block.parent else bytes(32)),
            "timestamp": hex(block.time),
            "baseFeePerGas": hex(10**9),
            "transactions": [hexed(tx.hash) for tx in block.txs],
        }

    def _receipt(self, tx: bytes, tip: Block) -> dict[str, Any] | None:
        for block in tip.line():
            if any(one.hash == tx for one in block.txs):
                where = {"blockNumber": hex(block.number), "blockHash": hexed(block.hash)}
                return where | {"status": "0x1", "gasUsed": hex(46_000)}
        return None

    def _send(self, raw: str, tip: Block) -> str:
        fields = TypedTransaction.from_bytes(HexBytes(raw)).as_dict()
        tx = Tx(keccak(HexBytes(raw)), fields["nonce"], bytes(fields["data"])[4:], fields["maxPriorityFeePerGas"])
        if tx.nonce < tip.nonce:
            raise _RefusedError("nonce too low")
        if tx.hash in self.chain.pool:
            raise _RefusedError("already known")
        self.chain.pool[tx.hash] = tx
        return hexed(tx.hash)


class _RefusedError(Exception):
    """What a sound node refuses."""


ODD = {
    "number": lambda said: int(said, 16),
    "no 0x": lambda said: said[2:],
    "negative": lambda said: "-" + said,
    "minus": lambda _: "-0x1",
    "float": lambda said: float(int(said, 16)),
    "wrong case": lambda said: said.upper(),
    "upper digits": lambda said: "0x" + said[2:].upper(),
    "leading zeros": lambda said: "0x00" + said[2:],
    "huge": lambda _: hex(2**40),
    "huger": lambda _: hex(2**63 - 1),
    "absurd": lambda _: hex(2**64),
    "more absurd": lambda _: hex(2**256 - 1),
    "endless": lambda _: "0x" + "f" * 100,
    "empty": lambda _: "0x",
    "none": lambda _: None,
    "list": lambda said: [said],
    "true": lambda _: True,
}
_NUMBERS = ("number", "timestamp", "blockNumber", "gasUsed", "status", "baseFeePerGas")


def odd(result: Any, how: str) -> Any:
    """A result whose numbers are spelled in another way."""
    if isinstance(result, str):
        return ODD[how](result) if len(result) < 66 else result
    if isinstance(result, dict):
        return {name: ODD[how](value) if name in _NUMBERS else value for name, value in result.items()}
    return result
