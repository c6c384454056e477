"""How far a session has come, and how much is read to tell."""

import asyncio
from collections.abc import Iterable
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sessions.core.types import SessionId
from sessions.storage import progress
from sessions.storage.chunk_records import ChunkRecord
from sessions.storage.memory import MemoryChunks
from sessions.storage.progress import ProgressReader
from tests.unit.storage.chunks import EPOCH, new_chunk

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


def new_chunk_record(index: int, body: bytes = b"chunk") -> ChunkRecord:
    return ChunkRecord(index, len(body), new_chunk("a", index, body).fingerprint)


async def test_nothing_yet() -> None:
    found = await ProgressReader(MemoryChunks()).read(A, EPOCH)
    assert (found.next_index, found.chunk_count, found.missing, found.missing_truncated) == (0, 0, (), False)


async def test_counts_and_gaps() -> None:
    chunks = MemoryChunks()
    await _store(chunks, 0, 1, 4, 9)
    found = await ProgressReader(chunks).read(A, EPOCH)
    assert (found.next_index, found.chunk_count) == (10, 4)
    assert found.missing == ((2, 3), (5, 8))
    assert found.plaintext_bytes == 4 * len(b"chunk")
    assert found.envelope_bytes == 4 * len(new_chunk("a", 0).envelope)
    await _store(chunks, 2, 3, 5, 6, 7, 8)
    filled = await ProgressReader(chunks).read(A, EPOCH)
    assert (filled.missing, filled.chunk_count) == ((), 10)


async def test_a_gap_at_the_start() -> None:
    chunks = MemoryChunks()
    await _store(chunks, 3)
    assert (await ProgressReader(chunks).read(A, EPOCH)).missing == ((0, 2),)


async def test_each_look_goes_on_where_the_last_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "PAGE_CHUNKS", 10)
    chunks = _Counting()
    reader = ProgressReader(chunks)
    await _store(chunks, *range(35))
    assert (await reader.read(A, EPOCH)).next_index == 35
    assert chunks.pages == [0, 10, 20, 30]
    chunks.pages.clear()
    chunks.read = 0
    await _store(chunks, 35, 36)
    assert (await reader.read(A, EPOCH)).chunk_count == 37
    assert (chunks.pages, chunks.read) == ([34], 3), "one page, which begins with the last that is known"
    assert (await reader.read(A, EPOCH)) == (await reader.read(A, EPOCH))
    assert chunks.read == 5


async def test_behind_a_gap_that_stays_it_reads_again_and_not_before_it() -> None:
    chunks = _Counting()
    reader = ProgressReader(chunks)
    await _store(chunks, *range(20), 25, 26)
    assert (await reader.read(A, EPOCH)).missing == ((20, 24),)
    chunks.read = 0
    assert (await reader.read(A, EPOCH)).missing == ((20, 24),)
    assert chunks.read == 3
    await _store(chunks, *range(20, 25))
    found = await reader.read(A, EPOCH)
    assert (found.missing, found.chunk_count, found.next_index) == ((), 27, 27)
    chunks.read = 0
    await reader.read(A, EPOCH)
    assert chunks.read == 1


async def test_gaps_are_told_up_to_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "MAX_REPORTED_GAPS", 3)
    chunks = MemoryChunks()
    await _store(chunks, 1, 3, 5)
    found = await ProgressReader(chunks).read(A, EPOCH)
    assert (found.missing, found.missing_truncated) == (((0, 0), (2, 2), (4, 4)), False)
    await _store(chunks, 7, 9)
    found = await ProgressReader(chunks).read(A, EPOCH)
    assert (found.missing, found.missing_truncated) == (((0, 0), (2, 2), (4, 4)), True)
    assert (found.next_index, found.chunk_count) == (10, 5)


