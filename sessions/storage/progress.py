"""How far an open session has come: what is there, what is missing. Each look goes on where the last one ended."""

from collections import OrderedDict
from dataclasses import dataclass
from typing import Final

from sessions.core.types import SessionId
from sessions.storage.store import ChunkReader, ChunkRecord

PAGE_CHUNKS: Final = 1000
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

    def copy(self) -> "_Totals":
        return _Totals(self.next_index, self.chunk_count, self.plaintext_bytes, self.envelope_bytes)


class ProgressReader:
    """Reads the progress of open sessions; remembers how far each is without a gap, for the last 10,000 asked for.

    What is remembered only saves work: chunks of an open session are never taken away, so it stays true.
    """

    def __init__(self, chunks: ChunkReader) -> None:
        self._chunks = chunks
        self._contiguous: OrderedDict[SessionId, _Totals] = OrderedDict()

    async def read(self, session_id: SessionId) -> Progress:
        """Scan what has come since the last look (and, behind a gap that stays, what lies behind it)."""
        contiguous = self._contiguous.pop(session_id, None) or _Totals()
        totals = contiguous.copy()
        gaps: list[tuple[int, int]] = []
        truncated = False
        while True:
            page = await self._chunks.page(session_id, totals.next_index, PAGE_CHUNKS)
            for chunk in page:
                if chunk.index > totals.next_index:
                    truncated = truncated or len(gaps) == MAX_REPORTED_GAPS
                    if not truncated:
                        gaps.append((totals.next_index, chunk.index - 1))
                totals.add(chunk)
                if not gaps:
                    contiguous.add(chunk)
            if len(page) < PAGE_CHUNKS:
                break
        self._contiguous[session_id] = contiguous
        while len(self._contiguous) > _CACHED_SESSIONS:
            self._contiguous.popitem(last=False)
        return Progress(
            next_index=totals.next_index,
            chunk_count=totals.chunk_count,
            plaintext_bytes=totals.plaintext_bytes,
            envelope_bytes=totals.envelope_bytes,
            missing=tuple(gaps),
            missing_truncated=truncated,
        )

    def set_back(self) -> None:
        """Forget all: the database was set back to an earlier state."""
        self._contiguous.clear()

    def forget(self, session_id: SessionId) -> None:
        """Drop what is remembered of a session that is sealed."""
        self._contiguous.pop(session_id, None)
