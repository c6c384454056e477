"""A budget of bytes: the bound on what a service holds in memory for requests in flight."""

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from sessions.runtime.errors import DomainError


class ByteBudget:
    """Hands out bytes first come, first served; a waiter that waits too long is told to come back."""

    def __init__(self, total_bytes: int, wait_seconds: float = 5.0) -> None:
        self.total_bytes = total_bytes
        self.used_bytes = 0
        self._wait_seconds = wait_seconds
        self._waiters: deque[tuple[int, asyncio.Future[None]]] = deque()

    @asynccontextmanager
    async def reserve(self, size_bytes: int) -> AsyncIterator[None]:
        """Hold `size_bytes` for the time of the block; a request for more than the whole budget waits for all of it.

        Raises:
            DomainError: `overloaded`, when nothing came free in time.
        """
        size_bytes = min(size_bytes, self.total_bytes)
        await self._acquire(size_bytes)
        try:
            yield
        finally:
            self._release(size_bytes)

    async def _acquire(self, size_bytes: int) -> None:
        if not self._waiters and self.used_bytes + size_bytes <= self.total_bytes:
            self.used_bytes += size_bytes
            return
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        entry = (size_bytes, turn)
        self._waiters.append(entry)
        try:
            await asyncio.wait_for(asyncio.shield(turn), self._wait_seconds)
        except BaseException as error:
            if turn.done():  # granted in the very moment of giving up: hand it back
                self._release(size_bytes)
            else:
                self._waiters.remove(entry)
                self._grant()
            if isinstance(error, TimeoutError):
                raise DomainError(
                    "overloaded", "too many bytes are in flight; repeat the request later", retry_after_seconds=1
                ) from None
            raise

    def _release(self, size_bytes: int) -> None:
        self.used_bytes -= size_bytes
        self._grant()

    def _grant(self) -> None:
        while self._waiters and self.used_bytes + self._waiters[0][0] <= self.total_bytes:
            size_bytes, turn = self._waiters.popleft()
            self.used_bytes += size_bytes
            turn.set_result(None)
