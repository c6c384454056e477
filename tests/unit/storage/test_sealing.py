"""Sealing on twins: what is sealed, what is refused, and two sealers at once."""

import asyncio
import hashlib
import itertools
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sessions.core import merkle, tiles
from sessions.core.envelope import Fingerprint, chunk_leaf_input, missing_leaf_input
from sessions.core.merkle import leaf_hash
from sessions.core.types import MAX_CHUNK_INDEX, Hash, SessionId
from sessions.runtime.errors import DomainError
from sessions.storage import seal_scan, sealing
from sessions.storage.chunk_records import ChunkRecord
from sessions.storage.memory import MemoryChunks
from sessions.storage.seal_scan import runs
from sessions.storage.sealing import covers, sealed_manifest
from sessions.storage.store import Change, SealOrder, SessionStatus
from tests.unit.storage.chunks import EPOCH, House, new_chunk

A = SessionId("a")
_EMPTY = Hash(bytes(32))


async def _refused(house: House, code: str, count: int | None, by: str = "recorder") -> DomainError:
    with pytest.raises(DomainError) as caught:
        await house.sealer.seal(A, count, by)
    assert caught.value.code == code
    return caught.value


async def test_the_empty_sessions_root_is_the_hash_of_nothing() -> None:
    house = House()
    await house.session("a")
    manifest = await house.sealer.seal(A, None, "recorder")
    assert manifest.root == hashlib.sha256(b"").digest()
    assert (manifest.chunk_count, manifest.missing, manifest.plaintext_bytes) == (0, (), 0)
    assert manifest.opened_at == "2026-01-31T12:00:00.123Z"
    assert manifest.metadata_sha256 == hashlib.sha256(b"{}").digest()
    assert house.tiles.tiles == {}


async def test_the_manifest_states_what_is_stored() -> None:
    house = House()
    await house.session("a")
    chunks = [new_chunk("a", index, b"x" * index) for index in range(5)]
    await house.chunks.insert(chunks[::-1])
    manifest = await house.sealer.seal(A, 5, "recorder")
    assert manifest.root == merkle.root([chunk.fingerprint.leaf_hash for chunk in chunks])
    assert (manifest.chunk_count, manifest.plaintext_bytes) == (5, 10)
    assert manifest.envelope_bytes == sum(len(chunk.envelope) for chunk in chunks)
    record = house.sessions.records[A]
    assert record.status is SessionStatus.SEALED
    assert sealed_manifest(record) == manifest


async def test_no_session() -> None:
    await _refused(House(), "session-not-found", None)


@pytest.mark.parametrize("count", [None, 6])
async def test_a_recorder_cannot_seal_gaps(count: int | None) -> None:
    house = House()
    await house.session("a", 0, 3, 5)
    error = await _refused(house, "chunks-missing", count)
    assert error.members["missing"] == [[1, 2], [4, 4]]
    assert house.sessions.records[A].status is SessionStatus.OPEN
    await house.chunks.insert([new_chunk("a", index) for index in (1, 2, 4)])
    assert (await house.sealer.seal(A, count, "recorder")).chunk_count == 6


async def test_a_count_beyond_what_is_stored_is_a_gap() -> None:
    house = House()
    await house.session("a", 0, 1)
    assert (await _refused(house, "chunks-missing", 4)).members["missing"] == [[2, 3]]
    assert (await _refused(house, "chunks-missing", MAX_CHUNK_INDEX + 1)).members["missing"] == [[2, MAX_CHUNK_INDEX]]


@pytest.mark.parametrize("by", ["recorder", "idle"])
async def test_a_count_below_what_is_stored_is_a_mismatch(by: str) -> None:
    house = House()
    await house.session("a", 0, 1, 2)
    assert (await _refused(house, "chunk-count-mismatch", 2, by)).members["chunk_count"] == 3
    assert house.sessions.records[A].status is SessionStatus.OPEN


