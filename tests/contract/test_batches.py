"""Batches and the sessions in them: one suite, on the twin and on real MongoDB."""

import asyncio
import hashlib
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Protocol

import pytest
from pymongo import AsyncMongoClient
from pymongo.asynchronous.database import AsyncDatabase

from sessions.core import merkle
from sessions.core.receipt import Anchor, AnchorState, Batch
from sessions.core.types import SessionId
from sessions.storage.anchor import BatchRecord, Leaf, SignedTransaction, StaleLeaderError
from sessions.storage.anchorer import Anchorer
from sessions.storage.memory_anchoring import LeaseState, MemoryBatches, MemoryLease
from sessions.storage.memory_chain import MemoryChain
from sessions.storage.mongo_batches import MongoBatches, ensure_indexes
from sessions.storage.mongo_sessions import MongoSessions
from tests.conftest import Figure

NOW = datetime(2026, 5, 14, 12, 0, 0, 123000, tzinfo=UTC)


class Rig(Protocol):
    batches: MongoBatches | MemoryBatches

    async def seal(self, names: Sequence[str]) -> None: ...
    async def place_of(self, name: str) -> tuple[int, Batch] | None: ...


class MemoryRig:
    def __init__(self) -> None:
        self.batches = MemoryBatches()

    async def seal(self, names: Sequence[str]) -> None:
        for name in names:
            self.batches.seal(SessionId(name), b"manifest of " + name.encode())

    async def place_of(self, name: str) -> tuple[int, Batch] | None:
        return self.batches.place_of(SessionId(name))


class MongoRig:
    def __init__(self, database: AsyncDatabase) -> None:
        self.database = database
        self.batches = MongoBatches(database)

    async def seal(self, names: Sequence[str]) -> None:
        await self.database["sessions"].insert_many(
            {
                "_id": name,
                "status": "sealed",
                "opened_at": NOW,
                "metadata": b"{}",
                "keys": [],
                "manifest": b"manifest of " + name.encode(),
                "tiles_attempt": "1",
                "unbatched": True,
            }
            for name in names
        )

    async def place_of(self, name: str) -> tuple[int, Batch] | None:
        document = await self.database["sessions"].find_one({"_id": name})
        assert ("unbatched" in document) != ("batch" in document)
        if "batch" not in document:
            return None
        session = await MongoSessions(self.database).get(SessionId(name))  # what the receipt's route reads
        return session.placement.sequence, session.placement.batch


@pytest.fixture(params=["memory", "standalone", "replset"])
async def rig(request: pytest.FixtureRequest, database_name: str) -> AsyncIterator[Rig]:
    if request.param == "memory":
        yield MemoryRig()
        return
    url = request.getfixturevalue(f"mongod_{request.param}").url
    async with AsyncMongoClient(url, tz_aware=True) as client:
        await ensure_indexes(client[database_name])
        await ensure_indexes(client[database_name])
        yield MongoRig(client[database_name])


def record_of(leaves: Sequence[Leaf], sequence: int = 0) -> BatchRecord:
    return BatchRecord(
        sequence=sequence,
        root=merkle.root([leaf.leaf_hash for leaf in leaves]),
        size=len(leaves),
        created_at=NOW,
        session_ids=tuple(leaf.session_id for leaf in leaves),
    )


async def append(rig: Rig, sequence: int = 0, token: int = 1) -> BatchRecord:
    leaves = await rig.batches.unbatched(100)
    record = record_of(leaves, sequence)
    await rig.batches.append(record, [leaf.leaf_hash for leaf in leaves], token)
    return record


def signed(nonce: int = 7) -> SignedTransaction:
    return SignedTransaction(
        hash=bytes([nonce]) * 32,
        raw=b"raw bytes",
        nonce=nonce,
        chain_id=1,
        contract=b"\xcc" * 20,
        publisher=b"\xaa" * 20,
        max_fee_wei=200 * 10**9,
        priority_fee_wei=10**9,
    )


