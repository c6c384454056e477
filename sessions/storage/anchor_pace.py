"""When the next batch may be made: each costs a transaction, and anybody who may seal can fill one."""

from collections.abc import Callable
from datetime import datetime
from typing import Final, Protocol

from sessions.storage.anchor import BatchRecord

BATCHES_PER_INTERVAL: Final = 4
"""Batches that may be made in one interval while full batches wait."""


class _Batches(Protocol):
    async def last(self) -> BatchRecord | None:
        """Return the newest batch."""
        ...

    async def get_by_sequence(self, sequence: int) -> BatchRecord | None:
        """Return the batch of that number."""
        ...


class Pace:
    """Counts the batches of the last interval off the stored ones, so that a restart or another leader adds none."""

    def __init__(
        self, batches: _Batches, interval_seconds: float, per_interval: int, now: Callable[[], datetime]
    ) -> None:
        self._batches, self._interval_seconds, self._per_interval, self._now = (
            batches,
            interval_seconds,
            per_interval,
            now,
        )

    async def wait_seconds(self, *, backlog: bool) -> float:
        """Return how long the next batch has to wait, in seconds; 0 is not at all.

        Without a backlog, until an interval has passed since the last batch; with one, until fewer than the allowed
        number were made within an interval. Batches that seem to be made more than an interval in the future, since
        the clock was set back, hold up nothing.
        """
        last = await self._batches.last()
        if last is None:
            return 0.0
        counted = last
        if backlog and self._per_interval > 1:
            first = await self._batches.get_by_sequence(last.sequence - self._per_interval + 1)
            if first is None:
                return 0.0
            counted = first
        age_seconds = (self._now() - counted.created_at).total_seconds()
        if age_seconds < -self._interval_seconds:
            return 0.0
        return min(max(0.0, self._interval_seconds - age_seconds), self._interval_seconds)
