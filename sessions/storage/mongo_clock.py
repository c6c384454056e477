"""The database's clock as storage's own: replicas have the same one, and a host whose clock leaps deletes nothing."""

import asyncio
import time
from datetime import datetime, timedelta
from typing import Final

import structlog
from bson.codec_options import CodecOptions
from pymongo.errors import PyMongoError

from sessions.runtime.tasks import turn
from sessions.runtime.times import now
from sessions.storage.mongo import Database, Document, Readiness

READ_SECONDS: Final = 60.0
_log = structlog.get_logger()


class DatabaseClock:
    """A `Clock`: the database's time when it was read last, and what the monotonic clock has counted since."""

    def __init__(self) -> None:
        """The host's time is all there is before the first `read`."""
        self._read, self._read_at = now(), time.monotonic()

    def __call__(self) -> datetime:
        """The present, cut to milliseconds."""
        passed_milliseconds = int((time.monotonic() - self._read_at) * 1000)
        return self._read + timedelta(milliseconds=passed_milliseconds)

    async def read(self, db: Database) -> None:
        """Read the database's time.

        Raises:
            PyMongoError: it did not answer; the clock goes on as it was.
        """
        answer: Document = await db.command("hello", codec_options=CodecOptions(tz_aware=True))
        self._read, self._read_at = answer["localTime"], time.monotonic()

    async def run(self, db: Database, readiness: Readiness) -> None:
        """Read it now and then, until cancelled: it may be set, and another member may become the primary."""
        await readiness.established.wait()
        while True:
            await asyncio.sleep(READ_SECONDS)
            with turn():
                try:
                    await self.read(db)
                except PyMongoError as error:
                    _log.warning("clock_not_read", reason=f"{type(error).__name__}: {str(error)[:200]}")