async def test_unbatched_sessions_come_in_order_and_no_more_than_asked_for(rig: Rig) -> None:
    assert list(await rig.batches.unbatched(10)) == []
    await rig.seal(["c", "a", "b"])
    leaves = await rig.batches.unbatched(2)
    assert [leaf.session_id for leaf in leaves] == ["a", "b"]
    digest = hashlib.sha256(b"manifest of a").digest()
    assert leaves[0].leaf_hash == merkle.leaf_hash(b"lucid/session/v1\0" + digest)


async def test_a_batch_is_stored_and_places_its_sessions(rig: Rig) -> None:
    await rig.seal([f"s{number}" for number in range(5)])
    leaves = list(await rig.batches.unbatched(100))
    record = await append(rig)
    assert await rig.place_of("s0") is None
    await rig.batches.place(0, 1)
    for index in range(5):
        sequence, place = await rig.place_of(f"s{index}")
        assert (sequence, place.root, place.size, place.index) == (0, record.root, 5, index)
        merkle.verify_inclusion(leaves[index].leaf_hash, index, 5, place.path, record.root)
    assert list(await rig.batches.unbatched(100)) == []
    assert await rig.batches.last() == replace(record, session_ids=(), placed=True)


async def test_placing_again_changes_nothing(rig: Rig) -> None:
    await rig.seal(["a", "b"])
    await append(rig)
    await rig.batches.place(0, 1)
    before = [await rig.place_of(name) for name in "ab"]
    await rig.seal(["c"])
    await rig.batches.place(0, 1)
    assert [await rig.place_of(name) for name in "ab"] == before
    assert await rig.place_of("c") is None


async def test_a_session_that_has_a_place_keeps_it(rig: Rig) -> None:
    await rig.seal(["a", "b"])
    both = await rig.batches.unbatched(2)
    await rig.batches.append(record_of(both[:1]), [both[0].leaf_hash], 1)
    await rig.batches.place(0, 1)
    # As version 0.1.0 could: a leader that saw `a` before it was placed.
    await rig.batches.append(record_of(both, 1), [leaf.leaf_hash for leaf in both], 1)
    await rig.batches.place(1, 1)
    assert (await rig.place_of("a"))[0] == 0
    assert (await rig.place_of("b"))[0] == 1


async def test_of_two_writers_of_one_number_one_gets_it(rig: Rig) -> None:
    await rig.seal(["a"])
    results = await asyncio.gather(append(rig), append(rig), return_exceptions=True)
    assert sorted(type(result).__name__ for result in results) == ["BatchRecord", "StaleLeaderError"]


async def test_update_keeps_all_that_a_transaction_is(rig: Rig) -> None:
    await rig.seal(["a"])
    record = await append(rig)
    anchor = Anchor(
        state=AnchorState.INCLUDED,
        chain_id=1,
        contract=b"\xcc" * 20,
        publisher=b"\xaa" * 20,
        transaction=b"\x07" * 32,
        block_number=2**40,
        block_hash=b"\xbb" * 32,
        block_timestamp=1_700_000_000,
    )
    changed = replace(record, anchor=anchor, transactions=(signed(7), signed(8)), submitted_at=NOW, gas_used=46_000)
    await rig.batches.update(changed, AnchorState.PENDING, 1)
    stored = await rig.batches.get_by_sequence(0)
    assert stored == replace(changed, session_ids=())
    assert stored.transactions[0].raw == b"raw bytes"


async def test_update_is_refused_in_another_state_or_by_an_older_leader(rig: Rig) -> None:
    await rig.seal(["a"])
    record = await append(rig, token=3)
    submitted = replace(record, anchor=Anchor(state=AnchorState.SUBMITTED))
    with pytest.raises(StaleLeaderError):
        await rig.batches.update(submitted, AnchorState.SUBMITTED, 3)
    with pytest.raises(StaleLeaderError):
        await rig.batches.update(submitted, AnchorState.PENDING, 2)
    with pytest.raises(StaleLeaderError):
        await rig.batches.place(0, 2)
    await rig.batches.update(submitted, AnchorState.PENDING, 4)
    with pytest.raises(StaleLeaderError):  # the leader of number 3 is stale since
        await rig.batches.update(submitted, AnchorState.SUBMITTED, 3)
    with pytest.raises(StaleLeaderError):
        await rig.batches.place(9, 4)


