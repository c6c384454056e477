"""Processors over HTTP: their reports, the list of them, and how one is forgotten."""

from typing import Any

from fastapi import APIRouter, Depends, Request

from sessions.core.audit import Action
from sessions.core.types import SessionId
from sessions.runtime import audit
from sessions.runtime.auth import Role, allow
from sessions.runtime.errors import DomainError
from sessions.runtime.json_route import JsonRoute
from sessions.runtime.problems import responses
from sessions.storage.chunk_limits import ChunkLimits
from sessions.storage.mongo import Readiness
from sessions.storage.processor_models import Name, ProcessorsAnswer, ReportAnswer, ReportModel
from sessions.storage.processors import Holdings, Registry, Report
from sessions.storage.retention import Terms
from sessions.storage.seal_orders import Ask
from sessions.storage.store import SessionStatus, SessionStore
from sessions.storage.uptime import UptimeClock


def router(
    registry: Registry,
    sessions: SessionStore,
    uptime: UptimeClock,
    terms: Terms,
    readiness: Readiness,
    *,
    limits: ChunkLimits,
) -> APIRouter:
    """All routes under /api/v1/processors."""

    async def ready() -> None:
        readiness.require()

    routes = APIRouter(prefix="/api/v1/processors", tags=["processors"], route_class=JsonRoute)

    @routes.get(
        "",
        dependencies=[Depends(allow(Role.ADMIN, Role.AUDIT, Role.PROCESSOR)), Depends(ready)],
        response_model=ProcessorsAnswer,
    )
    async def list_processors() -> Any:
        """Processors with a spool, as they last reported; seals wait for those that are `missing`."""
        return {"processors": [known.to_json() for known in (await registry.survey()).processors]}

    @routes.post(
        "/{name}/report",
        dependencies=[Depends(allow(Role.PROCESSOR)), Depends(ready)],
        response_model=ReportAnswer,
        responses=responses("processor-replaced"),
    )
    async def report(name: Name, request: ReportModel) -> Any:
        """Take a processor's report, which each sends every second."""
        answer = await registry.report(
            Report(
                name=name,
                holdings=Holdings(**request.holdings.model_dump()),
                confirmed=[(Ask(SessionId(one.session_id), one.ask_id), one.floor) for one in request.confirmed],
                promised=[SessionId(one) for one in request.promised],
                after=None if request.after is None else SessionId(request.after),
                leaving=request.leaving,
                run=request.run,
            )
        )
        limits.heard(name, request.chunk_max_bytes)
        states = await sessions.states([SessionId(one) for one in request.quarantined]) if request.quarantined else {}
        return {
            "asks": [{"session_id": ask.session_id, "ask_id": ask.ask_id} for ask in answer.asks],
            "asked": answer.asked,
            "shredded": [one for one, state in states.items() if state.status is SessionStatus.SHREDDED],
            "uptime_seconds": answer.uptime_seconds,
            "generation": uptime.generation,
            "retain_days": terms.retain_days,
            "chunk_max_bytes": limits.own_bytes,
        }

    @routes.delete(
        "/{name}",
        dependencies=[Depends(allow(Role.ADMIN, act=Action.PROCESSOR_FORGET)), Depends(ready)],
        status_code=204,
        responses=responses("not-found"),
    )
    async def forget(name: Name, http: Request) -> None:
        """Forget a processor that will not come back: seals go on without what it still holds."""
        async with audit.of(http).change(http.scope):
            if not await registry.forget(name):
                raise DomainError("not-found", f"storage knows no processor {name}")

    return routes