async def test_only_so_many_sessions_are_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "_CACHED_SESSIONS", 2)
    chunks = _Counting()
    reader = ProgressReader(chunks)
    for name in ("a", "b", "c"):
        await chunks.insert([new_chunk(name, index) for index in range(3)])
        await reader.read(SessionId(name), EPOCH)
    for name, read in (("c", 1), ("b", 1), ("a", 3)):
        chunks.read = 0
        assert (await reader.read(SessionId(name), EPOCH)).chunk_count == 3
        assert chunks.read == read
    reader.forget(A)
    reader.forget(A)
    chunks.read = 0
    await reader.read(A, EPOCH)
    assert chunks.read == 3


@pytest.mark.parametrize("left", [(), range(6), (0, 1, 3), (*range(9), 10)])
async def test_a_database_that_was_set_back(left: Iterable[int]) -> None:
    """R9: what was remembered was told for as long as the process ran; a recorder that resumed sent nothing more."""
    chunks = _Counting()
    reader = ProgressReader(chunks)
    await _store(chunks, *range(10))
    assert (await reader.read(A, EPOCH)).next_index == 10
    chunks.records[A] = {index: new_chunk_record(index) for index in left}
    assert await reader.read(A, EPOCH) == await ProgressReader(chunks).read(A, EPOCH)
    assert (await reader.read(A, EPOCH)).chunk_count == len(list(left))


async def test_a_database_that_was_set_back_and_took_other_chunks_since() -> None:
    """R9"""
    chunks = _Counting()
    reader = ProgressReader(chunks)
    await _store(chunks, *range(10))
    await reader.read(A, EPOCH)
    chunks.records[A] = {index: new_chunk_record(index, b"another chunk") for index in range(10)}
    assert (await reader.read(A, EPOCH)).plaintext_bytes == 10 * len(b"another chunk")


async def test_a_session_that_was_opened_again() -> None:
    """R9: after the database was set back to before the session."""
    chunks = _Counting()
    reader = ProgressReader(chunks)
    await _store(chunks, *range(10))
    await reader.read(A, EPOCH)
    chunks.pages.clear()
    assert (await reader.read(A, EPOCH + timedelta(days=1))).next_index == 10
    assert chunks.pages == [0]


async def test_one_scan_of_a_session_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """M4: 128 questions at once for a session with 40,000 gaps were as many scans of it."""
    chunks = _Counting()
    reader = ProgressReader(chunks)
    await _store(chunks, 1)
    page, going, running = chunks.page, asyncio.Event(), []

    async def slow(*place) -> list[ChunkRecord]:
        running.append(place)
        assert len(running) == 1
        found = await page(*place)
        await going.wait()
        running.clear()
        return found

    monkeypatch.setattr(chunks, "page", slow)
    first = asyncio.create_task(reader.read(A, EPOCH))
    await asyncio.sleep(0)
    await _store(chunks, 0)
    later = [asyncio.create_task(reader.read(A, EPOCH)) for _ in range(128)]
    await asyncio.sleep(0)
    later[0].cancel()
    going.set()
    assert (await first).missing == ((0, 0),)
    with pytest.raises(asyncio.CancelledError):
        await later[0]
    assert {(await one).missing for one in later[1:]} == {()}, "what was stored before they asked is in their answer"
    assert (len(chunks.pages), reader._looks) == (2, {})


@given(st.sets(st.integers(0, 60)), st.sets(st.integers(0, 60)), st.integers(2, 9), st.integers(1, 9))
async def test_pages_of_any_size(before: set[int], after: set[int], page: int, leaves: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(progress, "PAGE_CHUNKS", page)
        patch.setattr(progress, "PAGE_LEAVES", leaves)
        chunks = MemoryChunks()
        reader = ProgressReader(chunks)
        for stored in (before, before | after):
            await _store(chunks, *stored)
            found = await reader.read(A, EPOCH)
            end = max(stored, default=-1) + 1
            missing = [index for first, last in found.missing for index in range(first, last + 1)]
            assert missing == sorted(set(range(end)) - stored)
            assert (found.next_index, found.chunk_count) == (end, len(stored))
            assert found.plaintext_bytes == len(stored) * len(b"chunk")
            assert found.envelope_bytes == len(stored) * len(new_chunk("a", 0).envelope)
