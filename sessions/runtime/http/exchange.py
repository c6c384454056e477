"""One request and its answer by ASGI, with shortcuts for whole bodies and whole answers.

ASGI alone wakes the request's task for each piece of a body and copies the piece three times. For 1 MiB that is a tenth
of chunk-processor's work.
"""

import asyncio
from collections.abc import Sequence
from typing import Final, Protocol

from starlette.types import Message, Scope

from sessions.runtime.body import TRAILERS, Look, incomplete
from sessions.runtime.budget import Reservation
from sessions.runtime.errors import DomainError
from sessions.runtime.http import answer_head
from sessions.runtime.http.head import Head

CONTINUE: Final = b"HTTP/1.1 100 Continue\r\n\r\n"
_ZEROS: Final = memoryview(bytes(1024 * 1024))
HIGH_WATER_BYTES: Final = 16 * 1024
"""Limit on the bytes of a body that are read before the application asks for it."""


class Line(Protocol):
    """The connection, as an exchange sees it."""

    write_paused: bool

    def write(self, data: bytes) -> None:
        """Send bytes."""

    async def drain(self) -> None:
        """Wait until there is room to write, or the connection is gone."""

    def want_body(self, *, wanted: bool) -> None:
        """Resume reading the body, or stop."""

    def answered(self) -> None:
        """Continue after the answer: with the next request, or the end of the connection."""

    def keeps_alive(self) -> bool:
        """Return whether another request may follow this one."""

    def default_headers(self) -> list[tuple[bytes, bytes]]:
        """Return header fields that every answer has."""

    def default_lines(self) -> bytes:
        """Return their lines."""


