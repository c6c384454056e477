"""Reads blocks, heights and state off an EVM node (Ethereum Execution APIs), and checks their form."""

from dataclasses import dataclass
from typing import Any, Final, Literal

from sessions.core.anchor_contract import decode_uint64, encode_anchored_at_call
from sessions.core.errors import FormatError
from sessions.core.types import HASH_BYTES, Hash
from sessions.storage.anchor import ChainMisconfiguredError, ChainUnavailableError
from sessions.storage.rpc import INVALID_PARAMETERS, Node, RpcError

_UNKNOWN_BLOCK: Final = -39001
"""JSON-RPC code of Besu and Erigon for a block that does not exist (yet)."""
_PRUNED_HISTORY: Final = 4444
"""JSON-RPC code for blocks that a node no longer keeps (EIP-4444)."""
_NO_BLOCK_WORDS: Final = ("not found", "unknown block")

WALK_BLOCKS: Final = 256
"""How many parents are followed, in blocks."""

Confirmations = int | Literal["finalized"]


@dataclass(frozen=True, slots=True)
class Block:
    """A block; `timestamp` is in seconds since 1970, `parent` and `transactions` are hashes."""

    number: int
    hash: bytes
    parent: bytes
    timestamp: int
    transactions: frozenset[bytes]

    def holds(self, transaction: bytes) -> bool:
        """Return whether the transaction of that hash is in it."""
        return transaction in self.transactions


async def block_by_number(node: Node, number: int) -> Block | None:
    """Return the block of the node's chain at a height; None when the node does not have it.

    Raises:
        ChainUnavailableError: the node does not answer, or with another block.
    """
    block = await _block(node, "eth_getBlockByNumber", hex(number))
    if block is not None and block.number != number:
        raise ChainUnavailableError(f"{node.name}: answers with block {block.number} in place of {number}")
    return block


async def block_by_hash(node: Node, block_hash: bytes) -> Block | None:
    """Return the block of that hash, which may be on a fork; None when the node does not have it.

    Raises:
        ChainUnavailableError: the node does not answer, or with another block.
    """
    block = await _block(node, "eth_getBlockByHash", hexed(block_hash))
    if block is not None and block.hash != block_hash:
        raise ChainUnavailableError(f"{node.name}: has a receipt that contradicts its block")
    return block


async def ancestor(node: Node, block: Block, number: int) -> Block | None:
    """Return the block at a height of the chain that ends in a block; None when the node does not have it.

    Up to `WALK_BLOCKS` the hashes of parents lead there, so that no backend on a fork can answer for another.

    Raises:
        ChainUnavailableError: the node does not answer, or contradicts itself.
    """
    if block.number - number > WALK_BLOCKS:
        return await block_by_number(node, number)
    found: Block | None = block
    while found is not None and found.number > number:
        child, found = found, await block_by_hash(node, found.parent)
        if found is not None and found.number != child.number - 1:
            raise ChainUnavailableError(f"{node.name}: has a block that contradicts its parent")
    return found if found is not None and found.number == number else None


async def _block(node: Node, method: str, which: str) -> Block | None:
    try:
        found = await node.members(method, which, False)
    except RpcError as error:
        if _is_no_block(error):
            return None
        raise
    if found is None:
        return None
    hashes = found.get("transactions")
    if not isinstance(hashes, list):
        raise ChainUnavailableError(f"{node.name}: has a block without transactions")
    block_hash, parent = node.octets(found.get("hash")), node.octets(found.get("parentHash"))
    if (len(block_hash), len(parent)) != (HASH_BYTES, HASH_BYTES):
        raise ChainUnavailableError(f"{node.name}: has a block whose hash is none")
    return Block(
        number=node.small(found.get("number")),
        hash=block_hash,
        parent=parent,
        timestamp=node.small(found.get("timestamp")),
        transactions=frozenset(map(node.octets, hashes)),
    )


def _is_no_block(error: RpcError) -> bool:
    words = error.message.lower()
    return error.code in (_UNKNOWN_BLOCK, _PRUNED_HISTORY) or any(one in words for one in _NO_BLOCK_WORDS)


@dataclass(frozen=True, slots=True)
class Height:
    """The highest block that counts as confirmed; `number` is -1 while there is none, `hash` may be unknown."""

    number: int
    hash: bytes | None = None


async def confirmed_height(node: Node, head: int, confirmations: Confirmations) -> Height:
    """Return the highest block that counts as confirmed.

    Raises:
        ChainMisconfiguredError: the chain has no finality of its own, and ANCHOR_CONFIRMATIONS asks for it.
        ChainUnavailableError: the node does not answer.
    """
    if confirmations != "finalized":
        return Height(max(head - confirmations + 1, -1))
    try:
        block = await node.members("eth_getBlockByNumber", "finalized", False)
    except RpcError as error:
        if error.code in INVALID_PARAMETERS:
            raise ChainMisconfiguredError(
                "ANCHOR_CONFIRMATIONS", f"{node.name} does not know finalized blocks: set a number of blocks"
            ) from None
        if _is_no_block(error):
            return Height(-1)
        raise
    if block is None:  # a young chain has none yet
        return Height(-1)
    return Height(node.small(block.get("number")), node.octets(block.get("hash")))


async def used_nonces(node: Node, publisher: bytes, at: Block | None = None) -> int:
    """Return how many nonces of an account are used, which is the next one that the chain takes.

    With `at`, in the state of that block; without, in the node's newest.

    Raises:
        ChainUnavailableError: the node does not answer, or does not have the block.
    """
    return node.small(await _in_state(node, "eth_getTransactionCount", hexed(publisher), at))


async def anchored_at(node: Node, contract: bytes, publisher: bytes, root: Hash, at: Block | None = None) -> int:
    """Return when the contract noted a root, in seconds since 1970; 0 is never. `at` is as in `used_nonces`.

    Raises:
        ChainUnavailableError: the node does not answer, or does not have the block.
    """
    call = {"to": hexed(contract), "data": hexed(encode_anchored_at_call(publisher, root))}
    try:
        return decode_uint64(node.octets(await _in_state(node, "eth_call", call, at)))
    except FormatError:
        raise ChainUnavailableError(f"{node.name}: eth_call: the contract's answer is not a uint64") from None


async def _in_state(node: Node, method: str, parameter: object, at: Block | None) -> Any:
    if at is None:
        return await node.call(method, parameter, "latest")
    try:
        return await node.call(method, parameter, {"blockHash": hexed(at.hash), "requireCanonical": True})
    except RpcError as error:
        if error.code not in INVALID_PARAMETERS:
            raise
        return await node.call(method, parameter, hex(at.number))  # a node without EIP-1898


def hexed(value: bytes) -> str:
    """Return bytes as the Ethereum JSON-RPC writes them ("Unformatted data")."""
    return "0x" + value.hex()
