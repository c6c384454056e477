"""Heads of answers (RFC 9112): status line, fields, and the framing of the body."""

import re
from collections.abc import Callable, Iterable
from http import HTTPStatus
from typing import Final

from sessions.runtime.http.head import Head

_STATUS_LINE: Final = {status.value: f"HTTP/1.1 {status.value} {status.phrase}\r\n".encode() for status in HTTPStatus}
_NAME: Final = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_VALUE: Final = re.compile(rb"[^\x00-\x08\x0a-\x1f\x7f]*")
_BODILESS: Final = (204, 304)


def status_line(status: int) -> bytes:
    """Return an answer's first line."""
    return _STATUS_LINE.get(status) or b"HTTP/1.1 %d \r\n" % status


def begin(
    head: Head, status: int, fields: Iterable[tuple[bytes, bytes]], keeps_alive: Callable[[], bool]
) -> tuple[bytes, int | None]:
    """Return the head of an answer and the length of its body; None if it is chunked, or ends with the connection.

    `head` is the request's; its `keep_alive` is set to the answer's.

    Raises:
        RuntimeError: a field is none.
    """
    lines, left = [status_line(status)], None
    framed = head.method == "HEAD" or status in _BODILESS
    if framed:
        left = 0
    for name, value in fields:
        if not (_NAME.fullmatch(name) and _VALUE.fullmatch(value)):
            raise RuntimeError(f"not a header field: {name!r}")
        key = name.lower()
        if key == b"connection":
            head.keep_alive = head.keep_alive and b"close" not in value.lower()
            continue
        if key == b"content-length" and not framed:
            left, framed = int(value), True
        lines.append(b"%b: %b\r\n" % (key, value))
    if not framed:
        if head.version == "1.0":  # its end is the connection's (RFC 9112 section 6.3)
            head.keep_alive = False
        else:
            lines.append(b"transfer-encoding: chunked\r\n")
    if not (head.keep_alive and keeps_alive()):
        head.keep_alive = False
        lines.append(b"connection: close\r\n")
    elif head.version == "1.0":
        lines.append(b"connection: keep-alive\r\n")
    return b"".join((*lines, b"\r\n")), left