class Exchange:
    """Takes a body from its connection, and gives an answer to it."""

    def __init__(self, line: Line, head: Head, scope: Scope, *, more_body: bool) -> None:
        self._line = line
        self._head = head
        self.scope = scope
        self._more_body = more_body
        self._piece: bytes | bytearray = b""
        self._given = False
        self._asked: asyncio.Future[None] | None = None
        self._error: DomainError | None = None
        self._gone = False
        self._expects_continue = head.expects_continue
        self._whole: bytearray | None = None
        self._room: Reservation | None = None
        self._look: Look | None = None
        self._held_back = b""
        self._size = self._length = 0
        self.started = False
        self.complete = False
        self._left: int | None = None
        """Bytes of the answer's body that are still to be sent; None for a chunked body."""

    # For the connection.

    def feed(self, piece: bytes, *, last: bool = False) -> None:
        """Take a piece of the body; the `last` one comes before `end`."""
        if self.complete:
            return
        if self._whole is not None:
            self._fill(piece)
            return
        self._piece = piece if not self._piece else b"".join((self._piece, piece))
        if len(self._piece) >= HIGH_WATER_BYTES and not last:
            self._line.want_body(wanted=False)  # at once: uvloop reads many times before anybody else has a turn
        self._wake()

    def target(self) -> memoryview | None:
        """Return the buffer for the next bytes of the body, or None if they must go through `feed`."""
        if self._whole is None or self._held_back or not self._fits(self._size + 1):
            return None
        return memoryview(self._whole)[self._size :]

    def filled(self, size_bytes: int) -> None:
        """Count bytes that were read into the buffer."""
        start, self._size = self._size, self._size + size_bytes
        if self._look is not None and self._whole is not None:
            try:
                self._look(self._whole, start, self._size)
            except DomainError as error:
                self._look = None
                self.fail(error)
                self._line.want_body(wanted=False)

    def _fits(self, size: int) -> bool:
        """Return whether the reservation covers, or can cover without waiting, a body of this size so far."""
        if self._room is None or not self._room.try_grow(size, self._length):
            return False
        self._enlarge(size)
        return True

    def _enlarge(self, size: int) -> None:
        """Enlarge the buffer to the reserved size and no further: allocated memory is resident before bytes arrive."""
        assert self._whole is not None
        assert self._room is not None
        wanted = max(size, min(self._room.size_bytes, self._length))
        while wanted > len(self._whole):
            self._whole.extend(_ZEROS[: wanted - len(self._whole)])

    def _fill(self, piece: bytes) -> None:
        size = self._size + len(piece)
        if self._held_back or not self._fits(size):
            self._held_back += piece
            self._line.want_body(wanted=False)
            self._wake()
            return
        self._put(piece)

    def _put(self, piece: bytes | bytearray) -> None:
        assert self._whole is not None
        self._whole[self._size : self._size + len(piece)] = piece
        self.filled(len(piece))

    def end(self, trailers: Sequence[tuple[bytes, bytes]] = ()) -> None:
        """Note that the body is complete; `trailers` are the fields after it."""
        if trailers:
            self.scope[TRAILERS] = trailers
        self._more_body = False
        self._wake()

    def fail(self, error: DomainError) -> None:
        """Note that the body will stay incomplete; its reader gets the error."""
        self._error = self._error or error
        self._wake()

    def disconnect(self) -> None:
        """Note that the client is gone."""
        self._gone = True
        self._wake()

    @property
    def body_is_whole(self) -> bool:
        """Whether the whole body has arrived."""
        return not self._more_body

    @property
    def keeps_alive(self) -> bool:
        """Whether the answer allowed another request on this connection."""
        return self._head.keep_alive

    @property
    def waits_for_continue(self) -> bool:
        """Whether the client still waits for 100 Continue."""
        return self._expects_continue

    def _wake(self) -> None:
        if self._asked is not None and not self._asked.done():
            self._asked.set_result(None)

    async def _wait(self) -> None:
        self._asked = asyncio.get_running_loop().create_future()
        try:
            await self._asked
        finally:
            self._asked = None

    def _ask(self) -> None:
        """Ask the client for the body."""
        if self._expects_continue:
            self._expects_continue = False
            if self._more_body and not self.started:
                self._line.write(CONTINUE)
        self._line.want_body(wanted=True)

    # For the application.

    async def receive(self) -> Message:
        """Return the next piece of the body (ASGI).

        Raises:
            DomainError: why the body will not become whole.
        """
        while not (self._gone or self.complete):
            if self._error is not None and not self._given:
                raise self._error
            if self._piece or not (self._more_body or self._given):
                piece, self._piece = self._piece, b""
                self._given = not self._more_body
                return {"type": "http.request", "body": bytes(piece), "more_body": self._more_body}
            self._ask()
            await self._wait()
        return {"type": "http.disconnect"}

    async def whole(self, length: int, room: Reservation, look: Look | None = None) -> bytes | bytearray | None:
        """Return a body of that declared length in one buffer; None when the client went away.

        Raises:
            DomainError: why the body will not become whole; `overloaded`; as `look`.
        """
        if self._more_body:
            self._look = look
            await self._read_whole(length, room)
        else:
            if look is not None:
                look(self._piece, 0, len(self._piece))
            await room.grow(max(1, length))
            self._size = len(self._piece)
        if self._error is not None:
            raise self._error
        self._given = True
        body, self._piece = self._piece, b""
        if self._more_body:
            return None
        if self._size != length or len(body) != length:  # whatever the reason: it is not what was sent
            raise incomplete()
        return body

    async def _read_whole(self, length: int, room: Reservation) -> None:
        await room.grow(max(1, len(self._piece)))
        piece, self._piece, self._size, self._length = self._piece, b"", 0, length
        if len(piece) >= HIGH_WATER_BYTES:  # more comes at once
            room.try_grow(len(piece) + 1, length)
        whole = self._whole = bytearray(max(len(piece), min(room.size_bytes, length)))
        self._room = room
        self._put(piece)
        try:
            while (self._more_body or self._held_back) and not self._gone and self._error is None:
                if self._held_back:
                    await room.grow(self._size + len(self._held_back))
                    self._enlarge(self._size + len(self._held_back))
                    held, self._held_back = self._held_back, b""
                    self._put(held)
                else:
                    self._ask()
                    await self._wait()
            self._piece = whole
        finally:  # nobody pays for what comes after this
            self._whole, self._room, self._held_back = None, None, b""

    async def send(self, message: Message) -> None:
        """Send a part of the answer (ASGI)."""
        if self._line.write_paused and not self._gone:
            await self._line.drain()
        if self._gone or self.complete:
            return
        if message["type"] == "http.response.start" and not self.started:
            fields = (*self._line.default_headers(), *message.get("headers", ()))
            data, self._left = answer_head.begin(self._head, message["status"], fields, self._line.keeps_alive)
            self.started = True
            self._line.write(data)
            if self._head.method == "HEAD":  # whatever more is made of it goes nowhere (RFC 9110 section 9.3.2)
                self._finish()
        elif message["type"] == "http.response.body" and self.started:
            self._go_on(message.get("body", b""), more=message.get("more_body", False))
        else:
            raise RuntimeError(f"unexpected ASGI message: {message['type']}")

    def _go_on(self, body: bytes, *, more: bool) -> None:
        if self._left is not None:
            if len(body) > self._left:
                raise RuntimeError("the answer is longer than its content-length")
            self._left -= len(body)
            self._line.write(body)
        elif self._head.version == "1.0":
            self._line.write(body)
        else:
            piece = b"%x\r\n%b\r\n" % (len(body), body) if body else b""
            self._line.write(piece if more else piece + b"0\r\n\r\n")
        if not more:
            if self._left:
                raise RuntimeError("the answer is shorter than its content-length")
            self._finish()

    def _finish(self) -> None:
        self.complete = True
        self._wake()
        self._line.answered()

    def write_whole(self, status: int, lines: bytes, body: bytes) -> bool:
        """Send a whole answer, of header lines and body; return False when it has to take the usual way."""
        plain = self._head.version == "1.1" and self._head.keep_alive and self._head.method != "HEAD"
        if self.started or self._gone or not plain or self._line.write_paused or not self._line.keeps_alive():
            return False
        self.started = True
        start, common = answer_head.status_line(status), self._line.default_lines()
        self._line.write(b"%b%b%bcontent-length: %d\r\n\r\n%b" % (start, common, lines, len(body), body))
        self._finish()
        return True