@pytest.mark.parametrize("count", [None, 6, 9])
async def test_by_idleness_gaps_are_noted_and_have_leaves(count: int | None) -> None:
    house = House()
    await house.session("a", 2, 3, 5)
    manifest = await house.sealer.seal(A, count, "idle")
    missing = ((0, 1), (4, 4)) if count != 9 else ((0, 1), (4, 4), (6, 8))
    assert (manifest.missing, manifest.chunk_count, manifest.sealed_by) == (missing, count or 6, "idle")
    stored = {index: new_chunk("a", index).fingerprint.leaf_hash for index in (2, 3, 5)}
    leaves = [stored.get(i) or leaf_hash(missing_leaf_input(A, i)) for i in range(manifest.chunk_count)]
    assert manifest.root == merkle.root(leaves)
    for index in range(10):
        assert covers(manifest, index) == (index in stored)


async def test_one_stray_index_cannot_make_a_seal_endless() -> None:
    house = House()
    await house.session("a", 0, MAX_CHUNK_INDEX)
    error = await _refused(house, "chunks-missing", None, "idle")
    assert error.members["missing"] == [[1, MAX_CHUNK_INDEX - 1]]
    assert house.sessions.records[A].status is SessionStatus.OPEN


async def test_nor_can_very_many_gaps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(seal_scan, "MAX_MISSING_RANGES", 3)
    house = House()
    await house.session("a", 1, 3, 5)
    assert (await house.sealer.seal(A, None, "idle")).missing == ((0, 0), (2, 2), (4, 4))
    house = House()
    await house.session("a", 1, 3, 5, 7)
    await _refused(house, "chunks-missing", None, "idle")


async def test_repeated_it_gives_the_same_and_another_count_is_refused() -> None:
    house = House()
    await house.session("a", 0, 1)
    first = await house.sealer.seal(A, None, "recorder")
    await house.chunks.insert([new_chunk("a", 2)])
    for count in (None, 2):
        assert await house.sealer.seal(A, count, "idle") == first
    for count in (0, 1):
        assert (await _refused(house, "chunk-count-mismatch", count)).members["chunk_count"] == 2
    for count in (3, 5):  # R14: somebody has chunks that the seal left out
        assert (await _refused(house, "chunks-missing", count)).members["missing"] == [[2, count - 1]]


class _Slow(MemoryChunks):
    """Pages that let others run."""

    async def page(self, session_id: SessionId, start: int, limit: int) -> list[ChunkRecord]:
        await asyncio.sleep(0.01)
        return await super().page(session_id, start, limit)


async def test_of_many_sealers_one_manifest_counts_and_no_losers_tiles_stay() -> None:
    house = House(chunks=_Slow())
    await house.session("a", *range(600))
    manifests = await asyncio.gather(*(house.sealer.seal(A, None, "recorder") for _ in range(5)))
    assert len({manifest.to_bytes() for manifest in manifests}) == 1
    seal = house.sessions.records[A].seal
    assert seal is not None
    assert {attempt for _, attempt, _, _ in house.tiles.tiles} == {seal.tiles_attempt}


class _Overtaken(MemoryChunks):
    """While the first scan is under way, the gap is filled and another sealer is done."""

    house: House
    first = True

    async def page(self, session_id: SessionId, start: int, limit: int) -> list[ChunkRecord]:
        found = await super().page(session_id, start, limit)
        if self.first:
            self.first = False
            await self.insert([new_chunk("a", 1)])
            await self.house.sealer.seal(A, None, "recorder")
        return found


async def test_who_finds_a_gap_that_another_found_filled_gives_the_others_manifest() -> None:
    chunks = _Overtaken()
    house = chunks.house = House(chunks=chunks)
    await house.session("a", 0, 2)
    manifest = await house.sealer.seal(A, None, "recorder")
    assert (manifest.chunk_count, manifest.missing) == (3, ())
    assert house.sessions.records[A].status is SessionStatus.SEALED


