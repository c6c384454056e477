"""The events of a day as the chunks of its session: what seals, proves or scrubs sessions does so with them, too.

An event is its own record: nothing else says what it should be but, once the day is sealed, the tree.
"""

import asyncio
from collections.abc import Sequence

from sessions.core.audit import day_of
from sessions.core.envelope import fingerprint
from sessions.core.types import SessionId
from sessions.storage.audit_store import EventStore, StoredEvent
from sessions.storage.chunk_records import ChunkRecord, Leaves, leaves_of
from sessions.storage.store import BodyReader, ChunkReader


class WithTrail:
    """`ChunkReader` and `BodyReader` of all sessions, those of the trail included."""

    def __init__(self, chunks: ChunkReader, bodies: BodyReader, events: EventStore) -> None:
        self._chunks = chunks
        self._bodies = bodies
        self._events = events

    async def page(self, session_id: SessionId, start: int, limit: int) -> list[ChunkRecord]:
        """See `ChunkReader`."""
        if day_of(session_id) is None:
            return await self._chunks.page(session_id, start, limit)
        return await asyncio.to_thread(_records, session_id, await self._events.page(session_id, start, limit))

    async def leaves(self, session_id: SessionId, start: int, limit: int) -> Leaves:
        """See `ChunkReader`."""
        if day_of(session_id) is None:
            return await self._chunks.leaves(session_id, start, limit)
        return leaves_of(await self.page(session_id, start, limit))

    async def read(self, session_id: SessionId, chunk: ChunkRecord) -> bytes | None:
        """See `BodyReader`."""
        if day_of(session_id) is None:
            return await self._bodies.read(session_id, chunk)
        found = await self._events.page(session_id, chunk.index, 1)
        return found[0].data if found and found[0].index == chunk.index else None

    async def read_many(self, session_id: SessionId, chunks: Sequence[ChunkRecord]) -> list[bytes | None]:
        """See `BodyReader`."""
        if day_of(session_id) is None:
            return await self._bodies.read_many(session_id, chunks)
        return [await self.read(session_id, chunk) for chunk in chunks]


def _records(session_id: SessionId, events: list[StoredEvent]) -> list[ChunkRecord]:
    return [
        ChunkRecord(stored.index, len(stored.data), fingerprint(session_id, stored.index, stored.data))
        for stored in events
    ]
