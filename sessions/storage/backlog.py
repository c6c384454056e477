"""What is sealed and in no block yet: how much, and since when. Every replica looks, so no leader is needed."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from prometheus_client import Gauge

from sessions.runtime.errors import DomainError
from sessions.runtime.times import Clock, now
from sessions.storage.mongo import Readiness

POLL_SECONDS: Final = 5.0

SESSIONS = Gauge("lucid_anchor_backlog_sessions", "Sealed sessions that are in no block yet.")
OLDEST = Gauge("lucid_anchor_oldest_unanchored_seconds", "Time since the oldest seal that is in no block yet; or 0.")


@dataclass(frozen=True, slots=True)
class Unanchored:
    """Sealed sessions whose seal no block holds; `oldest_sealed_at` is None without any."""

    sessions: int
    oldest_sealed_at: datetime | None


class Backlog:
    """Asks now and then."""

    def __init__(self, measure: Callable[[], Awaitable[Unanchored]], clock: Clock = now) -> None:
        self._measure = measure
        self._clock = clock
        self._oldest_sealed_at: datetime | None = None
        # An age goes on growing while the database does not answer.
        OLDEST.set_function(self._age_seconds)

    async def run(self, readiness: Readiness) -> None:
        """Watch until cancelled."""
        await readiness.watch(self.look, POLL_SECONDS)

    async def look(self) -> None:
        """Ask once; a database that does not answer leaves what was known."""
        try:
            found = await self._measure()
        except DomainError:
            return
        self._oldest_sealed_at = found.oldest_sealed_at
        SESSIONS.set(found.sessions)

    def _age_seconds(self) -> float:
        if self._oldest_sealed_at is None:
            return 0.0
        return max(0.0, (self._clock() - self._oldest_sealed_at).total_seconds())
