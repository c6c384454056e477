"""What anchoring is made of: a batch, its transactions, and the ports that keep and move them.

A batch is the Merkle tree over the manifests of newly sealed sessions; one transaction puts its root on the chain.

    sealed sessions --append--> pending --sign, store--> submitted --seen in a block--> included --deep--> confirmed
                                                             ^                             |
                                                             +------ reorganised away -----+

No database transaction is needed. The batch's document is the commit point: its key is its number, so of two writers
of one number one gets it. A leader reads the newest batch, which must be placed, before it reads the unbatched
sessions; so if another leader batches any of these meanwhile, the number is taken. And whatever is sent to the chain
twice changes nothing there: the contract ignores a root that the publisher has anchored already.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final, Protocol

from sessions.core.receipt import Anchor, AnchorState
from sessions.core.types import Hash, SessionId
from sessions.runtime.times import to_rfc3339

UNSETTLED: Final = (AnchorState.PENDING, AnchorState.SUBMITTED, AnchorState.INCLUDED)
"""The states that still need work."""


class AnchoringError(Exception):
    """Base of what can go wrong with anchoring; none of it stops recording.

    AnchoringError
    ├── ChainUnavailableError     try again later
    │   ├── HistoryLostError      ask a node that knows more
    │   └── UnderpricedError      offer more
    ├── ChainMisconfiguredError   somebody has to change a setting
    └── StaleLeaderError          another replica leads by now
    """


class ChainUnavailableError(AnchoringError):
    """No node answers, or the chain cannot take a transaction now. Nothing is lost: try again later."""


class HistoryLostError(ChainUnavailableError):
    """The contract has the root, so nothing is to be sent; but no node knows the transaction that brought it there."""


class UnderpricedError(ChainUnavailableError):
    """No node takes the transaction, and one refuses it because it offers too little: it was never in a pool."""


class ChainMisconfiguredError(AnchoringError):
    """The chain is not what the settings say, and waiting will not help.

    Attributes:
        setting: Name of the environment variable to look at.
        problem: What is wrong with it.
    """

    def __init__(self, setting: str, message: str) -> None:
        super().__init__(f"{setting}: {message}")
        self.setting, self.problem = setting, message


class StaleLeaderError(AnchoringError):
    """The batch was changed by a replica that leads since; what this one wanted to write is not written."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SignedTransaction:
    """A signed call of `anchor(root)`. Addresses are 20 bytes, hashes 32; fees are in wei per gas."""

    hash: bytes
    raw: bytes = field(repr=False)
    nonce: int
    chain_id: int
    contract: bytes
    publisher: bytes
    max_fee_wei: int
    priority_fee_wei: int


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchRecord:
    """A batch as it is stored.

    What survives a crash in each state of `anchor.state`:

    - pending: the root and the sessions' order. `placed` says that each session's document holds its path; while it
      does not, the next leader places them again, which changes nothing where it was done.
    - submitted: `transactions`, signed and stored before the first byte went out. The next leader sends the same
      bytes again, and a node that has them says so.
    - included: the block. If the chain drops it, the batch goes back to submitted and the same bytes go out again.
    - confirmed: all there is. Should the chain lose it all the same, as a node does that is put back to an older state,
      the batch goes back to submitted, too.

    Attributes:
        sequence: Number of the batch, consecutive from 0.
        root: Root of the tree over the sessions' manifests; no two batches share one.
        size: How many sessions it holds.
        created_at: UTC, whole milliseconds.
        session_ids: In leaf order; empty or cut short where a reader asked for less.
        placed: Whether every member session's document has its place.
        transactions: Oldest first; the last is the one that is broadcast. Older ones may still be the one that the
            chain takes, so they are kept.
        submitted_at: When the last transaction was signed, UTC.
        gas_used: What the transaction took, in gas.
    """

    sequence: int
    root: Hash
    size: int
    created_at: datetime
    session_ids: tuple[SessionId, ...] = ()
    placed: bool = False
    anchor: Anchor = field(default_factory=Anchor)
    transactions: tuple[SignedTransaction, ...] = ()
    submitted_at: datetime | None = None
    gas_used: int | None = None

    def to_json(self) -> dict[str, Any]:
        """The batch as the REST interface shows it, without its sessions; times are RFC 3339."""
        return {
            "root": self.root.hex(),
            "size": self.size,
            "sequence": self.sequence,
            "created_at": to_rfc3339(self.created_at),
            "anchor": self.anchor.to_json(),
            "gas_used": self.gas_used,
        }


@dataclass(frozen=True, slots=True)
class Leaf:
    """A sealed session that is in no batch yet, and the leaf that stands for it."""

    session_id: SessionId
    leaf_hash: Hash


class SessionPool(Protocol):
    """The sealed sessions, as anchoring sees them."""

    async def unbatched(self, limit: int) -> Sequence[Leaf]:
        """At most `limit` sealed sessions that are in no batch, by session id."""
        ...

    async def place(self, sequence: int, token: int) -> None:
        """Write into each member session of a batch where it stands, and mark the batch as placed.

        A session that has a place keeps it. May be repeated at any point.

        Raises:
            StaleLeaderError: `token` is not the newest that wrote to this batch.
        """
        ...


class BatchLog(Protocol):
    """The batches, written by the leader only. `token` is the leader's fencing number."""

    async def last(self) -> BatchRecord | None:
        """The newest batch, without session ids."""
        ...

    async def get_by_sequence(self, sequence: int) -> BatchRecord | None:
        """Return the batch of that number, without session ids; None when there is none."""
        ...

    async def unsettled(self) -> Sequence[BatchRecord]:
        """All batches that are not confirmed, oldest first, without session ids."""
        ...

    async def highest_confirmed(self, chain_id: int, below: BatchRecord | None = None) -> BatchRecord | None:
        """Of the batches that are confirmed on a chain the one in the highest block, without session ids.

        With `below`, the one that comes next after that one; of several in one block the newest comes first.
        """
        ...

    async def append(self, record: BatchRecord, leaf_hashes: Sequence[bytes], token: int) -> None:
        """Store a new batch whose leaves are the record's sessions in order.

        The caller has read the batch before it, which was placed, and the unbatched sessions after that.

        Raises:
            StaleLeaderError: a batch of that number exists, or the batch before it is not placed or was written by a
                newer leader.
        """
        ...

    async def update(self, record: BatchRecord, expected: AnchorState, token: int) -> None:
        """Replace state, anchor, transactions and gas of a batch.

        Raises:
            StaleLeaderError: it is not in the state `expected`, it has a transaction that the record lacks, or a newer
                leader wrote to it.
        """
        ...


class BatchReader(Protocol):
    """The batches, for whoever asks."""

    async def get(self, root: bytes, max_sessions: int = 1000) -> BatchRecord | None:
        """The batch with that root, with its first `max_sessions` session ids."""
        ...

    async def get_by_sequence(self, sequence: int) -> BatchRecord | None:
        """The batch of that number, without session ids."""
        ...

    async def list(self, limit: int, before_sequence: int | None = None) -> Sequence[BatchRecord]:
        """At most `limit` batches, newest first, without session ids."""
        ...


class Lease(Protocol):
    """Who may act. The time that counts is the database's, so that replicas' clocks may differ."""

    async def acquire(self) -> int | None:
        """Take or prolong the lease; the fencing number, or None while another holds it.

        The number grows with each change of holder, so a holder that slept through the end of its lease cannot undo
        what the next one wrote.
        """
        ...

    async def release(self) -> None:
        """Let go of the lease if it is held here; the next holder gets a higher number, even if it is the same."""
