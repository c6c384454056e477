"""Looks at an EVM node: how far its chain is, and where the transactions of a batch are."""

from collections.abc import Sequence
from typing import Final, Literal

from sessions.core.anchor_contract import encode_anchored_at_call
from sessions.core.types import Hash
from sessions.storage.anchor import (
    ChainMisconfiguredError,
    ChainUnavailableError,
    HistoryLostError,
    SignedTransaction,
)
from sessions.storage.chain import Inclusion, Sighting
from sessions.storage.rpc import INVALID_PARAMETERS, Node, RpcError

_UNKNOWN_BLOCK: Final = -39001
"""JSON-RPC code of Besu and Erigon for a block that does not exist (yet)."""
_NO_BLOCK_WORDS: Final = ("not found", "unknown block")
_HEAD_SLACK_BLOCKS: Final = 100
"""Blocks that may come between the question for the head and that for a receipt."""

Confirmations = int | Literal["finalized"]


async def look(
    node: Node, root: Hash, ours: Sequence[SignedTransaction], confirmations: Confirmations, not_below: int
) -> Sighting:
    """Look for a batch's transactions; see `EvmChain.find`.

    The order of the calls matters: what is asked first can only be older. So a used nonce means that the receipt,
    asked for after it, is there, unless the nonce went to somebody else's transaction.
    """
    head = await node.number("eth_blockNumber")
    if ours and head < not_below:
        raise ChainUnavailableError(f"{node.name}: is at block {head}, and the anchor in block {not_below}")
    confirmed = await confirmed_height(node, head, confirmations)
    publishers = {transaction.publisher for transaction in ours}
    used = {publisher: await used_nonces(node, publisher) for publisher in publishers}
    inclusion = None
    for transaction in reversed(ours):
        inclusion = inclusion or await _inclusion(node, transaction, head)
    live = next((item for item in reversed(ours) if item.nonce >= used[item.publisher]), None)
    if inclusion is None and live is None and await _has(node, root, ours):
        raise HistoryLostError(f"{node.name}: the contract has a batch of which the node lost the transaction")
    return Sighting(head=head, confirmed_height=confirmed, inclusion=inclusion, live=live)


async def _has(node: Node, root: Hash, transactions: Sequence[SignedTransaction]) -> bool:
    """Return whether one of them has put the root on the chain, says the contract."""
    for contract, publisher in {(item.contract, item.publisher) for item in transactions}:
        call = {"to": hexed(contract), "data": hexed(encode_anchored_at_call(publisher, root))}
        if any(await node.data("eth_call", call, "latest")):
            return True
    return False


async def _inclusion(node: Node, transaction: SignedTransaction, head: int) -> Inclusion | None:
    """Return where a transaction is, by its receipt and the block of the receipt's hash; None when it is nowhere.

    Raises:
        ChainUnavailableError: the two contradict each other, or the head that the node named before.
    """
    receipt = await node.members("eth_getTransactionReceipt", hexed(transaction.hash))
    if receipt is None or receipt.get("blockHash") is None or node.quantity(receipt.get("status")) != 1:
        return None
    block = await node.members("eth_getBlockByHash", receipt["blockHash"], False)
    if block is None:
        raise ChainUnavailableError(f"{node.name}: has a receipt without its block")
    number, block_hash = node.quantity(block.get("number")), node.octets(receipt["blockHash"])
    if (number, block_hash) != (node.quantity(receipt.get("blockNumber")), node.octets(block.get("hash"))):
        raise ChainUnavailableError(f"{node.name}: has a receipt that contradicts its block")
    if number > head + _HEAD_SLACK_BLOCKS:
        raise ChainUnavailableError(f"{node.name}: has a receipt of block {number}, and is at block {head}")
    return Inclusion(
        transaction=transaction,
        block_number=number,
        block_hash=block_hash,
        block_timestamp=node.quantity(block.get("timestamp")),
        gas_used=node.quantity(receipt.get("gasUsed")),
    )


async def confirmed_height(node: Node, head: int, confirmations: Confirmations) -> int:
    """Return the highest block that counts as confirmed; -1 while there is none.

    Raises:
        ChainMisconfiguredError: the chain has no finality of its own, and ANCHOR_CONFIRMATIONS asks for it.
        ChainUnavailableError: the node does not answer.
    """
    if confirmations != "finalized":
        return head - confirmations + 1
    try:
        block = await node.members("eth_getBlockByNumber", "finalized", False)
    except RpcError as error:
        if error.code in INVALID_PARAMETERS:
            raise ChainMisconfiguredError(
                "ANCHOR_CONFIRMATIONS", f"{node.name} does not know finalized blocks: set a number of blocks"
            ) from None
        if error.code == _UNKNOWN_BLOCK or any(words in error.message.lower() for words in _NO_BLOCK_WORDS):
            return -1
        raise
    return -1 if block is None else node.quantity(block.get("number"))  # a young chain has none yet


async def used_nonces(node: Node, publisher: bytes) -> int:
    """Return how many nonces of an account are used, which is the next one that the chain takes."""
    return await node.number("eth_getTransactionCount", hexed(publisher), "latest")


def hexed(value: bytes) -> str:
    """Return bytes as the Ethereum JSON-RPC writes them ("Unformatted data")."""
    return "0x" + value.hex()
