"""Room on the database's disk: recording stops while there is still enough of it to seal, prove, shred and start again.

A MongoDB that runs out of disk ends itself, and does not start before somebody makes room. So we stop before it does.
"""

from collections.abc import Awaitable, Callable
from enum import StrEnum
from typing import Final

import structlog
from prometheus_client import Gauge

from sessions.runtime.errors import DomainError
from sessions.runtime.health import Check
from sessions.runtime.metrics import UNKNOWN
from sessions.storage.mongo import Database, Readiness, translated

POLL_SECONDS: Final = 5.0
LOW_FACTOR: Final = 2.0
"""Below so many times the least free space, `/health` says that it becomes scarce."""
AGAIN_FACTOR: Final = 1.25
"""Recording goes on only when so many times the least free space are there, so that it does not stop and go."""
RETRY_AFTER_SECONDS: Final = 30
WRITTEN_FACTOR: Final = 2
"""Bytes on disk for each that is stored: in the journal, and in the collection's file."""
_MIB: Final = 1024 * 1024

FREE_BYTES = Gauge("lucid_database_disk_free_bytes", "Free space on MongoDB's disk; NaN as long as it does not tell.")
FREE_MIN_BYTES = Gauge("lucid_database_disk_free_min_bytes", "DATABASE_FREE_MIN_BYTES: with less nothing is recorded.")
AWAY = Gauge("lucid_database_away", "1 while MongoDB does not answer, or has not yet.")
FREE_BYTES.set(UNKNOWN)
_log = structlog.get_logger()


class Room(StrEnum):
    """How much there is."""

    OK = "ok"
    LOW = "low"
    FULL = "full"


async def free_bytes(db: Database) -> int | None:
    """Free bytes of the file system that MongoDB writes to, of several shards the least; None when it does not tell.

    Raises:
        DomainError: `database-unavailable`.
    """
    async with translated():
        stats = await db.command("dbStats")
    # A mongos gives what each shard says: a chunk goes to one of them. One without this database says that it has 0.
    known = [
        int(one["fsTotalSize"] - one["fsUsedSize"])
        for one in stats.get("raw", {"": stats}).values()
        if one.get("fsTotalSize")
    ]
    return min(known, default=None)


class DiskWatch:
    """Asks now and then, and refuses what would fill the disk."""

    def __init__(self, measure: Callable[[], Awaitable[int | None]], free_min_bytes: int) -> None:
        self._measure = measure
        self._free_min_bytes = free_min_bytes
        self._free_bytes: int | None = None
        self._taken_bytes = 0
        self.room = Room.OK
        FREE_MIN_BYTES.set(free_min_bytes)
        AWAY.set(1)

    async def run(self, readiness: Readiness) -> None:
        """Watch until cancelled."""
        await readiness.watch(self.look, POLL_SECONDS)

    async def look(self) -> None:
        """Ask once; a database that does not answer leaves what was known."""
        try:
            free = await self._measure()
        except DomainError:
            AWAY.set(1)
            return
        AWAY.set(0)
        if free is None:
            return
        self._free_bytes, self._taken_bytes = free, 0
        FREE_BYTES.set(free)
        self._judge()

    def take(self, size_bytes: int) -> None:
        """Note what was stored: a fast recorder fills a disk between two looks."""
        self._taken_bytes += WRITTEN_FACTOR * size_bytes
        self._judge()

    def _judge(self) -> None:
        if self._free_bytes is None:
            return
        before, self.room = self.room, self._room(self._free_bytes - self._taken_bytes)
        if self.room is not before:
            _log.warning(
                "database_disk",
                room=self.room.value,
                free_bytes=self._free_bytes,
                free_min_bytes=self._free_min_bytes,
            )

    def _room(self, free: int) -> Room:
        threshold = self._free_min_bytes * (AGAIN_FACTOR if self.room is Room.FULL else 1)
        if free < threshold:
            return Room.FULL
        return Room.LOW if free < LOW_FACTOR * self._free_min_bytes else Room.OK

    def require(self) -> None:
        """Refuse more content.

        Raises:
            DomainError: `storage-full`.
        """
        if self.room is Room.FULL:
            raise DomainError(
                "storage-full",
                f"MongoDB's disk has {self._shown()} left, and {self._free_min_bytes // _MIB} MiB are kept free: make "
                "room or enlarge it, then recording goes on by itself; nothing acknowledged is lost",
                retry_after_seconds=RETRY_AFTER_SECONDS,
            )

    def check(self) -> Check:
        """For `/health`: what is stored can still be sealed, proven and read, so it is degraded, not failed."""
        if self.room is Room.OK:
            return Check("ok")
        what = "nothing more is recorded" if self.room is Room.FULL else "it becomes scarce"
        return Check("degraded", f"MongoDB's disk has {self._shown()} left, {what}: make room or enlarge it")

    def _shown(self) -> str:
        return f"{(self._free_bytes or 0) // _MIB} MiB"
