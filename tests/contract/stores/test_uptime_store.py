"""UptimeStore: one suite for the twin and for MongoDB in both topologies."""

import asyncio

import pytest

from sessions.storage.memory_replicas import MemoryUptime
from sessions.storage.mongo import Database
from sessions.storage.mongo_uptime import MongoUptime
from sessions.storage.uptime import UptimeStore


@pytest.fixture
def uptime(store_db: Database | None) -> UptimeStore:
    return MemoryUptime() if store_db is None else MongoUptime(store_db)


async def test_it_begins_at_zero_once_for_all(uptime: UptimeStore) -> None:
    found = await asyncio.gather(*(uptime.read() for _ in range(8)))
    assert len(set(found)) == 1
    assert (found[0].seconds, found[0].beats) == (0.0, 0)
    assert found[0].generation
    assert await uptime.read() == found[0]


async def test_seconds_add_up(uptime: UptimeStore) -> None:
    seen = await uptime.read()
    for seconds in (0.5, 10.25):
        after = await uptime.beat(seen, seconds)
        assert after is not None
        assert after == await uptime.read()
        assert (after.seconds, after.beats, after.generation) == (
            seen.seconds + seconds,
            seen.beats + 1,
            seen.generation,
        )
        seen = after


async def test_of_beats_at_once_one_counts(uptime: UptimeStore) -> None:
    seen = await uptime.read()
    done = await asyncio.gather(*(uptime.beat(seen, 5.0) for _ in range(8)))
    assert [one is not None for one in done].count(True) == 1
    assert (await uptime.read()).seconds == 5.0
    assert await uptime.beat(seen, 5.0) is None


async def test_another_generation_is_given_once(uptime: UptimeStore) -> None:
    seen = await uptime.beat(await uptime.read(), 5.0)
    assert seen is not None
    renewed = await asyncio.gather(*(uptime.renew(seen) for _ in range(4)))
    assert len(set(renewed)) == 1, "who comes second learns what the first one gave"
    assert renewed[0].generation != seen.generation
    assert renewed[0].seconds == 5.0
    assert await uptime.read() == renewed[0]
    assert await uptime.beat(seen, 5.0) is None, "nothing is added to a count that was set back"


async def test_a_count_that_was_read_too_late_is_not_renewed(uptime: UptimeStore) -> None:
    """Of two reads at once the one that is answered later may have the older count: that is no set-back."""
    old = await uptime.read()
    new = await uptime.beat(old, 5.0)
    assert await uptime.renew(old) == new
    assert await uptime.read() == new
