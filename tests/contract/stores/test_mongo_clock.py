"""The database's clock as storage reads it."""

import asyncio
import contextlib
from datetime import timedelta
from typing import Any

import pytest
import structlog
from pymongo import AsyncMongoClient

from sessions.runtime.times import now
from sessions.storage import mongo_clock
from sessions.storage.mongo import Readiness
from sessions.storage.mongo_clock import DatabaseClock
from tests.unit.storage.chunks import driver_may_drop_sockets

NEAR = timedelta(seconds=5)


async def test_it_is_the_databases_time_and_goes_on(mongodb_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The host's clock is another one."""
    monkeypatch.setattr(mongo_clock, "now", lambda: now() + timedelta(days=400))
    clock = DatabaseClock()
    assert clock() - now() > timedelta(days=399)
    async with AsyncMongoClient[dict[str, Any]](mongodb_url, tz_aware=True) as client:
        await clock.read(client["any"])
    assert abs(clock() - now()) < NEAR
    before = clock()
    await asyncio.sleep(0.05)
    assert timedelta(milliseconds=40) < clock() - before < NEAR
    assert clock().microsecond % 1000 == 0


@pytest.mark.parametrize("away", [False, True])
async def test_it_is_read_again_and_a_database_that_is_away_does_not_end_that(
    mongodb_url: str, monkeypatch: pytest.MonkeyPatch, away: bool
) -> None:
    monkeypatch.setattr(mongo_clock, "READ_SECONDS", 0.05)
    monkeypatch.setattr(mongo_clock, "now", lambda: now() + timedelta(days=400))
    url = "mongodb://127.0.0.1:1/" if away else mongodb_url
    client = AsyncMongoClient[dict[str, Any]](url, serverSelectionTimeoutMS=50 if away else 5000)
    clock, readiness = DatabaseClock(), Readiness(client["any"])
    readiness.established.set()
    async with driver_may_drop_sockets():
        with structlog.testing.capture_logs() as logs:
            reading = asyncio.create_task(clock.run(client["any"], readiness))
            try:
                async with asyncio.timeout(20):
                    while len(logs) < 2 and clock() - now() > NEAR:
                        await asyncio.sleep(0.05)
            finally:
                reading.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await reading
                await client.close()
    assert [line["event"] for line in logs] == ["clock_not_read"] * (2 if away else 0)
    assert (clock() - now() > timedelta(days=399)) is away
