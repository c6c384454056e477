"""How long storage has been up, counted in the database: a clock that no host can set, and that shows a set-back.

Replicas add the time that passed by their own monotonic clocks, and only while they run and the database takes writes.
So neither a step of a wall clock nor an outage makes a session look idle, or a processor look missing. A value that
falls, or another generation, shows that the database was set back to an earlier state. So that a set-back by seconds
shows, the count changes within a second of a write.
"""

import asyncio
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

import structlog
from prometheus_client import Counter

from sessions.runtime.errors import DomainError

BEAT_SECONDS: Final = 10.0
"""Longest time between two beats, in seconds."""
STIRRED_BEAT_SECONDS: Final = 1.0
"""Time between two beats while something is being written, in seconds."""
_GENERATIONS: Final = 100
"""Limit on the generations that a replica remembers."""
SET_BACKS = Counter("lucid_database_set_back_total", "Times that the database was found set back to an earlier state.")
_log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Uptime:
    """The count as it is stored. `generation` changes each time that a set-back was noticed."""

    seconds: float
    beats: int
    generation: str


class UptimeStore(Protocol):
    """The count in the database."""

    async def read(self) -> Uptime:
        """Return the count; it begins at zero when there is none."""

    async def beat(self, seen: Uptime, seconds: float) -> Uptime | None:
        """Add seconds to the count if it is still as `seen`; return the new count, or None if another replica did."""

    async def renew(self, seen: Uptime) -> Uptime:
        """Give a count that was set back another generation; return the count."""


class UptimeClock:
    """Beats, reads, and notices a set-back."""

    def __init__(
        self,
        store: UptimeStore,
        beat_seconds: float = BEAT_SECONDS,
        monotonic: Callable[[], float] = time.monotonic,
        *,
        set_back: Sequence[Callable[[], None]] = (),
    ) -> None:
        """Call each of `set_back` when the database was set back: what is remembered of it holds no more."""
        self._store = store
        self._beat_seconds = beat_seconds
        self._monotonic = monotonic
        self._set_back = list(set_back)
        self._known: Uptime | None = None
        self._looked: Uptime | None = None
        self._looked_at = 0.0
        self._seen: OrderedDict[str, None] = OrderedDict()
        self._stirred = False

    @property
    def generation(self) -> str:
        """The generation as last read; empty before the first time."""
        return "" if self._known is None else self._known.generation

    def on_set_back(self, act: Callable[[], None]) -> None:
        """Call `act` whenever the database was set back."""
        self._set_back.append(act)

    async def read(self) -> float:
        """Return the uptime in seconds, as the database has it now.

        Raises:
            DomainError: `database-unavailable`.
        """
        return (await self._note(await self._store.read())).seconds

    def stir(self) -> None:
        """Note that something was written: the next beat comes within `STIRRED_BEAT_SECONDS`."""
        self._stirred = True

    async def beat(self) -> None:
        """Add the time since the last beat, unless another replica has added it.

        Raises:
            DomainError: `database-unavailable`.
        """
        self._stirred = False  # before the count is read: what is written meanwhile has another beat
        before, since = self._looked, self._looked_at
        found = await self._note(await self._store.read())
        now = self._monotonic()
        if before is not None and (found.beats, found.generation) == (before.beats, before.generation):
            # Never more than two periods: a paused replica does not count the time that it slept through.
            passed = min(now - since, 2 * self._beat_seconds)
            found = await self._store.beat(found, passed) or found
            self._known = found
        self._looked, self._looked_at = found, now

    async def run(self) -> None:
        """Beat until cancelled."""
        while True:
            try:
                await self.beat()
            except DomainError as error:
                _log.warning("uptime_not_counted", reason=error.detail)
                self._looked_at = self._monotonic()  # time in which nothing could be written does not count
            await self._pause()

    async def _pause(self) -> None:
        left_seconds = self._beat_seconds
        while left_seconds > 0:
            step_seconds = min(left_seconds, STIRRED_BEAT_SECONDS)
            await asyncio.sleep(step_seconds)
            left_seconds = 0 if self._stirred else left_seconds - step_seconds

    async def _note(self, found: Uptime) -> Uptime:
        if self._is_earlier(found):
            found = await self._store.renew(found)
        known = self._known
        if known is not None and found.generation != known.generation:
            SET_BACKS.inc()
            _log.error("database_set_back", uptime_seconds=found.seconds, known_seconds=known.seconds)
            for act in self._set_back:
                act()
        self._known = found
        self._seen[found.generation] = None
        self._seen.move_to_end(found.generation)
        if len(self._seen) > _GENERATIONS:
            self._seen.popitem(last=False)
        return found

    def _is_earlier(self, found: Uptime) -> bool:
        """Return whether a count is from before the known one: it is lower, or of a generation that was replaced."""
        known = self._known
        if known is None:
            return False
        if found.generation == known.generation:
            return found.seconds < known.seconds
        return found.generation in self._seen
