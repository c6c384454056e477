"""A small app made the way the services are, a client for it, and where its audit events go."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import httpx
from fastapi import APIRouter, FastAPI

from sessions.core.audit import AuditEvent
from sessions.runtime.app import HotRoute, make_app
from sessions.runtime.audit import Audit
from sessions.runtime.auth import Authenticator
from sessions.runtime.budget import ByteBudget
from sessions.runtime.errors import DomainError
from sessions.runtime.health import Check


class Written:
    """A `Sink` that keeps the events; while `away` it refuses them."""

    def __init__(self) -> None:
        self.events: list[AuditEvent] = []
        self.away = False

    async def write(self, events: Sequence[AuditEvent]) -> None:
        if self.away:
            raise DomainError("database-unavailable", "it is away")
        self.events += events

    def told(self) -> list[tuple[str | None, str, str | None, str, str | None]]:
        """Who, what, session, outcome, code of each."""
        return [(e.principal, e.action.value, e.session_id, e.outcome.value, e.code) for e in self.events]


def app_of(
    *routers: APIRouter,
    checks: dict[str, Check] | None = None,
    authenticator: Authenticator | None = None,
    audit: Audit | None = None,
    hot_routes: Sequence[tuple[HotRoute, dict[str, Any]]] = (),
    cors_origins: Sequence[str] = (),
) -> FastAPI:
    async def state() -> dict[str, Check]:
        return checks or {}

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        yield

    return make_app(
        budget=ByteBudget(64 * 1024 * 1024),
        title="Small",
        service="small",
        authenticator=authenticator or Authenticator([]),
        audit=audit or Audit("small", Written()),
        checks=state,
        routers=routers,
        hot_routes=hot_routes,
        lifespan=lifespan,
        cors_origins=cors_origins,
    )


@asynccontextmanager
async def client_of(app: Any, **options: Any) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://small", **options) as client:
        yield client
