"""TCP and TLS connections to a name that may have several addresses (RFC 8305, "Happy Eyeballs").

asyncio and uvloop try addresses one after the other, so one that swallows packets uses up the time of all. Here each
address gets its own try, a moment after the one before it, and the first connection that is ready is taken.
"""

import asyncio
import socket
import ssl
from collections import deque
from collections.abc import Callable, Sequence
from itertools import chain, zip_longest
from typing import Any, Final, Generic, TypeAlias, TypeVar

from sessions.runtime.tasks import end_all

ATTEMPT_DELAY_SECONDS: Final = 0.25
"""Time from one attempt to the next while none fails, in seconds (RFC 8305 section 5); less where there are many."""

Address: TypeAlias = tuple[int, tuple[Any, ...]]
"""Address family and socket address."""
ProtocolT = TypeVar("ProtocolT", bound=asyncio.Protocol)


async def resolve(host: str, port: int) -> list[Address]:
    """Return all addresses of a name, in the order in which the system prefers them (RFC 6724).

    Raises:
        OSError: the name has none, or the name server does not answer.
    """
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys((int(family), address) for family, _, _, _, address in found))


def interleaved(found: Sequence[Address]) -> list[Address]:
    """Return the addresses with their families in turn, that of the first one first (RFC 8305 section 4)."""
    first = [one for one in found if one[0] == found[0][0]]
    others = [one for one in found if one[0] != found[0][0]]
    return [one for one in chain.from_iterable(zip_longest(first, others)) if one is not None]


class Dialer(Generic[ProtocolT]):
    """Connects to one name, and remembers which of its addresses answer."""

    def __init__(self, host: str, port: int, tls: ssl.SSLContext | None) -> None:
        self._host, self._port, self._tls = host, port, tls
        self._good: Address | None = None
        self._overdue: set[Address] = set()

    async def connect(self, make: Callable[[], ProtocolT], within_seconds: float) -> tuple[ProtocolT, Address]:
        """Return the first connection that is ready, and its address. With TLS it is ready after the handshake.

        The caller limits the time, and says here how long that is, so that the last address gets a share of it.

        Raises:
            OSError, ssl.SSLError: no address gives a connection. The error is that of a certificate if there is one.
        """
        waiting = deque(self._ordered(await resolve(self._host, self._port)))
        delay = min(ATTEMPT_DELAY_SECONDS, within_seconds / 2 / max(1, len(waiting)))
        attempts: dict[asyncio.Task[tuple[asyncio.BaseTransport, ProtocolT]], Address] = {}
        errors: list[Exception] = []
        winner: asyncio.Task[tuple[asyncio.BaseTransport, ProtocolT]] | None = None
        try:
            while winner is None and (waiting or attempts):
                if waiting:
                    address = waiting.popleft()
                    attempts[asyncio.create_task(self._attempt(make, address))] = address
                done, _ = await asyncio.wait(
                    attempts, timeout=delay if waiting else None, return_when=asyncio.FIRST_COMPLETED
                )
                for task in done:
                    address = attempts.pop(task)
                    if (error := task.exception()) is None:
                        attempts[task] = address
                        winner = winner or task
                    elif isinstance(error, (OSError, ssl.SSLError)):
                        errors.append(error)
                    else:
                        raise error
            if winner is None:
                raise min(errors, key=lambda error: not isinstance(error, ssl.SSLError), default=OSError("no address"))
            self._good = attempts[winner]
            return winner.result()[1], self._good
        finally:
            await _give_up([task for task in attempts if task is not winner])

    def answered(self, address: Address) -> None:
        """Note that a request over a connection to this address was answered."""
        self._overdue.discard(address)

    def overdue(self, address: Address) -> None:
        """Note that a request was not answered in time: this address is tried after all others."""
        self._overdue.add(address)

    def _ordered(self, found: Sequence[Address]) -> list[Address]:
        self._overdue.intersection_update(found)
        in_turn = interleaved(found) if found else []
        return sorted(in_turn, key=lambda one: (one in self._overdue, one != self._good))

    async def _attempt(
        self, make: Callable[[], ProtocolT], address: Address
    ) -> tuple[asyncio.BaseTransport, ProtocolT]:
        loop = asyncio.get_running_loop()
        family, where = address
        connection = socket.socket(family, socket.SOCK_STREAM)
        try:
            connection.setblocking(False)
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            await loop.sock_connect(connection, where)
        except BaseException:
            connection.close()
            raise
        name = self._host if self._tls is not None else None
        return await loop.create_connection(make, sock=connection, ssl=self._tls, server_hostname=name)


async def _give_up(attempts: Sequence[asyncio.Task[tuple[asyncio.BaseTransport, ProtocolT]]]) -> None:
    """Cancel the attempts that are not over, and close the connections of those that are."""
    await end_all([task for task in attempts if not task.done()])
    for task in attempts:
        if not task.cancelled() and task.exception() is None:
            transport, _ = task.result()
            if isinstance(transport, asyncio.Transport):
                transport.abort()
