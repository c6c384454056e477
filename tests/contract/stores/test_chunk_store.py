"""ChunkStore and BodyStore: one suite for the twin and for MongoDB in both topologies."""

import asyncio
import os
from dataclasses import replace

import pytest

from sessions.core.types import MAX_CHUNK_INDEX, SessionId
from sessions.storage.chunk_records import ChunkRecord, InsertOutcome, Leaves, NewChunk, leaves_of
from sessions.storage.mongo_chunks import BODY_PART_BYTES
from tests.contract.stores.conftest import ChunksAndBodies
from tests.unit.storage.chunks import new_chunk

A = SessionId("a")
STORED, EXISTS, CONFLICT = InsertOutcome
MIB = 1024 * 1024


def _record(chunk: NewChunk) -> ChunkRecord:
    return ChunkRecord(chunk.index, chunk.plaintext_bytes, chunk.fingerprint)


def _sha(chunk: NewChunk) -> bytes:
    return chunk.fingerprint.envelope_sha256


async def test_the_record_and_the_body_are_there(stores: ChunksAndBodies) -> None:
    chunk = new_chunk("a", 3)
    assert await stores.chunks.insert([chunk]) == [(STORED, _sha(chunk))]
    assert await stores.chunks.page(A, 0, 10) == [_record(chunk)]
    assert await stores.bodies.read(A, _record(chunk)) == chunk.envelope


async def test_nothing_is_inserted(stores: ChunksAndBodies) -> None:
    assert await stores.chunks.insert([]) == []


async def test_a_repeat_exists(stores: ChunksAndBodies) -> None:
    chunk = new_chunk("a", 0)
    await stores.chunks.insert([chunk])
    assert await stores.chunks.insert([chunk]) == [(EXISTS, _sha(chunk))]
    assert await stores.bodies.read(A, _record(chunk)) == chunk.envelope


async def test_other_bytes_conflict_and_leave_nothing(stores: ChunksAndBodies) -> None:
    first, second = new_chunk("a", 0, b"first"), new_chunk("a", 0, b"second")
    await stores.chunks.insert([first])
    assert await stores.chunks.insert([second]) == [(CONFLICT, _sha(first))]
    assert await stores.chunks.page(A, 0, 10) == [_record(first)]
    assert await stores.bodies.read(A, _record(first)) == first.envelope
    assert await stores.bodies.read(A, _record(second)) is None


async def test_duplicates_inside_one_call(stores: ChunksAndBodies) -> None:
    one, other, next_one = new_chunk("a", 0, b"one"), new_chunk("a", 0, b"other"), new_chunk("a", 1)
    outcomes = await stores.chunks.insert([one, one, other, next_one, one])
    expected = [(STORED, one), (EXISTS, one), (CONFLICT, one), (STORED, next_one), (EXISTS, one)]
    assert outcomes == [(outcome, _sha(chunk)) for outcome, chunk in expected]
    assert await stores.bodies.read(A, _record(one)) == one.envelope
    assert await stores.bodies.read(A, _record(other)) is None


async def test_one_call_for_several_sessions(stores: ChunksAndBodies) -> None:
    chunks = [new_chunk(name, index) for index in (5, 1) for name in ("a", "b")]
    assert [outcome for outcome, _ in await stores.chunks.insert(chunks)] == [STORED] * 4
    for name in ("a", "b"):
        assert [record.index for record in await stores.chunks.page(SessionId(name), 0, 9)] == [1, 5]


@pytest.mark.parametrize(
    "size", [BODY_PART_BYTES - 1, BODY_PART_BYTES, BODY_PART_BYTES + 1, 2 * BODY_PART_BYTES, 3 * MIB, 20 * MIB]
)
async def test_bodies_of_several_parts(stores: ChunksAndBodies, size: int) -> None:
    overhead = len(new_chunk("a", 0, b"").envelope)
    chunk = new_chunk("a", 0, os.urandom(size - overhead))
    assert len(chunk.envelope) == size
    assert await stores.chunks.insert([chunk]) == [(STORED, _sha(chunk))]
    assert await stores.bodies.read(A, _record(chunk)) == chunk.envelope


async def test_many_large_bodies_in_one_call(stores: ChunksAndBodies) -> None:
    chunks = [new_chunk("a", index, os.urandom(2 * MIB)) for index in range(4)]
    assert [outcome for outcome, _ in await stores.chunks.insert(chunks)] == [STORED] * 4
    for chunk in chunks:
        assert await stores.bodies.read(A, _record(chunk)) == chunk.envelope


