"""Envelopes, records and stores for tests of storage."""

import asyncio
import gc
import hashlib
import warnings
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any

from sessions.core.audit import Action, AuditEvent, Outcome
from sessions.core.envelope import Codec, Header, fingerprint
from sessions.core.key_ring import WrappedDek
from sessions.core.types import ChunkIndex, DekId, SessionId
from sessions.runtime.audit import Audit
from sessions.runtime.settings import MIB
from sessions.storage.activity import Activity
from sessions.storage.audit_chunks import WithTrail
from sessions.storage.audit_trail import Trail
from sessions.storage.begun_seals import RESUME_SEAL_AFTER_SECONDS
from sessions.storage.chunk_records import NewChunk
from sessions.storage.disk import DiskWatch
from sessions.storage.evidence import Evidence
from sessions.storage.ingest import Intake
from sessions.storage.key_rings import Rings
from sessions.storage.ledger import Ledger
from sessions.storage.memory import MemoryChunks, MemorySessions, MemoryTiles
from sessions.storage.memory_anchoring import MemoryBatches
from sessions.storage.memory_audit import MemoryEvents
from sessions.storage.memory_key_rings import MemoryKeyRings
from sessions.storage.memory_replicas import MemoryActivity, MemoryClosing, MemoryProcessors, MemoryUptime
from sessions.storage.processors import Registry
from sessions.storage.progress import ProgressReader
from sessions.storage.reads import Reads
from sessions.storage.retention import Due, Terms
from sessions.storage.seal_desk import SealDesk
from sessions.storage.sealing import Sealer
from sessions.storage.shredding import Shredder
from sessions.storage.store import SessionRecord, SessionStatus, ShredReason, Tombstone
from sessions.storage.uptime import Uptime, UptimeClock

EPOCH = datetime(2026, 1, 31, 12, 0, 0, 123_000, tzinfo=UTC)
DEK_ID = DekId((1).to_bytes(16, "big"))
"""Id of the key that every session record here has."""
TOMBSTONE = Tombstone(EPOCH, ShredReason.REQUESTED, "admin-1")


def envelope_of(session: str, index: int, body: bytes = b"chunk", dek_id: DekId | None = None) -> bytes:
    """A well-formed envelope; storage cannot tell that it was never sealed."""
    nonce = hashlib.sha256(body).digest()[:12]
    header = Header(Codec.STORED, dek_id or DEK_ID, nonce, ChunkIndex(index), len(body), SessionId(session))
    return header.to_bytes() + body + bytes(16)


def new_chunk(session: str, index: int, body: bytes = b"chunk") -> NewChunk:
    data = envelope_of(session, index, body)
    name = SessionId(session)
    return NewChunk(name, index, len(body), fingerprint(name, index, data), data, DEK_ID)


def key(number: int = 1) -> WrappedDek:
    return WrappedDek(number.to_bytes(16, "big"), f"kek-{number}", bytes([number % 256]) * 61)


def session_record(session: str, *, minutes: int = 0, keys: int = 1, metadata: bytes = b"{}") -> SessionRecord:
    return SessionRecord(
        session_id=SessionId(session),
        status=SessionStatus.OPEN,
        opened_at=EPOCH + timedelta(minutes=minutes),
        metadata=metadata,
        keys=tuple(map(key, range(1, keys + 1))),
    )


def event(number: int = 0, action: Action = Action.CHUNK_READ, **changes: Any) -> AuditEvent:
    """An audit event, told from others by its request id."""
    members: dict[str, Any] = {
        "time": "2026-01-31T12:00:00.000Z",
        "service": "storage",
        "principal": "replay-1",
        "action": action,
        "session_id": SessionId("a"),
        "outcome": Outcome.ALLOWED,
        "code": None,
        "request_id": f"r-{number}",
    }
    return AuditEvent(**members | changes)


@asynccontextmanager
async def driver_may_drop_sockets() -> AsyncIterator[None]:
    """For clients of a server that is away: the driver does not close the socket of a connect that is cancelled."""
    yield
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        await asyncio.sleep(0.02)  # its tasks end
        gc.collect()


def disk_with(*free_mib: int | None, keep_mib: int = 0) -> DiskWatch:
    """A disk that shows these figures, one at each look, of which so much is to stay free."""
    figures = iter(free_mib)

    async def measure() -> int | None:
        free = next(figures)
        return None if free is None else free * MIB

    return DiskWatch(measure, keep_mib * MIB)


