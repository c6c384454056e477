"""A connection: takes heads and bodies off the socket, one request at a time, and closes in good order."""

import asyncio
from typing import Any, Final

import structlog
from starlette.types import Scope
from uvicorn import Config
from uvicorn.protocols.utils import get_local_addr, get_remote_addr, is_ssl
from uvicorn.server import ServerState

from sessions.runtime import answer, body
from sessions.runtime.errors import DomainError
from sessions.runtime.http import head, refusal
from sessions.runtime.http.connections import Connections, origin
from sessions.runtime.http.deadline import Deadline
from sessions.runtime.http.exchange import HIGH_WATER_BYTES, Exchange
from sessions.runtime.http.framing import Chunked, Counted

_SLICE_BYTES: Final = 16 * 1024
"""So much of a chunked body is looked through before others have their turn."""
_DRAINED_MAX_BYTES: Final = 1024 * 1024
"""Of a body that nobody wants: with no more to come the connection is kept."""
_log = structlog.get_logger()


class Connection(asyncio.BufferedProtocol):
    """One client's connection, as uvicorn's server asks for it."""

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
        self._connections, self._edge = connections, connections.edge
        self._app, self._server, self._app_state = config.loaded_app, server_state, app_state
        self._certificate_needed = certificate_needed
        self._loop = _loop or asyncio.get_running_loop()
        self._transport: asyncio.Transport = None  # type: ignore[assignment]
        self._about: Scope = {}
        self.origin = ""
        self._pending = b""
        self._seen = 0  # bytes of what is pending that hold no end of a head
        self._framing: Counted | Chunked | None = None
        self._exchange: Exchange | None = None
        self._direct = False
        self._reading = True
        self._input_ended = self._closing = self._shutting_down = False
        self._writable: asyncio.Future[None] | None = None
        self.write_paused = False
        self._deadline = Deadline(self._edge)
        self._written = 0
        self._next: asyncio.Handle | None = None

    # What the transport calls.

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """See `asyncio.BaseProtocol`."""
        self._transport = transport
        client, server = get_remote_addr(transport), get_local_addr(transport)
        self.origin = origin(client)
        self._server.connections.add(self)  # type: ignore[arg-type]
        if not self._connections.admit(self):
            detail = "too many connections are open; come back later"
            self.write(refusal.answer(DomainError("overloaded", detail, retry_after_seconds=5), []))
            self._close()
            return
        at_home = client is not None and server is not None and client[0] == server[0]
        # A certificate of another authority has not come so far. The health check runs here, and has none.
        if self._certificate_needed and not at_home and not transport.get_extra_info("peercert"):
            _log.info("client_certificate_missing", client=client and client[0])
            self._close()
            return
        self._about = {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.3"},
            "server": server,
            "client": client,
            "scheme": "https" if is_ssl(transport) else "http",
            "root_path": "",
        }
        self._wait_for_head(self._edge.head_seconds, "head")

    def get_buffer(self, sizehint: int) -> memoryview:  # noqa: ARG002 - the most that may come at once is ours to say
        """See `asyncio.BufferedProtocol`: a body that somebody wants whole is read straight into its buffer."""
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
        elif not self._closing:
            data = bytes(self._connections.scratch[:nbytes])
            self._pending = self._pending + data if self._pending else data
            self._pump()

    def eof_received(self) -> bool:
        """See `asyncio.Protocol`: who sends no more may still read (RFC 9112 section 9.6)."""
        self._input_ended = True
        if self._closing or (self._exchange is None and self._next is None):
            return False
        if self._framing is not None:
            self._fail_body(body.incomplete())
        return self._about["scheme"] == "http"  # TLS has no half-closed connections here

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - the end is the end
        """See `asyncio.BaseProtocol`."""
        self._connections.leave(self)
        self._server.connections.discard(self)  # type: ignore[arg-type]
        self._closing, self._framing, self._pending = True, None, b""
        self._deadline.clear()
        if self._next is not None:
            self._next.cancel()
        if self._exchange is not None:
            self._exchange.disconnect()
        self.resume_writing()

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

    # What comes off the socket.

    def _pump(self) -> None:
        """Take what is pending, as far as it goes now."""
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

    def _soon(self) -> None:
        if self._next is None:
            self._next = self._loop.call_soon(self._pump)

    def _take_head(self) -> bool:
        self._pending = self._pending.lstrip(b"\r\n")  # RFC 9112 section 2.2
        end = head.end_of_head(self._pending, self._seen) if self._pending else 0
        limit = self._edge.head_max_bytes
        if end > limit or (end < 0 and len(self._pending) > limit):
            self._refuse(head.too_large(f"it may have at most {limit} bytes"))
            return False
        if end <= 0:
            if self._pending and not self._seen:
                self._due(self._edge.head_seconds, "head")
            self._seen = len(self._pending)
            return False
        data, self._pending, self._seen = self._pending[:end], self._pending[end:], 0
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
        scope = {
            **self._about,
            "http_version": found.version,
            "method": "GET" if found.method == "HEAD" else found.method,  # the answer's body is left out
            "path": found.path,
            "raw_path": found.raw_path,
            "query_string": found.query,
            "headers": found.headers,
            "state": self._app_state.copy(),
        }
        exchange = Exchange(self, found, scope, more_body=self._framing is not None)
        scope[body.WHOLE], scope[answer.WRITE] = exchange.whole, exchange.write_whole
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
        data, later = self._pending, b""
        if isinstance(framing, Chunked) and len(data) > _SLICE_BYTES:
            data, later = data[:_SLICE_BYTES], data[_SLICE_BYTES:]
        try:
            piece, rest = framing.take(data)
        except DomainError as error:
            self._fail_body(error)
            return False
        self._pending = rest + later if later else rest
        if piece:
            self._exchange.feed(piece)
        self._came(len(piece))
        if later and self._framing is not None:
            self._soon()
            return False
        return True

    def _came(self, count: int) -> None:
        """Note that bytes of the body have come."""
        assert self._framing is not None
        assert self._exchange is not None
        if not self._framing.done:
            if self._reading:
                self._deadline.body_moves(count, self._loop.time())
            return
        self._framing = None
        self._deadline.clear()
        self._exchange.end()
        if self._exchange.complete:  # it was answered before
            self.answered()

    def _fail_body(self, error: DomainError) -> None:
        assert self._exchange is not None
        self._framing, self._pending = None, b""
        self._deadline.clear()
        self._exchange.fail(error)
        if self._exchange.complete:
            self._end()

    def _read_on(self, *, wanted: bool) -> None:
        if wanted != self._reading and not self._transport.is_closing():
            self._reading = wanted
            if wanted:
                self._transport.resume_reading()
            else:
                self._transport.pause_reading()

    # What an exchange calls: see `Line`.

    def write(self, data: bytes) -> None:
        """Send bytes."""
        self._written += len(data)
        self._transport.write(data)

    async def drain(self) -> None:
        """Wait until there is room to write, or the connection is gone."""
        while self.write_paused and not self._transport.is_closing():
            self._writable = self._loop.create_future()
            await self._writable

    def want_body(self, *, wanted: bool) -> None:
        """Go on reading the body, or stop: a client is not late while we do not read."""
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

    def default_headers(self) -> list[tuple[bytes, bytes]]:
        """Return header fields that every answer has."""
        return self._server.default_headers

    def keeps_alive(self) -> bool:
        """Return whether another request may follow the one that is being answered."""
        if self._shutting_down or (self._input_ended and not self._pending) or self._exchange is None:
            return False
        if self._exchange.body_is_whole:
            return True
        few = isinstance(self._framing, Counted) and self._framing.left <= _DRAINED_MAX_BYTES
        return few and not self._exchange.waits_for_continue

    def answered(self) -> None:
        """Go on to what comes after the answer."""
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
        self.want_body(wanted=True)  # what is left of it is dropped

    # Deadlines and ends.

    def _due(self, seconds: float, reason: str) -> None:
        self._deadline.set(self._loop.time() + seconds, reason)

    def _wait_for_head(self, seconds: float, reason: str) -> None:
        self._due(seconds, reason)
        self._connections.waits(self)

    def overdue(self, now: float) -> bool:
        """Return whether the client has let a deadline pass."""
        return self._deadline.passed(self._read_bytes(), now)

    def _read_bytes(self) -> int:
        return self._written - self._transport.get_write_buffer_size()

    def give_up(self) -> str:
        """Do what is to be done about a deadline that has passed; return which one it was."""
        reason = self._deadline.reason
        self._deadline.clear()
        if reason == "body":
            detail = "the body made no progress, or too little; send it again"
            self._fail_body(DomainError("request-timeout", detail))
        elif reason == "head" and self._pending:
            self._refuse(DomainError("request-timeout", "the head of the request took too long; send it again"))
        elif reason in ("head", "idle"):
            self._close()
        else:
            self.abort()
        return reason

    def _close(self) -> None:
        """Close once all that was written is sent; who does not take it has a while for it."""
        self._closing = True
        self._due(self._edge.linger_seconds, "linger")
        self._transport.close()

    def abort(self) -> None:
        """Close at once."""
        self._closing = True
        self._transport.abort()

    def shutdown(self) -> None:
        """Begin to end (uvicorn): a request that has come is answered."""
        self._shutting_down = True
        if self._exchange is None or self._exchange.complete or self._closing:
            self._close()

    def _refuse(self, error: DomainError) -> None:
        """Answer what came as no request."""
        self.write(refusal.answer(error, self._server.default_headers))
        self._end()

    def _end(self) -> None:
        """Close in stages, so that a client that still sends gets the answer (RFC 9112 section 9.6)."""
        self._closing = True
        more = self._pending or self._framing is not None or self._exchange is None or not self._exchange.body_is_whole
        self._framing, self._pending = None, b""
        if self._input_ended or not more or self._shutting_down:
            self._close()
            return
        if self._transport.can_write_eof():
            self._transport.write_eof()
        self._read_on(wanted=True)
        self._due(self._edge.linger_seconds, "linger")

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
