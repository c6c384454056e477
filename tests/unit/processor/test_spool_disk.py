"""A spool that cannot be written: what `/health` says of it, with session-storage there and away."""

import asyncio
import errno
import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from scripts.devstack.read_only import read_only
from sessions.core.types import SessionId
from sessions.processor import spool
from sessions.processor.promises import Promises
from sessions.processor.spool import Spool
from sessions.processor.spool_format import Kind
from sessions.processor.spool_health import spool_checks
from sessions.processor.spool_room import SpoolRoom
from sessions.processor.spooling import Spooling
from sessions.processor.storage_watch import StorageWatch
from sessions.runtime.errors import DomainError
from tests.unit.processor.spools import MIB, segments_in

A = SessionId("a")


class Storage:
    """A session-storage that is unreachable while it has a `problem`."""

    problem: str | None = None

    async def reachable(self) -> str | None:
        return self.problem


class Place:
    """A spool with its health."""

    def __init__(self, folder: Path) -> None:
        self.spool = Spool(segments_in(folder, MIB), SpoolRoom(64 * MIB, 0))
        self.spool.open()
        self.storage = Storage()
        self._spooling = Spooling(self.spool, StorageWatch(self.storage.reachable), Promises(None))

    async def health(self) -> dict[str, tuple[str, str]]:
        found = await spool_checks(self._spooling, self.storage)  # type: ignore[arg-type]
        return {name: (check.status, check.detail) for name, check in found.items()}

    async def append(self, index: int) -> None:
        await self.spool.append(Kind.ENVELOPE, A, b"envelope", index)


@pytest.fixture
async def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Place]:
    monkeypatch.setattr(spool, "_WATCH_SECONDS", 0.02)
    one = Place(tmp_path)
    watching = asyncio.create_task(one.spool.watch())
    yield one
    watching.cancel()
    await asyncio.gather(watching, return_exceptions=True)
    await one.spool.close()


async def _until(place: Place, part: str, status: str) -> str:
    async with asyncio.timeout(5):
        while (await place.health())[part][0] != status:
            await asyncio.sleep(0.01)
    return (await place.health())[part][1]


@pytest.mark.root
@pytest.mark.parametrize("asked", [False, True])
async def test_a_disk_that_becomes_read_only(place: Place, tmp_path: Path, asked: bool) -> None:
    """B28: `/health` was 200 `degraded`, "chunks go to the spool", and each chunk was refused."""
    assert (await place.health())["spool"] == ("ok", "")
    with read_only(tmp_path):
        if asked:
            with pytest.raises(DomainError, match="Read-only file system"):
                await place.append(0)
        detail = await _until(place, "spool", "degraded")
        assert "cannot be written (Read-only file system)" in detail
        assert (await place.health())["storage"] == ("ok", ""), "what is recorded goes to session-storage"
        place.storage.problem = "STORAGE_URL does not answer"
        status, detail = (await place.health())["storage"]
        assert (status, "nothing is recorded" in detail, "chunks go to the spool" in detail) == ("failed", True, False)
        await asyncio.sleep(0.1)
        assert (await place.health())["storage"][0] == "failed"
    await _until(place, "storage", "degraded")
    assert (await place.health())["spool"] == ("ok", "")
    assert "chunks go to the spool" in (await place.health())["storage"][1]
    await place.append(1)


@pytest.mark.parametrize("number", [errno.EIO, errno.EROFS, errno.ENOSPC, errno.EDQUOT])
async def test_a_disk_that_fails_is_tried_until_it_takes_something(
    place: Place, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    """Also where the free space that it shows is ample, as with a quota or without inodes."""
    place.storage.problem = "STORAGE_URL does not answer"
    truly = os.open

    def fails(path: os.PathLike[str], flags: int, *rest: int, **names: int) -> int:
        if flags & os.O_CREAT:
            raise OSError(number, os.strerror(number))
        return truly(path, flags, *rest, **names)

    with monkeypatch.context() as patched:
        patched.setattr(os, "open", fails)
        with pytest.raises(DomainError):
            await place.append(0)
        for _ in range(5):
            await asyncio.sleep(0.03)
            health = await place.health()
            assert (health["storage"][0], health["spool"][0]) == ("failed", "degraded")
            assert os.strerror(number) in health["spool"][1]
    await _until(place, "storage", "degraded")
    assert (await place.health())["spool"] == ("ok", "")


async def test_a_disk_that_is_well_is_not_written_for_its_health(place: Place, tmp_path: Path) -> None:
    before = tmp_path.stat().st_mtime_ns
    await asyncio.sleep(0.2)
    assert tmp_path.stat().st_mtime_ns == before


async def test_a_write_that_succeeds_says_so_at_once(place: Place) -> None:
    await place.append(0)
    place.spool.disk.failed(OSError(errno.EIO, os.strerror(errno.EIO)))
    assert (await place.health())["spool"][0] == "degraded"
    await place.append(1)
    assert (await place.health())["spool"] == ("ok", "")


async def test_what_fails_without_a_word_of_the_system(place: Place) -> None:
    place.spool.disk.failed(ValueError("?"))
    assert (await place.health())["spool"][0] == "degraded"
    assert place.spool.disk.problem == "ValueError"
