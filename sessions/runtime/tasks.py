"""A service's tasks: supervising those that run in the background, and ending tasks before they are done."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, Final, TypeAlias

import structlog
from prometheus_client import Counter

from sessions.runtime.health import Check

AGAIN_SECONDS: Final = 10.0
"""Longer than what a task does at its end, writing the last audit events say, takes."""
FIRST_PAUSE_SECONDS: Final = 1.0
"""How long a task that failed waits before it starts again, in seconds; each further failure doubles it."""
MAX_PAUSE_SECONDS: Final = 60.0
"""The longest such wait, in seconds."""
WELL_SECONDS: Final = 60.0
"""A task that has run for this many seconds since its last failure is well again."""
FAILURES_IN_A_ROW: Final = 3
"""After this many failures without being well in between, `/health` is `failed`."""
_DOUBLINGS_MAX: Final = 6

FAILURES = Counter("lucid_background_failures_total", "Failures of background tasks, each started again.", ("task",))
SKIPPED = Counter(
    "lucid_background_skipped_total", "Items that a background task could not process and passed over.", ("task",)
)
Work: TypeAlias = Callable[[], Awaitable[None]]
Seconds: TypeAlias = Callable[[], float]
_log = structlog.get_logger()


class ReturnedError(Exception):
    """A background task that should run until it is cancelled returned."""


class _Task:
    """How one background task fares."""

    def __init__(self, name: str, clock: Seconds = time.monotonic) -> None:
        self.name = name
        self._clock = clock
        self._failures = 0
        self._error = ""
        self._first_failed_at = self._failed_at = 0.0
        self._started_at: float | None = None
        self._makes_turns = self._turned = False

    def start(self) -> None:
        """Note that it runs, for the first time or again."""
        self._started_at = self._clock()

    def turned(self) -> None:
        """Note that it completed a turn."""
        self._makes_turns = self._turned = True

    def failed(self, error: BaseException, *, in_turn: bool = False) -> float:
        """Log and count a failure; return the seconds to wait before the task starts again."""
        if self._well:
            self._failures = 0
        now = self._clock()
        self._failures += 1
        self._first_failed_at = now if self._failures == 1 else self._first_failed_at
        self._failed_at, self._error, self._turned = now, type(error).__name__, False
        self._makes_turns = self._makes_turns or in_turn
        self._started_at = self._started_at if in_turn else None
        FAILURES.labels(self.name).inc()
        _log.error("background_task_failed", task=self.name, error=self._error, failures=self._failures, exc_info=error)
        return min(MAX_PAUSE_SECONDS, FIRST_PAUSE_SECONDS * 2.0 ** min(self._failures - 1, _DOUBLINGS_MAX))

    @property
    def _well(self) -> bool:
        now = self._clock()
        if self._failures == 0:
            return True
        if self._makes_turns:
            return self._turned and now - self._failed_at >= WELL_SECONDS
        return self._started_at is not None and now - self._started_at >= WELL_SECONDS

    @property
    def problem(self) -> str:
        """What is wrong, without the error's text, which may quote anything; empty while it is well."""
        if self._well:
            return ""
        # One that makes turns has failed for as long as no turn succeeds; another one may run now: its next failure
        # tells.
        until = self._clock() if self._makes_turns and not self._turned else self._failed_at
        if self._failures < FAILURES_IN_A_ROW and until - self._first_failed_at <= WELL_SECONDS:
            return ""
        return f"{self.name} keeps failing ({self._error})"


_current: ContextVar[_Task] = ContextVar("background_task", default=_Task("other"))  # noqa: B039 - of no task's own


class Background:
    """Runs a service's background tasks by name, and starts each again that fails."""

    def __init__(self, clock: Seconds = time.monotonic) -> None:
        self._clock = clock
        self._tasks: list[_Task] = []

    def start(self, name: str, work: Work, *, finishes: bool = False) -> asyncio.Task[None]:
        """Run `work` until it is cancelled. Only where it `finishes` may it return; else that is a failure."""
        task = _Task(name, self._clock)
        FAILURES.labels(name)
        SKIPPED.labels(name)
        self._tasks.append(task)
        return asyncio.create_task(_supervise(task, work, finishes=finishes), name=name)

    def check(self) -> Check:
        """Return the check for `/health`: `failed` while a task keeps failing; requests are still served."""
        problems = [task.problem for task in self._tasks if task.problem]
        if not problems:
            return Check("ok", concerns_requests=False)
        return Check("failed", f"{'; '.join(problems)}: the log has the reason", concerns_requests=False)


async def _supervise(task: _Task, work: Work, *, finishes: bool) -> None:
    _current.set(task)
    while True:
        task.start()
        try:
            await work()
            if finishes:
                return
            raise ReturnedError
        # If nobody cancelled this task, a part of its work was cancelled: a failure like any other.
        except (Exception, asyncio.CancelledError) as error:
            if _cancelled():
                raise
            pause_seconds = task.failed(error)
        await asyncio.sleep(pause_seconds)


def _cancelled() -> bool:
    running = asyncio.current_task()
    return running is not None and running.cancelling() > 0


@contextmanager
def turn() -> Iterator[None]:
    """Guard one turn of a background task's loop, which pauses outside of the block.

    An exception in the block is logged, counted and shown by `/health` as a failure of the task, and the loop goes on.
    Loops that wait before they work need this: they are well when a turn succeeded, and not when time has passed.
    """
    task = _current.get()
    try:
        yield
    except Exception as error:  # noqa: BLE001 - it is logged whole, and the next turn comes
        task.failed(error, in_turn=True)
    else:
        task.turned()


def skipped(**item: Any) -> None:
    """Log and count the exception being handled: the task passes over this item and goes on with the next."""
    name = _current.get().name
    SKIPPED.labels(name).inc()
    _log.exception("background_item_skipped", task=name, **item)


async def end_all(tasks: Iterable[asyncio.Task[Any]]) -> None:
    """Cancel tasks, and wait until all have ended, whichever way.

    One that goes on is cancelled again: before Python 3.12 `asyncio.wait_for`, which MongoDB's driver uses, takes no
    notice of a cancellation that comes together with what it waits for, and an endless task would keep the service from
    ending.
    """
    left = set(tasks)
    while left:
        for task in left:
            task.cancel()
        done, left = await asyncio.wait(left, timeout=AGAIN_SECONDS)
        for task in done:
            if not task.cancelled():
                task.exception()  # looked at, so that asyncio does not complain of it
