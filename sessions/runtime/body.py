"""Request bodies, bounded while they are read."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from starlette.requests import Request
from starlette.types import Receive

from sessions.runtime.budget import ByteBudget
from sessions.runtime.errors import DomainError


def _too_large(limit_bytes: int) -> DomainError:
    return DomainError("body-too-large", f"the body may have at most {limit_bytes} bytes", limit_bytes=limit_bytes)


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
        raise _too_large(limit_bytes)
    return length


async def read(receive: Receive, limit_bytes: int) -> bytearray:
    """The body in one buffer.

    Raises:
        DomainError: `body-too-large` as soon as it is; `incomplete-body` when the client went away.
    """
    body = bytearray()
    more = True
    while more:
        message = await receive()
        if message["type"] != "http.request":
            raise DomainError("incomplete-body", "the connection ended within the body")
        body += message.get("body", b"")
        if len(body) > limit_bytes:
            raise _too_large(limit_bytes)
        more = message.get("more_body", False)
    return body


@asynccontextmanager
async def bounded(request: Request, budget: ByteBudget, limit_bytes: int) -> AsyncIterator[bytearray]:
    """The body of a request, paid for out of a budget for the time of the block.

    Raises:
        DomainError: `body-too-large`, `incomplete-body` or `overloaded`.
    """
    length = declared_length(request.headers.get("content-length"), limit_bytes)
    async with budget.reserve(limit_bytes if length is None else length):
        yield await read(request.receive, limit_bytes)
