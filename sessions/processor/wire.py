"""HTTP/1.1 connections to session-storage.

A general client costs a millisecond of the event loop's thread for each request, more the more of them are under way,
and gives way to other work some ten times within it, while session-storage waits for the body; this does it in one
write and one wake-up. The parser is the server's.
"""

import asyncio
import json
import ssl
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, cast
from urllib.parse import urlsplit

import httptools

from sessions.core.types import CHUNK_MAX_BYTES_LIMIT, Buffer
from sessions.processor.addresses import Address, Dialer

KEEP_ALIVE_SECONDS: Final = 30.0
"""Below the server's, so that a connection is never used in the moment when the other side closes it."""
CONNECT_SECONDS: Final = 3.0
"""Longest time for a connection, in seconds: all addresses of the name share it."""
CONNECTIONS_MAX: Final = 64
"""Limit on the connections of one pool, unless it has a limit of its own."""
ANSWER_MAX_BYTES: Final = CHUNK_MAX_BYTES_LIMIT + 1024 * 1024
"""An envelope of the largest chunk, with its head."""


class WireError(Exception):
    """There was no answer."""


class NoConnectionError(WireError):
    """Nobody listens there, or it is not whom we trust; its cause says more."""


class BrokenOffError(WireError):
    """The connection ended before the answer, or what came is none."""


class NoAnswerInTimeError(WireError):
    """It took too long."""


class NoRoomError(WireError):
    """All connections of the pool were in use for too long. It says nothing about the server."""


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer; the names of its headers in lower case."""

    status: int
    headers: Mapping[str, str]
    content: bytes = field(repr=False)

    @property
    def is_success(self) -> bool:
        """Whether the server did what was asked (RFC 9110 section 15.3)."""
        return self.status // 100 == 2  # noqa: PLR2004

    def json(self) -> Any:
        """Its content, read as JSON.

        Raises:
            ValueError: it is none.
        """
        return json.loads(self.content)


class _Connection(asyncio.Protocol):
    """One connection, one exchange at a time. The methods `on_…` are the parser's to call."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._answer: asyncio.Future[Answer] | None = None
        self.address: Address | None = None
        self.usable = True
        self.idle_since = 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def connection_lost(self, exc: Exception | None) -> None:
        reason = str(exc) if exc else "the server closed the connection without an answer"
        self._fail(BrokenOffError(reason))

    def data_received(self, data: bytes) -> None:
        if self._answer is None or self._answer.done():
            self.close()  # nobody has asked for anything
            return
        self._received += len(data)
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
            self._fail(BrokenOffError(f"not an HTTP answer: {error}"))
        if self._received > ANSWER_MAX_BYTES:
            self._fail(BrokenOffError(f"an answer of more than {ANSWER_MAX_BYTES} bytes"))

    def on_header(self, name: bytes, value: bytes) -> None:
        self._headers[name.decode("latin-1").lower()] = value.decode("latin-1")

    def on_body(self, body: bytes) -> None:
        self._body.append(body)

    def on_message_complete(self) -> None:
        if not self._parser.should_keep_alive():
            self.usable = False
        if self._answer is not None and not self._answer.done():
            status = self._parser.get_status_code()
            self._answer.set_result(Answer(status, self._headers, b"".join(self._body)))

    def _fail(self, error: WireError) -> None:
        self.close()
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(error)

    def close(self) -> None:
        """End it at once."""
        self.usable = False
        if self._transport is not None:
            self._transport.abort()

    async def exchange(self, head: bytes, pieces: Sequence[Buffer]) -> Answer:
        """Send a request, give its answer."""
        assert self._transport is not None
        if not self.usable:  # lost since it was made
            raise BrokenOffError("the server closed the connection")
        self._parser = httptools.HttpResponseParser(self)
        self._headers: dict[str, str] = {}
        self._body: list[bytes] = []
        self._received = 0
        self._answer = self._loop.create_future()
        self._transport.writelines([head, *pieces])
        try:
            return await self._answer
        except BaseException:
            self.close()  # whoever gives up leaves an answer under way
            raise


