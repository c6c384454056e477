"""A budget of bytes: the bound on what a service holds in memory for requests in flight.

Where they contend for it, its users (sessions, say) take turns, so that one who asks for much waits for itself.
"""

import asyncio
import random
from collections import OrderedDict, deque
from types import TracebackType
from typing import Final

from sessions.runtime.errors import DomainError

_STEP_MIN_BYTES: Final = 64 * 1024
_STEP_MAX_BYTES: Final = 1024 * 1024


class ByteBudget:
    """Hands out bytes; a waiter that waits too long is told to come back.

    Without contention whoever comes first is served first. While there are waiters their owners take turns, and one who
    holds more than an equal share of the budget comes after those who do not. None holds more than `owner_max_bytes`,
    unless it is for one reservation alone.
    """

    def __init__(self, total_bytes: int, wait_seconds: float = 5.0, owner_max_bytes: int | None = None) -> None:
        self.total_bytes = total_bytes
        self.owner_max_bytes = total_bytes if owner_max_bytes is None else owner_max_bytes
        self.used_bytes = 0
        self._wait_seconds = wait_seconds
        self._lines: OrderedDict[str, deque[tuple[int, int, asyncio.Future[None]]]] = OrderedDict()
        self._held: dict[str, int] = {}

    def reserve(self, size_bytes: int, owner: str = "") -> "Reservation":
        """Hold `size_bytes` for the time of the block; a request for more than the whole budget waits for all of it."""
        return Reservation(self, size_bytes, owner)

    def try_acquire(self, size_bytes: int, owner: str, holds_bytes: int = 0) -> bool:
        """Take bytes if they are there and nobody waits; return whether they were."""
        if self._lines or self.used_bytes + size_bytes > self.total_bytes:
            return False
        if not self._within_bound(owner, size_bytes, holds_bytes):
            return False
        self._take(size_bytes, owner)
        return True

    async def acquire(self, size_bytes: int, owner: str, holds_bytes: int = 0) -> None:
        """Take bytes, at most all that there are; whoever does has to `release` them.

        `holds_bytes` of what the owner has belong together with them.

        Raises:
            DomainError: `overloaded`, when nothing came free in time.
        """
        if self.try_acquire(size_bytes, owner, holds_bytes):
            return
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        entry = (size_bytes, holds_bytes, turn)
        line, wait_seconds = self._lines.setdefault(owner, deque()), self._wait_seconds
        if holds_bytes:  # it may be the one that all others wait for; nor shall all give up at once
            line.appendleft(entry)
            wait_seconds *= random.uniform(0.6, 1.0)  # noqa: S311 - nothing secret
        else:
            line.append(entry)
        self._grant()  # who waits may have more already than its share, and this one not
        try:
            await asyncio.wait_for(asyncio.shield(turn), wait_seconds)
        except BaseException as error:
            if turn.done():  # granted in the very moment of giving up: hand it back
                self.release(size_bytes, owner)
            else:
                self._lines[owner].remove(entry)
                if not self._lines[owner]:
                    del self._lines[owner]
                self._grant()
            if isinstance(error, TimeoutError):
                raise DomainError(
                    "overloaded", "too many bytes are in flight; repeat the request later", retry_after_seconds=1
                ) from None
            raise

    def _within_bound(self, owner: str, size_bytes: int, holds_bytes: int) -> bool:
        held = self._held.get(owner, 0)
        return held == holds_bytes or held + size_bytes <= self.owner_max_bytes

    def _take(self, size_bytes: int, owner: str) -> None:
        self.used_bytes += size_bytes
        self._held[owner] = self._held.get(owner, 0) + size_bytes

    def release(self, size_bytes: int, owner: str) -> None:
        """Give back what `acquire` has taken."""
        self.used_bytes -= size_bytes
        left = self._held.get(owner, 0) - size_bytes
        if left:
            self._held[owner] = left
        else:
            self._held.pop(owner, None)
        self._grant()

    def _grant(self) -> None:
        while (owner := self._next()) is not None:
            line = self._lines[owner]
            size_bytes, _, turn = line[0]
            if self.used_bytes + size_bytes > self.total_bytes:
                return
            line.popleft()
            if line:
                self._lines.move_to_end(owner)
            else:
                del self._lines[owner]
            self._take(size_bytes, owner)
            turn.set_result(None)

    def _next(self) -> str | None:
        """Whose turn it is: the first in turn who holds less than an equal share, else the first who may hold more."""
        may = [owner for owner, line in self._lines.items() if self._within_bound(owner, *line[0][:2])]
        if not may:
            return None
        share = self.total_bytes // max(1, len(self._lines.keys() | self._held.keys()))
        return next((owner for owner in may if self._held.get(owner, 0) < share), may[0])


class Reservation:
    """Bytes of a budget, held within an `async with`; it may grow there.

    A class of its own, since a generator's wrapper costs as much as all else here, for every chunk.

    Raises:
        DomainError: `overloaded`, on entering or growing, when nothing came free in time.
    """

    __slots__ = ("_budget", "_owner", "_wanted_bytes", "size_bytes")

    def __init__(self, budget: ByteBudget, size_bytes: int, owner: str) -> None:
        self._budget, self._wanted_bytes, self._owner = budget, size_bytes, owner
        self.size_bytes = 0

    async def __aenter__(self) -> "Reservation":
        """Take them."""
        await self.grow(self._wanted_bytes)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        """Give them back."""
        self._budget.release(self.size_bytes, self._owner)
        self.size_bytes = 0

    def try_grow(self, size_bytes: int, most_bytes: int) -> bool:
        """Come to hold at least `size_bytes` if they are there at once, by steps up to `most_bytes`; return whether.

        Each step is as large as what is held already, so that what is held is at most twice what was asked for.
        """
        if size_bytes <= self.size_bytes:
            return True
        step = min(max(self.size_bytes, _STEP_MIN_BYTES), _STEP_MAX_BYTES)
        more = self._more(min(max(size_bytes, self.size_bytes + step), most_bytes))
        if not self._budget.try_acquire(more, self._owner, self.size_bytes):
            return False
        self.size_bytes += more
        return True

    async def grow(self, size_bytes: int) -> None:
        """Come to hold `size_bytes`, or the whole budget where that is less."""
        if (more := self._more(size_bytes)) > 0:
            await self._budget.acquire(more, self._owner, self.size_bytes)
            self.size_bytes += more

    def _more(self, size_bytes: int) -> int:
        return min(size_bytes, self._budget.total_bytes) - self.size_bytes
