"""Whether session-storage is there: told by the calls that fail, and found out again in the background.

While it is away nobody waits for a time-out: what arrives goes to the spool at once. One request that fails says
nothing about the service; it only makes this ask.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Final, TypeVar

import structlog
from prometheus_client import Counter, Gauge

from sessions.processor.storage_errors import OverdueError, RequestFailedError, is_away
from sessions.runtime.errors import DomainError

T = TypeVar("T")
OVERDUE_SECONDS: Final = 5.0
"""Longest time that a call of a recorder's request waits for session-storage, in seconds."""
_SUSPECT_SHARE: Final = 0.4
"""Share of that time after which a call that is not answered makes this ask whether the service is there."""
_PROBE_SECONDS: Final = 0.5
_HOLD_MAX_SECONDS: Final = 10.0

AWAY = Gauge("lucid_storage_away", "1 while session-storage does not take anything.")
FAILED = Counter("lucid_storage_requests_failed_total", "Requests to session-storage that failed though it was there.")
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
        self._asking: asyncio.Task[None] | None = None
        self.answered_at = 0.0
        AWAY.set(0)

    @property
    def away(self) -> bool:
        """Whether it is away."""
        return self.gone.is_set()

    @property
    def answers(self) -> bool:
        """Whether it can be asked: when it is full it takes no chunks, and does all else."""
        return not self.away or self._code == "storage-full"

    def answered(self) -> None:
        """Note that a request was answered as it should be."""
        self.answered_at = time.monotonic()

    def lost(self, error: DomainError) -> bool:
        """Note an error; return whether it is one of those that say that storage is away."""
        if isinstance(error, RequestFailedError):
            FAILED.inc()
            self.suspect()
            return False
        if not is_away(error):
            return False
        if not self.away or error.code != self._code:
            self.reason, self._code = error.detail, error.code
        if not self.away:
            self.gone.set()
            AWAY.set(1)
            _log.warning("storage_away", code=error.code, detail=error.detail)
        # Storage that is full says so with a long Retry-After, and its probe is content all the same.
        self._hold_seconds = min(_HOLD_MAX_SECONDS, max(_PROBE_SECONDS, float(error.retry_after_seconds or 0) - 1))
        self.back.clear()
        self._lost.set()
        return True

    def suspect(self) -> None:
        """Ask in the background whether the service is there, since a request was not answered as it should be."""
        if not self.away and (self._asking is None or self._asking.done()):
            self._asking = asyncio.create_task(self._ask())

    async def _ask(self) -> None:
        problem = await self._problem()
        if problem is not None and not self.away:
            self.lost(DomainError("storage-unavailable", f"{problem}; repeat the request", retry_after_seconds=1))

    async def attempt(self, call: Awaitable[T]) -> T:
        """Wait for a call, but not for long.

        Raises:
            DomainError: what session-storage answered; `storage-unavailable` when it took too long.
        """
        suspicion = asyncio.get_running_loop().call_later(_SUSPECT_SHARE * self.overdue_seconds, self.suspect)
        try:
            async with asyncio.timeout(self.overdue_seconds):
                answer = await call
        except TimeoutError:
            raise OverdueError(f"session-storage did not answer within {self.overdue_seconds:g} s") from None
        finally:
            suspicion.cancel()
        self.answered()
        return answer

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
                self.reason, self._code = problem, "storage-unavailable"
                await asyncio.sleep(_PROBE_SECONDS)
            self._lost.clear()
            self.gone.clear()
            AWAY.set(0)
            _log.info("storage_back")
            self.back.set()