class Wire:
    """A bounded pool of connections to one server, kept while they are used. Requests wait for a free one."""

    def __init__(
        self,
        url: str,
        headers: Mapping[str, str],
        timeout_seconds: float,
        tls: ssl.SSLContext | None,
        connections: int | None = None,
    ) -> None:
        """Where to, and what every request says.

        Args:
            url: Of the server, http or https, perhaps with a path that all paths follow.
            headers: Of every request.
            timeout_seconds: For a whole exchange, and before it for the wait for a free connection.
            tls: For https; the system's authorities when None.
            connections: Limit on the connections; `CONNECTIONS_MAX` when None.
        """
        address = urlsplit(url.rstrip("/"))
        secure = address.scheme == "https"
        host = address.hostname or ""
        self._path = address.path
        context = (tls or ssl.create_default_context()) if secure else None
        self._dialer: Dialer[_Connection] = Dialer(host, address.port or (443 if secure else 80), context)
        self._timeout_seconds = timeout_seconds
        self._fixed = "".join(f"{name}: {value}\r\n" for name, value in {"host": address.netloc, **headers}.items())
        self._idle: deque[_Connection] = deque()
        self._room = asyncio.Semaphore(connections or CONNECTIONS_MAX)

    async def request(
        self,
        method: str,
        target: str,
        pieces: Sequence[Buffer] = (),
        headers: Mapping[str, str] | None = None,
        timeout_seconds: float | None = None,
    ) -> Answer:
        """Send a request, its body given in pieces; the target is path and query.

        Raises:
            WireError: there was no answer.
        """
        size = sum(len(piece) for piece in pieces)
        own = "".join(f"{name}: {value}\r\n" for name, value in (headers or {}).items())
        line = f"{method} {self._path}{target} HTTP/1.1\r\n"
        head = f"{line}{self._fixed}{own}content-length: {size}\r\n\r\n".encode("latin-1")
        await self._wait_for_room()
        try:
            async with asyncio.timeout(timeout_seconds or self._timeout_seconds):
                connection = await self._connection()
                answer = await self._exchange(connection, head, pieces)
        except TimeoutError:
            raise NoAnswerInTimeError("no answer in time") from None
        finally:
            self._room.release()
        if connection.usable:
            connection.idle_since = asyncio.get_running_loop().time()
            self._idle.append(connection)
        else:
            connection.close()
        return answer

    async def _exchange(self, connection: _Connection, head: bytes, pieces: Sequence[Buffer]) -> Answer:
        try:
            answer = await connection.exchange(head, pieces)
        except asyncio.CancelledError:  # the time is up, here or at the caller
            if connection.address is not None:
                self._dialer.overdue(connection.address)
            raise
        if connection.address is not None:
            self._dialer.answered(connection.address)
        return answer

    async def _wait_for_room(self) -> None:
        """Wait apart from the exchange, so that a pool in use never looks like a server that does not answer."""
        if not self._room.locked():
            await self._room.acquire()
            return
        try:
            async with asyncio.timeout(self._timeout_seconds):
                await self._room.acquire()
        except TimeoutError:
            raise NoRoomError("all connections are in use") from None

    async def _connection(self) -> _Connection:
        oldest = asyncio.get_running_loop().time() - KEEP_ALIVE_SECONDS
        while self._idle:
            connection = self._idle.pop()
            if connection.usable and connection.idle_since > oldest:
                return connection
            connection.close()
        try:
            async with asyncio.timeout(CONNECT_SECONDS):
                made, address = await self._dialer.connect(_Connection, CONNECT_SECONDS)
        except TimeoutError:
            raise NoConnectionError("no connection in time") from None
        except (OSError, ssl.SSLError) as error:
            raise NoConnectionError(str(error)) from error
        made.address = address
        return made

    def close(self) -> None:
        """Close all connections that nobody uses."""
        while self._idle:
            self._idle.pop().close()
