"""The lower half of a connection: opening, writing, deadlines, closing."""

import asyncio
import math
from abc import ABC, abstractmethod
from functools import partial
from typing import Final

import structlog
from starlette.types import Scope
from uvicorn.server import ServerState

from sessions.runtime.errors import DomainError
from sessions.runtime.http import refusal, scope
from sessions.runtime.http.connections import Connections, origin
from sessions.runtime.http.deadline import Deadline

DROPPED_HEAD_MAX_BYTES: Final = 256 * 1024
"""Limit on the bytes that are dropped after a head that was refused: no client sends more and then reads."""
_LARGE_READ_BYTES: Final = 256 * 1024
_DROP_SLICE_BYTES: Final = 256 * 1024
_DROP_PAUSE_SECONDS: Final = 0.02
_log = structlog.get_logger()


class Link(asyncio.BufferedProtocol, ABC):
    """A connection, without the meaning of its bytes."""

    def __init__(
        self,
        connections: Connections,
        server_state: ServerState,
        loop: asyncio.AbstractEventLoop | None,
        *,
        certificate_needed: bool,
    ) -> None:
        self._connections, self._edge = connections, connections.edge
        self._server = server_state
        self._loop = loop or asyncio.get_running_loop()
        self._certificate_needed = certificate_needed
        self._transport: asyncio.Transport = None  # type: ignore[assignment]
        self._about: Scope = {}
        self.origin = ""
        self._reading = True
        self._closing = False
        self._writable: asyncio.Future[None] | None = None
        self.write_paused = False
        self._written = self._dropped = 0
        self._drop_max_bytes = math.inf
        self._deadline = Deadline(self._edge)

    def _opened(self, transport: asyncio.Transport) -> bool:
        """Take a new connection, or refuse it; return which."""
        self._transport = transport
        self._about = scope.of_connection(transport)
        client, server = self._about["client"], self._about["server"]
        self.origin = origin(client)
        self._server.connections.add(self)  # type: ignore[arg-type]
        if not self._connections.admit(self):
            detail = "too many connections are open; come back later"
            self.write(refusal.answer(DomainError("overloaded", detail, retry_after_seconds=5), self.default_headers()))
            self._close()
            return False
        at_home = client is not None and server is not None and client[0] == server[0]
        # A certificate of another authority has not come so far. The health check runs here, and has none.
        if self._certificate_needed and not at_home and not transport.get_extra_info("peercert"):
            _log.info("client_certificate_missing", client=client and client[0])
            self._close()
            return False
        return True

    @abstractmethod
    def give_up(self) -> str:
        """Handle the deadline that has passed; return its name."""

    @property
    def _over_tls(self) -> bool:
        return bool(self._about["scheme"] == "https")

    def pause_writing(self) -> None:
        """See `asyncio.BaseProtocol`."""
        self.write_paused = True
        self._deadline.reader_begins(self._read_bytes(), self._loop.time())

    def resume_writing(self) -> None:
        """See `asyncio.BaseProtocol`."""
        self.write_paused = False
        self._deadline.reader_ends()
        if self._writable is not None and not self._writable.done():
            self._writable.set_result(None)

    def write(self, data: bytes) -> None:
        """Send bytes."""
        self._written += len(data)
        self._transport.write(data)

    async def drain(self) -> None:
        """Wait until there is room to write, or the connection is gone."""
        while self.write_paused and not self._transport.is_closing():
            self._writable = self._loop.create_future()
            await self._writable

    def default_headers(self) -> list[tuple[bytes, bytes]]:
        """Return header fields that every answer has."""
        return self._server.default_headers

    def default_lines(self) -> bytes:
        """Return their lines."""
        return self._connections.lines_of(self._server.default_headers)

    def _drop(self, size_bytes: int) -> None:
        """Drop bytes of a refused client, slowly enough that no other client waits."""
        self._dropped += size_bytes
        if self._dropped > self._drop_max_bytes:
            self.abort()
        elif self._dropped // _DROP_SLICE_BYTES != (self._dropped - size_bytes) // _DROP_SLICE_BYTES:
            self._read_on(wanted=False)
            self._loop.call_later(_DROP_PAUSE_SECONDS, partial(self._read_on, wanted=True))

    def _read_on(self, *, wanted: bool) -> None:
        if wanted != self._reading and not self._transport.is_closing():
            self._reading = wanted
            if wanted:
                self._transport.resume_reading()
            else:
                self._transport.pause_reading()

    def _breathe(self, size_bytes: int) -> None:
        """Pause after a large read, so that other clients are served: uvloop alone reads on while bytes are there."""
        if size_bytes >= _LARGE_READ_BYTES and self._reading and not self._transport.is_closing():
            self._transport.pause_reading()
            self._loop.call_soon(self._read_again)

    def _read_again(self) -> None:
        if self._reading and not self._transport.is_closing():
            self._transport.resume_reading()

    def _due(self, seconds: float, reason: str) -> None:
        self._deadline.set(self._loop.time() + seconds, reason)

    def overdue(self, now: float) -> bool:
        """Return whether the client has let a deadline pass."""
        return self._deadline.passed(self._read_bytes(), now)

    def _read_bytes(self) -> int:
        return self._written - self._transport.get_write_buffer_size()

    def _close(self) -> None:
        """Close once everything written is sent, or after the linger time."""
        self._closing = True
        self._due(self._edge.linger_seconds, "linger")
        self._transport.close()

    def _linger(self) -> None:
        """Close the sending side, and read until the client closes its own (RFC 9112 section 9.6)."""
        if self._transport.can_write_eof():
            self._transport.write_eof()
        self._read_on(wanted=True)
        self._due(self._edge.linger_seconds, "linger")

    def abort(self) -> None:
        """Close at once."""
        self._closing = True
        self._transport.abort()