async def test_a_seal_that_a_crash_left_half_way_is_resumed() -> None:
    house = House()
    await house.session("a", 0, 1)
    await house.session("b", 0, 2)
    order = SealOrder(None, "idle", EPOCH + timedelta(minutes=1))
    for name in (A, SessionId("b")):
        await house.sessions.update(name, SessionStatus.OPEN, Change(status=SessionStatus.SEALING, seal_order=order))
    await house.tiles.put(A, "of the dead", [(1, 0, bytes(32))])
    assert await house.resume_seals() == 2
    manifest = sealed_manifest(house.sessions.records[A])
    assert (manifest.sealed_at, manifest.sealed_by, manifest.chunk_count) == ("2026-01-31T12:01:00.123Z", "idle", 2)
    assert sealed_manifest(house.sessions.records[SessionId("b")]).missing == ((1, 1),)
    assert await house.ledger.resume_seals(10) == 0


async def test_many_tiles_are_written_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sealing, "_TILE_WRITES", 1)
    monkeypatch.setattr(tiles, "TILE_WIDTH", 2)
    monkeypatch.setattr(tiles, "_BITS", 1)
    house = House()
    await house.session("a", *range(2100))
    manifest = await house.sealer.seal(A, None, "recorder")
    leaves = [new_chunk("a", index).fingerprint.leaf_hash for index in range(2100)]
    assert manifest.root == merkle.root(leaves)
    assert {level for _, _, level, _ in house.tiles.tiles} == set(range(1, 12))


async def test_a_half_way_seal_that_is_refused_is_open_again_and_the_rest_go_on() -> None:
    house = House()
    await house.session("a", 1)
    await house.session("b", 0)
    order = SealOrder(None, "recorder", EPOCH)
    for name in (A, SessionId("b")):
        await house.sessions.update(name, SessionStatus.OPEN, Change(status=SessionStatus.SEALING, seal_order=order))
    assert await house.resume_seals() == 2
    assert house.sessions.records[A].status is SessionStatus.OPEN
    assert house.sessions.records[SessionId("b")].status is SessionStatus.SEALED


async def test_an_earlier_order_that_is_refused_is_not_the_answer_to_a_later_one() -> None:
    house = House()
    await house.session("a", 0, 1)
    order = SealOrder(3, "recorder", EPOCH)
    change = Change(status=SessionStatus.SEALING, seal_order=order)
    await house.sessions.update(A, SessionStatus.OPEN, change)
    assert (await _refused(house, "chunk-count-mismatch", 1)).members["chunk_count"] == 2
    await house.sessions.update(A, SessionStatus.OPEN, change)
    assert (await house.sealer.seal(A, 2, "recorder")).chunk_count == 2


async def test_a_resumed_order_that_is_refused_is_not_ordered_again() -> None:
    house = House()
    await house.session("a", 1)
    order = SealOrder(None, "recorder", EPOCH)
    await house.sessions.update(A, SessionStatus.OPEN, Change(status=SessionStatus.SEALING, seal_order=order))
    assert await house.resume_seals() == 1
    assert house.sessions.records[A].seal_order == order


class _Down(MemoryChunks):
    async def page(self, session_id: SessionId, start: int, limit: int) -> list[ChunkRecord]:
        raise DomainError("database-unavailable", "away", retry_after_seconds=1)


async def test_a_database_that_is_away_leaves_the_order_for_later() -> None:
    house = House(chunks=_Down())
    await house.session("a")
    with pytest.raises(DomainError, match="away"):
        await house.sealer.seal(A, None, "recorder")
    record = house.sessions.records[A]
    assert record.status is SessionStatus.SEALING
    with pytest.raises(DomainError, match="away"):
        await house.resume_seals()


def _leaf(index: int) -> Hash:
    return leaf_hash(chunk_leaf_input(A, index, 100, _EMPTY))


