"""The server's protocol: uvicorn's on httptools; bodies and answers may be had whole, and certificates asked for.

By ASGI alone a body comes in pieces, for each of which the request's task is woken up and three copies are made; of
1 MiB that is a tenth of all that chunk-processor does for it.
"""

import asyncio
from functools import partial

import structlog
from uvicorn.protocols.http.flow_control import HIGH_WATER_LIMIT
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle

from sessions.runtime.answer import WRITE
from sessions.runtime.body import WHOLE

_log = structlog.get_logger()


class Protocol(HttpToolsProtocol):
    """Puts `body.WHOLE` and `answer.WRITE` into the scope of each request."""

    _buffer: bytearray | None = None
    _size = 0
    _ended: "asyncio.Future[None] | None" = None

    def on_headers_complete(self) -> None:
        """See `HttpToolsProtocol`."""
        super().on_headers_complete()
        self.scope[WHOLE] = partial(self._whole, self.cycle)  # type: ignore[typeddict-unknown-key]
        self.scope[WRITE] = partial(self._write, self.cycle)  # type: ignore[typeddict-unknown-key]

    async def _whole(self, cycle: RequestResponseCycle, length: int) -> bytes | bytearray | None:
        if cycle.more_body and not cycle.disconnected:
            self._buffer, self._size = bytearray(length), len(cycle.body)
            self._buffer[: self._size] = cycle.body
            self._ended = self.loop.create_future()
            if cycle.waiting_for_100_continue and not self.transport.is_closing():
                self.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
                cycle.waiting_for_100_continue = False
            self.flow.resume_reading()
            try:
                await self._ended
                cycle.body = self._buffer
            finally:
                self._buffer = self._ended = None
        cycle.message_event.clear()
        body, cycle.body = cycle.body, bytearray()
        return None if cycle.more_body else body

    def _write(self, cycle: RequestResponseCycle, status: int, lines: bytes, body: bytes) -> bool:
        if cycle.response_started or cycle.disconnected or not cycle.keep_alive or self.flow.write_paused:
            return False
        cycle.response_started = cycle.response_complete = True
        common = [b"%b: %b\r\n" % header for header in cycle.default_headers]
        length = b"content-length: %d\r\n\r\n" % len(body)
        self.transport.write(b"".join((STATUS_LINE[status], *common, lines, length, body)))
        cycle.message_event.set()
        cycle.on_response()
        return True

    def on_body(self, body: bytes) -> None:
        """See `HttpToolsProtocol`."""
        if self._buffer is None:
            cycle = self.cycle
            if cycle.body or cycle.response_complete or len(body) > HIGH_WATER_LIMIT:
                super().on_body(body)
                return
            # A small one comes in one piece, and need not be copied.
            cycle.body = body  # type: ignore[assignment]
            cycle.message_event.set()
            return
        self._buffer[self._size : self._size + len(body)] = body
        self._size += len(body)

    def on_message_complete(self) -> None:
        """See `HttpToolsProtocol`."""
        super().on_message_complete()
        self._end()

    def connection_lost(self, exc: Exception | None) -> None:
        """See `HttpToolsProtocol`."""
        super().connection_lost(exc)
        self._end()

    def _end(self) -> None:
        if self._ended is not None and not self._ended.done():
            self._ended.set_result(None)


class CertificateNeeded(Protocol):
    """Takes no request of a client that showed no certificate, but for this host itself.

    The health check runs there, and has none; whoever else is there still needs a token.
    """

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """See `HttpToolsProtocol`."""
        super().connection_made(transport)
        at_home = self.client is not None and self.server is not None and self.client[0] == self.server[0]
        # A certificate of another authority has not come so far.
        if not at_home and not transport.get_extra_info("peercert"):
            _log.info("client_certificate_missing", client=self.client and self.client[0])
            transport.close()

    def data_received(self, data: bytes) -> None:
        """See `HttpToolsProtocol`."""
        # What came with the last of the handshake is handed over even after the close.
        if not self.transport.is_closing():
            super().data_received(data)
