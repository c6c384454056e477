"""A budget of bytes: the bound on what a service holds in memory for requests in flight.

Where they contend for it, its users (sessions, say) take turns, so that one who asks for much waits for itself.
"""

import asyncio
from collections import OrderedDict, deque
from types import TracebackType

from sessions.runtime.errors import DomainError


class ByteBudget:
    """Hands out bytes; a waiter that waits too long is told to come back.

    Without contention whoever comes first is served first. While there are waiters their owners take turns, and one who
    holds more than an equal share of the budget comes after those who do not.
    """

    def __init__(self, total_bytes: int, wait_seconds: float = 5.0) -> None:
        self.total_bytes = total_bytes
        self.used_bytes = 0
        self._wait_seconds = wait_seconds
        self._lines: OrderedDict[str, deque[tuple[int, asyncio.Future[None]]]] = OrderedDict()
        self._held: dict[str, int] = {}

    def reserve(self, size_bytes: int, owner: str = "") -> "Reservation":
        """Hold `size_bytes` for the time of the block; a request for more than the whole budget waits for all of it."""
        return Reservation(self, min(size_bytes, self.total_bytes), owner)

    async def acquire(self, size_bytes: int, owner: str) -> None:
        """Take bytes, at most all that there are; whoever does has to `release` them.

        Raises:
            DomainError: `overloaded`, when nothing came free in time.
        """
        if not self._lines and self.used_bytes + size_bytes <= self.total_bytes:
            self._take(size_bytes, owner)
            return
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        entry = (size_bytes, turn)
        self._lines.setdefault(owner, deque()).append(entry)
        self._grant()  # who waits may have more already than its share, and this one not
        try:
            await asyncio.wait_for(asyncio.shield(turn), self._wait_seconds)
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
            size_bytes, turn = line[0]
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
        """Whose turn it is: the first in turn who holds less than an equal share, else the first in turn."""
        if not self._lines:
            return None
        share = self.total_bytes // max(1, len(self._lines.keys() | self._held.keys()))
        modest = (owner for owner in self._lines if self._held.get(owner, 0) < share)
        return next(modest, next(iter(self._lines), None))


class Reservation:
    """Bytes of a budget, held within an `async with`.

    A class of its own, since a generator's wrapper costs as much as all else here, for every chunk.

    Raises:
        DomainError: `overloaded`, on entering, when nothing came free in time.
    """

    __slots__ = ("_budget", "_owner", "_size_bytes")

    def __init__(self, budget: ByteBudget, size_bytes: int, owner: str) -> None:
        self._budget, self._size_bytes, self._owner = budget, size_bytes, owner

    async def __aenter__(self) -> None:
        """Take them."""
        await self._budget.acquire(self._size_bytes, self._owner)

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        """Give them back."""
        self._budget.release(self._size_bytes, self._owner)
