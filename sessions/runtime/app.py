"""One way to make a service's app: problems, request context, probes and document, the same for both."""

from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any, Final, TypeAlias

from fastapi import APIRouter, FastAPI
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Match, Route
from starlette.types import ASGIApp, Receive, Scope, Send

from sessions import __version__
from sessions.core.errors import CoreError
from sessions.runtime import health, openapi, problems
from sessions.runtime.answer import WRITE
from sessions.runtime.audit import Audit
from sessions.runtime.auth import Authenticator
from sessions.runtime.budget import ByteBudget
from sessions.runtime.errors import DomainError
from sessions.runtime.headers import DOCS_PATH
from sessions.runtime.log import REQUEST_ID_HEADER
from sessions.runtime.middleware import RequestContext

Lifespan: TypeAlias = Callable[[FastAPI], AbstractAsyncContextManager[None]]
"""What runs around the app's life: starts, and on leaving stops, what it needs."""


_ALL_METHODS: Final = "DELETE, GET, HEAD, POST, PUT"
"""Methods that at least one route has: the answer to `OPTIONS *` (RFC 9110 section 9.3.7)."""


class HotRoute(Route):
    """A plain ASGI route that notes itself in the scope, as FastAPI's do, for logs and metrics."""

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        """See `Route`."""
        match, child_scope = super().matches(scope)
        return match, {**child_scope, "route": self} if match is not Match.NONE else child_scope


async def _serve(scope: Scope, receive: Receive, send: Send) -> None:
    """Serve a request that `ServiceApp` has found a hot route for."""
    try:
        await scope["route"].app(scope, receive, send)
    except (DomainError, CoreError) as error:
        await problems.answer(Request(scope), error)(scope, receive, send)


class _HotFirst:
    """Within the framework's layers: what is asked of the server as a whole, hot routes, then all other routes."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope.get("path") == "*":
            await Response(status_code=204, headers={"Allow": _ALL_METHODS})(scope, receive, send)
            return
        await (_serve if isinstance(scope.get("route"), HotRoute) else self._app)(scope, receive, send)


class ServiceApp(FastAPI):
    """The framework's app, with a way past all its layers for plain ASGI routes: they cost as much as what those do."""

    _hot_routes: tuple[HotRoute, ...] = ()
    _past: ASGIApp = staticmethod(_serve)

    def hot(self, routes: Sequence[HotRoute], around: Callable[[ASGIApp], ASGIApp]) -> None:
        """Serve these routes past the framework, within `around`."""
        self._hot_routes = tuple(routes)
        self._past = around(_serve)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if self._finds(scope) and not any(name == b"origin" for name, _ in scope["headers"]):
            scope["app"] = self
            await self._past(scope, receive, send)
        else:
            scope.pop(WRITE, None)  # for the framework's layers have to see every answer
            await super().__call__(scope, receive, send)

    def _finds(self, scope: Scope) -> bool:
        for route in self._hot_routes if scope["type"] == "http" else ():
            match, child_scope = route.matches(scope)
            if match is Match.FULL:
                scope.update(child_scope)
                return True
        return False


def make_app(
    *,
    title: str,
    service: str,
    authenticator: Authenticator,
    audit: Audit,
    checks: health.Checks,
    budget: ByteBudget,
    routers: Sequence[APIRouter],
    hot_routes: Sequence[tuple[HotRoute, dict[str, Any]]],
    lifespan: Lifespan,
    cors_origins: Sequence[str] = (),
) -> ServiceApp:
    """Put a service's app together.

    `budget` is for the bodies of JSON. `hot_routes` are plain ASGI routes, which skip FastAPI's request handling, each
    with its OpenAPI operation. `cors_origins` are those whose pages may read answers; without any, browsers keep
    answers from all pages but ours.
    """
    app = ServiceApp(
        title=title, version=__version__, lifespan=lifespan, redirect_slashes=False, docs_url=DOCS_PATH, redoc_url=None
    )
    app.state.authenticator = authenticator
    app.state.audit = audit
    app.state.budget = budget
    documented: dict[str, dict[str, Any]] = {}
    for route, operation in hot_routes:
        app.router.routes.append(route)
        for method in sorted((route.methods or set()) - {"HEAD"}):
            documented.setdefault(route.path_format, {})[method.lower()] = operation
    app.include_router(health.router(service, checks))
    for router in routers:
        app.include_router(router)
    problems.install(app)
    openapi.install(app, documented)
    quiet = frozenset(route.path for route, _ in hot_routes)
    app.hot([route for route, _ in hot_routes], lambda hot: RequestContext(hot, audit=audit, quiet_routes=quiet))
    app.add_middleware(_HotFirst)
    if cors_origins:
        # Tokens come in a header that the page has to know, so no cookies: no credentials in the sense of CORS.
        app.add_middleware(
            CORSMiddleware,
            allow_origins=cors_origins,
            allow_methods=["GET", "PUT", "POST", "DELETE"],
            allow_headers=["Authorization", "Content-Type", "Content-Digest", "Range", REQUEST_ID_HEADER],
            expose_headers=["Content-Digest", "Content-Range", "Accept-Ranges", "Retry-After", REQUEST_ID_HEADER],
        )
    app.add_middleware(RequestContext, audit=audit, quiet_routes=quiet)
    return app
