"""Turns: a service works on a few questions of one token at a time, so that many of them slow down nobody else."""

import asyncio
from types import TracebackType
from typing import Final

from sessions.runtime.errors import DomainError
from sessions.runtime.limits import LIMITED

AT_ONCE: Final = 4
"""Questions of one token that are worked on at the same time."""
TURN_SECONDS: Final = 0.1
"""The longest turn. A question that takes longer waits for something else, so the next one may begin."""
WAIT_SECONDS: Final = 10.0
"""A question that has waited for so long is refused."""
LIMITED.labels("turns")


class Turns:
    """Hands out the turns of one token, in order of arrival."""

    __slots__ = ("_free",)

    def __init__(self) -> None:
        self._free = asyncio.Semaphore(AT_ONCE)

    def turn(self) -> "Turn":
        """Wait for a turn, and hold it for the time of the block, or `TURN_SECONDS` where that is less."""
        return Turn(self._free)


class Turn:
    """One turn, within an `async with`.

    Raises:
        DomainError: `too-many-requests`, on entering, when none came free within `WAIT_SECONDS`.
    """

    __slots__ = ("_free", "_timer")

    def __init__(self, free: asyncio.Semaphore) -> None:
        self._free = free
        self._timer: asyncio.TimerHandle | None = None

    async def __aenter__(self) -> None:
        """Take it."""
        try:
            async with asyncio.timeout(WAIT_SECONDS):
                await self._free.acquire()
        except TimeoutError:
            LIMITED.labels("turns").inc()
            detail = f"this token asks more than {AT_ONCE} questions at a time; wait for answers before you ask more"
            raise DomainError("too-many-requests", detail, retry_after_seconds=1) from None
        self._timer = asyncio.get_running_loop().call_later(TURN_SECONDS, self._end)

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        """Give it back."""
        self._end()

    def _end(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
            self._free.release()
