"""A connection: reads heads and bodies from the socket, one request at a time, and closes in stages."""

import asyncio
import math
from typing import Any, Final, cast

import structlog
from uvicorn import Config
from uvicorn.server import ServerState

from sessions.runtime import answer, body
from sessions.runtime.errors import DomainError
from sessions.runtime.http import head, refusal, scope
from sessions.runtime.http.connections import Connections
from sessions.runtime.http.exchange import HIGH_WATER_BYTES, Exchange
from sessions.runtime.http.framing import Chunked, Counted
from sessions.runtime.http.link import DROPPED_HEAD_MAX_BYTES, Link

_DRAINED_MAX_BYTES: Final = 1024 * 1024
"""Limit on the rest of an unwanted body that is read and dropped to keep the connection."""
_log = structlog.get_logger()


class Connection(Link):
    """One client's connection; a protocol class for uvicorn's server."""

    def __init__(
        self,
        connections: Connections,
        *,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
        certificate_needed: bool = False,
    ) -> None:
        super().__init__(connections, server_state, _loop, certificate_needed=certificate_needed)
        self._app, self._app_state = config.loaded_app, app_state
        self._pending, self._seen = b"", 0  # of the pending bytes, the first `_seen` contain no end of a head
        self._framing: Counted | Chunked | None = None
        self._exchange: Exchange | None = None
        self._direct = self._input_ended = self._shutting_down = False
        self._next: asyncio.Handle | None = None

    # What the transport calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See `asyncio.BaseProtocol`."""
        if self._opened(cast("asyncio.Transport", transport)):  # uvloop's are no instances of it
            self._wait_for_head(self._edge.head_seconds, "head")

    def get_buffer(self, sizehint: int) -> memoryview:  # noqa: ARG002 - the most that may come at once is ours to say
        """See `asyncio.BufferedProtocol`: a body that the application wants whole is read directly into its buffer."""
        if self._exchange is not None and not self._pending and isinstance(self._framing, Counted):
            target = self._exchange.target()
            self._direct = target is not None
            if target is not None:
                return target
        self._direct = False
        return self._connections.scratch

    def buffer_updated(self, nbytes: int) -> None:
        """See `asyncio.BufferedProtocol`."""
        if self._direct:
            assert self._exchange is not None
            assert isinstance(self._framing, Counted)
            self._exchange.filled(nbytes)
            self._framing.count(nbytes)
            self._came(nbytes)
            self._breathe(nbytes)
        elif self._closing:
            self._drop(nbytes)
        else:
            data = self._connections.scratch[:nbytes]
            if not self._pending and self._exchange is None and self._next is None and data[0] not in b"\r\n":
                end = head.end_of_head(data, 0)  # mostly, a read is a head and a body, which is copied once only
                if 0 < end <= self._edge.head_max_bytes:
                    if not self._begin(bytes(data[:end])):
                        return
                    data = data[end:]
            self._pending += data
            self._pump()

    def eof_received(self) -> bool:
        """See `asyncio.Protocol`: a client that sends no more may still read (RFC 9112 section 9.6)."""
        self._input_ended = True
        if self._closing or (self._exchange is None and self._next is None):
            return False
        if self._framing is not None:
            self._fail_body(body.incomplete())
        return not self._over_tls  # TLS has no half-closed connections here

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - the end is the end
        """See `asyncio.BaseProtocol`."""
        self._connections.leave(self)
        self._server.connections.discard(self)
        self._closing, self._framing, self._pending = True, None, b""
        self._deadline.clear()
        if self._next is not None:
            self._next.cancel()
        if self._exchange is not None:
            self._exchange.disconnect()
        self.resume_writing()

    # Input.

    def _pump(self) -> None:
        """Process the pending bytes as far as possible."""
        self._next = None
        while self._pending and not self._closing:
            if self._framing is not None:
                if not self._reading or not self._take_body(self._framing):
                    return
            elif self._exchange is not None:  # another request, whose turn comes
                if len(self._pending) >= HIGH_WATER_BYTES:
                    self._read_on(wanted=False)
                return
            elif not self._take_head():
                break
        if self._input_ended and self._exchange is None:
            self._close()
        elif self._input_ended and self._framing is not None and not self._pending:
            self._fail_body(body.incomplete())

    def _soon(self) -> None:
        if self._next is None:
            self._next = self._loop.call_soon(self._pump)

    def _take_head(self) -> bool:
        self._pending = self._pending.lstrip(b"\r\n")  # RFC 9112 section 2.2
        end = head.end_of_head(self._pending, self._seen) if self._pending else 0
        limit = self._edge.head_max_bytes
        if end > limit or (end < 0 and len(self._pending) > limit):
            self._refuse(head.without_end(self._pending, limit))
            return False
        if end <= 0:
            if self._pending and not self._seen:
                self._due(self._edge.head_seconds, "head")
            self._seen = len(self._pending)
            return False
        data, self._pending = self._pending[:end], self._pending[end:]
        return self._begin(data)

    def _begin(self, data: bytes) -> bool:
        """Begin a request with its whole head; return False if it is refused."""
        self._seen = 0
        try:
            found = head.parse(data)
        except DomainError as error:
            self._refuse(error)
            return False
        self._start(found)
        return True

    def _start(self, found: head.Head) -> None:
        self._connections.busy(self)
        self._framing = Chunked() if found.chunked else Counted(found.length) if found.length else None
        asked = scope.of_request(self._about, found, self._app_state)
        exchange = Exchange(self, found, asked, more_body=self._framing is not None)
        asked[body.WHOLE], asked[answer.WRITE] = exchange.whole, exchange.write_whole
        self._exchange = exchange
        if self._framing is None:
            self._deadline.clear()
        else:
            self._deadline.body_begins(self._loop.time())
        task = self._loop.create_task(self._serve(exchange))
        self._server.tasks.add(task)
        task.add_done_callback(self._server.tasks.discard)

    def _take_body(self, framing: Counted | Chunked) -> bool:
        assert self._exchange is not None
        try:
            piece, self._pending = framing.take(self._pending)
        except DomainError as error:
            self._fail_body(error)
            return False
        if piece:
            self._exchange.feed(piece, last=framing.done)
        self._came(len(piece))
        if self._pending and self._framing is not None:  # it takes a slice at a time, and others have their turn
            self._soon()
            return False
        return True

    def _came(self, count: int) -> None:
        """Note that bytes of the body have arrived."""
        assert self._framing is not None
        assert self._exchange is not None
        if not self._framing.done:
            if self._reading:
                self._deadline.body_moves(count, self._loop.time())
            return
        trailers, self._framing = self._framing.trailers, None
        self._deadline.clear()
        self._exchange.end(trailers)
        if self._exchange.complete:  # it was answered before
            self.answered()

    def _fail_body(self, error: DomainError) -> None:
        assert self._exchange is not None
        self._framing, self._pending = None, b""
        self._deadline.clear()
        self._exchange.fail(error)
        if self._exchange.complete:
            self._end()

    # For the exchange: see `Line`.

    def want_body(self, *, wanted: bool) -> None:
        """Resume reading the body, or stop; while reading is stopped, the client's deadline is, too."""
        if wanted and not self._reading:
            self._deadline.body_resumes(self._loop.time())
            self._read_on(wanted=True)
            if self._framing is not None:
                self._came(0)
            if self._pending:
                self._soon()
        elif not wanted and self._reading:
            self._deadline.body_stops(self._loop.time())
            self._read_on(wanted=False)

    def keeps_alive(self) -> bool:
        """Return whether another request may follow the current one."""
        if self._shutting_down or (self._input_ended and not self._pending) or self._exchange is None:
            return False
        if self._exchange.body_is_whole:
            return True
        few = isinstance(self._framing, Counted) and self._framing.left <= _DRAINED_MAX_BYTES
        return few and not self._exchange.waits_for_continue

    def answered(self) -> None:
        """Continue after the answer: with the next request, or the end of the connection."""
        exchange = self._exchange
        assert exchange is not None
        if self._closing:
            return
        if not exchange.keeps_alive:
            self._end()
            return
        if exchange.body_is_whole:
            self._server.total_requests += 1
            self._exchange = None
            self._wait_for_head(self._edge.idle_seconds, "idle")
            if self._pending or self._input_ended:
                self._soon()
        self.want_body(wanted=True)  # the rest of it is dropped

    # Deadlines and ends.

    def _wait_for_head(self, seconds: float, reason: str) -> None:
        self._due(seconds, reason)
        self._connections.waits(self)

    def give_up(self) -> str:
        """Handle the deadline that has passed; return its name."""
        reason = self._deadline.reason
        self._deadline.clear()
        if reason == "body":
            self._fail_body(DomainError("request-timeout", "the body made no progress, or too little; send it again"))
        elif reason == "head" and self._pending:
            self._refuse(DomainError("request-timeout", "the head of the request took too long; send it again"))
        elif reason in ("head", "idle"):
            self._close()
        else:
            self.abort()
        return reason

    def shutdown(self) -> None:
        """Begin to shut down (for uvicorn): the current request is still answered."""
        self._shutting_down = True
        if self._exchange is None or self._exchange.complete or self._closing:
            self._close()

    def _refuse(self, error: DomainError) -> None:
        """Answer bytes that are no request, and close."""
        self.write(refusal.answer(error, self._server.default_headers))
        self._end()

    def _end(self) -> None:
        """Close in stages, so that a client that is still sending gets the answer (RFC 9112 section 9.6)."""
        self._closing = True
        more = self._pending or self._framing is not None or self._exchange is None or not self._exchange.body_is_whole
        self._drop_max_bytes = DROPPED_HEAD_MAX_BYTES if self._exchange is None else math.inf
        self._framing, self._pending = None, b""
        if self._input_ended or not more or self._shutting_down:
            self._close()
            return
        self._linger()

    async def _serve(self, exchange: Exchange) -> None:
        try:
            await self._app(exchange.scope, exchange.receive, exchange.send)
        except Exception:  # noqa: BLE001 - the last resort: others are served on
            _log.exception("request_failed", method=exchange.scope["method"])
        finally:
            if not exchange.complete and not self._transport.is_closing():
                if exchange.started:
                    self._close()  # the client sees that something is missing
                else:
                    self._refuse(DomainError("internal", "an unexpected error was logged"))
