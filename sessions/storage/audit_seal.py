"""Seals the days of the audit trail, some minutes after each has ended. One replica at a time does, by a lease.

First the day is closed, then its session is sealed like any other, and anchored with the others. Both may be repeated,
so a crash at any point is made good by whoever comes next.
"""

import asyncio
from datetime import timedelta
from typing import Final

import structlog
from prometheus_client import Gauge

from sessions.core.types import SessionId
from sessions.runtime.errors import DomainError
from sessions.runtime.health import Check
from sessions.runtime.tasks import skipped
from sessions.runtime.times import Clock, now
from sessions.storage.anchor import Lease
from sessions.storage.audit_store import EventStore
from sessions.storage.audit_trail import Trail, begin_of
from sessions.storage.mongo import Readiness, translated
from sessions.storage.sealing import Sealer

GRACE: Final = timedelta(minutes=5)
"""So long a day may take events of clocks that are late; with later ones they go into the next day."""
LATE: Final = timedelta(hours=1)
"""A day that is not sealed so long after its end is degraded health."""
LEASE_SECONDS: Final = 120.0
_LOOK_SECONDS: Final = 10.0
_DAYS_AT_ONCE: Final = 100

OLDEST_UNSEALED = Gauge("lucid_audit_oldest_unsealed_seconds", "Time since the end of the oldest day not sealed; or 0.")
_log = structlog.get_logger()


class DailySeal:
    """Looks for days that are over."""

    def __init__(self, trail: Trail, events: EventStore, sealer: Sealer, lease: Lease, clock: Clock = now) -> None:
        self._trail = trail
        self._events = events
        self._sealer = sealer
        self._lease = lease
        self._clock = clock
        self._late: SessionId | None = None
        self._problem = ""

    async def run(self, readiness: Readiness) -> None:
        """Seal days until cancelled."""
        await readiness.established.wait()
        while True:
            try:
                await self.turn()
            except DomainError as error:
                self._problem = error.detail
                _log.warning("audit_not_sealed", reason=error.detail)
            await asyncio.sleep(_LOOK_SECONDS)

    async def turn(self) -> list[SessionId]:
        """Seal all days that are over, if this replica has the lease; return which.

        A day that cannot be sealed, such as one with more gaps than a manifest can list, stops no later one.

        Raises:
            DomainError: `database-unavailable`.
        """
        unsealed = [name for name in await self._events.unsealed(_DAYS_AT_ONCE) if self._over(name)]
        self._look(unsealed)
        self._problem = ""
        if not unsealed:
            return []
        sealed = []
        for name in unsealed:
            async with translated():
                if await self._lease.acquire() is None:
                    break
            try:
                await self._seal(name)
            except Exception as error:
                if isinstance(error, DomainError) and error.code == "database-unavailable":
                    raise
                self._problem = error.detail if isinstance(error, DomainError) else type(error).__name__
                skipped(session_id=name)
            else:
                sealed.append(name)
        self._look([name for name in unsealed if name not in sealed])
        return sealed

    async def _seal(self, name: SessionId) -> None:
        await self._trail.close(name)
        # What somebody took out of the trail before is in the manifest as a gap, for good.
        manifest = await self._sealer.seal(name, None, "idle")
        gaps = [list(gap) for gap in manifest.missing]
        log = _log.warning if gaps else _log.info
        log("audit_day_sealed", session_id=name, events=manifest.chunk_count, missing=gaps[:10])

    def check(self) -> Check:
        """For `/health`: a day that is long over and not sealed is degraded."""
        if self._late is None:
            return Check("ok")
        return Check("degraded", f"{self._late} is over and not sealed{self._problem and ': '}{self._problem}")

    def _over(self, name: SessionId) -> bool:
        return self._clock() >= begin_of(name) + timedelta(days=1) + GRACE

    def _look(self, unsealed: list[SessionId]) -> None:
        since = self._clock() - begin_of(unsealed[0]) - timedelta(days=1) if unsealed else timedelta()
        OLDEST_UNSEALED.set(since.total_seconds())
        self._late = unsealed[0] if unsealed and since > LATE else None
