"""Request bodies, bounded while they are read."""

from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any, Final

from fastapi.routing import APIRoute
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Message, Receive

from sessions.runtime.auth import Access
from sessions.runtime.budget import ByteBudget
from sessions.runtime.errors import DomainError

JSON_BODY_MAX_BYTES: Final = 256 * 1024
"""Most that a request of small JSON may have; metadata, the largest part of any, has a limit of its own below it."""

WHOLE: Final = "sessions.whole_body"
"""Key of a request's scope, where our server has put it: `await whole(length)` gives a body of that declared length in
one buffer, for which there must be room, or None when the client went away."""


def _too_large(limit_bytes: int) -> DomainError:
    return DomainError("body-too-large", f"the body may have at most {limit_bytes} bytes", limit_bytes=limit_bytes)


def _incomplete() -> DomainError:
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
        raise _too_large(limit_bytes)
    return length


async def read(receive: Receive, limit_bytes: int, length: int | None = None) -> bytes | bytearray:
    """The body in one buffer; `length` is what the client declares, which the HTTP parser holds it to.

    Raises:
        DomainError: `body-too-large` as soon as it is; `incomplete-body` when the client went away.
    """
    piece, more = await _piece(receive)
    if len(piece) > limit_bytes:
        raise _too_large(limit_bytes)
    if not more:
        return piece
    # A buffer that grows is copied again and again: several times the body of a large one.
    body = bytearray(max(length or 0, len(piece)))
    body[: len(piece)] = piece
    size = len(piece)
    while more:
        piece, more = await _piece(receive)
        if size + len(piece) > limit_bytes:
            raise _too_large(limit_bytes)
        body[size : size + len(piece)] = piece
        size += len(piece)
    del body[size:]
    return body


async def _piece(receive: Receive) -> tuple[bytes, bool]:
    message = await receive()
    if message["type"] != "http.request":
        raise _incomplete()
    return message.get("body", b""), message.get("more_body", False)


@asynccontextmanager
async def bounded(
    request: Request, budget: ByteBudget, limit_bytes: int, owner: str = ""
) -> AsyncIterator[bytes | bytearray]:
    """The body of a request, paid for out of a budget for the time of the block; `owner` is whose share it is.

    Raises:
        DomainError: `body-too-large`, `incomplete-body` or `overloaded`.
    """
    length = declared_length(request.headers.get("content-length"), limit_bytes)
    async with budget.reserve(limit_bytes if length is None else length, owner):
        whole = request.scope.get(WHOLE)
        if whole is None or length is None:
            yield await read(request.receive, limit_bytes, length)
        elif (body := await whole(length)) is None:
            raise _incomplete()
        else:
            yield body


class JsonRoute(APIRoute):
    """A FastAPI route whose body is small JSON.

    FastAPI reads a body whole, and before it looks at dependencies; so this looks at the token first.
    """

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """See `APIRoute`."""
        handle = super().get_route_handler()
        accesses = [one.call for one in self.dependant.dependencies if isinstance(one.call, Access)]

        async def bounded_handle(request: Request) -> Response:
            for access in accesses:
                await access(request)
            declared_length(request.headers.get("content-length"), JSON_BODY_MAX_BYTES)
            received = 0

            async def receive() -> Message:
                nonlocal received
                message = await request.receive()
                received += len(message.get("body", b""))
                if received > JSON_BODY_MAX_BYTES:
                    # FastAPI makes a 400 of any other error within the body.
                    raise HTTPException(413, _too_large(JSON_BODY_MAX_BYTES).detail)
                return message

            return await handle(Request(request.scope, receive))

        return bounded_handle
