"""The chain as anchoring sees it: the port, and what a look at it comes to."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from sessions.core.receipt import Anchor, AnchorState
from sessions.core.types import Hash
from sessions.storage.anchor import SignedTransaction


@dataclass(frozen=True, slots=True, kw_only=True)
class Inclusion:
    """The block that holds a transaction; `block_timestamp` is in seconds since 1970."""

    transaction: SignedTransaction
    block_number: int
    block_hash: bytes
    block_timestamp: int
    gas_used: int

    def anchor(self, *, confirmed: bool) -> Anchor:
        """The anchor that the block is for the transaction's batch."""
        return Anchor(
            state=AnchorState.CONFIRMED if confirmed else AnchorState.INCLUDED,
            chain_id=self.transaction.chain_id,
            contract=self.transaction.contract,
            publisher=self.transaction.publisher,
            transaction=self.transaction.hash,
            block_number=self.block_number,
            block_hash=self.block_hash,
            block_timestamp=self.block_timestamp,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Sighting:
    """What one node says about a batch's transactions.

    Attributes:
        head: Number of the newest block.
        confirmed_height: The highest block that counts as confirmed.
        inclusion: The block of the transaction that the chain took; None when the node shows none. Up to
            `confirmed_height` the node's chain was seen to hold it.
        live: The transaction that can get into a block next, which is the newest of the lowest nonce that is not used;
            None when all nonces are used, or no transaction was meant for this chain.
        spent: Whether no transaction can get into a block any more, so that a new one is needed: other transactions
            used the nonces, in confirmed blocks.
        gap_at: Time of a confirmed block, in seconds since 1970, before which the nonces below that of `live` were not
            used; None when `live` is next.
    """

    head: int
    confirmed_height: int
    inclusion: Inclusion | None
    live: SignedTransaction | None
    spent: bool = False
    gap_at: int | None = None


class Chain(Protocol):
    """An EVM chain with the contract and the publisher's account on it.

    Every method raises `ChainUnavailableError` when no node answers, and `ChainMisconfiguredError` when what answers
    is not the chain of the settings.
    """

    @property
    def chain_id(self) -> int:
        """Of the settings."""
        ...

    async def check(self) -> None:
        """See that the chain is the one of the settings, and the contract the one that we know."""

    async def sign(
        self, root: Hash, replaces: SignedTransaction | None = None, refused: bool = False
    ) -> SignedTransaction | None:
        """Sign a transaction that anchors `root`; nothing is sent.

        With `replaces`, sign one at the same nonce and with a fee that is higher by enough for nodes to take it
        instead; return None when that is more than the cap on fees, or the other was signed with another key. With
        `refused`, the other was refused for its fee, so the offer is doubled, up to the cap.
        """
        ...

    async def broadcast(self, transaction: SignedTransaction) -> None:
        """Send it. A node that has it already, or whose chain has moved past its nonce, is no error: `find` tells.

        Raises:
            UnderpricedError: no node takes it, and one refuses it because it offers too little.
        """
        ...
        ...

    async def find(
        self, root: Hash, transactions: Sequence[SignedTransaction], stored: Anchor | None = None
    ) -> Sighting:
        """Look for the transactions of a batch on one node.

        `stored` is what was seen of the batch before. Where it names a block, a sighting without an inclusion is the
        node's word that its chain has other blocks: that a receipt is missing is no evidence.

        Raises:
            HistoryLostError: none is known, none can get into a block, and the contract has the root: nodes forget
                receipts, and one that was behind when it was asked for the receipt has caught up.
            ChainUnavailableError: no node answers; or all that do lag behind `stored`, or contradict themselves.
        """
        ...

    async def balance_wei(self) -> int:
        """What the publisher's account holds, in wei."""
