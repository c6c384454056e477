"""The audit trail over HTTP: processors write to it, auditors and admins read it."""

import asyncio
import json
from collections.abc import Sequence
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query, Response

from sessions.core.audit import day_of, session_of
from sessions.core.types import SessionId
from sessions.runtime.auth import Role, allow
from sessions.runtime.json_route import JsonRoute
from sessions.runtime.models import Limit
from sessions.storage import audit_models
from sessions.storage.audit_models import DAY_PATTERN
from sessions.storage.audit_store import EventStore, StoredEvent
from sessions.storage.audit_trail import Trail
from sessions.storage.ledger import Ledger
from sessions.storage.mongo import Readiness
from sessions.storage.reads import Reads


def router(trail: Trail, events: EventStore, ledger: Ledger, readiness: Readiness, reads: Reads) -> APIRouter:
    """/api/v1/audit-events and /api/v1/audit-days."""

    async def ready() -> None:
        readiness.require()

    routes = APIRouter(prefix="/api/v1", tags=["audit"], route_class=JsonRoute)
    by_reader = [Depends(allow(Role.ADMIN, Role.AUDIT)), Depends(ready), Depends(reads.items())]

    @routes.post(
        "/audit-events",
        status_code=201,
        dependencies=[Depends(allow(Role.PROCESSOR)), Depends(ready)],
        response_model=audit_models.EventsStored,
    )
    async def write(request: audit_models.EventsRequest) -> Any:
        """Write events to the trail; they are durable when this is answered. Repeated, they are there twice."""
        await trail.write([event.to_event() for event in request.events])
        return {"stored": len(request.events)}

    @routes.get(
        "/audit-events",
        dependencies=by_reader,
        response_class=Response,
        responses={200: {"model": audit_models.EventPage, "description": "A page of events"}},
    )
    async def list_events(
        day: Annotated[str, Query(pattern=DAY_PATTERN, description="A UTC day, 2026-01-31")],
        limit: Limit = 100,
        cursor: Annotated[str | None, Query(pattern=r"^[0-9]{1,15}$")] = None,
    ) -> Response:
        """What lies in the trail of a day, in order, whether its seal covers it or not."""
        name = session_of(day)
        found = await events.page(name, int(cursor or 0), limit)
        # A thousand events are checked for some 50 ms: not on the event loop.
        body = await asyncio.to_thread(_page, name, found, full=len(found) == limit)
        return Response(body, media_type="application/json")

    @routes.get("/audit-days", dependencies=by_reader, response_model=audit_models.DayPage)
    async def list_days(limit: Limit = 100, cursor: Annotated[str | None, Query(pattern=DAY_PATTERN)] = None) -> Any:
        """Days that have events, newest first: each is sealed some minutes after its end, and anchored then."""
        found = await events.days(limit, None if cursor is None else session_of(cursor))
        days = [_day(summary) for summary in await ledger.summaries(found)]
        more = len(found) == limit or len(days) < len(found)
        return {"days": days, "next_cursor": days[-1]["day"] if more else None}

    return routes


def _page(name: SessionId, found: Sequence[StoredEvent], *, full: bool) -> bytes:
    """`EventPage`. An event's bytes are JSON as they lie there."""
    head = {"day": day_of(name), "session_id": name, "next_cursor": str(found[-1].index + 1) if full else None}
    events = (b'{"index":%d,"event":%b}' % (one.index, one.data if one.event() else b"null") for one in found)
    return json.dumps(head).encode()[:-1] + b', "events":[' + b",".join(events) + b"]}"


def _day(summary: dict[str, Any]) -> dict[str, Any]:
    shown = {member: summary[member] for member in ("session_id", "status", "sealed_at", "root", "anchor")}
    return {"day": day_of(summary["session_id"]), "events": summary["chunk_count"], **shown}
