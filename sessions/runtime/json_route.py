"""FastAPI routes for small JSON.

The token is checked before the body is read, its questions take turns, and memory is reserved for the body.
"""

from collections.abc import Callable, Coroutine
from contextlib import AbstractAsyncContextManager, nullcontext
from typing import Any, Final

from fastapi.routing import APIRoute
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Message

from sessions.runtime.audit import PRINCIPAL
from sessions.runtime.auth import Access, Principal
from sessions.runtime.body import bounded, require_no_condition
from sessions.runtime.budget import ByteBudget
from sessions.runtime.json_size import JsonCost
from sessions.runtime.turns import Turns

JSON_BODY_MAX_BYTES: Final = 256 * 1024
"""Most that a request of small JSON may have; metadata, the largest part of any, has a limit of its own below it."""


def turn_of(request: Request, principal: Principal) -> AbstractAsyncContextManager[None]:
    """Return the turn of a token's question, to be held for the time of a block; a processor's has none."""
    turns: Turns | None = request.app.state.authenticator.turns(principal)
    return nullcontext() if turns is None else turns.turn()


class JsonRoute(APIRoute):
    """A FastAPI route whose body is small JSON.

    FastAPI reads a body whole, and before it looks at dependencies; so this looks at the token first.
    """

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """See `APIRoute`."""
        handle = super().get_route_handler()
        accesses = [one.call for one in self.dependant.dependencies if isinstance(one.call, Access)]

        async def in_turn(request: Request) -> Response:
            principals = [await access(request) for access in accesses]
            if not principals:
                return await bounded_handle(request)
            async with turn_of(request, principals[0]):
                return await bounded_handle(request)

        async def bounded_handle(request: Request) -> Response:
            if not self.body_field:
                require_no_condition(request.headers)
                return await handle(request)  # nobody reads a body
            budget: ByteBudget = request.app.state.budget
            owner = request.scope.get(PRINCIPAL) or ""
            async with bounded(request, budget, JSON_BODY_MAX_BYTES, owner, cost=JsonCost()) as data:
                message = {"type": "http.request", "body": bytes(data), "more_body": False}

                async def receive() -> Message:
                    return message

                return await handle(Request(request.scope, receive))

        return in_turn