@pytest.mark.parametrize("count", [0, 1, 255, 256, 257, 1000, 65_537, 70_000])
async def test_tiles_give_the_proofs_of_the_whole_tree(count: int) -> None:
    house = House()
    await house.session("a")
    records = {index: ChunkRecord(index, 1, Fingerprint(100, _EMPTY, _leaf(index))) for index in range(count)}
    house.chunks.records[A] = records
    order = list(records)
    # The twin sorts at each page, which is slow for so many: this one knows that they are in order.
    house.chunks.page = lambda _, start, limit: _page(records, order[start : start + limit])  # type: ignore[method-assign]
    manifest = await house.sealer.seal(A, count, "recorder")
    leaves = [_leaf(index) for index in range(count)]
    assert manifest.root == merkle.root(leaves)
    seal = house.sessions.records[A].seal
    assert seal is not None
    levels = {key[2:]: len(joined) // 32 for key, joined in house.tiles.tiles.items()}
    # Whole subtrees only: level 1 has an entry for each 256 leaves, level 2 for each 65,536.
    expected = {}
    for level in (1, 2):
        entries = count >> 8 * level
        expected |= {(level, number): min(256, entries - 256 * number) for number in range(-(-entries // 256))}
    assert levels == expected
    for index in {0, count // 2, count - 1} if count else set():
        proof = await house.evidence.proof(A, index)
        proof.verify_in(manifest)
        if count <= 1000:
            assert list(proof.path) == merkle.inclusion_path(index, leaves)
    assert tiles.TILE_WIDTH == 256


async def _page(records: dict[int, ChunkRecord], indexes: list[int]) -> list[ChunkRecord]:
    return [records[index] for index in indexes]


@given(st.sets(st.one_of(st.integers(0, 30), st.integers(0, MAX_CHUNK_INDEX))))
def test_runs_are_as_long_as_they_can_be(numbers: set[int]) -> None:
    indexes = sorted(numbers)
    found = list(runs(indexes))
    assert [position for begin, end in found for position in range(begin, end)] == list(range(len(indexes)))
    for begin, end in found:
        assert indexes[begin:end] == list(range(indexes[begin], indexes[begin] + end - begin))
    for (_, end), (begin, _) in itertools.pairwise(found):
        assert indexes[begin] > indexes[end - 1] + 1


@pytest.mark.parametrize(
    "indexes",
    [
        [],
        range(2),
        range(3),
        range(7),
        range(12),
        [0, 1, 2, 3, 4, 6, 7, 8, 9],
        [0, 2, 3, 4, 5, 6, 7],
        [5, 6, 7, 8, 9, 10, 20, 21, 22, 23],
        [*range(9), 30, 40, 50, 51, 52, 53],
    ],
)
async def test_pages_that_are_read_ahead_come_in_order_each_chunk_once(
    indexes: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sealing, "_SCAN_CHUNKS", 3)
    house = House()
    await house.session("a", *indexes)
    manifest = await house.sealer.seal(A, None, "idle")
    end = max(indexes, default=-1) + 1
    stored = house.chunks.records[A] if indexes else {}
    leaves = [
        stored[index].fingerprint.leaf_hash if index in stored else leaf_hash(missing_leaf_input(A, index))
        for index in range(end)
    ]
    assert (manifest.chunk_count, manifest.root) == (end, merkle.root(leaves))
    assert manifest.envelope_bytes == sum(record.fingerprint.envelope_bytes for record in stored.values())


async def test_a_seal_that_is_refused_on_its_way_leaves_no_reading_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sealing, "_SCAN_CHUNKS", 2)
    house = House()
    await house.session("a", 0, MAX_CHUNK_INDEX - 1, MAX_CHUNK_INDEX)
    before = asyncio.all_tasks()
    with pytest.raises(DomainError):
        await house.sealer.seal(A, None, "idle")
    assert asyncio.all_tasks() == before
