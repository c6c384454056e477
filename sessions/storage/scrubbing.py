"""The scrub in the background: slowly, by one replica at a time, and on after a restart where it was."""

import asyncio
from typing import Final

import structlog

from sessions.runtime.errors import DomainError
from sessions.runtime.tasks import skipped, turn
from sessions.storage.anchor import Lease
from sessions.storage.mongo import Readiness, translated
from sessions.storage.scrub import PAGE_BYTES, Scrubber, ScrubPage
from sessions.storage.scrub_store import FindingStore, Position

LEASE_SECONDS: Final = 900.0
"""More than a page takes, whatever the disk."""
_STANDBY_SECONDS: Final = 60.0
_RETRY_SECONDS: Final = 10.0
_BETWEEN_PASSES_SECONDS: Final = 3600.0
_LEAST_PAUSE_SECONDS: Final = 0.5
_STEP_SECONDS: Final = 10.0
"""A page is at most what may be read in so long, so that reading is even."""
_TRIES: Final = 3
"""After this many failures in a row at one place the scrub passes over the session there."""
_log = structlog.get_logger()


class Scrubbing:
    """Reads all bodies, again and again, at most so many bytes a second; 0: not at all."""

    def __init__(self, scrubber: Scrubber, findings: FindingStore, lease: Lease, bytes_per_second: int) -> None:
        self._scrubber = scrubber
        self._findings = findings
        self._lease = lease
        self._bytes_per_second = bytes_per_second
        self._failures = 0

    async def run(self, readiness: Readiness) -> None:
        """Scrub until cancelled."""
        if not self._bytes_per_second:
            return
        await readiness.established.wait()
        while True:
            pause_seconds = _RETRY_SECONDS
            with turn():
                try:
                    pause_seconds = await self.turn()
                except DomainError as error:
                    _log.warning("scrub_delayed", reason=error.detail)
            await asyncio.sleep(pause_seconds)

    async def turn(self) -> float:
        """Look at the next page, and remember where to go on; gives the seconds to wait before the next turn.

        A crash before it is remembered makes the page be read again: what it finds is kept once.

        Raises:
            DomainError: `database-unavailable`.
        """
        async with translated():
            if await self._lease.acquire() is None:
                return _STANDBY_SECONDS
        limit_bytes = min(PAGE_BYTES, max(1, round(self._bytes_per_second * _STEP_SECONDS)))
        page = await self._page(await self._findings.position(), limit_bytes)
        await self._findings.move(page.following)
        if page.following is None:
            _log.info("scrub_passed")
            return _BETWEEN_PASSES_SECONDS
        return max(_LEAST_PAUSE_SECONDS, page.bytes / self._bytes_per_second)

    async def _page(self, position: Position | None, limit_bytes: int) -> ScrubPage:
        """Look at the next page; where that fails again and again, pass over the session, with all that it says."""
        try:
            page = await self._scrubber.page(position, limit_bytes=limit_bytes)
        except DomainError:
            raise
        except Exception:
            self._failures += 1
            if self._failures < _TRIES or position is None:
                raise
            skipped(session_id=position.session_id)
            page = ScrubPage(following=await self._scrubber.after(position))
        self._failures = 0
        return page