async def test_unsettled_and_pages(rig: Rig) -> None:
    assert await rig.batches.last() is None
    for number in range(4):
        await rig.seal([f"s{number}"])
        record = await append(rig, number)
        await rig.batches.place(number, 1)
        if number == 1:
            await rig.batches.update(
                replace(record, anchor=Anchor(state=AnchorState.CONFIRMED)), AnchorState.PENDING, 1
            )
    assert [record.sequence for record in await rig.batches.unsettled()] == [0, 2, 3]
    assert [record.sequence for record in await rig.batches.list(3)] == [3, 2, 1]
    assert [record.sequence for record in await rig.batches.list(3, 2)] == [1, 0]
    assert list(await rig.batches.list(3, 0)) == []


async def test_confirmed_batches_come_by_their_blocks_from_the_highest(rig: Rig) -> None:
    blocks = {0: (1, 30), 1: (1, 20), 2: (1, 30), 3: (9, 99), 4: (1, None)}
    for number, (chain_id, block) in blocks.items():
        await rig.seal([f"s{number}"])
        record = await append(rig, number)
        await rig.batches.place(number, 1)
        state = AnchorState.CONFIRMED if block else AnchorState.SUBMITTED
        anchor = Anchor(state=state, chain_id=chain_id, block_number=block)
        await rig.batches.update(replace(record, anchor=anchor), AnchorState.PENDING, 1)
    found, below = [], None
    while (below := await rig.batches.highest_confirmed(1, below)) is not None:
        found.append(below.sequence)
        assert below.session_ids == ()
    assert found == [2, 0, 1]
    assert await rig.batches.highest_confirmed(5) is None


async def test_get_by_root_and_number(rig: Rig) -> None:
    await rig.seal(["a", "b", "c"])
    record = await append(rig)
    assert (await rig.batches.get(record.root)).session_ids == ("a", "b", "c")
    assert (await rig.batches.get(record.root, 2)).session_ids == ("a", "b")
    assert await rig.batches.get(bytes(32)) is None
    assert (await rig.batches.get_by_sequence(0)).session_ids == ()
    assert await rig.batches.get_by_sequence(1) is None
    assert record.to_json()["created_at"] == "2026-05-14T12:00:00.123Z"


async def test_a_crash_within_placing_is_made_good_by_the_next_leader(rig: Rig) -> None:
    await rig.seal([f"s{number:04}" for number in range(30)])
    await append(rig)  # and here the leader dies; the next one finds `placed` false
    anchorer = Anchorer(batches=rig.batches, lease=MemoryLease(LeaseState(token=1), "next", 30), chain=MemoryChain())
    await anchorer.tick()
    assert (await rig.batches.last()).placed
    assert (await rig.place_of("s0029"))[1].index == 29
    assert (await rig.batches.last()).sequence == 0


async def test_ten_thousand_sessions_make_a_batch(rig: Rig, figure: Figure) -> None:
    names = [f"session-{number:06}" for number in range(10_000)]
    await rig.seal(names)
    anchorer = Anchorer(batches=rig.batches, lease=MemoryLease(LeaseState(), "a", 30), chain=MemoryChain())
    started = time.perf_counter()
    await anchorer.tick()
    seconds = time.perf_counter() - started
    figure(f"{type(rig).__name__}: a batch of 10,000 in {seconds:.2f} s")
    assert seconds < 20  # 3 s alone on the machine; other tests run beside
    assert list(await rig.batches.unbatched(1)) == []
    assert (await rig.batches.last()).size == 10_000
    assert (await rig.place_of(names[-1]))[1].index == 9_999


async def test_the_query_for_unbatched_sessions_uses_its_index(database_name: str, mongod_standalone) -> None:
    async with AsyncMongoClient(mongod_standalone.url) as client:
        database = client[database_name]
        await ensure_indexes(database)
        plan = await database["sessions"].find({"unbatched": True}).sort("_id", 1).explain()
        text = str(plan["queryPlanner"]["winningPlan"])
        assert "IXSCAN" in text
        assert "'SORT'" not in text
