"""All connections of a service: how many there may be, and when each is given up."""

import asyncio
import ipaddress
from collections import Counter as Count
from collections import OrderedDict
from typing import Final, Protocol

import structlog
from prometheus_client import Counter, Gauge

from sessions.runtime.http.edge import Edge

OPEN = Gauge("lucid_connections", "Connections that are open.")
CLOSED = Counter(
    "lucid_connections_closed_total", "Connections closed for a bound or a deadline, by which.", ("reason",)
)
for _reason in ("refused", "evicted", "head", "idle", "body", "answer", "linger"):
    CLOSED.labels(_reason)
_SCRATCH_BYTES: Final = 72 * 1024
"""A chunk of 64 KiB and the head before it come in one read."""
_SWEEP_SECONDS: Final = 1.0
_TELL_SECONDS: Final = 60.0
_NETWORK_BITS: Final = 64
"""Prefix length that counts as one IPv6 address: a host chooses the other bits freely (RFC 4291 section 2.5.4)."""
_log = structlog.get_logger()


class Admitted(Protocol):
    """A connection that can be given up."""

    origin: str
    """The IPv4 address or IPv6 network that it counts for."""

    def overdue(self, now: float) -> bool:
        """Return whether the client has let a deadline pass."""

    def give_up(self) -> str:
        """Handle the deadline that has passed; return its name."""

    def abort(self) -> None:
        """Close at once."""


def origin(client: tuple[str, int] | None) -> str:
    """Return what counts as one address: an IPv4 address, or the network of an IPv6 address."""
    if client is None:
        return ""
    try:
        address = ipaddress.ip_address(client[0].split("%")[0])
    except ValueError:
        return client[0]
    if isinstance(address, ipaddress.IPv4Address):
        return client[0]
    if address.ipv4_mapped is not None:
        return str(address.ipv4_mapped)
    return str(ipaddress.ip_network((address, _NETWORK_BITS), strict=False))


class Connections:
    """Admits connections, and ends those whose deadline has passed.

    When the limit is reached, the connection that has been idle longest is closed: one of the same address, or else of
    the address with the most connections. A connection with a request in progress is never closed.
    """

    def __init__(self, edge: Edge) -> None:
        self.edge = edge
        self.scratch = memoryview(bytearray(_SCRATCH_BYTES))
        """Read buffer that all connections share. Its content is copied before the next read."""
        self._open: set[Admitted] = set()
        self._waiting: dict[str, OrderedDict[Admitted, None]] = {}
        self._of: Count[str] = Count()
        self._sweep: asyncio.TimerHandle | None = None
        self._told_at = -_TELL_SECONDS
        self._common: tuple[list[tuple[bytes, bytes]], bytes] = ([], b"")

    def admit(self, connection: Admitted) -> bool:
        """Count a connection; return whether there is room for it. Call `leave` for each one that was admitted."""
        address = connection.origin
        if self._of[address] >= self.edge.connections_max_per_address:
            room = self._evict(address)
        elif len(self._open) >= self.edge.connections_max:
            room = self._evict(address) or self._evict(self._of.most_common(1)[0][0])
        else:
            room = True
        if not room:
            self._tell("refused", address)
            return False
        self._open.add(connection)
        self._of[address] += 1
        self._waiting.setdefault(address, OrderedDict())
        OPEN.set(len(self._open))
        if self._sweep is None:
            self._sweep = asyncio.get_running_loop().call_later(_SWEEP_SECONDS, self._look)
        return True

    def leave(self, connection: Admitted) -> None:
        """Forget a connection; one that was forgotten before may be."""
        if connection not in self._open:
            return
        self.busy(connection)
        self._open.discard(connection)
        self._of[connection.origin] -= 1
        if not self._of[connection.origin]:
            del self._of[connection.origin], self._waiting[connection.origin]
        OPEN.set(len(self._open))

    def waits(self, connection: Admitted) -> None:
        """Note that a connection waits for a request."""
        self._waiting[connection.origin][connection] = None

    def busy(self, connection: Admitted) -> None:
        """Note that a connection waits for a request no longer."""
        self._waiting[connection.origin].pop(connection, None)

    def lines_of(self, fields: list[tuple[bytes, bytes]]) -> bytes:
        """Return the lines of header fields that many answers have in common; they are kept until others come."""
        if fields is not self._common[0]:
            self._common = (fields, b"".join(b"%b: %b\r\n" % field for field in fields))
        return self._common[1]

    def _evict(self, address: str) -> bool:
        waiting = self._waiting.get(address)
        if not waiting:
            return False
        self._tell("evicted", address)
        oldest = next(iter(waiting))
        self.leave(oldest)
        oldest.abort()
        return True

    def _tell(self, reason: str, address: str) -> None:
        CLOSED.labels(reason).inc()
        now = asyncio.get_running_loop().time()
        if now - self._told_at >= _TELL_SECONDS:
            self._told_at = now
            count = self._of[address]
            _log.warning("connections_limited", open=len(self._open), address=address, of_address=count, reason=reason)

    def _look(self) -> None:
        now = asyncio.get_running_loop().time()
        for connection in [one for one in self._open if one.overdue(now)]:
            CLOSED.labels(connection.give_up()).inc()
        self._sweep = asyncio.get_running_loop().call_later(_SWEEP_SECONDS, self._look) if self._open else None
