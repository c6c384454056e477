"""ProcessorStore: one suite for the twin and for MongoDB in both topologies."""

import asyncio
from datetime import UTC, datetime, timedelta

import pytest

from sessions.storage.memory_replicas import MemoryProcessors
from sessions.storage.mongo import Database
from sessions.storage.mongo_processors import MongoProcessors
from sessions.storage.processors import MAX_RUNS, Holdings, ProcessorStore, Stored

KNOWN, NEW, REPLACED = Stored
HOLDINGS = Holdings(spooled_entries=1, spooled_bytes=2**52, spooled_sessions=3, quarantined_entries=4)


def _runs(count: int) -> list[str]:
    return [f"{number:016x}" for number in range(count)]


@pytest.fixture
def processors(store_db: Database | None) -> ProcessorStore:
    return MemoryProcessors() if store_db is None else MongoProcessors(store_db)


async def test_a_report_is_kept_as_it_was_given_with_the_databases_time(processors: ProcessorStore) -> None:
    assert list(await processors.all()) == []
    await processors.report("p", HOLDINGS, 12.25)
    (record,) = await processors.all()
    assert (record.name, record.holdings, record.reported_seconds) == ("p", HOLDINGS, 12.25)
    assert abs(record.reported_at - datetime.now(UTC)) < timedelta(minutes=1)


async def test_a_report_replaces_the_one_before_it(processors: ProcessorStore) -> None:
    await processors.report("p", HOLDINGS, 12.25)
    (before,) = await processors.all()
    await processors.report("p", Holdings(), 13.0)
    (after,) = await processors.all()
    assert (after.holdings, after.reported_seconds) == (Holdings(), 13.0)
    assert after.reported_at >= before.reported_at


async def test_all_come_by_name(processors: ProcessorStore) -> None:
    await asyncio.gather(*(processors.report(name, HOLDINGS, 1.0) for name in ("b", "a.", "a", "B", "a-1")))
    assert [record.name for record in await processors.all()] == ["B", "a", "a-1", "a.", "b"]


async def test_of_first_reports_at_once_one_processor_comes(processors: ProcessorStore) -> None:
    await asyncio.gather(*(processors.report("p", HOLDINGS, float(number)) for number in range(8)))
    assert len(await processors.all()) == 1


async def test_a_processor_is_forgotten_once(processors: ProcessorStore) -> None:
    for name in ("a", "b"):
        await processors.report(name, HOLDINGS, 1.0)
    assert [await processors.forget(name) for name in ("a", "a", "none")] == [True, False, False]
    assert [record.name for record in await processors.all()] == ["b"]
    await processors.report("a", HOLDINGS, 2.0)
    assert [record.name for record in await processors.all()] == ["a", "b"]


async def test_a_processor_is_new_until_it_is_met(processors: ProcessorStore) -> None:
    for _ in range(2):
        assert await processors.report("p", HOLDINGS, 1.0) is NEW
    await processors.meet("p")
    await processors.meet("none")
    assert await processors.report("p", Holdings(), 2.0) is KNOWN
    assert [record.name for record in await processors.all()] == ["p"]
    await processors.forget("p")
    assert await processors.report("p", HOLDINGS, 3.0) is NEW


async def test_a_process_that_was_replaced_stores_nothing_more(processors: ProcessorStore) -> None:
    first, second, _ = _runs(3)
    for seconds, run in ((1.0, first), (2.0, first), (3.0, second)):
        assert await processors.report("p", HOLDINGS, seconds, run) is NEW
    assert await processors.report("p", Holdings(), 4.0, first) is REPLACED
    (record,) = await processors.all()
    assert (record.holdings, record.reported_seconds) == (HOLDINGS, 3.0)
    assert await processors.report("p", HOLDINGS, 5.0, second) is NEW
    assert await processors.report("another", HOLDINGS, 5.0, first) is NEW, "under a name of its own it may"
    assert await processors.report("p", HOLDINGS, 6.0) is NEW, "one that names no process counts as before"
    assert not await processors.forget("p", first), "a goodbye that comes late"
    assert await processors.forget("p", second)
    assert await processors.report("p", HOLDINGS, 7.0, first) is NEW


async def test_of_many_processes_the_last_are_remembered(processors: ProcessorStore) -> None:
    runs = _runs(MAX_RUNS + 2)
    for run in runs:
        assert await processors.report("p", HOLDINGS, 1.0, run) is NEW
    assert [await processors.report("p", HOLDINGS, 1.0, run) for run in runs[1:]] == [REPLACED] * MAX_RUNS + [NEW]
    assert await processors.report("p", HOLDINGS, 1.0, runs[0]) is NEW, "that one is forgotten"


async def test_of_two_processes_that_begin_at_once_one_is_told(processors: ProcessorStore) -> None:
    runs = _runs(2)
    for _ in range(2):
        done = await asyncio.gather(*(processors.report("p", HOLDINGS, 1.0, run) for run in runs))
    assert sorted(done) == [NEW, REPLACED]


async def test_holdings_of_another_version_are_read(db: Database) -> None:
    """A member that is not known yet is zero; one that is not known any more is passed over."""
    processors = MongoProcessors(db)
    await processors.report("p", HOLDINGS, 1.0)
    await db["processors"].update_one({"_id": "p"}, {"$unset": {"spooled_bytes": ""}, "$set": {"later": 7}})
    (record,) = await processors.all()
    assert record.holdings == Holdings(spooled_entries=1, spooled_sessions=3, quarantined_entries=4)
