"""FastAPI routes for small JSON.

The token is checked before the body is read, its questions take turns, and memory is reserved for the body.
"""

from collections.abc import Callable, Coroutine
from contextlib import nullcontext
from typing import Any, Final

from fastapi.routing import APIRoute
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Message

from sessions.runtime.audit import PRINCIPAL
from sessions.runtime.auth import Access
from sessions.runtime.body import bounded, require_no_condition
from sessions.runtime.budget import ByteBudget
from sessions.runtime.json_size import cost_bytes

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

        async def in_turn(request: Request) -> Response:
            turns = None
            for access in accesses:
                turns = request.app.state.authenticator.turns(await access(request))
            async with nullcontext() if turns is None else turns.turn():
                return await bounded_handle(request)

        async def bounded_handle(request: Request) -> Response:
            if not self.body_field:
                require_no_condition(request.headers)
                return await handle(request)  # nobody reads a body
            budget: ByteBudget = request.app.state.budget
            owner = request.scope.get(PRINCIPAL) or ""
            async with bounded(request, budget, JSON_BODY_MAX_BYTES, owner, cost_bytes=cost_bytes) as data:
                message = {"type": "http.request", "body": bytes(data), "more_body": False}

                async def receive() -> Message:
                    return message

                return await handle(Request(request.scope, receive))

        return in_turn
