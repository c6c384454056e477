"""The stores' twins in memory: for tests of logic, and held to the same contract as the real ones."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Final

from sessions.core.audit import day_of
from sessions.core.key_ring import MAX_KEYS
from sessions.core.tiles import Place
from sessions.core.types import Hash, SessionId
from sessions.storage.chunk_records import ChunkRecord, InsertOutcome, Leaves, NewChunk, leaves_of
from sessions.storage.heads import SessionHead, head_of
from sessions.storage.seal_orders import Closing
from sessions.storage.seal_summary import SealSummary
from sessions.storage.store import Change, Cursor, SealOrder, SessionFilter, SessionRecord, SessionState, SessionStatus

_SEALED: Final = SessionStatus.SEALED


class MemorySessions:
    """`SessionStore`, `SessionLists`, `ShredStore` and `DueStore` in memory."""

    def __init__(self) -> None:
        self.records: dict[SessionId, SessionRecord] = {}
        self.shredding: set[SessionId] = set()

    async def create(self, record: SessionRecord) -> tuple[SessionRecord, bool]:
        """See `SessionStore`."""
        if (existing := self.records.get(record.session_id)) is not None:
            return existing, False
        self.records[record.session_id] = record
        return record, True

    async def get(self, session_id: SessionId) -> SessionRecord | None:
        """See `SessionStore`."""
        return self.records.get(session_id)

    async def states(self, session_ids: Sequence[SessionId]) -> Mapping[SessionId, SessionState]:
        """See `SessionStore`."""
        records = [self.records[name] for name in session_ids if name in self.records]
        return {
            record.session_id: SessionState(record.status, frozenset(key.dek_id for key in record.keys))
            for record in records
        }

    async def update(
        self,
        session_id: SessionId,
        expected: SessionStatus,
        change: Change,
        order: SealOrder | None = None,
        ask_id: str | None = None,
    ) -> SessionRecord | None:
        """See `SessionStore`."""
        record = self.records.get(session_id)
        if record is None or record.status is not expected or (order is not None and record.seal_order != order):
            return None
        if ask_id is not None and (record.closing is None or record.closing.ask_id != ask_id):
            return None
        if change.metadata is not None and record.metadata_given:
            return None
        if change.tombstone is not None and (record.held or change.retention not in (None, record.retention)):
            return None
        keys = record.keys
        if change.add_key is not None:
            if len(keys) >= MAX_KEYS or any(key.dek_id == change.add_key.dek_id for key in keys):
                return None
            keys = (*keys, change.add_key)
        record = replace(
            record,
            status=change.status or record.status,
            seal_order=change.seal_order or record.seal_order,
            seal=change.seal or record.seal,
            held=record.held if change.held is None else change.held,
            retention=change.retention or record.retention,
            tombstone=change.tombstone or record.tombstone,
            keys=() if change.tombstone is not None else keys,
            metadata=record.metadata if change.metadata is None else change.metadata,
            metadata_given=record.metadata_given or change.metadata is not None,
            closing=None if change.seal is not None else without(record.closing, change.refuse),
        )
        self.records[session_id] = record
        if change.tombstone is not None:
            self.shredding.add(session_id)
        return record

    async def page(self, which: SessionFilter, limit: int, after: Cursor | None) -> list[SessionHead]:
        """See `SessionLists`."""
        found = [
            head_of(record)
            for record in self.records.values()
            if day_of(record.session_id) is None
            and (which.status is None or record.status is which.status)
            and record.session_id.startswith(which.prefix or "")
            and (record.held or not which.held)
            and (which.opened_after is None or record.opened_at >= which.opened_after)
            and (which.opened_before is None or record.opened_at < which.opened_before)
            and (after is None or _is_behind(record, which, after))
        ]
        if which.by_id:
            return sorted(found, key=lambda record: record.session_id)[:limit]
        return sorted(found, key=lambda record: (record.opened_at, record.session_id), reverse=True)[:limit]

    async def heads(self, session_ids: Sequence[SessionId]) -> Mapping[SessionId, SessionHead]:
        """See `SessionLists`."""
        return {name: head_of(self.records[name]) for name in session_ids if name in self.records}

    async def manifests(self, session_ids: Sequence[SessionId]) -> Mapping[SessionId, bytes]:
        """See `SessionLists`."""
        seals = {name: self.records[name].seal for name in session_ids if name in self.records}
        return {name: seal.manifest for name, seal in seals.items() if seal is not None}

    async def keep_summaries(self, summaries: Mapping[SessionId, SealSummary]) -> None:
        """See `SessionLists`."""
        for name, summary in summaries.items():
            record = self.records.get(name)
            if record is not None and record.seal is not None and record.seal.summary is None:
                self.records[name] = replace(record, seal=replace(record.seal, summary=summary))

    async def unfinished(self, limit: int) -> list[SessionId]:
        """See `ShredStore`."""
        return sorted(self.shredding)[:limit]

    async def finished(self, session_id: SessionId) -> None:
        """See `ShredStore`."""
        self.shredding.discard(session_id)

    async def unfinish(self, session_id: SessionId) -> None:
        """See `ShredStore`."""
        record = self.records.get(session_id)
        if record is not None and record.status is SessionStatus.SHREDDED:
            self.shredding.add(session_id)

    async def terms(self) -> list[int]:
        """See `DueStore`."""
        sealed = (one.retention.delete_after_days for one in self.records.values() if one.status is _SEALED)
        return sorted({days for days in sealed if days is not None})

    async def due(
        self, delete_after_days: int | None, sealed_until: datetime, after: Cursor | None, limit: int
    ) -> list[SessionHead]:
        """See `DueStore`."""
        found = [
            (record.seal_order.sealed_at, record.session_id)
            for record in self.records.values()
            if record.status is _SEALED
            and record.seal_order is not None
            and record.retention.delete_after_days == delete_after_days
            and record.seal_order.sealed_at <= sealed_until
        ]
        behind = [one for one in sorted(found) if after is None or one > after]
        return [head_of(self.records[name]) for _, name in behind[:limit]]


def _is_behind(record: SessionRecord, which: SessionFilter, after: Cursor) -> bool:
    return record.session_id > after[1] if which.by_id else (record.opened_at, record.session_id) < after


def without(closing: Closing | None, order_id: str | None) -> Closing | None:
    """Remove an order; without any the session waits for nothing."""
    if closing is None or order_id is None:
        return closing
    orders = tuple(order for order in closing.orders if order.order_id != order_id)
    return replace(closing, orders=orders) if orders else None


class MemoryChunks:
    """`ChunkStore` and `BodyStore` in memory."""

    def __init__(self) -> None:
        self.records: dict[SessionId, dict[int, ChunkRecord]] = {}
        self.bodies: dict[tuple[SessionId, int, Hash], bytes] = {}

    async def insert(self, chunks: Sequence[NewChunk]) -> list[tuple[InsertOutcome, Hash]]:
        """See `ChunkStore`."""
        return [self._insert(chunk) for chunk in chunks]

    def _insert(self, chunk: NewChunk) -> tuple[InsertOutcome, Hash]:
        taken = self.records.setdefault(chunk.session_id, {})
        sha256 = chunk.fingerprint.envelope_sha256
        if (existing := taken.get(chunk.index)) is not None:
            stored = existing.fingerprint.envelope_sha256
            return (InsertOutcome.EXISTS if stored == sha256 else InsertOutcome.CONFLICT), stored
        self.bodies[chunk.session_id, chunk.index, sha256] = bytes(chunk.envelope)
        taken[chunk.index] = ChunkRecord(chunk.index, chunk.plaintext_bytes, chunk.fingerprint)
        return InsertOutcome.STORED, sha256

    async def page(self, session_id: SessionId, start: int, limit: int) -> list[ChunkRecord]:
        """See `ChunkStore`."""
        taken = self.records.get(session_id, {})
        return [taken[index] for index in sorted(taken) if index >= start][:limit]

    async def leaves(self, session_id: SessionId, start: int, limit: int) -> Leaves:
        """See `ChunkStore`."""
        return leaves_of(await self.page(session_id, start, limit))

    async def remove(self, session_id: SessionId, chunk: ChunkRecord) -> None:
        """See `ChunkStore`."""
        taken = self.records.get(session_id, {})
        if (existing := taken.get(chunk.index)) is not None and existing.fingerprint == chunk.fingerprint:
            del taken[chunk.index]
        await self.remove_body(session_id, chunk)

    async def remove_body(self, session_id: SessionId, chunk: ChunkRecord) -> None:
        """See `ChunkStore`."""
        self.bodies.pop((session_id, chunk.index, chunk.fingerprint.envelope_sha256), None)

    async def read(self, session_id: SessionId, chunk: ChunkRecord) -> bytes | None:
        """See `BodyStore`."""
        return self.bodies.get((session_id, chunk.index, chunk.fingerprint.envelope_sha256))

    async def read_many(self, session_id: SessionId, chunks: Sequence[ChunkRecord]) -> list[bytes | None]:
        """See `BodyStore`."""
        return [await self.read(session_id, chunk) for chunk in chunks]

    async def drop(self, session_id: SessionId) -> None:
        """See `BodyStore`."""
        for key in [key for key in self.bodies if key[0] == session_id]:
            del self.bodies[key]


class MemoryTiles:
    """`TileStore` in memory."""

    def __init__(self) -> None:
        self.tiles: dict[tuple[SessionId, str, int, int], bytes] = {}

    async def put(self, session_id: SessionId, attempt: str, tiles: Sequence[tuple[int, int, bytes]]) -> None:
        """See `TileStore`."""
        for level, number, hashes in tiles:
            self.tiles.setdefault((session_id, attempt, level, number), hashes)

    async def get(self, session_id: SessionId, attempt: str, places: Collection[Place]) -> Mapping[Place, bytes]:
        """See `TileStore`."""
        keys = {place: (session_id, attempt, *place) for place in places}
        return {place: self.tiles[key] for place, key in keys.items() if key in self.tiles}

    async def drop(self, session_id: SessionId, attempt: str) -> None:
        """See `TileStore`."""
        for key in [key for key in self.tiles if key[:2] == (session_id, attempt)]:
            del self.tiles[key]
