"""Retention over HTTP: what is due, and the terms of single sessions."""

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query, Request

from sessions.core.audit import Action
from sessions.core.types import session_id as checked_id
from sessions.runtime import audit
from sessions.runtime.audit import require_recording
from sessions.runtime.auth import Role, allow
from sessions.runtime.json_route import JsonRoute
from sessions.runtime.models import Limit, SessionIdPath, Status, checked
from sessions.runtime.problems import responses
from sessions.runtime.times import to_rfc3339
from sessions.storage import cursors, retention_models
from sessions.storage.ledger import Ledger
from sessions.storage.mongo import Readiness
from sessions.storage.reads import Reads
from sessions.storage.retention import MAX_DAYS, Due, DueSession, Place, Terms
from sessions.storage.store import Retention


def encode_cursor(place: Place) -> str:
    """A page's end, opaque to clients."""
    sealed_at, last = place.after
    return cursors.encode((place.delete_after_days, to_rfc3339(sealed_at), last))


def decode_cursor(text: str | None) -> Place | None:
    """Read a cursor.

    Raises:
        DomainError: `invalid-request`.
    """

    def read(days: Any, sealed_at: Any, last: Any) -> Place:
        if days is not None and (type(days) is not int or not 0 <= days <= MAX_DAYS):
            raise ValueError("no number of days")
        return Place(days, (cursors.time(sealed_at), checked_id(last)))

    return cursors.decode(text, read)


def router(ledger: Ledger, due: Due, terms: Terms, readiness: Readiness, reads: Reads) -> APIRouter:
    """/api/v1/retention, and a session's own terms."""

    async def ready() -> None:
        readiness.require()

    routes = APIRouter(prefix="/api/v1", tags=["retention"], route_class=JsonRoute)

    @routes.get(
        "/retention/due",
        dependencies=[Depends(allow(Role.ADMIN, Role.AUDIT)), Depends(ready), Depends(reads.items())],
        response_model=retention_models.DueAnswer,
    )
    async def list_due(limit: Limit = 100, cursor: Annotated[str | None, Query(max_length=300)] = None) -> Any:
        """Sessions whose time is up, and what the next sweep does with each; this changes nothing."""
        page = await due.page(decode_cursor(cursor), limit)
        following = page.following and encode_cursor(page.following)
        return {"sessions": [_due_json(one, terms) for one in page.sessions], "next_cursor": following}

    @routes.put(
        "/sessions/{session_id}/retention",
        dependencies=[Depends(allow(Role.ADMIN, Role.PROCESSOR, act=Action.SESSION_RETAIN)), Depends(ready)],
        response_model=Status,
        responses=responses("session-not-found", "session-shredded", "retention-too-short", "session-reserved"),
    )
    async def retain(session_id: SessionIdPath, http: Request, request: retention_models.RetentionRequest) -> Any:
        """Give a session terms of its own; not for less time than the operator keeps all sessions."""
        retention = Retention(request.retain_days, request.delete_after_days)
        name = require_recording(checked(session_id))
        async with audit.of(http).change(http.scope):
            retained = await ledger.retain(name, retention)
        return await ledger.status(retained)

    return routes


def _due_json(due: DueSession, terms: Terms) -> dict[str, Any]:
    record = due.record
    assert record.seal_order is not None  # it is sealed
    until = terms.retained_until(record)
    return {
        "session_id": record.session_id,
        "sealed_at": to_rfc3339(record.seal_order.sealed_at),
        "delete_at": to_rfc3339(due.delete_at),
        "retained_until": until and to_rfc3339(until),
        "verdict": due.verdict.value,
    }
