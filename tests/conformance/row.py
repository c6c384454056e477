"""Rows of the conformance table: what is sent, byte for byte, and what must come back.

Words that begin with `@` stand for what differs between services and runs; `Words` replaces them. A body `@BODY0` to
`@BODY3` always has `BODY_BYTES` bytes (a0 in hexadecimal), and both services accept it by PUT at `@PATH0` to `@PATH3`.
"""

import base64
import json
import re
from dataclasses import dataclass
from secrets import token_bytes
from typing import Final, Literal, TypeAlias

Service: TypeAlias = Literal["processor", "storage"]
SERVICES: Final[tuple[Service, ...]] = ("processor", "storage")
BODY_BYTES: Final = 160
TARGETS: Final = 4
_WORD: Final = re.compile(rb"@[A-Z]+[0-9]?")


@dataclass(frozen=True, slots=True)
class Row:
    """One rule: its section, what is sent (in segments if there are several), and the statuses that must come back."""

    section: str
    name: str
    sent: str | tuple[str, ...]
    got: str
    """A regular expression for the statuses of all answers, with a space between them."""
    proxied: str = ""
    """The same through HAProxy, where that answers by itself or changes the request. Empty: as `got`. `-`: not tried."""
    only: Service | None = None
    has: str = ""
    """A regular expression that must be found in the head of the last answer, in lower case."""
    content: str | None = None
    """The content of the last answer."""
    holds: tuple[str, ...] | None = None
    """What is stored afterwards. By default the bodies whose PUT was answered with 201, and no others."""
    head: bool = False
    """The requests are HEAD, so the answers have no content."""
    early: bool = False
    """The answer comes before the body, which is never sent. Through HAProxy such a connection cannot be used again."""
    half: bool = False
    """The client says that it sends no more (half-close)."""

    def __str__(self) -> str:
        return f"{self.section} {self.name}"

    @property
    def segments(self) -> tuple[str, ...]:
        """Return what is sent, one segment after the other."""
        return (self.sent,) if isinstance(self.sent, str) else self.sent


def put(*lines: str, body: str = "@BODY0", number: int = 0) -> str:
    """Return a PUT with these fields besides those that it needs."""
    head = [f"PUT @PATH{number} HTTP/1.1", "Host: @HOST", "@AUTH", *lines]
    return "\r\n".join(head) + "\r\n\r\n" + body


def counted(*lines: str, number: int = 0) -> str:
    """Return a PUT with a right Content-Length."""
    return put(f"Content-Length: {BODY_BYTES}", *lines, body=f"@BODY{number}", number=number)


def chunked(body: str, *lines: str) -> str:
    """Return a PUT whose body is chunked."""
    return put("Transfer-Encoding: chunked", *lines, body=body)


def get(*lines: str, path: str = "/livez", method: str = "GET") -> str:
    """Return a request without a body."""
    return "\r\n".join([f"{method} {path} HTTP/1.1", "Host: @HOST", *lines]) + "\r\n\r\n"


def body(number: int) -> bytes:
    """Return a body that chunk-processor stores as a chunk, and with which session-storage opens a session."""
    key = {"dek_id": _base64(token_bytes(16)), "kek_id": "conformance", "wrapped": _base64(token_bytes(9))}
    made = json.dumps({"metadata": {"v": ""}, "key": key}, separators=(",", ":"))
    return made.replace('"v":""', f'"v":"{str(number) * (BODY_BYTES - len(made))}"').encode()


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode()


class Words:
    """The meaning of the words of one row, at one service."""

    def __init__(self, words: dict[str, bytes]) -> None:
        self._words = {f"@{name}".encode(): value for name, value in words.items()}

    def __getitem__(self, word: str) -> bytes:
        return self._words[word.encode()]

    def fill(self, text: str) -> bytes:
        """Return a text with its words replaced."""
        return _WORD.sub(lambda found: self._words[found[0]], text.encode("latin-1"))