@pytest.mark.parametrize("body_bytes", [100, 2 * MIB])
async def test_of_many_writers_of_one_index_one_wins_whole(stores: ChunksAndBodies, body_bytes: int) -> None:
    chunks = [new_chunk("a", 0, os.urandom(body_bytes)) for _ in range(8)]
    outcomes = [found[0] for found in await asyncio.gather(*(stores.chunks.insert([chunk]) for chunk in chunks))]
    assert [outcome for outcome, _ in outcomes].count(STORED) == 1
    assert [outcome for outcome, _ in outcomes].count(CONFLICT) == 7
    assert len({sha256 for _, sha256 in outcomes}) == 1
    winner = chunks[[outcome for outcome, _ in outcomes].index(STORED)]
    assert await stores.chunks.page(A, 0, 10) == [_record(winner)]
    for chunk in chunks:
        expected = chunk.envelope if chunk is winner else None
        assert await stores.bodies.read(A, _record(chunk)) == expected


async def test_of_many_writers_of_the_same_bytes_all_are_acknowledged(stores: ChunksAndBodies) -> None:
    chunk = new_chunk("a", 0, os.urandom(2 * MIB))
    outcomes = [found[0] for found in await asyncio.gather(*(stores.chunks.insert([chunk]) for _ in range(6)))]
    assert sorted(outcome for outcome, _ in outcomes) == [EXISTS] * 5 + [STORED]
    assert await stores.bodies.read(A, _record(chunk)) == chunk.envelope


async def test_pages(stores: ChunksAndBodies) -> None:
    await stores.chunks.insert([new_chunk("a", index) for index in (7, 0, 256, 2, 1, 65_536)])

    async def indexes(start: int, limit: int) -> list[int]:
        return [record.index for record in await stores.chunks.page(A, start, limit)]

    assert await indexes(0, 10) == [0, 1, 2, 7, 256, 65_536]
    assert await indexes(0, 6) == [0, 1, 2, 7, 256, 65_536]
    assert await indexes(0, 1) == [0]
    assert await indexes(2, 2) == [2, 7]
    assert await indexes(3, 2) == [7, 256]
    assert await indexes(65_536, 2) == [65_536]
    assert await indexes(65_537, 2) == []


async def test_the_largest_index(stores: ChunksAndBodies) -> None:
    chunks = [new_chunk("a", index) for index in (MAX_CHUNK_INDEX, 2**31, 2**32 + 1)]
    await stores.chunks.insert(chunks)
    assert [record.index for record in await stores.chunks.page(A, 1, 9)] == [2**31, 2**32 + 1, MAX_CHUNK_INDEX]
    assert await stores.chunks.page(A, MAX_CHUNK_INDEX, 1) == [_record(chunks[0])]
    assert await stores.chunks.page(A, MAX_CHUNK_INDEX + 1, 1) == []
    assert await stores.bodies.read(A, _record(chunks[0])) == chunks[0].envelope


async def test_sessions_whose_ids_begin_alike_are_apart(stores: ChunksAndBodies) -> None:
    names = [SessionId(name) for name in ("a", "a.", "aa", "a-", "a0")]
    chunks = {name: new_chunk(name, 0, name.encode()) for name in names}
    await stores.chunks.insert(list(chunks.values()))
    for name in names:
        assert await stores.chunks.page(name, 0, 10) == [_record(chunks[name])]
    await stores.bodies.drop(A)
    await stores.chunks.remove(names[1], _record(chunks[names[1]]))
    assert await stores.bodies.read(A, _record(chunks[A])) is None
    assert await stores.chunks.page(A, 0, 10) == [_record(chunks[A])]
    assert await stores.chunks.page(names[1], 0, 10) == []
    for name in names[2:]:
        assert await stores.bodies.read(name, _record(chunks[name])) == chunks[name].envelope


async def test_remove_takes_the_record_and_the_body(stores: ChunksAndBodies) -> None:
    chunk, neighbour = new_chunk("a", 0, os.urandom(2 * MIB)), new_chunk("a", 1)
    await stores.chunks.insert([chunk, neighbour])
    for _ in range(2):
        await stores.chunks.remove(A, _record(chunk))
        assert await stores.chunks.page(A, 0, 10) == [_record(neighbour)]
        assert await stores.bodies.read(A, _record(chunk)) is None
    assert await stores.bodies.read(A, _record(neighbour)) == neighbour.envelope
    assert await stores.chunks.insert([chunk]) == [(STORED, _sha(chunk))]


