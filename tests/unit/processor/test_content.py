"""Replay: ranges, streams over several chunks, and what happens when one of them is broken."""

import asyncio
import os
from contextlib import suppress
from dataclasses import replace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sessions.core.types import ChunkIndex, SessionId
from sessions.processor import content
from sessions.processor.content import Span, parse_range
from sessions.runtime.errors import DomainError
from tests.unit.processor.conftest import Parts
from tests.unit.storage.chunks import House

A = SessionId("a")


@pytest.mark.parametrize(
    ("header", "total", "span"),
    [
        (None, 10, None),
        ("", 10, None),
        ("bytes=0-0", 10, (0, 1)),
        ("bytes=0-9", 10, (0, 10)),
        ("bytes=0-", 10, (0, 10)),
        ("bytes=9-", 10, (9, 10)),
        ("bytes=3-5", 10, (3, 6)),
        ("bytes=3-99", 10, (3, 10)),
        ("bytes=-3", 10, (7, 10)),
        ("bytes=-99", 10, (0, 10)),
        (f"bytes=5-{'9' * 19}", 10, (5, 10)),
        ("bytes=5-3", 10, None),
        ("bytes=-", 10, None),
        ("bytes=a-b", 10, None),
        ("bytes=1-2,4-5", 10, None),
        ("items=1-2", 10, None),
        ("bytes 1-2", 10, None),
        (f"bytes=5-{'9' * 20}", 10, (5, 10)),
        ("bytes=10-", 10, "refused"),
        ("bytes=10-12", 10, "refused"),
        ("bytes=-0", 10, "refused"),
        ("bytes=0-", 0, "refused"),
        ("bytes=-5", 0, "refused"),
    ],
)
def test_ranges(header: str | None, total: int, span) -> None:
    if span == "refused":
        with pytest.raises(DomainError) as caught:
            parse_range(header, total)
        assert (caught.value.code, caught.value.members) == ("range-not-satisfiable", {"total_bytes": total})
    else:
        assert parse_range(header, total) == (span and Span(*span, total))


async def _record(parts: Parts, *chunks: bytes) -> bytes:
    await asyncio.gather(*(parts.recording.record(A, ChunkIndex(index), chunk) for index, chunk in enumerate(chunks)))
    return b"".join(chunks)


async def _read(parts: Parts, start: int, end: int, total: int) -> bytes:
    async with parts.content.stream(A, Span(start, end, total)) as stream:
        return b"".join([part async for part in stream])


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.integers(0, 95), st.integers(0, 95))
async def test_any_range_is_that_slice_of_the_whole(parts: Parts, house: House, one: int, other: int) -> None:
    if A not in house.sessions.records:
        chunks = [os.urandom(size) for size in (7, 0, 1, 30, 0, 2, 9, 20, 1, 25, 0)]
        house.whole = await _record(parts, *chunks)
    start, end = sorted((one, other))
    assert await parts.content.total_bytes(A) == 95
    assert await _read(parts, start, end, 95) == house.whole[start:end]
    assert parts.budget.used_bytes == 0


async def test_several_pages(parts: Parts, monkeypatch) -> None:
    monkeypatch.setattr(content, "_PAGE_CHUNKS", 3)
    whole = await _record(parts, *[os.urandom(10) for _ in range(10)])
    assert await _read(parts, 0, 100, 100) == whole
    assert await _read(parts, 55, 93, 100) == whole[55:93]


async def test_only_the_chunks_of_the_range_are_fetched(parts: Parts, monkeypatch) -> None:
    whole = await _record(parts, *[os.urandom(10) for _ in range(10)])
    fetched = _noted(parts, monkeypatch)
    assert await _read(parts, 35, 51, 100) == whole[35:51]
    assert fetched == [(3, 3)], "small chunks come together"


def _noted(parts: Parts, monkeypatch, most: int = 1000) -> list[tuple[int, int]]:
    """Each request for envelopes (from, how many); of which session-storage gives at most so many."""
    fetched: list[tuple[int, int]] = []
    envelopes = parts.storage.envelopes

    async def noted(session: SessionId, start: int, limit: int) -> list[bytes]:
        fetched.append((start, limit))
        return await envelopes(session, start, min(limit, most))

    monkeypatch.setattr(parts.storage, "envelopes", noted)
    return fetched


async def test_large_chunks_come_one_by_one(parts: Parts, monkeypatch) -> None:
    monkeypatch.setattr(content, "_GROUP_BYTES", 200)  # of a chunk and its envelope together
    whole = await _record(parts, *[os.urandom(size) for size in (90, 90, 1, 1, 300, 1)])
    fetched = _noted(parts, monkeypatch)
    assert await _read(parts, 0, 483, 483) == whole
    assert [start for start, _ in fetched] == [0, 1, 2, 4, 5]
    assert parts.budget.used_bytes == 0


