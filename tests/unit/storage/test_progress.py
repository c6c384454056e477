"""How far a session has come, and how much is read to tell."""

import pytest

from sessions.core.types import SessionId
from sessions.storage import progress
from sessions.storage.memory import MemoryChunks
from sessions.storage.progress import ProgressReader
from sessions.storage.store import ChunkRecord
from tests.unit.storage.chunks import new_chunk

A = SessionId("a")


class _Counting(MemoryChunks):
    def __init__(self) -> None:
        super().__init__()
        self.pages: list[int] = []
        self.read = 0

    async def page(self, session_id: SessionId, start: int, limit: int) -> list[ChunkRecord]:
        found = await super().page(session_id, start, limit)
        self.pages.append(start)
        self.read += len(found)
        return found


async def _store(chunks: MemoryChunks, *indexes: int) -> None:
    await chunks.insert([new_chunk("a", index) for index in indexes])


async def test_nothing_yet() -> None:
    found = await ProgressReader(MemoryChunks()).read(A)
    assert (found.next_index, found.chunk_count, found.missing, found.missing_truncated) == (0, 0, (), False)


async def test_counts_and_gaps() -> None:
    chunks = MemoryChunks()
    await _store(chunks, 0, 1, 4, 9)
    found = await ProgressReader(chunks).read(A)
    assert (found.next_index, found.chunk_count) == (10, 4)
    assert found.missing == ((2, 3), (5, 8))
    assert found.plaintext_bytes == 4 * len(b"chunk")
    assert found.envelope_bytes == 4 * len(new_chunk("a", 0).envelope)
    await _store(chunks, 2, 3, 5, 6, 7, 8)
    filled = await ProgressReader(chunks).read(A)
    assert (filled.missing, filled.chunk_count) == ((), 10)


async def test_a_gap_at_the_start() -> None:
    chunks = MemoryChunks()
    await _store(chunks, 3)
    assert (await ProgressReader(chunks).read(A)).missing == ((0, 2),)


async def test_each_look_goes_on_where_the_last_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "PAGE_CHUNKS", 10)
    chunks = _Counting()
    reader = ProgressReader(chunks)
    await _store(chunks, *range(35))
    assert (await reader.read(A)).next_index == 35
    assert chunks.pages == [0, 10, 20, 30]
    chunks.pages.clear()
    chunks.read = 0
    await _store(chunks, 35, 36)
    assert (await reader.read(A)).chunk_count == 37
    assert (chunks.pages, chunks.read) == ([35], 2)
    assert (await reader.read(A)) == (await reader.read(A))
    assert chunks.read == 2


async def test_behind_a_gap_that_stays_it_reads_again_and_not_before_it() -> None:
    chunks = _Counting()
    reader = ProgressReader(chunks)
    await _store(chunks, *range(20), 25, 26)
    assert (await reader.read(A)).missing == ((20, 24),)
    chunks.read = 0
    assert (await reader.read(A)).missing == ((20, 24),)
    assert chunks.read == 2
    await _store(chunks, *range(20, 25))
    found = await reader.read(A)
    assert (found.missing, found.chunk_count, found.next_index) == ((), 27, 27)
    chunks.read = 0
    await reader.read(A)
    assert chunks.read == 0


async def test_gaps_are_told_up_to_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "MAX_REPORTED_GAPS", 3)
    chunks = MemoryChunks()
    await _store(chunks, 1, 3, 5)
    found = await ProgressReader(chunks).read(A)
    assert (found.missing, found.missing_truncated) == (((0, 0), (2, 2), (4, 4)), False)
    await _store(chunks, 7, 9)
    found = await ProgressReader(chunks).read(A)
    assert (found.missing, found.missing_truncated) == (((0, 0), (2, 2), (4, 4)), True)
    assert (found.next_index, found.chunk_count) == (10, 5)


async def test_only_so_many_sessions_are_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "_CACHED_SESSIONS", 2)
    chunks = _Counting()
    reader = ProgressReader(chunks)
    for name in ("a", "b", "c"):
        await chunks.insert([new_chunk(name, index) for index in range(3)])
        await reader.read(SessionId(name))
    for name, read in (("c", 0), ("b", 0), ("a", 3)):
        chunks.read = 0
        assert (await reader.read(SessionId(name))).chunk_count == 3
        assert chunks.read == read
    reader.forget(A)
    reader.forget(A)
    chunks.read = 0
    await reader.read(A)
    assert chunks.read == 3
