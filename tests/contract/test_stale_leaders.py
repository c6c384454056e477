"""R8: a leader that stood still while another one led puts no session into two batches, and leaves none out.

One suite, on the twin and on real MongoDB. The first leader is stopped before each call that it makes to the database,
one after the other; meanwhile its lease runs out, and the second one does whole rounds; then the first one goes on.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
from pymongo import AsyncMongoClient

from sessions.core.receipt import AnchorState
from sessions.core.types import SessionId
from sessions.storage.anchor import BatchRecord, StaleLeaderError
from sessions.storage.anchorer import Anchorer
from sessions.storage.memory_anchoring import LeaseState, MemoryBatches, MemoryLease
from sessions.storage.memory_chain import MemoryChain
from sessions.storage.mongo_batches import MongoBatches, ensure_indexes
from tests.contract.test_batches import MemoryRig, MongoRig, record_of, signed

LEASE_SECONDS = 30.0


@dataclass
class Gate:
    """Stops who passes it for the time number `stop_at`; None: never."""

    stop_at: int | None = None
    passed: int = 0
    asleep: asyncio.Event = field(default_factory=asyncio.Event)
    woken: asyncio.Event = field(default_factory=asyncio.Event)

    async def __call__(self) -> None:
        self.passed += 1
        if self.passed - 1 == self.stop_at:
            self.asleep.set()
            await self.woken.wait()


class GatedCursor:
    def __init__(self, cursor: Any, gate: Gate) -> None:
        self._cursor, self._gate = cursor, gate

    def sort(self, *order: Any) -> "GatedCursor":
        self._cursor.sort(*order)
        return self

    def limit(self, most: int) -> "GatedCursor":
        self._cursor.limit(most)
        return self

    async def __aiter__(self) -> AsyncIterator[Any]:
        await self._gate()
        async for document in self._cursor:
            yield document


class Gated:
    """An object whose calls pass a gate before they do anything."""

    def __init__(self, inner: Any, gate: Gate) -> None:
        self._inner, self._gate = inner, gate

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._inner, name)
        if name == "find":
            return lambda *given, **named: GatedCursor(method(*given, **named), self._gate)

        async def gated(*given: Any, **named: Any) -> Any:
            await self._gate()
            return await method(*given, **named)

        return gated


def slow(rig: MemoryRig | MongoRig, gate: Gate) -> Any:
    """The batches as the leader sees them that may stand still; of MongoDB, each command is a call."""
    if isinstance(rig, MemoryRig):
        return Gated(rig.batches, gate)
    batches = MongoBatches(rig.database)
    for name in ("_batches", "_sessions"):
        setattr(batches, name, Gated(getattr(batches, name), gate))
    return batches


class World:
    """What two leaders share, a clock, and a chain that takes what it is sent."""

    def __init__(self, rig: MemoryRig | MongoRig) -> None:
        self.rig, self.chain, self.lease, self.seconds = rig, MemoryChain(confirmations=1), LeaseState(), 0.0

    def leader(self, holder: str, batches: Any = None) -> Anchorer:
        lease = MemoryLease(self.lease, holder, LEASE_SECONDS, clock=lambda: self.seconds)
        return Anchorer(batches=batches or self.rig.batches, lease=lease, chain=self.chain)

    async def rounds(self, leader: Anchorer, count: int = 3) -> None:
        for _ in range(count):
            with suppress(StaleLeaderError):
                await leader.tick()
            self.chain.mine(2)

    async def stand_still(self, first: Anchorer, gate: Gate, *more: str) -> bool:
        """Stop the first leader at its gate while another leads; gives whether it came there."""
        work = asyncio.create_task(first.tick())
        asleep = asyncio.create_task(gate.asleep.wait())
        await asyncio.wait((work, asleep), return_when=asyncio.FIRST_COMPLETED, timeout=20)
        asleep.cancel()
        stopped = gate.asleep.is_set()
        if stopped:
            self.seconds += LEASE_SECONDS + 1
            if more:
                await self.rig.seal(more)
            await self.rounds(self.leader("second"))
        gate.woken.set()
        with suppress(StaleLeaderError):
            await asyncio.wait_for(work, 20)
        return stopped

    async def check(self, names: list[str]) -> None:
        """After some more rounds of whoever comes next: each session is in one batch, and that is confirmed."""
        for number in range(3):
            self.seconds += LEASE_SECONDS + 1
            await self.rounds(self.leader(f"next-{number}"))
        members: list[SessionId] = []
        records = [await self.rig.batches.get(one.root) for one in await self.rig.batches.list(100)]
        for record in reversed(records):
            assert record is not None
            members += record.session_ids
            assert (record.placed, record.anchor.state) == (True, AnchorState.CONFIRMED)
            for name in record.session_ids:
                place = await self.rig.place_of(name)
                assert place is not None
                assert (place[0], place[1].root) == (record.sequence, record.root), name
        assert sorted(members) == sorted(names)
        assert [record.sequence for record in reversed(records) if record] == list(range(len(records)))
        assert sorted(self.chain.anchored()) == sorted(record.root for record in records if record)


@pytest.fixture(params=["memory", "standalone", "replset"])
async def world(request: pytest.FixtureRequest, database_name: str) -> AsyncIterator[World]:
    if request.param == "memory":
        yield World(MemoryRig())
        return
    url = request.getfixturevalue(f"mongod_{request.param}").url
    async with AsyncMongoClient(url, tz_aware=True) as client:
        await ensure_indexes(client[database_name])
        yield World(MongoRig(client[database_name]))


def after(method: str, batches: Any, gate: Gate) -> Any:
    """The batches of a leader that stands still right after it has had the answer to a call."""

    class Slow:
        def __getattr__(self, name: str) -> Any:
            inner = getattr(batches, name)

            async def called(*given: Any) -> Any:
                answer = await inner(*given)
                if name == method:
                    await gate()
                return answer

            return called

    return Slow()


async def test_a_leader_that_slept_after_it_saw_what_is_unbatched(world: World) -> None:
    """The case of R8: {s1, s2} were seen, {s1, s2, s3} are in a batch by now."""
    await world.rig.seal(["s1", "s2"])
    gate = Gate(stop_at=0)
    first = world.leader("first", after("unbatched", world.rig.batches, gate))
    assert await world.stand_still(first, gate, "s3")
    await world.check(["s1", "s2", "s3"])
    assert [record.size for record in await world.rig.batches.list(9)] == [3]


@pytest.mark.parametrize("begun", [False, True], ids=["first-batch", "later-batch"])
@pytest.mark.parametrize("more", [[], ["a0"], ["s9"]], ids=["no-more", "one-before", "one-behind"])
@pytest.mark.timeout(240)
async def test_a_leader_that_sleeps_before_any_call(world: World, *, begun: bool, more: list[str]) -> None:
    """Of each call that a round makes; a database of its own for each would be slow, so they go on in one."""
    names: list[str] = []
    for call in range(100):
        if begun and not names:
            await world.rig.seal(["begun"])
            names.append("begun")
            await world.rounds(world.leader("begin"))
        if not begun:
            await _emptied(world)
            names = []
        fresh = [f"{call:03}-s1", f"{call:03}-s2"]
        await world.rig.seal(fresh)
        added = [f"{call:03}-{name}" for name in more]
        gate = Gate(stop_at=call)
        world.seconds += LEASE_SECONDS + 1
        stopped = await world.stand_still(world.leader(f"first-{call}", slow(world.rig, gate)), gate, *added)
        names += fresh + (added if stopped else [])
        await world.check(names)
        if not stopped:
            assert call > 8
            return
    raise AssertionError("a round makes no end")


async def _emptied(world: World) -> None:
    """A world in which nothing has been batched yet."""
    world.chain = MemoryChain(confirmations=1)
    world.lease.token = 0
    if isinstance(world.rig, MemoryRig):
        world.rig.batches = MemoryBatches()
    else:
        for name in ("batches", "sessions"):
            await world.rig.database[name].delete_many({})


async def test_a_batch_whose_predecessor_is_not_the_newest_is_refused(world: World) -> None:
    record = await _stored(world, 0, "a", token=1)
    await world.rig.batches.place(0, 1)
    assert (await world.rig.batches.last()).sequence == record.sequence
    for sequence in (0, 2):
        with pytest.raises(StaleLeaderError):
            await _stored(world, sequence, f"b{sequence}", token=1)
    assert len(await world.rig.batches.list(9)) == 1


async def test_a_batch_is_refused_while_its_predecessor_is_being_placed(world: World) -> None:
    await _stored(world, 0, "a", token=1)
    with pytest.raises(StaleLeaderError):
        await _stored(world, 1, "b", token=1)
    await world.rig.batches.place(0, 1)
    await _stored(world, 1, "c", token=1)


async def test_a_batch_is_refused_after_a_newer_leader_wrote_to_its_predecessor(world: World) -> None:
    await _stored(world, 0, "a", token=1)
    await world.rig.batches.place(0, 2)
    with pytest.raises(StaleLeaderError):
        await _stored(world, 1, "b", token=1)
    await _stored(world, 1, "c", token=2)


async def test_a_batch_that_was_begun_shuts_out_the_leader_before(world: World) -> None:
    """Whoever makes a batch marks its predecessor first, so the older leader is refused even if the insert failed."""
    record = await _stored(world, 0, "a", token=1)
    await world.rig.batches.place(0, 1)
    with pytest.raises(StaleLeaderError):
        await _stored(world, 1, "b", token=3, root=record.root)  # refused after the mark: no two batches share a root
    with pytest.raises(StaleLeaderError):
        await _stored(world, 1, "c", token=2)
    await _stored(world, 1, "d", token=3)


async def test_a_transaction_that_an_older_leader_stored_a_moment_ago_is_kept(world: World) -> None:
    """It is out already; a newer leader that read the batch before it was stored adds none of its own."""
    before = await _stored(world, 0, "a", token=1)
    anchor = replace(before.anchor, state=AnchorState.SUBMITTED)
    one = replace(before, anchor=anchor, transactions=(signed(7),))
    await world.rig.batches.update(one, AnchorState.PENDING, 1)
    replaced = replace(one, transactions=(signed(7), signed(8)))
    await world.rig.batches.update(replaced, AnchorState.SUBMITTED, 1)
    for stale in ((), (signed(7),), (signed(7), signed(9)), (signed(9), signed(8))):
        with pytest.raises(StaleLeaderError):
            await world.rig.batches.update(replace(one, transactions=stale), AnchorState.SUBMITTED, 2)
    await world.rig.batches.update(replace(replaced, gas_used=5), AnchorState.SUBMITTED, 2)
    assert (await world.rig.batches.last()).transactions == (signed(7), signed(8))


async def _stored(world: World, sequence: int, name: str, token: int, root: Any = None) -> BatchRecord:
    """Seal a session, and store a batch of it alone."""
    await world.rig.seal([name])
    leaves = [leaf for leaf in await world.rig.batches.unbatched(100) if leaf.session_id == name]
    record = record_of(leaves, sequence)
    record = replace(record, root=root or record.root)
    await world.rig.batches.append(record, [leaf.leaf_hash for leaf in leaves], token)
    return record
