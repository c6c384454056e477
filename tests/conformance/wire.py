"""A plain client: sends bytes as they are, and reads answers strictly by RFC 9112."""

import re
import socket
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Final, TypeAlias

Address: TypeAlias = tuple[str, int]
PROBE: Final = b"GET /livez HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
_ALIVE: Final = b'{"status":"ok"}'
_SECONDS: Final = 10
_BETWEEN_SECONDS: Final = 0.04
_HEAD: Final = re.compile(
    rb"HTTP/1\.1 ([1-5][0-9]{2}) [\t\x20-\x7e]*\r\n((?:[!#$%&'*+.^_`|~0-9A-Za-z-]+:[\t\x20-\x7e]*\r\n)*)\r\n"
)
_CHUNK: Final = re.compile(rb"([0-9a-f]+)\r\n")
_BODILESS: Final = (204, 304)


class UnfinishedError(Exception):
    """The bytes end before the answer does."""


@dataclass(frozen=True, slots=True)
class Answer:
    """One answer, its field names in lower case."""

    status: int
    head: str
    fields: tuple[tuple[str, str], ...]
    content: bytes

    def all(self, name: str) -> list[str]:
        """Return the values of a field."""
        return [value for key, value in self.fields if key == name]

    def one(self, name: str) -> str:
        """Return the value of a field that is there once; empty if it is missing."""
        values = self.all(name)
        assert len(values) <= 1, f"{name} is repeated: {values}"
        return values[0] if values else ""

    @property
    def closes(self) -> bool:
        """Return whether the answer says that the connection ends."""
        return "close" in self.one("connection").lower()


def parse(data: bytes, *, head: bool = False, ended: bool) -> tuple[Answer, bytes]:
    """Return the first answer, and what comes after it. `head`: the request was HEAD.

    Raises:
        UnfinishedError: more has to come.
        AssertionError: it is no answer as RFC 9112 has it.
    """
    end = data.find(b"\r\n\r\n")
    if end < 0:
        raise UnfinishedError
    found = _HEAD.match(data)
    assert found is not None, f"not the head of an answer: {data[:200]!r}"
    assert found.end() == end + 4
    lines = found[2].decode().split("\r\n")[:-1]
    fields = tuple((name.lower(), value.strip()) for name, _, value in (line.partition(":") for line in lines))
    answer = Answer(int(found[1]), found[0].decode().lower(), fields, b"")
    content, rest = _content(answer, data[found.end() :], head=head, ended=ended)
    return Answer(answer.status, answer.head, fields, content), rest


def _content(answer: Answer, data: bytes, *, head: bool, ended: bool) -> tuple[bytes, bytes]:
    length, coding = answer.one("content-length"), answer.one("transfer-encoding")
    assert not (length and coding), "two ways to tell the length"
    if answer.status in _BODILESS or answer.status < 200:
        assert not coding
        assert length in ("", "0")
        return b"", data
    if head:
        return b"", data
    if coding:
        assert coding == "chunked"
        return _chunks(data)
    if length:
        if len(data) < int(length):
            raise UnfinishedError
        return data[: int(length)], data[int(length) :]
    assert answer.closes, "nothing tells where the content ends"
    if not ended:
        raise UnfinishedError
    return data, b""


def _chunks(data: bytes) -> tuple[bytes, bytes]:
    pieces = b""
    while True:
        found = _CHUNK.match(data)
        if found is None:
            assert b"\r\n" not in data[:20], f"not a chunk: {data[:20]!r}"
            raise UnfinishedError
        start, size = found.end(), int(found[1], 16)
        if len(data) < start + size + 2:
            raise UnfinishedError
        assert data[start + size : start + size + 2] == b"\r\n"
        pieces, data = pieces + data[start : start + size], data[start + size + 2 :]
        if not size:
            return pieces, data


def parse_all(data: bytes, *, head: bool = False, ended: bool = True) -> list[Answer]:
    """Return all answers; bytes that are left over belong to one that is not finished, which counts only if `ended`."""
    answers: list[Answer] = []
    while data:
        try:
            answer, data = parse(data, head=head, ended=ended)
        except UnfinishedError:
            if ended:
                raise
            break
        answers.append(answer)
    return answers


def converse(
    address: Address,
    segments: Sequence[bytes],
    count: int,
    *,
    head: bool = False,
    half: bool = False,
    probed: bool = True,
    may_close: bool = False,
) -> list[Answer]:
    """Send segments, and return all answers.

    A connection that stays open after `count` answers must serve one more request, which proves that both sides agree
    on where the last one ended; unless not `probed`. With `may_close` it may end after a refusal without a word.

    Raises:
        AssertionError: what came is no sequence of answers, or the connection is not in the state that they say.
    """
    with socket.create_connection(address, timeout=_SECONDS) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for number, segment in enumerate(segments):
            if number:
                time.sleep(_BETWEEN_SECONDS)
            with suppress(ConnectionError):  # it was refused before all of it was sent
                connection.sendall(segment)
        if half:
            connection.shutdown(socket.SHUT_WR)
        data, ended = b"", False
        while not ended:
            answers = parse_all(data, head=head, ended=False)
            final = [answer for answer in answers if answer.status >= 200]
            if len(final) >= count and not half and not (final and final[-1].closes):
                break
            piece = _received(connection)
            ended, data = not piece, data + piece
        if ended:
            return _to_the_end(parse_all(data, head=head))
        assert answers == parse_all(data, head=head), "there is more than was asked for"
        if probed:
            refused = may_close and answers[-1].status >= 400
            _probe(connection, may_close=refused)
        return answers


def _probe(connection: socket.socket, *, may_close: bool) -> None:
    data = b""
    try:
        connection.sendall(PROBE)
        data = b"".join(iter(lambda: connection.recv(65536), b""))
    except ConnectionError:
        assert may_close, "the connection was reset"
    if data or not may_close:
        assert [(one.status, one.content) for one in parse_all(data)] == [(200, _ALIVE)], data[:300]


def _received(connection: socket.socket) -> bytes:
    try:
        return connection.recv(65536)
    except ConnectionError as error:
        raise AssertionError("the connection was reset, not closed in order") from error


def _to_the_end(answers: list[Answer]) -> list[Answer]:
    for answer in answers[:-1]:
        assert not answer.closes, "there is an answer after one that says that it is the last"
    return answers


def ask(address: Address, path: str, authorization: bytes, method: str = "GET") -> Answer:
    """Return the answer to one plain request."""
    request = f"{method} {path} HTTP/1.1\r\nHost: x\r\n".encode() + authorization + b"\r\nConnection: close\r\n\r\n"
    (answer,) = converse(address, [request], 1, head=method == "HEAD")
    return answer
