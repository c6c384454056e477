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

    `inclusion` is the block of the one that the chain took, if it took any. `confirmed_height` is the highest block
    that counts as confirmed. `live` is the newest that can still get into a block; None when the nonces are used up, or
    none was meant for this chain: then a new one is needed.
    """

    head: int
    confirmed_height: int
    inclusion: Inclusion | None
    live: SignedTransaction | None


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

    async def sign(self, root: Hash, replaces: SignedTransaction | None = None) -> SignedTransaction | None:
        """Sign a transaction that anchors `root`; nothing is sent.

        With `replaces`, one at the same nonce and with a fee that is higher by enough for nodes to take it instead;
        None when that is more than the cap on fees, or the other was signed with another key.
        """
        ...

    async def broadcast(self, transaction: SignedTransaction) -> None:
        """Send it. A node that has it already, or whose chain has moved past its nonce, is no error: `find` tells."""
        ...

    async def find(self, root: Hash, transactions: Sequence[SignedTransaction], not_below: int = 0) -> Sighting:
        """Look for the transactions of a batch on one node; one that is behind block `not_below` counts as away.

        Raises:
            HistoryLostError: none is known, none can get into a block, and the contract has the root: nodes forget
                receipts, and one that was behind when it was asked for the receipt has caught up.
        """
        ...

    async def balance_wei(self) -> int:
        """What the publisher's account holds, in wei."""
