"""How far an open session has come: what is there, what is missing. Each look goes on where the last one ended."""

import asyncio
from collections import OrderedDict
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Final

from sessions.core.types import SessionId
from sessions.storage.chunk_records import ChunkRecord
from sessions.storage.store import ChunkReader

PAGE_CHUNKS: Final = 1000
PAGE_LEAVES: Final = 4000
"""After a gap nothing is remembered, so what is read there is only counted: in larger pages, which cost less."""
MAX_REPORTED_GAPS: Final = 1000
_CACHED_SESSIONS: Final = 10_000


@dataclass(frozen=True, slots=True)
class Progress:
    """Counts of stored chunks and bytes; `missing` are the first and last index of gaps below `next_index`."""

    next_index: int
    chunk_count: int
    plaintext_bytes: int
    envelope_bytes: int
    missing: tuple[tuple[int, int], ...]
    missing_truncated: bool


@dataclass(slots=True)
class _Totals:
    next_index: int = 0
    chunk_count: int = 0
    plaintext_bytes: int = 0
    envelope_bytes: int = 0

    def add(self, chunk: ChunkRecord) -> None:
        self.next_index = chunk.index + 1
        self.chunk_count += 1
        self.plaintext_bytes += chunk.plaintext_bytes
        self.envelope_bytes += chunk.fingerprint.envelope_bytes


@dataclass(slots=True)
class _Known:
    """How far a session is without a gap, its last chunk there, and when it was opened."""

    opened_at: datetime
    totals: _Totals = field(default_factory=_Totals)
    last: ChunkRecord | None = None

    def add(self, chunk: ChunkRecord) -> None:
        self.totals.add(chunk)
        self.last = chunk


@dataclass(slots=True)
class _Gaps:
    """The first gaps, up to a bound."""

    found: list[tuple[int, int]] = field(default_factory=list)
    truncated: bool = False

    def add(self, first: int, last: int) -> None:
        self.truncated = self.truncated or len(self.found) == MAX_REPORTED_GAPS
        if not self.truncated:
            self.found.append((first, last))


@dataclass(slots=True)
class _Look:
    """Those who look at one session now: one of them reads, for all who asked before it began."""

    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    waiting: int = 0
    begun: int = 0
    found: tuple[int, Progress] | None = None


class ProgressReader:
    """Reads the progress of open sessions; remembers how far each is without a gap, for the last 10,000 asked for.

    What is remembered only saves work. Chunks of an open session are never taken away, unless the database is set back
    to an earlier state: then the last chunk remembered is another one or missing, or the session was opened again. A
    state in which it was there before an earlier chunk is not noticed here; the seal, which reads all, refuses it.
    """

    def __init__(self, chunks: ChunkReader) -> None:
        self._chunks = chunks
        self._known: OrderedDict[SessionId, _Known] = OrderedDict()
        self._looks: dict[tuple[SessionId, datetime], _Look] = {}

    async def read(self, session_id: SessionId, opened_at: datetime) -> Progress:
        """Scan what has come since the last look and, where a gap stays, all that follows it.

        One scan of a session runs at a time: many who ask at once share the next one.
        """
        look = self._looks.setdefault((session_id, opened_at), _Look())
        look.waiting += 1
        asked = look.begun
        try:
            async with look.lock:
                if look.found is None or look.found[0] <= asked:  # it may lack what was stored before this was asked
                    look.begun = number = look.begun + 1
                    look.found = number, await self._scan(session_id, opened_at)
                return look.found[1]
        finally:
            look.waiting -= 1
            if not look.waiting:
                del self._looks[session_id, opened_at]

    async def _scan(self, session_id: SessionId, opened_at: datetime) -> Progress:
        known = self._known.pop(session_id, None)
        if known is None or known.opened_at != opened_at:
            known = _Known(opened_at)
        if known.last is not None:
            page = await self._chunks.page(session_id, known.last.index, PAGE_CHUNKS)
            if page[:1] != [known.last]:
                known = _Known(opened_at)
        if known.last is None:
            page = await self._chunks.page(session_id, 0, PAGE_CHUNKS)
        totals, gaps, read = replace(known.totals), _Gaps(), len(page)
        new = page if known.last is None else page[1:]
        while True:
            for chunk in new:
                if chunk.index > totals.next_index:
                    gaps.add(totals.next_index, chunk.index - 1)
                totals.add(chunk)
                if not gaps.found:
                    known.add(chunk)
            if gaps.found or read < PAGE_CHUNKS:
                break
            new = await self._chunks.page(session_id, totals.next_index, PAGE_CHUNKS)
            read = len(new)
        if read == PAGE_CHUNKS:
            await self._count(session_id, totals, gaps)
        self._known[session_id] = known
        while len(self._known) > _CACHED_SESSIONS:
            self._known.popitem(last=False)
        return Progress(
            next_index=totals.next_index,
            chunk_count=totals.chunk_count,
            plaintext_bytes=totals.plaintext_bytes,
            envelope_bytes=totals.envelope_bytes,
            missing=tuple(gaps.found),
            missing_truncated=gaps.truncated,
        )

    def set_back(self) -> None:
        """Forget all: the database was set back to an earlier state."""
        self._known.clear()

    async def _count(self, session_id: SessionId, totals: _Totals, gaps: _Gaps) -> None:
        """Add all that follows, after a gap."""
        while True:
            leaves = await self._chunks.leaves(session_id, totals.next_index, PAGE_LEAVES)
            for index in leaves.indexes:
                if index > totals.next_index:
                    gaps.add(totals.next_index, index - 1)
                totals.next_index = index + 1
            totals.chunk_count += len(leaves.indexes)
            totals.plaintext_bytes += leaves.plaintext_bytes
            totals.envelope_bytes += leaves.envelope_bytes
            if len(leaves.indexes) < PAGE_LEAVES:
                return

    def forget(self, session_id: SessionId) -> None:
        """Drop what is remembered of a session that is sealed."""
        self._known.pop(session_id, None)
