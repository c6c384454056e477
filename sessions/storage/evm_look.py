"""Looks at an EVM node for the transactions of a batch, and takes no absence for evidence.

Behind one URL there may be several backends, some of which lag. What a missing receipt or a used nonce means is
therefore read from state, the contract's and the account's, in one block that is named by its hash (EIP-1898). A
backend that does not have the block refuses.
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from sessions.core.receipt import Anchor, AnchorState
from sessions.core.types import Hash
from sessions.storage.anchor import ChainUnavailableError, HistoryLostError, SignedTransaction
from sessions.storage.chain import Inclusion, Sighting
from sessions.storage.evm_reads import (
    Block,
    Confirmations,
    Height,
    ancestor,
    anchored_at,
    block_by_hash,
    block_by_number,
    confirmed_height,
    hexed,
    used_nonces,
)
from sessions.storage.rpc import Node

_HEAD_SLACK_BLOCKS: Final = 100
"""Blocks that may come between the question for the head and that for a receipt."""
_STATE_BLOCKS: Final = 100
"""How far below the head state is read, in blocks. Full nodes keep that of the last 128."""
_CURRENT_SECONDS: Final = 600
"""A head that is no older than this is taken for the chain's newest, by this machine's clock."""
_ABSURD_BLOCKS: Final = 10_000
"""More blocks than any chain makes in `_CURRENT_SECONDS`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """One look at one node.

    Attributes:
        node: Who is asked.
        root: The batch's root.
        ours: The batch's transactions for this chain, oldest first.
        confirmations: The depth, in blocks, from which a block counts as confirmed; or the chain's own finality.
        stored: The batch's anchor as it was seen before, if that was in a block of this chain.
    """

    node: Node
    root: Hash
    ours: Sequence[SignedTransaction]
    confirmations: Confirmations
    stored: Anchor | None

    async def sighting(self) -> Sighting:
        """Return what the node says; see `sessions.storage.chain.Chain.find`.

        The order of the calls matters: what is asked first can only be older. So a used nonce means that the receipt,
        asked for after it, is there, unless the nonce went to somebody else's transaction.
        """
        node = self.node
        head = await node.count("eth_blockNumber")
        confirmed = await confirmed_height(node, head, self.confirmations)
        publishers = {transaction.publisher for transaction in self.ours}
        used = {publisher: await used_nonces(node, publisher) for publisher in publishers}
        found = [one for item in self.ours if (one := await self._inclusion(item, head)) is not None]
        inclusion = min(found, key=lambda one: one.block_number, default=None)
        live = _next(self.ours, used)
        spent, gap_at = not self.ours, None
        if inclusion is not None:
            await self._check_depth(inclusion, head, confirmed)
        else:
            await self._check_absence(head, confirmed, has_live=live is not None)
            if live is None and self.ours:
                spent = await self._is_spent(head, confirmed)
            elif live is not None and live.nonce > used[live.publisher]:
                gap_at = await self._gap_at(live, head, confirmed)
        return Sighting(
            head=head, confirmed_height=confirmed.number, inclusion=inclusion, live=live, spent=spent, gap_at=gap_at
        )

    async def _inclusion(self, transaction: SignedTransaction, head: int) -> Inclusion | None:
        """Return where a transaction is, by its receipt and the block of the receipt's hash; None when it is nowhere.

        Raises:
            ChainUnavailableError: the two contradict each other, or the head that the node named before.
        """
        node = self.node
        receipt = await node.members("eth_getTransactionReceipt", hexed(transaction.hash))
        if receipt is None or receipt.get("blockHash") is None or node.quantity(receipt.get("status")) != 1:
            return None
        block = await block_by_hash(node, node.octets(receipt["blockHash"]))
        if block is None:
            raise ChainUnavailableError(f"{node.name}: has a receipt without its block")
        if block.number != node.small(receipt.get("blockNumber")) or not block.holds(transaction.hash):
            raise ChainUnavailableError(f"{node.name}: has a receipt that contradicts its block")
        if block.number > head + _HEAD_SLACK_BLOCKS:
            raise ChainUnavailableError(f"{node.name}: has a receipt of block {block.number}, and is at block {head}")
        return Inclusion(
            transaction=transaction,
            block_number=block.number,
            block_hash=block.hash,
            block_timestamp=block.timestamp,
            gas_used=node.small(receipt.get("gasUsed")),
        )

    async def _check_depth(self, found: Inclusion, head: int, confirmed: Height) -> None:
        """See that a block which is to count as confirmed is on the chain of the confirmed block, and no fork's.

        Raises:
            ChainUnavailableError: the node does not show that.
        """
        if found.block_number > confirmed.number or found.anchor(confirmed=True) == self.stored:
            return
        at = await self._settled(head, confirmed)
        block = None if at is None else await ancestor(self.node, at, found.block_number)
        if at is None or block is None or block.hash != found.block_hash or not await self._is_noted_by(block, at):
            raise ChainUnavailableError(f"{self.node.name}: has a receipt of a block that is not on its chain")

    async def _is_noted_by(self, block: Block, at: Block) -> bool:
        """Return whether the contract noted the root in a block, or before it, as it stands in a later one.

        Before it is for a root that was anchored once more, since the database was set back in between.
        """
        noted = await self._noted(at)
        if not noted or noted == block.timestamp:
            return bool(noted)
        before = await ancestor(self.node, block, block.number - 1)
        return before is not None and await self._noted(before) == noted

    async def _check_absence(self, head: int, confirmed: Height, *, has_live: bool) -> None:
        """See what it means that the node has no receipt.

        Raises:
            HistoryLostError: the contract has the root.
            ChainUnavailableError: the node shows no other block in place of the stored one.
        """
        if not has_live and await self._has():
            raise HistoryLostError(f"{self.node.name}: the contract has a batch of which the node lost the transaction")
        if self.stored is not None and not await self._is_gone(self.stored, head, confirmed):
            raise ChainUnavailableError(
                f"{self.node.name}: lacks the receipt of an anchor in block {self.stored.block_number}, and shows no "
                "other block there"
            )

    async def _is_gone(self, stored: Anchor, head: int, confirmed: Height) -> bool:
        """Return whether the node's chain shows that the stored block is not on it, or never held the transaction.

        For an anchor that was confirmed the chain's confirmed part has to show it.
        """
        if stored.block_number is None or stored.block_hash is None or stored.transaction is None:
            return True
        newest = await block_by_number(self.node, head)
        settled = stored.state is AnchorState.CONFIRMED
        at = await self._settled(head, confirmed) if settled else newest
        if at is None or newest is None:
            return False
        if stored.block_number <= at.number:
            other = await ancestor(self.node, at, stored.block_number)
            if other is None or (other.hash == stored.block_hash and other.holds(stored.transaction)):
                return False
        else:  # along a chain numbers grow, and times never fall
            current = time.time() - newest.timestamp <= _CURRENT_SECONDS
            absurd = current and stored.block_number > newest.number + _ABSURD_BLOCKS
            if not absurd and at.timestamp <= (stored.block_timestamp or 0):
                return False
        return not await self._noted(at)

    async def _is_spent(self, head: int, confirmed: Height) -> bool:
        """Return whether confirmed blocks used all nonces, and for something else."""
        at = await self._settled(head, confirmed)
        if at is None:
            return False
        used = {one: await used_nonces(self.node, one, at) for one in {item.publisher for item in self.ours}}
        return _next(self.ours, used) is None and not await self._noted(at)

    async def _gap_at(self, live: SignedTransaction, head: int, confirmed: Height) -> int | None:
        at = await self._settled(head, confirmed)
        if at is None or await used_nonces(self.node, live.publisher, at) >= live.nonce:
            return None
        return at.timestamp

    async def _settled(self, head: int, confirmed: Height) -> Block | None:
        """Return the confirmed block in which state is read; None when there is none yet, or the node lacks it."""
        if confirmed.number < 0:
            return None
        if confirmed.hash is not None and confirmed.number >= head - _STATE_BLOCKS:
            return await block_by_hash(self.node, confirmed.hash)
        newest = await block_by_number(self.node, head)
        if newest is None:
            return None
        return await ancestor(self.node, newest, max(confirmed.number, head - _STATE_BLOCKS))

    async def _noted(self, at: Block | None) -> int:
        """Return when the contract noted the root from one of the publishers, as it stands in a block; 0 is never."""
        accounts = {(item.contract, item.publisher) for item in self.ours}
        times = [await anchored_at(self.node, contract, one, self.root, at) for contract, one in sorted(accounts)]
        return min((time for time in times if time), default=0)

    async def _has(self) -> bool:
        """Return whether one of the transactions put the root on the chain, says the contract as of now."""
        return bool(self.ours) and await self._noted(None) > 0


def _next(ours: Sequence[SignedTransaction], used: Mapping[bytes, int]) -> SignedTransaction | None:
    """Return the newest transaction of the lowest nonce that is not used."""
    unused = [item for item in ours if item.nonce >= used[item.publisher]]
    return min(reversed(unused), key=lambda item: item.nonce, default=None)
