"""Heads of requests (RFC 9112), each parsed by itself by llhttp.

The parser sees a head and nothing else. So `Upgrade` cannot make it leave HTTP, the body's bytes cannot be taken for
another request, and trailers cannot become header fields.
"""

import re
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import unquote

import httptools

from sessions.runtime.errors import DomainError

FIELDS_MAX: Final = 100
_END: Final = re.compile(rb"\n\r?\n")
_LONGEST_END: Final = 3
_LENGTH: Final = re.compile(rb"[0-9]{1,18}")
_HOST: Final = re.compile(rb"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._~!$&'()*+,;=%-]+)(:[0-9]{0,5})?")
_LINE: Final = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+) ([\x21-\x7e]+) HTTP/([0-9])\.([0-9])\r\n")
_METHODS: Final = (b"GET", b"HEAD", b"PUT", b"POST", b"DELETE", b"OPTIONS", b"PATCH", b"TRACE", b"QUERY")
"""Methods that are known: a resource that lacks one of them says which it has."""
_AUTHORITY: Final = re.compile(rb"[^:/]+://([^/?]*)")
_ENCODED: Final = re.compile(rb"%(?![0-9A-Fa-f]{2})")
_ENCODED_SLASH: Final = re.compile(r"%2f", re.IGNORECASE)
_ONCE: Final = (b"host", b"content-length", b"content-type", b"authorization", b"content-range", b"expect")


def end_of_head(data: bytes | memoryview, seen: int) -> int:
    """Where a head that begins with `data` ends, or -1; `seen` bytes were looked through before.

    A line that ends without a carriage return ends a head as well: the parser is to refuse it, at once.
    """
    found = _END.search(data, max(0, seen - _LONGEST_END))
    return found.end() if found else -1


@dataclass(slots=True)
class Head:
    """What a request says before its body. Names of header fields are in lower case."""

    method: str = ""
    path: str = ""
    raw_path: bytes = b""
    query: bytes = b""
    version: str = "1.1"
    headers: list[tuple[bytes, bytes]] = field(default_factory=list)
    length: int = 0
    """The body's length as it is declared, in bytes; 0 without a body, and for a chunked one."""
    chunked: bool = False
    expects_continue: bool = False
    keep_alive: bool = True


def parse(data: bytes) -> Head:
    """Parse a whole head, with the empty line at its end.

    Raises:
        DomainError: `bad-request-head`, `head-too-large`, `expectation-failed`, `not-implemented`,
            `version-not-supported`.
    """
    line, data = _request_line(data)
    found = _Parsed()
    parser = httptools.HttpRequestParser(found)
    try:
        parser.feed_data(data)
    except httptools.HttpParserUpgrade:
        pass  # to go on with HTTP/1.1 is always right (RFC 9110 section 7.8)
    except httptools.HttpParserError as error:
        raise _bad(str(error)) from None
    if not found.complete:
        raise _bad("it does not end where its empty line is")
    return _checked(found, line)


class _Parsed:
    """What the parser calls back."""

    def __init__(self) -> None:
        self.url = b""
        self.headers: list[tuple[bytes, bytes]] = []
        self.complete = False

    def on_url(self, url: bytes) -> None:
        self.url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        self.headers.append((name.lower(), value.strip(b" \t")))

    def on_headers_complete(self) -> None:
        self.complete = True


def _request_line(data: bytes) -> tuple[re.Match[bytes], bytes]:
    """Return the request line, and the head with a version that the parser knows (RFC 9110 section 2.5)."""
    line = _LINE.match(data)
    if line is None:
        raise _bad("its first line is not METHOD TARGET HTTP/1.1")
    if line[3] != b"1":
        raise DomainError("version-not-supported", "send HTTP/1.1, or HTTP/1.0")
    if line[1] not in _METHODS:
        raise DomainError("not-implemented", "the method is not known here; methods are in capital letters")
    if line[4] in b"01":
        return line, data
    return line, b"%b %b HTTP/1.1\r\n%b" % (line[1], line[2], data[line.end() :])


def _checked(found: _Parsed, line: re.Match[bytes]) -> Head:
    if len(found.headers) > FIELDS_MAX:
        raise too_large(f"it may have at most {FIELDS_MAX} fields")
    version = "1.0" if line[4] == b"0" else "1.1"
    head = Head(line[1].decode("ascii"), version=version, headers=found.headers)
    if found.url == b"*":
        _set_asterisk(head)
    else:
        _set_target(head, found.url)
    fields = dict(found.headers)
    if len(fields) < len(found.headers):
        fields = _combined(found.headers)
    _check_host(head, fields.get(b"host"))
    _set_framing(head, fields)
    options = {option.strip().lower() for option in fields.get(b"connection", b"").split(b",")}
    head.keep_alive = b"close" not in options and (version == "1.1" or b"keep-alive" in options)
    if b"expect" in fields and version == "1.1":
        if fields[b"expect"].lower() != b"100-continue":
            raise DomainError("expectation-failed", "no expectation but 100-continue is known")
        head.expects_continue = head.chunked or head.length > 0
    return head


