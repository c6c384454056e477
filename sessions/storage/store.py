"""What the ledger keeps, and the ports to where it keeps it. Twins: `memory.py`; the real thing: `mongo_*.py`."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from secrets import token_hex
from typing import Protocol

from sessions.core.key_ring import WrappedDek
from sessions.core.manifest import SealedBy
from sessions.core.receipt import Batch
from sessions.core.tiles import Place
from sessions.core.types import DekId, Hash, SessionId
from sessions.storage.chunk_records import ChunkRecord, InsertOutcome, Leaves, NewChunk
from sessions.storage.seal_orders import Closing
from sessions.storage.seal_summary import SealSummary


class SessionStatus(StrEnum):
    """A session's life."""

    OPEN = "open"
    """Takes chunks. A crash loses nothing that was acknowledged: each chunk's record is journaled by itself."""
    SEALING = "sealing"
    """The seal order is stored and its scan may be under way. After a crash whoever seals next scans again."""
    SEALED = "sealed"
    """The manifest is stored: nothing about the session changes any more but its anchor."""
    SHREDDED = "shredded"
    """The key ring is gone; bodies may remain after a crash, unreadable, until `ShredStore` says that they went."""


@dataclass(frozen=True, slots=True)
class SealOrder:
    """What was asked when the session began to be sealed, so that another replica can finish it."""

    chunk_count: int | None
    sealed_by: SealedBy
    sealed_at: datetime
    order_id: str = field(default_factory=lambda: token_hex(8))
    """Identifies this order, so that a sealer working on a superseded order cannot commit."""
    floor: int = 0
    """Least number of chunks that processors acknowledged; a seal with fewer is refused."""
    unheard: tuple[str, ...] = ()
    """Processors that the seal did not wait for: lost ones, whose last reports are in the log."""
    as_it_is: bool = False
    """Whether the session is sealed with its gaps rather than not: what is missing is lost with a processor."""


@dataclass(frozen=True, slots=True)
class Seal:
    """The outcome: canonical manifest bytes, and under which attempt the tiles of its tree are stored.

    `summary` is None when version 0.1.0 sealed the session.
    """

    manifest: bytes
    tiles_attempt: str
    summary: SealSummary | None = None


@dataclass(frozen=True, slots=True)
class Placement:
    """Which batch the session is in, and its path there."""

    sequence: int
    batch: Batch


@dataclass(frozen=True, slots=True)
class Retention:
    """A session's own terms, in days from its seal; None: the operator's. To be deleted after 0 days is never."""

    retain_days: int | None = None
    delete_after_days: int | None = None


class ShredReason(StrEnum):
    """Why a session was shredded."""

    REQUESTED = "requested"
    RETENTION = "retention"


