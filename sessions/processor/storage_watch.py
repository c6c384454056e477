"""Whether session-storage is there: told by the calls that fail, and found out again in the background.

While it is away nobody waits for a time-out: what arrives goes to the spool at once.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final

import structlog
from prometheus_client import Gauge

from sessions.runtime.errors import DomainError

AWAY_CODES: Final = frozenset({"storage-unavailable", "database-unavailable", "storage-full", "overloaded"})
"""Answers after which session-storage is let alone for a while."""
OVERDUE_SECONDS: Final = 5.0
"""So long a call may take before its chunks go to the spool. The first of an outage wait for it, no later ones."""
_PROBE_SECONDS: Final = 0.5
_HOLD_MAX_SECONDS: Final = 10.0

AWAY = Gauge("lucid_storage_away", "1 while session-storage does not take anything.")
_log = structlog.get_logger()


class StorageWatch:
    """Knows whether session-storage takes what is sent. Without a spool it is not asked: see `SPOOL`."""

    def __init__(
        self, reachable: Callable[[], Awaitable[str | None]], overdue_seconds: float = OVERDUE_SECONDS
    ) -> None:
        self._reachable = reachable
        self.overdue_seconds = overdue_seconds
        self.reason = ""
        self._code = ""
        self.gone = asyncio.Event()
        self.back = asyncio.Event()
        self.back.set()
        self._lost = asyncio.Event()
        self._hold_seconds = 0.0
        AWAY.set(0)

    @property
    def away(self) -> bool:
        """Whether it is away."""
        return self.gone.is_set()

    @property
    def answers(self) -> bool:
        """Whether it can be asked: when it is full it takes no chunks, and does all else."""
        return not self.away or self._code == "storage-full"

    def lost(self, error: DomainError) -> bool:
        """Note an error; whether it is one of those that say that storage is away."""
        if error.code not in AWAY_CODES:
            return False
        if not self.away:
            self.reason, self._code = error.detail, error.code
            self.gone.set()
            AWAY.set(1)
            _log.warning("storage_away", code=error.code, detail=error.detail)
        # Storage that is full says so with a long Retry-After, and its probe is content all the same.
        self._hold_seconds = min(_HOLD_MAX_SECONDS, max(_PROBE_SECONDS, float(error.retry_after_seconds or 0) - 1))
        self.back.clear()
        self._lost.set()
        return True

    def overdue(self) -> DomainError:
        """Note that a call takes too long; the error for those who waited for it."""
        detail = f"session-storage did not answer within {self.overdue_seconds:g} s; repeat the request"
        error = DomainError("storage-unavailable", detail, retry_after_seconds=1)
        self.lost(error)
        return error

    async def _problem(self) -> str | None:
        try:
            return await self._reachable()
        except Exception as error:  # noqa: BLE001 - whatever it is: this task alone can find out that storage is back
            return f"STORAGE_URL cannot be asked ({type(error).__name__})"

    async def run(self) -> None:
        """Ask until it is back, whenever it was lost; until cancelled."""
        while True:
            await self._lost.wait()
            self._lost.clear()
            await asyncio.sleep(self._hold_seconds)
            while (problem := await self._problem()) is not None:
                self.reason = problem
                await asyncio.sleep(_PROBE_SECONDS)
            self._lost.clear()
            self.gone.clear()
            AWAY.set(0)
            _log.info("storage_back")
            self.back.set()
