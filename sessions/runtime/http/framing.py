"""The end of a request's body (RFC 9112 sections 6 and 7): by its length, or by its chunks."""

import re
from collections.abc import Callable
from typing import Final

from sessions.runtime.errors import DomainError

_SIZE: Final = re.compile(rb"([0-9A-Fa-f]{1,15})[ \t]*(;[^\x00-\x08\x0a-\x1f\x7f]*)?")
_TRAILER: Final = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+:[^\x00-\x08\x0a-\x1f\x7f]*")
_SLICE_BYTES: Final = 16 * 1024
"""Limit on the bytes of a chunked body that are parsed at a time, in less than a millisecond."""
_LINE_MAX_BYTES: Final = 1024
_LINES_MAX_BYTES: Final = 16 * 1024
"""Limit on the bytes of extensions and trailer together, so that neither takes memory without bound."""


class Counted:
    """A body of a declared length."""

    trailers: tuple[()] = ()

    def __init__(self, length: int) -> None:
        self.left = length
        self.done = not length

    def take(self, data: bytes) -> tuple[bytes, bytes]:
        """Return the part of `data` that belongs to the body, and the rest."""
        piece, rest = (data, b"") if len(data) <= self.left else (data[: self.left], data[self.left :])
        self.count(len(piece))
        return piece, rest

    def count(self, size_bytes: int) -> None:
        """Count bytes of the body that were read directly into its buffer."""
        self.left -= size_bytes
        self.done = not self.left


class Chunked:
    """A chunked body. Chunk extensions are ignored, and trailer fields are kept apart from header fields."""

    def __init__(self) -> None:
        self.done = False
        self.trailers: list[tuple[bytes, bytes]] = []
        self._left = 0
        self._line = b""
        self._passed_over = 0
        self._next: Callable[[bytes], None] = self._size

    def take(self, data: bytes) -> tuple[bytes, bytes]:
        """Return the part of `data` that belongs to the body, without its framing, and the rest.

        The rest begins after the body, or after the first `_SLICE_BYTES` of `data`.

        Raises:
            DomainError: `bad-request-body`.
        """
        data, later = data[:_SLICE_BYTES], data[_SLICE_BYTES:]
        at, pieces = 0, []
        while not self.done and at < len(data):
            if self._left:
                piece = data[at : at + self._left]
                at += len(piece)
                self._left -= len(piece)
                pieces.append(piece)
                continue
            end = data.find(b"\n", at, at + _LINE_MAX_BYTES)
            self._line += data[at : end + 1] if end >= 0 else data[at : at + _LINE_MAX_BYTES]
            if len(self._line) > _LINE_MAX_BYTES or (end < 0 and at + _LINE_MAX_BYTES <= len(data)):
                raise _bad(f"a line between its chunks has more than {_LINE_MAX_BYTES} bytes")
            if end < 0:
                return b"".join(pieces), later
            at = end + 1
            line, self._line = self._line, b""
            if not line.endswith(b"\r\n"):
                raise _bad("a line does not end with a carriage return and a line feed")
            self._next(line[:-2])
        return b"".join(pieces), data[at:] + later

    def _size(self, line: bytes) -> None:
        found = _SIZE.fullmatch(line)
        if found is None:
            raise _bad("the size of a chunk is not hexadecimal")
        self._left = int(found[1], 16)
        self._pass_over(len(found[2] or b""))
        self._next = self._after if self._left else self._trailer

    def _after(self, line: bytes) -> None:
        if line:
            raise _bad("a chunk is longer than its size")
        self._next = self._size

    def _trailer(self, line: bytes) -> None:
        if not line:
            self.done = True
            return
        if not _TRAILER.fullmatch(line):
            raise _bad("a line of the trailer is not a field")
        self._pass_over(len(line))
        name, value = line.split(b":", 1)
        self.trailers.append((name.lower(), value.strip(b" \t")))

    def _pass_over(self, count: int) -> None:
        self._passed_over += count
        if self._passed_over > _LINES_MAX_BYTES:
            raise _bad(f"its extensions and trailer have more than {_LINES_MAX_BYTES} bytes")


def _bad(detail: str) -> DomainError:
    return DomainError("bad-request-body", f"the chunked body is not as RFC 9112 section 7.1 says: {detail}")