@dataclass(frozen=True, slots=True)
class Tombstone:
    """When, why and by whom a session was shredded; `by` is the name of a token, or of a part of the service."""

    shredded_at: datetime
    reason: ShredReason
    by: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionRecord:
    """One session. `metadata` is canonical JSON; `keys` is its key ring, opaque here.

    `metadata_given` is false while only chunks have opened the session: it takes the first metadata that comes.
    """

    session_id: SessionId
    status: SessionStatus
    opened_at: datetime
    metadata: bytes
    keys: tuple[WrappedDek, ...]
    seal_order: SealOrder | None = None
    seal: Seal | None = None
    placement: Placement | None = None
    held: bool = False
    retention: Retention = Retention()
    tombstone: Tombstone | None = None
    metadata_given: bool = True
    closing: Closing | None = None

    @property
    def order_id(self) -> str | None:
        """Id of the newest order to seal it."""
        return None if self.seal_order is None else self.seal_order.order_id

    @property
    def unheard(self) -> tuple[str, ...]:
        """Processors that its seal did not wait for, since they were lost."""
        return () if self.seal is None or self.seal_order is None else self.seal_order.unheard


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """What one update of a session sets; None leaves as it is."""

    status: SessionStatus | None = None
    seal_order: SealOrder | None = None
    seal: Seal | None = None
    add_key: WrappedDek | None = None
    """Added to a ring that has not this key, and fewer than `MAX_KEYS`."""
    held: bool | None = None
    tombstone: Tombstone | None = None
    """Set together with the deletion of the whole key ring; a session under legal hold gets none."""
    retention: Retention | None = None
    """With a tombstone it is not set: it is the retention that the session must still have."""
    metadata: bytes | None = None
    """Set only on a session that has none yet, together with `retention`."""
    refuse: str | None = None
    """Id of a seal order that is removed, since it was refused."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionFilter:
    """Which sessions to list; times of opening, `after` inclusive and `before` exclusive.

    With a `prefix` of their ids, or `held` (those under legal hold), times do not go.
    """

    status: SessionStatus | None = None
    prefix: str | None = None
    held: bool = False
    opened_after: datetime | None = None
    opened_before: datetime | None = None

    @property
    def by_id(self) -> bool:
        """Whether the list is in order of ids: so a prefix is a range of an index, and nothing else is read."""
        return self.prefix is not None or self.held


Cursor = tuple[datetime, SessionId]
"""The last session of a page: when it was opened, and its id."""


@dataclass(frozen=True, slots=True)
class SessionState:
    """What storing a chunk needs to know of a session: its status, and the ids of the keys in its ring."""

    status: SessionStatus
    dek_ids: frozenset[DekId] = frozenset()


class SessionStore(Protocol):
    """Sessions. Every write is one document and journaled before it returns."""

    async def create(self, record: SessionRecord) -> tuple[SessionRecord, bool]:
        """Store a new session; if its id is taken, give the one that is there, and False."""

    async def get(self, session_id: SessionId) -> SessionRecord | None:
        """A session, as last acknowledged by the primary."""

    async def states(self, session_ids: Sequence[SessionId]) -> Mapping[SessionId, SessionState]:
        """The states of those sessions that exist."""

    async def update(
        self,
        session_id: SessionId,
        expected: SessionStatus,
        change: Change,
        order: SealOrder | None = None,
        ask_id: str | None = None,
    ) -> SessionRecord | None:
        """Change a session that is in the expected state, and still has that seal order; None if there is none such.

        With `ask_id`, only while that is the newest question to the processors. A seal removes all waiting orders.
        """


class ChunkReader(Protocol):
    """The records of chunks."""

    async def page(self, session_id: SessionId, start: int, limit: int) -> list[ChunkRecord]:
        """Records from index `start` on, ascending, as a majority of the database has them."""

    async def leaves(self, session_id: SessionId, start: int, limit: int) -> Leaves:
        """The leaves of what `page` gives; made for a million of them."""


class ChunkStore(ChunkReader, Protocol):
    """Chunks: a record and a body each. The body lasts whenever the record does that makes it exist."""

    async def insert(self, chunks: Sequence[NewChunk]) -> list[tuple[InsertOutcome, Hash]]:
        """Store chunks; for each the outcome and the SHA-256 of the envelope that is stored under its index."""

    async def remove(self, session_id: SessionId, chunk: ChunkRecord) -> None:
        """Take back a chunk that no seal covers and nobody was told is stored."""

    async def remove_body(self, session_id: SessionId, chunk: ChunkRecord) -> None:
        """Delete a chunk's body; its record stays."""


class BodyReader(Protocol):
    """The envelopes' bytes."""

    async def read(self, session_id: SessionId, chunk: ChunkRecord) -> bytes | None:
        """An envelope; None when any part of it is not there."""

    async def read_many(self, session_id: SessionId, chunks: Sequence[ChunkRecord]) -> list[bytes | None]:
        """As `read`, of chunks in ascending order of index."""


class BodyStore(BodyReader, Protocol):
    """Bodies that can be deleted."""

    async def drop(self, session_id: SessionId) -> None:
        """Delete all bodies of a session."""


class ShredStore(Protocol):
    """Shredded sessions whose bodies may remain; each is one from its tombstone on, in the same write."""

    async def unfinished(self, limit: int) -> list[SessionId]:
        """Such sessions, in order of their ids."""

    async def finished(self, session_id: SessionId) -> None:
        """Note that a shredded session's bodies went."""

    async def unfinish(self, session_id: SessionId) -> None:
        """Note that a shredded session may have bodies again."""


class EnvelopeStore(ChunkStore, BodyReader, Protocol):
    """Chunks, and their envelopes."""


class ShreddedSessions(SessionStore, ShredStore, Protocol):
    """Sessions, and those of them that are shredded."""


class TileStore(Protocol):
    """Tiles (`sessions.core.tiles`) of level 1 and up of sealed sessions' trees, apart for each sealing attempt."""

    async def put(self, session_id: SessionId, attempt: str, tiles: Sequence[tuple[int, int, bytes]]) -> None:
        """Store (level, number, joined hashes)."""

    async def get(self, session_id: SessionId, attempt: str, places: Collection[Place]) -> Mapping[Place, bytes]:
        """The joined hashes of these tiles, but for those that are not there."""

    async def drop(self, session_id: SessionId, attempt: str) -> None:
        """Delete the tiles of an attempt that came second."""
