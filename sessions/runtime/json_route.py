"""FastAPI's routes for small JSON: who asks, and how much, is looked at before the body is read."""

from collections.abc import Callable, Coroutine
from typing import Any, Final

from fastapi.routing import APIRoute
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Message

from sessions.runtime.auth import Access
from sessions.runtime.body import declared_length, too_large

JSON_BODY_MAX_BYTES: Final = 256 * 1024
"""Most that a request of small JSON may have; metadata, the largest part of any, has a limit of its own below it."""


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
                    raise HTTPException(413, too_large(JSON_BODY_MAX_BYTES).detail)
                return message

            return await handle(Request(request.scope, receive))

        return bounded_handle
