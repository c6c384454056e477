"""What storage shows of a session, and that it proves what it shows."""

import hashlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sessions.core import manifest as manifests
from sessions.core import proof as proofs
from sessions.core import receipt as receipts
from sessions.core.types import SessionId
from sessions.runtime.errors import DomainError
from sessions.storage.sealing import covers
from tests.unit.storage.chunks import House, envelope_of, event, new_chunk

A = SessionId("a")


async def _code(work) -> str:
    with pytest.raises(DomainError) as caught:
        await work
    return caught.value.code


async def _sealed(indexes, by: str = "idle", count: int | None = None) -> House:
    house = House()
    await house.session("a", *indexes)
    await house.ledger.seal(A, count, by)
    return house


@settings(max_examples=25, deadline=None)
@given(
    st.sets(st.integers(0, 700), max_size=40).flatmap(
        lambda few: st.tuples(st.just(few), st.integers(max(few, default=-1) + 1, 720))
    )
)
async def test_each_chunk_of_a_session_with_gaps_is_proven_and_each_gap_is_none(case) -> None:
    indexes, count = case
    house = await _sealed(indexes, count=count)
    manifest = manifests.from_bytes(await house.evidence.manifest(A))
    assert manifest.chunk_count == count
    for index in indexes:
        proof = await house.evidence.proof(A, index)
        proofs.from_json(proof.to_json()).verify_in(manifest)
        assert proof.envelope_sha256 == hashlib.sha256(await house.evidence.envelope(A, index)).digest()
    for index in {0, count // 2, count - 1, count, count + 1} - set(indexes):
        if index >= 0:
            assert await _code(house.evidence.proof(A, index)) == "chunk-not-found"


async def test_every_chunk_of_a_longer_session_is_proven() -> None:
    house = await _sealed(range(600), by="recorder")
    manifest = manifests.from_bytes(await house.evidence.manifest(A))
    for index in range(600):
        (await house.evidence.proof(A, index)).verify_in(manifest)


async def test_a_tile_that_is_missing() -> None:
    house = await _sealed(range(600))
    house.tiles.tiles.clear()
    assert await _code(house.evidence.proof(A, 0)) == "envelope-corrupt"


@pytest.mark.parametrize(
    ("count", "gone", "asked"),
    [(4, 2, 3), (4, 2, 2), (257, 256, 256), (600, 599, 0)],
    ids=["a neighbour's", "its own", "its own, alone in its tile", "at the tree's edge"],
)
async def test_a_record_that_is_missing_gives_no_wrong_proof(count: int, gone: int, asked: int) -> None:
    house = await _sealed(range(count))
    del house.chunks.records[A][gone]
    with pytest.raises(DomainError, match=f"the record of chunk {gone} ") as caught:
        await house.evidence.proof(A, asked)
    assert caught.value.code == "envelope-corrupt"


async def test_a_body_that_is_missing() -> None:
    house = await _sealed(range(2))
    house.chunks.bodies.clear()
    assert await _code(house.evidence.envelope(A, 1)) == "envelope-corrupt"
    (await house.evidence.proof(A, 1)).verify()


async def test_envelopes_come_byte_for_byte_before_and_after_the_seal() -> None:
    house = House()
    await house.session("a", 0, 2)
    for _ in range(2):
        assert await house.evidence.envelope(A, 2) == envelope_of("a", 2)
        for index in (1, 3):
            assert await _code(house.evidence.envelope(A, index)) == "chunk-not-found"
        await house.ledger.seal(A, None, "idle")


async def test_several_envelopes_at_once() -> None:
    house = House()
    await house.session("a", 0, 1, 2, 4)
    data = [envelope_of("a", index) for index in range(5)]
    size = len(data[0])

    async def found(start: int, limit: int, max_bytes: int = 10**6) -> list[bytes]:
        return await house.evidence.envelopes(A, start, limit, max_bytes)

    for _ in range(2):
        assert await found(0, 2) == data[:2]
        assert await found(1, 9) == [data[1], data[2], data[4]], "each says its index itself"
        assert await found(0, 9, 3 * size) == data[:3]
        assert await found(0, 9, 3 * size - 1) == data[:2]
        assert await found(0, 9, 1) == data[:1], "one at least"
        assert await _code(found(3, 9)) == "chunk-not-found"
        await house.ledger.seal(A, None, "idle")
    house.chunks.bodies = {key: body for key, body in house.chunks.bodies.items() if key[1] != 2}
    assert await found(0, 9) == data[:2], "up to the one that is missing"
    assert await _code(found(2, 9)) == "envelope-corrupt"


async def test_the_events_of_a_day_at_once() -> None:
    house = House()
    await house.trail.write([event(0), event(1), event(2)])
    (name,) = house.events.events
    found = await house.evidence.envelopes(name, 1, 9, 10**6)
    assert found == [event(1).to_bytes(), event(2).to_bytes()]


async def test_what_takes_a_seal() -> None:
    house = House()
    await house.session("a", 0)
    for work in (house.evidence.proof(A, 0), house.evidence.receipt(A), house.evidence.manifest(A)):
        assert await _code(work) == "session-open"


async def test_what_takes_a_session() -> None:
    house = House()
    for work in (house.evidence.chunks(A, 0, 1), house.evidence.envelope(A, 0), house.evidence.proof(A, 0)):
        assert await _code(work) == "session-not-found"


async def test_beyond_the_seal_there_is_nothing() -> None:
    house = await _sealed([0, 1])
    await house.chunks.insert([new_chunk("a", 2)])  # a writer that died before it took it back
    assert [chunk.index for chunk in (await house.evidence.chunks(A, 0, 10))[0]] == [0, 1]
    assert await house.evidence.chunks(A, 2, 10) == ([], None)
    assert await _code(house.evidence.envelope(A, 2)) == "chunk-not-found"
    assert await _code(house.evidence.proof(A, 2)) == "chunk-not-found"


async def test_late_in_a_gap_there_is_nothing_either() -> None:
    house = await _sealed([0, 2])
    await house.chunks.insert([new_chunk("a", 1)])
    assert [chunk.index for chunk in (await house.evidence.chunks(A, 0, 10))[0]] == [0, 2]
    assert await _code(house.evidence.envelope(A, 1)) == "chunk-not-found"
    for index in (0, 2):
        (await house.evidence.proof(A, index)).verify()


@pytest.mark.parametrize("limit", [1, 2, 4, 5])
async def test_pages(limit: int) -> None:
    house = House()
    await house.session("a", 0, 1, 5, 9)
    seen: list[int] = []
    start: int | None = 0
    while start is not None:
        page, start = await house.evidence.chunks(A, start, limit)
        assert len(page) <= limit
        seen += [chunk.index for chunk in page]
    assert seen == [0, 1, 5, 9]


async def test_the_receipt_of_a_session_in_no_batch_is_pending() -> None:
    house = await _sealed([0])
    receipt = receipts.from_bytes(await house.evidence.receipt(A))
    assert (receipt.batch, receipt.anchor.state.value) == (None, "pending")
    assert receipt.manifest.to_bytes() == await house.evidence.manifest(A)


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(1, 4)), max_size=12), st.integers(0, 5))
def test_covers_is_the_plain_definition(steps: list[tuple[int, int]], tail: int) -> None:
    gaps, at = [], 0
    for stored, missing in steps:
        first = at + stored + (1 if gaps else 0)
        gaps.append((first, first + missing - 1))
        at = first + missing
    manifest = _manifest(tuple(gaps), at + tail)
    for index in range(at + tail + 2):
        plain = index < at + tail and not any(first <= index <= last for first, last in gaps)
        assert covers(manifest, index) == plain


def _manifest(gaps, count: int) -> manifests.Manifest:
    return manifests.Manifest(
        session_id=A,
        chunk_count=count,
        missing=gaps,
        plaintext_bytes=0,
        envelope_bytes=0,
        root=bytes(32),
        opened_at="2026-01-01T00:00:00.000Z",
        sealed_at="2026-01-01T00:00:00.000Z",
        sealed_by="idle",
        metadata_sha256=bytes(32),
    )
