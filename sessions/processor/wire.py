"""HTTP/1.1 connections for the one request that comes hundreds of times a second.

httpx costs a millisecond of the event loop's thread for each request and gives way to other work some ten times within
it, while session-storage waits for the body; this does it in one write and one wake-up. The parser is the server's.
"""

import asyncio
import ssl
from collections import deque
from collections.abc import Mapping, Sequence
from typing import Final, cast
from urllib.parse import urlsplit

import httptools
import httpx

from sessions.core.types import Buffer

KEEP_ALIVE_SECONDS: Final = 30.0
"""Below the server's, so that a connection is never used in the moment when the other side closes it."""
CONNECT_SECONDS: Final = 3.0
ANSWER_MAX_BYTES: Final = 8 * 1024 * 1024


class _Connection(asyncio.Protocol):
    """One connection, one exchange at a time. The methods `on_…` are the parser's to call."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._answer: asyncio.Future[httpx.Response] | None = None
        self.usable = True
        self.idle_since = 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def connection_lost(self, exc: Exception | None) -> None:
        reason = str(exc) if exc else "the server closed the connection without an answer"
        self._fail(httpx.RemoteProtocolError(reason))

    def data_received(self, data: bytes) -> None:
        if self._answer is None or self._answer.done():
            self.close()  # nobody has asked for anything
            return
        self._received += len(data)
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
            self._fail(httpx.RemoteProtocolError(f"not an HTTP answer: {error}"))
        if self._received > ANSWER_MAX_BYTES:
            self._fail(httpx.RemoteProtocolError(f"an answer of more than {ANSWER_MAX_BYTES} bytes"))

    def on_header(self, name: bytes, value: bytes) -> None:
        self._headers.append((name, value))

    def on_body(self, body: bytes) -> None:
        self._body += body

    def on_message_complete(self) -> None:
        if not self._parser.should_keep_alive():
            self.usable = False
        if self._answer is not None and not self._answer.done():
            status = self._parser.get_status_code()
            self._answer.set_result(httpx.Response(status, headers=self._headers, content=bytes(self._body)))

    def _fail(self, error: httpx.HTTPError) -> None:
        self.close()
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(error)

    def close(self) -> None:
        """End it at once."""
        self.usable = False
        if self._transport is not None:
            self._transport.abort()

    async def exchange(self, head: bytes, pieces: Sequence[Buffer]) -> httpx.Response:
        """Send a request, give its answer."""
        assert self._transport is not None
        if not self.usable:  # lost since it was made
            raise httpx.RemoteProtocolError("the server closed the connection")
        self._parser = httptools.HttpResponseParser(self)
        self._headers: list[tuple[bytes, bytes]] = []
        self._body = bytearray()
        self._received = 0
        self._answer = self._loop.create_future()
        self._transport.writelines([head, *pieces])
        try:
            return await self._answer
        except BaseException:
            self.close()  # whoever gives up leaves an answer under way
            raise


class Wire:
    """Connections to one server, kept while they are used."""

    def __init__(
        self, url: str, headers: Mapping[str, str], timeout_seconds: float, tls: ssl.SSLContext | None
    ) -> None:
        """Where to, and what every request says.

        Args:
            url: Of the server, http or https, perhaps with a path that all paths follow.
            headers: Of every request.
            timeout_seconds: For a whole exchange.
            tls: For https; the system's authorities when None.
        """
        address = urlsplit(url.rstrip("/"))
        secure = address.scheme == "https"
        self._host, self._port = address.hostname or "", address.port or (443 if secure else 80)
        self._path = address.path
        self._tls = (tls or ssl.create_default_context()) if secure else None
        self._timeout_seconds = timeout_seconds
        self._fixed = "".join(f"{name}: {value}\r\n" for name, value in {"host": address.netloc, **headers}.items())
        self._idle: deque[_Connection] = deque()

    async def post(self, path: str, pieces: Sequence[Buffer], headers: Mapping[str, str]) -> httpx.Response:
        """POST a body, given in pieces.

        Raises:
            httpx.HTTPError: there was no answer, as httpx would say it.
        """
        size = sum(len(piece) for piece in pieces)
        own = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        head = f"POST {self._path}{path} HTTP/1.1\r\n{self._fixed}{own}content-length: {size}\r\n\r\n".encode("latin-1")
        try:
            async with asyncio.timeout(self._timeout_seconds):
                connection = await self._connection()
                answer = await connection.exchange(head, pieces)
        except TimeoutError:
            raise httpx.ReadTimeout("no answer in time") from None
        if connection.usable:
            connection.idle_since = asyncio.get_running_loop().time()
            self._idle.append(connection)
        else:
            connection.close()
        return answer

    async def _connection(self) -> _Connection:
        oldest = asyncio.get_running_loop().time() - KEEP_ALIVE_SECONDS
        while self._idle:
            connection = self._idle.pop()
            if connection.usable and connection.idle_since > oldest:
                return connection
            connection.close()
        try:
            async with asyncio.timeout(CONNECT_SECONDS):
                _, made = await asyncio.get_running_loop().create_connection(
                    _Connection, self._host, self._port, ssl=self._tls
                )
        except TimeoutError:
            raise httpx.ConnectTimeout("no connection in time") from None
        except (OSError, ssl.SSLError) as error:
            raise httpx.ConnectError(str(error)) from error
        return made

    def close(self) -> None:
        """Close all connections that nobody uses."""
        while self._idle:
            self._idle.pop().close()
