"""One at a time on the event loop, and between any two of them the loop has its turn."""

import asyncio
from collections import deque


class Turns:
    """Work that is done on the event loop, because it is shorter than the way to a thread, but not all at once.

    When many chunks come in together, sealing them all before the loop looks at its sockets again leaves
    session-storage without work for that long.
    """

    def __init__(self) -> None:
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._taken = False

    async def mine(self) -> None:
        """Return when nobody else has done such work in this turn of the loop."""
        loop = asyncio.get_running_loop()
        if not self._taken:
            self._taken = True
            loop.call_soon(self._next)
            return
        turn: asyncio.Future[None] = loop.create_future()
        self._waiting.append(turn)
        await turn

    def _next(self) -> None:
        while self._waiting:
            turn = self._waiting.popleft()
            if not turn.done():
                turn.set_result(None)
                asyncio.get_running_loop().call_soon(self._next)
                return
        self._taken = False