async def test_storage_gives_fewer_than_it_was_asked_for(parts: Parts, monkeypatch) -> None:
    whole = await _record(parts, *[os.urandom(10) for _ in range(10)])
    fetched = _noted(parts, monkeypatch, most=4)
    assert await _read(parts, 0, 100, 100) == whole
    assert fetched == [(0, 10), (4, 6), (8, 2)]


async def test_an_empty_recording(parts: Parts, house: House) -> None:
    await house.session("a")
    assert await parts.content.total_bytes(A) == 0
    assert await _read(parts, 0, 0, 0) == b""


async def _code(work) -> str:
    with pytest.raises(DomainError) as caught:
        await work
    return caught.value.code


async def test_what_has_no_content(parts: Parts, house: House) -> None:
    assert await _code(parts.content.total_bytes(A)) == "session-not-found"
    await house.session("a", 0, 2)
    assert await _code(parts.content.total_bytes(A)) == "chunks-missing"
    await house.ledger.seal(A, None, "idle")
    assert await _code(parts.content.total_bytes(A)) == "chunks-missing"
    await house.shred(A)
    assert await _code(parts.content.total_bytes(A)) == "session-shredded"


@pytest.mark.parametrize("broken", [0, 3, 9])
@pytest.mark.parametrize("place", [0, -1], ids=["its head", "its tag"])
async def test_it_breaks_off_at_a_corrupt_chunk_and_gives_the_budget_back(
    parts: Parts, house: House, broken: int, place: int
) -> None:
    whole = await _record(parts, *[os.urandom(10) for _ in range(10)])
    (key,) = [key for key in house.chunks.bodies if key[1] == broken]
    damaged = bytearray(house.chunks.bodies[key])
    damaged[place] ^= 1
    house.chunks.bodies[key] = bytes(damaged)
    got = b""

    async def read() -> None:
        nonlocal got
        async with parts.content.stream(A, Span(0, 100, 100)) as stream:
            assert parts.budget.used_bytes > 0
            async for part in stream:
                got += part

    assert await _code(read()) == "envelope-corrupt"
    assert got == whole[: 10 * broken]
    assert parts.budget.used_bytes == 0


async def test_a_reader_that_goes_away_leaves_no_task_and_no_byte(parts: Parts) -> None:
    await _record(parts, *[os.urandom(10) for _ in range(10)])
    before = asyncio.all_tasks()
    with suppress(RuntimeError):
        async with parts.content.stream(A, Span(0, 100, 100)) as stream:
            async for _ in stream:
                raise RuntimeError
    assert parts.budget.used_bytes == 0
    left = {task for task in asyncio.all_tasks() - before if "Content._read" in repr(task.get_coro())}
    assert not left


async def test_no_room_is_told_before_it_starts(parts: Parts) -> None:
    await _record(parts, b"content")
    parts.budget._wait_seconds = 0.01

    async def read() -> None:
        async with parts.content.stream(A, Span(0, 7, 7)):
            pytest.fail("not reached")

    async with parts.budget.reserve(parts.budget.total_bytes):
        assert await _code(read()) == "overloaded"
        assert await _code(parts.content.chunk(A, 0, 100)) == "overloaded"
    assert await parts.content.chunk(A, 0, 100) == b"content"
    assert parts.budget.used_bytes == 0


@pytest.mark.parametrize(("gone", "left"), [(0, 0), (1, 1), (9, 9)])
async def test_what_has_lost_a_record_is_given_up_to_there(parts: Parts, house: House, gone: int, left: int) -> None:
    whole = await _record(parts, *[os.urandom(10) for _ in range(10)])
    del house.chunks.records[A][gone]
    got = b""

    async def read(start: int) -> None:
        nonlocal got
        async with parts.content.stream(A, Span(start, 100, 100)) as stream:
            async for part in stream:
                got += part

    assert await _code(read(0)) == "envelope-corrupt"
    assert whole.startswith(got)
    assert len(got) <= 10 * left
    got = b""
    assert await _code(read(95)) == "envelope-corrupt"  # not the bytes of what moved into this place
    assert got == b""


async def test_what_has_lost_all_records(parts: Parts, house: House) -> None:
    await _record(parts, b"content")
    house.chunks.records[A].clear()
    assert await _code(_read(parts, 0, 7, 7)) == "envelope-corrupt"


async def test_a_record_that_gives_a_chunk_another_length(parts: Parts, house: House) -> None:
    await _record(parts, *[os.urandom(10) for _ in range(10)])
    house.chunks.records[A][4] = replace(house.chunks.records[A][4], plaintext_bytes=7)
    assert await _code(_read(parts, 0, 97, 97)) == "envelope-corrupt"