def _combined(headers: list[tuple[bytes, bytes]]) -> dict[bytes, bytes]:
    """Return the fields by name; the values of a repeated one are a list (RFC 9110 section 5.3)."""
    fields: dict[bytes, bytes] = {}
    for name, value in headers:
        if name in fields and name in _ONCE:
            raise _bad(f"the field {name.decode()} is there twice")
        fields[name] = b"%b,%b" % (fields[name], value) if name in fields else value
    return fields


def _set_asterisk(head: Head) -> None:
    """RFC 9112 section 3.2.4: the target is the server, not one of its resources."""
    if head.method != "OPTIONS":
        raise _bad("only OPTIONS has the target *")
    head.path, head.raw_path = "*", b"*"


def _set_target(head: Head, url: bytes) -> None:
    """RFC 9112 section 3.2. An encoded slash stays encoded: it separates no segments (RFC 3986 section 2.2)."""
    if url.startswith(b"/") and b"#" not in url:
        head.raw_path, _, head.query = url.partition(b"?")
    else:
        _set_absolute(head, url)
    if b"%" not in head.raw_path:
        head.path = head.raw_path.decode("ascii")
    elif _ENCODED.search(head.raw_path):
        raise _bad("a percent sign in its target is not followed by two hexadecimal digits")
    else:
        head.path = "%2F".join(map(unquote, _ENCODED_SLASH.split(head.raw_path.decode("ascii"))))


def _set_absolute(head: Head, url: bytes) -> None:
    """Take the path and query of an absolute target, and refuse what is none."""
    try:
        target = httptools.parse_url(url)
    except httptools.HttpParserInvalidURLError:
        raise _bad("its target is not a URL") from None
    if target.schema is not None:
        _take_authority(head, url)
    if b"#" in url or target.userinfo is not None or (target.schema or b"http").lower() not in (b"http", b"https"):
        raise _bad("its target may have no fragment, no user, and no scheme but http and https")
    head.raw_path, head.query = target.path or b"/", target.query or b""


def _take_authority(head: Head, url: bytes) -> None:
    """Put the host of an absolute target in the place of Host (RFC 9112 section 3.2.2)."""
    others = [(name, value) for name, value in head.headers if name != b"host"]
    authority = _AUTHORITY.match(url)
    if authority is None or not _HOST.fullmatch(authority[1]):
        raise _bad("the host of its target is none")
    head.headers = [(b"host", authority[1]), *others]


def _check_host(head: Head, host: bytes | None) -> None:
    """RFC 9112 section 3.2."""
    if host is None:
        if head.version == "1.1":
            raise _bad("the field host is missing")
    elif not _HOST.fullmatch(host):
        raise _bad("the field host is not a host")


def _set_framing(head: Head, fields: dict[bytes, bytes]) -> None:
    """RFC 9112 section 6: one way to tell where the body ends, or none."""
    codings, length = fields.get(b"transfer-encoding"), fields.get(b"content-length")
    if codings is not None:
        if length is not None or head.version == "1.0":
            raise _bad("transfer-encoding does not go with content-length, or with HTTP/1.0")
        *others, last = [coding.strip().lower() for coding in codings.split(b",")]
        if last != b"chunked" or {b"chunked", b""} & set(others):
            raise _bad("chunked is not the last transfer coding, or is there twice")
        if others:
            raise DomainError("not-implemented", "no transfer coding but chunked is known")
        head.chunked = True
    elif length is not None:
        if not _LENGTH.fullmatch(length):
            raise _bad("content-length is not a number of bytes")
        head.length = int(length)


def without_end(data: bytes, limit_bytes: int) -> DomainError:
    """Return the error for a head that has more than `limit_bytes`, of which `data` is the beginning."""
    line, end, _ = data[:limit_bytes].partition(b"\n")
    if end:
        return too_large(f"it may have at most {limit_bytes} bytes")
    if b" " in line:
        return DomainError("target-too-long", f"the head of the request may have at most {limit_bytes} bytes")
    return DomainError("not-implemented", "no method is that long")


def too_large(detail: str) -> DomainError:
    """Return the error for a head that has more than is allowed."""
    return DomainError("head-too-large", f"the head of the request is too large: {detail}")


def _bad(detail: str) -> DomainError:
    return DomainError("bad-request-head", f"the head of the request is not as RFC 9112 says: {detail}")