async def test_a_body_that_comes_back_after_shredding_can_be_removed(stores: ChunksAndBodies) -> None:
    """`insert` may write the body before it finds the record."""
    chunks = [new_chunk("a", 0), new_chunk("a", 1)]
    await stores.chunks.insert(chunks)
    await stores.bodies.drop(A)
    assert [outcome for outcome, _ in await stores.chunks.insert(chunks)] == [EXISTS, EXISTS]
    for _ in range(2):
        await stores.chunks.remove_body(A, chunks[0].record)
    assert await stores.bodies.read(A, chunks[0].record) is None
    assert await stores.chunks.page(A, 0, 9) == [chunk.record for chunk in chunks]


async def test_remove_leaves_another_chunk_of_that_index(stores: ChunksAndBodies) -> None:
    chunk, other = new_chunk("a", 0, b"one"), new_chunk("a", 0, b"other")
    await stores.chunks.insert([chunk])
    await stores.chunks.remove(A, _record(other))
    assert await stores.chunks.page(A, 0, 10) == [_record(chunk)]
    assert await stores.bodies.read(A, _record(chunk)) == chunk.envelope


async def test_drop_takes_all_bodies_and_no_record(stores: ChunksAndBodies) -> None:
    chunks = [new_chunk("a", index) for index in (0, 5, MAX_CHUNK_INDEX)]
    await stores.chunks.insert(chunks)
    await stores.bodies.drop(A)
    await stores.bodies.drop(A)
    assert await stores.chunks.page(A, 0, 10) == [_record(chunk) for chunk in chunks]
    for chunk in chunks:
        assert await stores.bodies.read(A, _record(chunk)) is None


async def test_a_body_is_read_by_its_own_hash_only(stores: ChunksAndBodies) -> None:
    chunk = new_chunk("a", 0)
    await stores.chunks.insert([chunk])
    other = replace(chunk.fingerprint, envelope_sha256=bytes(32))
    assert await stores.bodies.read(A, replace(_record(chunk), fingerprint=other)) is None


async def test_bodies_of_many_chunks_at_once(stores: ChunksAndBodies) -> None:
    chunks = [new_chunk("a", index, os.urandom(size)) for index, size in ((0, 10), (1, 3 * MIB), (2, 0), (5, 10))]
    await stores.chunks.insert([*chunks, new_chunk("b", 1), new_chunk("a", 6)])
    await stores.chunks.insert([new_chunk("a", 0, b"other")])
    wanted = [_record(chunk) for chunk in chunks]
    assert await stores.bodies.read_many(A, wanted) == [chunk.envelope for chunk in chunks]
    assert await stores.bodies.read_many(A, wanted[1:2]) == [chunks[1].envelope]
    assert await stores.bodies.read_many(A, []) == []
    other = replace(wanted[2], fingerprint=new_chunk("a", 2, b"other").fingerprint)
    first, last = chunks[0].envelope, chunks[3].envelope
    assert await stores.bodies.read_many(A, [wanted[0], other, wanted[3]]) == [first, None, last]
    missing = _record(new_chunk("a", 4))
    assert await stores.bodies.read_many(A, [missing, wanted[3]]) == [None, last]


async def test_leaves_are_those_of_the_page(stores: ChunksAndBodies) -> None:
    assert await stores.chunks.leaves(A, 0, 10) == Leaves([], [], 0, 0)
    chunks = [new_chunk("a", index, bytes(index % 50)) for index in (0, 1, 2, 5, 700, MAX_CHUNK_INDEX)]
    await stores.chunks.insert([*chunks, new_chunk("aa", 3), new_chunk("A", 3)])
    for start, limit in ((0, 10), (0, 6), (0, 3), (1, 2), (3, 10), (701, 1), (MAX_CHUNK_INDEX, 1)):
        found = await stores.chunks.leaves(A, start, limit)
        assert found == leaves_of(await stores.chunks.page(A, start, limit))
    whole = await stores.chunks.leaves(A, 0, 10)
    assert whole.indexes == [0, 1, 2, 5, 700, MAX_CHUNK_INDEX]
    assert whole.hashes == [chunk.fingerprint.leaf_hash for chunk in chunks]
    assert whole.plaintext_bytes == sum(chunk.plaintext_bytes for chunk in chunks)
    assert whole.envelope_bytes == sum(len(chunk.envelope) for chunk in chunks)
