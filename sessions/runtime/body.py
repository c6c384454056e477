"""Request bodies, bounded while they are read."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Final, TypeAlias

from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.types import Receive

from sessions.runtime.budget import ByteBudget, Reservation
from sessions.runtime.errors import DomainError
from sessions.runtime.json_size import JsonCost

_NOT_PLAIN: Final = frozenset({b"content-range", b"content-encoding", b"if-match"})
TRAILERS: Final = "sessions.trailers"
"""Key of a request's scope: the fields after a chunked body, (name in lower case, value), once it has come."""
WHOLE: Final = "sessions.whole_body"
"""Key of a request's scope: the server's `Whole`."""
Look: TypeAlias = Callable[[bytes | bytearray, int, int], None]
"""Looks at the bytes from one position to another, and raises a `DomainError` to refuse the body."""
Whole: TypeAlias = Callable[[int, Reservation, Look | None], Awaitable[bytes | bytearray | None]]
"""Gives a body of that declared length in one buffer; None: the client is gone.

It takes room for the body as it arrives, and has it looked at.
"""


def too_large(limit_bytes: int) -> DomainError:
    """Return the refusal of a body with more than `limit_bytes`."""
    return DomainError("body-too-large", f"the body may have at most {limit_bytes} bytes", limit_bytes=limit_bytes)


def incomplete() -> DomainError:
    """Return the refusal of a body that did not arrive completely."""
    return DomainError("incomplete-body", "the connection ended within the body")


def declared_length(content_length: str | None, limit_bytes: int) -> int | None:
    """The body's length as the client declares it; None if it does not.

    Raises:
        DomainError: `body-too-large`, before a byte is read.
    """
    # The HTTP parser has refused anything but digits already.
    if content_length is None:
        return None
    length = int(content_length)
    if length > limit_bytes:
        raise too_large(limit_bytes)
    return length


def require_whole(headers: Headers) -> None:
    """Refuse header fields that give a body another meaning than its bytes.

    Raises:
        DomainError: `invalid-request` for a part of a representation (RFC 9110 section 14.5), `unsupported-media-type`
            for a content coding (section 8.4); as `require_no_condition`.
    """
    if _NOT_PLAIN.isdisjoint([name for name, _ in headers.raw]):
        return
    if "content-range" in headers:
        raise DomainError("invalid-request", "parts are not taken: send the whole body, without Content-Range")
    if "content-encoding" in headers:
        codings = ",".join(headers.getlist("content-encoding")).split(",")
        if any(coding.strip().lower() not in ("", "identity") for coding in codings):
            detail = "send the body itself, without Content-Encoding"
            raise DomainError("unsupported-media-type", detail, accept_encoding="identity")
    require_no_condition(headers)


def require_no_condition(headers: Headers) -> None:
    """Refuse If-Match (RFC 9110 section 13.1.1): nothing here has an entity tag that could match.

    Raises:
        DomainError: `precondition-failed`.
    """
    if "if-match" in headers:
        raise DomainError("precondition-failed", "nothing here has an entity tag: send no If-Match")


def require_new(headers: Headers) -> None:
    """Refuse `If-None-Match: *` of what there was already (RFC 9110 section 13.1.2).

    Raises:
        DomainError: `precondition-failed`.
    """
    if headers.get("if-none-match", "").strip() == "*":
        raise DomainError("precondition-failed", "it is there already, with the same content")


async def read(
    receive: Receive, limit_bytes: int, room: Reservation, length: int | None = None, look: Look | None = None
) -> bytes | bytearray:
    """Return the body in one buffer, paid for and looked at as it arrives; `length` is what the client declares.

    Raises:
        DomainError: `body-too-large` as soon as it is; `incomplete-body` when it is not of that length, or the client
            went away; `overloaded`; as `look`.
    """
    body, more = bytearray(), True
    while more:
        piece, more = await _piece(receive)
        if len(body) + len(piece) > limit_bytes:
            raise too_large(limit_bytes)
        if look is not None:
            look(piece, 0, len(piece))
        await room.grow(len(body) + len(piece))
        if not more and not body and length in (None, len(piece)):
            return piece
        body += piece
    if length not in (None, len(body)):
        raise incomplete()
    return body


async def _piece(receive: Receive) -> tuple[bytes, bool]:
    message = await receive()
    if message["type"] != "http.request":
        raise incomplete()
    return message.get("body", b""), message.get("more_body", False)


@asynccontextmanager
async def bounded(
    request: Request,
    budget: ByteBudget,
    limit_bytes: int,
    owner: str,
    *,
    part: str = "",
    cost: JsonCost | None = None,
) -> AsyncIterator[bytes | bytearray]:
    """Give the body of a request, paid for out of a budget for the time of the block.

    `owner` is the token whose share it is, and `part` one of its sessions. `cost` reckons what the body takes in memory
    once it is read; None: its length.

    Raises:
        DomainError: `body-too-large`, `incomplete-body` or `overloaded`; as `require_whole` and `JsonCost.add`.
    """
    look = None if cost is None else cost.add
    require_whole(request.headers)
    length = declared_length(request.headers.get("content-length"), limit_bytes)
    async with budget.reserve(0, owner, part) as room:
        whole: Whole | None = request.scope.get(WHOLE)
        if whole is None or length is None:
            got = [await read(request.receive, limit_bytes, room, length, look)]
        else:
            got = [body for body in (await whole(length, room, look),) if body is not None]
        if not got:
            raise incomplete()
        if cost is not None:
            await room.grow(cost.size_bytes)
        yield got.pop()  # the caller may drop the last reference before the block ends
