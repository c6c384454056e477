"""Probes: `/health` for operators and Docker, `/livez` and `/readyz` for schedulers, `/metrics` for Prometheus."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, Protocol, TypeAlias

from fastapi import APIRouter, Response
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from pydantic import BaseModel
from starlette.responses import JSONResponse

from sessions import __version__
from sessions.runtime.json_route import JsonRoute

CheckStatus: TypeAlias = Literal["ok", "degraded", "failed"]


@dataclass(frozen=True, slots=True)
class Check:
    """What one part says of itself: `degraded` still does the job, `failed` does not."""

    status: CheckStatus
    detail: str = ""
    concerns_requests: bool = True
    """Whether a `failed` part keeps requests from being served; one that does not leaves `/readyz` as it is."""


class Exhaustible(Protocol):
    """A bound on memory."""

    @property
    def is_exhausted(self) -> bool:
        """Return whether requests wait for memory, or were refused for it lately."""


def memory(bounds: Mapping[str, Exhaustible]) -> Check:
    """Return the state of bounds on memory, each by the name of its setting."""
    exhausted = [name for name, bound in bounds.items() if bound.is_exhausted]
    if not exhausted:
        return Check("ok")
    return Check("degraded", f"requests wait for memory, or are refused: {', '.join(exhausted)} is used up")


Checks: TypeAlias = Callable[[], Awaitable[Mapping[str, Check]]]


class Part(BaseModel):
    """One part's state."""

    status: CheckStatus
    detail: str


class Health(BaseModel):
    """The service's state, and that of each part."""

    status: CheckStatus
    service: str
    version: str
    checks: dict[str, Part]


class Alive(BaseModel):
    """The process runs and its event loop turns."""

    status: Literal["ok"]


def router(service: str, checks: Checks) -> APIRouter:
    """The probes' routes."""
    routes = APIRouter(tags=["probes"], route_class=JsonRoute)
    failing: dict[int | str, dict[str, Any]] = {
        503: {"model": Health, "description": "The service cannot do its job; `checks` says why"}
    }

    def state(found: Mapping[str, Check]) -> Response:
        ranks: list[CheckStatus] = ["ok", "degraded", "failed"]
        worst = max((check.status for check in found.values()), key=ranks.index, default="ok")
        health = Health(
            status=worst,
            service=service,
            version=__version__,
            checks={name: Part(status=check.status, detail=check.detail) for name, check in found.items()},
        )
        return JSONResponse(health.model_dump(), 503 if worst == "failed" else 200)

    @routes.get("/health", response_model=Health, responses=failing)
    async def health() -> Response:
        """200 while the service can do its job, if need be degraded; else 503."""
        return state(await checks())

    @routes.get("/readyz", response_model=Health, responses=failing)
    async def readyz() -> Response:
        """200 when requests may be sent here."""
        return state({name: check for name, check in (await checks()).items() if check.concerns_requests})

    @routes.get("/livez")
    async def livez() -> Alive:
        """200 while the process is alive, whatever else is away."""
        return Alive(status="ok")

    @routes.get("/metrics", response_class=Response, responses={200: {"content": {"text/plain": {}}}})
    async def metrics() -> Response:
        """Metrics in the Prometheus text format."""
        return Response(generate_latest(), media_type=CONTENT_TYPE_LATEST)

    return routes
