"""A small app made the way the services are, and a client for it."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import httpx
from fastapi import APIRouter, FastAPI

from sessions.runtime.app import HotRoute, make_app
from sessions.runtime.auth import Authenticator
from sessions.runtime.health import Check


def app_of(
    *routers: APIRouter,
    checks: dict[str, Check] | None = None,
    authenticator: Authenticator | None = None,
    hot_routes: Sequence[tuple[HotRoute, dict[str, Any]]] = (),
    cors_origins: Sequence[str] = (),
) -> FastAPI:
    async def state() -> dict[str, Check]:
        return checks or {}

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        yield

    return make_app(
        title="Small",
        service="small",
        authenticator=authenticator or Authenticator([]),
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
