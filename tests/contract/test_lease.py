"""Who may act: one suite, on the twin and on real MongoDB."""

import asyncio
from collections.abc import AsyncIterator, Callable

import pytest
from pymongo import AsyncMongoClient

from sessions.storage.anchor import Lease
from sessions.storage.memory_anchoring import LeaseState, MemoryLease
from sessions.storage.mongo_lease import MongoLease

MakeLease = Callable[[str, float], Lease]


@pytest.fixture(params=["memory", "standalone", "replset"])
async def make(request: pytest.FixtureRequest, database_name: str) -> AsyncIterator[MakeLease]:
    if request.param == "memory":
        state = LeaseState()
        yield lambda holder, ttl_seconds: MemoryLease(state, holder, ttl_seconds)
        return
    url = request.getfixturevalue(f"mongod_{request.param}").url
    async with AsyncMongoClient(url) as client:
        yield lambda holder, ttl_seconds: MongoLease(client[database_name], "anchorer", holder, ttl_seconds)


async def test_one_holds_it_and_may_prolong_it(make: MakeLease) -> None:
    first, second = make("a", 30), make("b", 30)
    assert await first.acquire() == 1
    assert await second.acquire() is None
    assert await first.acquire() == 1


async def test_released_it_goes_to_the_next_with_a_higher_number(make: MakeLease) -> None:
    first, second = make("a", 30), make("b", 30)
    await first.acquire()
    await second.release()  # not the holder: nothing happens
    assert await second.acquire() is None
    await first.release()
    assert await second.acquire() == 2
    assert await first.acquire() is None


async def test_released_and_taken_again_it_has_a_higher_number(make: MakeLease) -> None:
    first = make("a", 30)
    for number in (1, 2, 3):
        assert await first.acquire() == await first.acquire() == number
        await first.release()


async def test_it_runs_out(make: MakeLease) -> None:
    first, second = make("a", 0.1), make("b", 30)
    assert await first.acquire() == 1
    await asyncio.sleep(0.2)
    assert await second.acquire() == 2
    assert await first.acquire() is None


async def test_the_same_holder_after_the_end_keeps_its_number(make: MakeLease) -> None:
    first = make("a", 0.1)
    assert await first.acquire() == 1
    await asyncio.sleep(0.2)
    assert await first.acquire() == 1


async def test_of_many_at_once_one_gets_it(make: MakeLease) -> None:
    tokens = await asyncio.gather(*(make(f"holder-{number}", 30).acquire() for number in range(20)))
    assert sorted(token for token in tokens if token is not None) == [1]


async def test_leases_of_other_names_are_apart(database_name: str, mongod_standalone) -> None:
    async with AsyncMongoClient(mongod_standalone.url) as client:
        database = client[database_name]
        assert await MongoLease(database, "one", "a", 30).acquire() == 1
        assert await MongoLease(database, "two", "b", 30).acquire() == 1
