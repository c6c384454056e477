"""Turns: a service works on a few questions of one token at a time, so that many of them slow down no recorder."""

import asyncio
import time
from types import TracebackType
from typing import Final

from sessions.runtime.limits import too_many

AT_ONCE: Final = 2
"""Questions of one token that are worked on at the same time."""
PAUSE_FACTOR: Final = 3.0
"""While chunks come in, each turn is followed by a pause of this multiple of its length."""
PAUSE_SECONDS: Final = 0.02
"""The longest pause."""
TURN_SECONDS: Final = 0.1
"""The longest turn. A question that takes longer waits for something else, so the next one may begin."""
WAIT_SECONDS: Final = 10.0
"""The longest wait for a turn; after it the request is refused."""
_COMING_SECONDS: Final = 0.1


class Traffic:
    """Knows whether chunks come in."""

    __slots__ = ("_at",)

    def __init__(self) -> None:
        self._at = -_COMING_SECONDS

    def note(self) -> None:
        """Note that a chunk has come."""
        self._at = time.monotonic()

    @property
    def is_coming(self) -> bool:
        """Whether a chunk has come in the last 100 ms."""
        return time.monotonic() < self._at + _COMING_SECONDS


class Turns:
    """Hands out the turns of one token, in order of arrival."""

    __slots__ = ("_free", "_traffic")

    def __init__(self, traffic: Traffic) -> None:
        self._free, self._traffic = asyncio.Semaphore(AT_ONCE), traffic

    def turn(self) -> "Turn":
        """Wait for a turn, and hold it for the time of the block, or `TURN_SECONDS` where that is less."""
        return Turn(self._free, self._traffic)


class Turn:
    """One turn, within an `async with`.

    Raises:
        DomainError: `too-many-requests`, on entering, when none came free within `WAIT_SECONDS`.
    """

    __slots__ = ("_began", "_free", "_timer", "_traffic")

    def __init__(self, free: asyncio.Semaphore, traffic: Traffic) -> None:
        self._free, self._traffic = free, traffic
        self._timer: asyncio.TimerHandle | None = None
        self._began = 0.0

    async def __aenter__(self) -> None:
        """Take it."""
        try:
            async with asyncio.timeout(WAIT_SECONDS):
                await self._free.acquire()
        except TimeoutError:
            detail = f"this token asks more than {AT_ONCE} questions at a time; wait for answers before you ask more"
            raise too_many("turns", detail, 1) from None
        loop = asyncio.get_running_loop()
        self._began = loop.time()
        self._timer = loop.call_later(TURN_SECONDS, self._end)

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        """Give it back."""
        if self._timer is None:
            return
        if self._traffic.is_coming:
            self._timer.cancel()
            loop = asyncio.get_running_loop()
            pause_seconds = min(PAUSE_FACTOR * (loop.time() - self._began), PAUSE_SECONDS)
            self._timer = loop.call_later(pause_seconds, self._end)
        else:
            self._end()

    def _end(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
            self._free.release()