def ample_disk() -> DiskWatch:
    """A disk that never fills."""
    return disk_with()


@dataclass
class House:
    """Storage's domain on twins."""

    sessions: MemorySessions = field(default_factory=MemorySessions)
    chunks: MemoryChunks = field(default_factory=MemoryChunks)
    tiles: MemoryTiles = field(default_factory=MemoryTiles)
    batches: MemoryBatches = field(default_factory=MemoryBatches)
    retain_days: int = 0
    delete_after_days: int = 0

    def __post_init__(self) -> None:
        self.time, self.seconds = EPOCH, 0.0
        self.events = MemoryEvents(self.sessions)
        self.everything = WithTrail(self.chunks, self.chunks, self.events)
        self.trail = Trail(self.events, self.sessions, "storage", lambda: self.time)
        self.audit = Audit("storage", self.trail, lambda: self.time)
        self.sealer = Sealer(self.sessions, self.everything, self.tiles, lambda: self.time)
        self.progress = ProgressReader(self.everything)
        self.terms = Terms(self.retain_days, self.delete_after_days, lambda: self.time)
        self.shredder = Shredder(self.sessions, self.sessions, self.chunks, self.terms)
        self.due = Due(self.sessions, self.terms)
        self.uptime_store = MemoryUptime()
        self.uptime = UptimeClock(self.uptime_store)
        self.activity = Activity(MemoryActivity(self.sessions), self.uptime, 3600, lambda: self.seconds)
        self.orders = MemoryClosing(self.sessions)
        self.processors = MemoryProcessors()
        self.registry = Registry(self.processors, self.orders, self.uptime, 600, lambda: self.seconds)
        self.desk = self.new_desk()
        self.intake = Intake(self.sessions, self.chunks, self.activity)
        self.ledger = Ledger(
            self.sessions,
            self.sealer,
            self.desk,
            self.progress,
            batches=self.batches,
            terms=self.terms,
            opened=self.intake.opened,
            written=self.uptime.stir,
            monotonic=lambda: self.seconds,
        )
        self.evidence = Evidence(self.ledger, self.everything, self.everything, self.tiles)
        self.rings = Rings(MemoryKeyRings(self.sessions))
        self.reads = Reads(128 * MIB)

    def new_desk(self) -> SealDesk:
        """Return the desk of another replica."""
        return SealDesk(
            self.sessions,
            self.sealer,
            self.orders,
            registry=self.registry,
            uptime=self.uptime,
            activity=self.activity,
        )

    def pass_seconds(self, seconds: float) -> None:
        """Storage is up for so long, and its clocks go on."""
        self.time += timedelta(seconds=seconds)
        self.seconds += seconds
        before = self.uptime_store.uptime
        self.uptime_store.uptime = replace(before, seconds=before.seconds + seconds, beats=before.beats + 1)

    async def resume_seals(self, limit: int = 10) -> int:
        """Finish seals that nobody has finished for a while; give how many were decided."""
        assert await self.ledger.resume_seals(limit) == 0, "they are seen for the first time"
        self.pass_seconds(RESUME_SEAL_AFTER_SECONDS)
        return await self.ledger.resume_seals(limit)

    def clear(self) -> None:
        """Nothing was ever here."""
        self.sessions.records.clear()
        self.chunks.records.clear()
        self.chunks.bodies.clear()
        self.tiles.tiles.clear()
        self.events.events.clear()
        self.trail._next = None
        self.processors.records.clear()
        self.registry._stored.clear()
        self.uptime_store.uptime = Uptime(0.0, 0, self.uptime_store.uptime.generation)
        self.uptime._known = None
        self.desk._refusals.clear()
        self.intake.set_back()
        self.activity.set_back()
        for name in list(self.progress._known):
            self.progress.forget(name)

    async def shred(self, session: SessionId) -> SessionRecord:
        """Shredded on request of `admin-1`."""
        return await self.shredder.shred(session, ShredReason.REQUESTED, "admin-1")

    async def session(self, name: str, *indexes: int) -> SessionId:
        """An open session with these chunks."""
        session = SessionId(name)
        await self.sessions.create(session_record(name))
        if indexes:
            await self.chunks.insert([new_chunk(name, index) for index in indexes])
        return session
