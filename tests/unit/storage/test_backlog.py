"""The watch over what is sealed and in no block."""

import asyncio
from contextlib import suppress
from datetime import UTC, datetime, timedelta

from prometheus_client import REGISTRY

from sessions.runtime.errors import DomainError
from sessions.storage.backlog import Backlog, Unanchored
from sessions.storage.mongo import Readiness

NOW = datetime(2026, 5, 14, 12, tzinfo=UTC)


class Database:
    def __init__(self) -> None:
        self.found = Unanchored(0, None)
        self.away = False

    async def unanchored(self) -> Unanchored:
        if self.away:
            raise DomainError("database-unavailable", "away")
        return self.found


def shown() -> tuple[float | None, float | None]:
    names = "lucid_anchor_backlog_sessions", "lucid_anchor_oldest_unanchored_seconds"
    first, second = (REGISTRY.get_sample_value(name) for name in names)
    return first, second


async def test_it_shows_how_much_and_since_when_and_the_age_grows_while_nobody_answers() -> None:
    time, database = [NOW], Database()
    backlog = Backlog(database.unanchored, lambda: time[0])
    await backlog.look()
    assert shown() == (0, 0)
    database.found = Unanchored(3, NOW - timedelta(seconds=7))
    await backlog.look()
    assert shown() == (3, 7)
    database.away, time[0] = True, NOW + timedelta(seconds=5)
    await backlog.look()
    assert shown() == (3, 12)
    database.away, database.found = False, Unanchored(0, None)
    await backlog.look()
    assert shown() == (0, 0)


async def test_a_clock_that_is_behind_the_one_that_sealed_makes_no_age_below_0() -> None:
    database = Database()
    database.found = Unanchored(1, NOW + timedelta(seconds=1))
    await Backlog(database.unanchored, lambda: NOW).look()
    assert shown() == (1, 0)


async def test_it_waits_for_the_database() -> None:
    database, readiness = Database(), Readiness(None)
    database.found = Unanchored(5, NOW)
    watching = asyncio.create_task(Backlog(database.unanchored, lambda: NOW).run(readiness))
    await asyncio.sleep(0)
    assert shown()[0] != 5
    readiness.established.set()
    while shown()[0] != 5:
        await asyncio.sleep(0)
    watching.cancel()
    with suppress(asyncio.CancelledError):
        await watching
