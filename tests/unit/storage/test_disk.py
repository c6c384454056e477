"""The watch over the database's disk."""

import asyncio
from contextlib import suppress

import pytest
from prometheus_client import REGISTRY

from sessions.runtime.errors import PROBLEMS, DomainError
from sessions.runtime.settings import MIB
from sessions.storage.disk import RETRY_AFTER_SECONDS, DiskWatch, Room
from sessions.storage.mongo import Readiness
from tests.unit.storage.chunks import disk_with


async def test_recording_stops_before_the_disk_is_full_and_goes_on_when_there_is_room_again() -> None:
    disk = disk_with(1000, 199, 100, 99, 110, 124, 125, 250, keep_mib=100)
    seen = []
    for _ in range(8):
        await disk.look()
        seen.append(disk.room)
    # 110 and 124 are above what is kept, but not so far above that it would not stop again at once.
    full = Room.FULL
    assert seen == [Room.OK, Room.LOW, Room.LOW, full, full, full, Room.LOW, Room.OK]


async def test_what_it_says_when_it_is_full() -> None:
    disk = disk_with(7, keep_mib=100)
    disk.require()
    await disk.look()
    with pytest.raises(DomainError, match=r"7 MiB left, and 100 MiB are kept free: make room") as refused:
        disk.require()
    assert PROBLEMS[refused.value.code][0] == 507
    assert refused.value.retry_after_seconds == RETRY_AFTER_SECONDS
    check = disk.check()
    assert (check.status, "nothing more is recorded" in check.detail) == ("degraded", True)


async def test_when_it_becomes_scarce_it_says_so_and_goes_on() -> None:
    disk = disk_with(150, keep_mib=100)
    await disk.look()
    disk.require()
    assert disk.check().status == "degraded"
    assert "scarce" in disk.check().detail


async def test_a_server_that_does_not_tell_or_does_not_answer_changes_nothing() -> None:
    disk = disk_with(1, None, keep_mib=100)
    await disk.look()
    await disk.look()
    assert disk.room is Room.FULL

    async def away() -> int | None:
        raise DomainError("database-unavailable", "away")

    assert REGISTRY.get_sample_value("lucid_database_away") == 0
    absent = DiskWatch(away, 100)
    assert REGISTRY.get_sample_value("lucid_database_away") == 1  # not known to be there
    await absent.look()
    assert (absent.room, absent.check().status) == (Room.OK, "ok")
    assert REGISTRY.get_sample_value("lucid_database_away") == 1
    assert REGISTRY.get_sample_value("lucid_database_disk_free_min_bytes") == 100


async def test_it_waits_for_the_database() -> None:
    disk = disk_with(1, keep_mib=100)
    readiness = Readiness(None)
    watching = asyncio.create_task(disk.run(readiness))
    await asyncio.sleep(0)
    assert disk.room is Room.OK
    readiness.established.set()
    while disk.room is Room.OK:
        await asyncio.sleep(0)
    watching.cancel()
    with suppress(asyncio.CancelledError):
        await watching


async def test_what_is_stored_between_two_looks_counts() -> None:
    disk = disk_with(300, 300, keep_mib=100)
    disk.take(1000 * MIB)
    assert disk.room is Room.OK  # nothing is known yet
    await disk.look()
    disk.take(100 * MIB)
    assert disk.room is Room.LOW  # it is on the disk twice: in the journal, and in the collection
    disk.take(1)
    assert disk.room is Room.FULL
    await disk.look()
    assert disk.room is Room.OK
