"""The quarantine over HTTP: what session-storage did not take, and the ways out of it."""

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Path, Query, Request, Response

from sessions.core.audit import Action
from sessions.processor.acknowledged import Acknowledged
from sessions.processor.quarantine import CONFLICT, NAME_PATTERN
from sessions.processor.quarantine_reader import QuarantineReader
from sessions.processor.spool_models import QuarantinedModel, SpoolPage
from sessions.processor.spooling import Spooling
from sessions.runtime import audit
from sessions.runtime.auth import Role, allow
from sessions.runtime.digest import content_digest
from sessions.runtime.errors import DomainError
from sessions.runtime.json_route import JsonRoute
from sessions.runtime.models import Limit
from sessions.runtime.problems import responses

Name = Annotated[str, Path(pattern=NAME_PATTERN, description="Name of the entry")]
Cursor = Annotated[str, Query(pattern=NAME_PATTERN)]
_BINARY: dict[str, Any] = {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}}


def router(spooling: Spooling | None, reader: QuarantineReader, acknowledged: Acknowledged) -> APIRouter:
    """All routes under /api/v1/spool; with SPOOL=off each answers 404."""
    routes = APIRouter(prefix="/api/v1/spool", tags=["spool"], route_class=JsonRoute)
    by_admin = [Depends(allow(Role.ADMIN))]

    def there() -> Spooling:
        if spooling is None:
            raise DomainError("not-found", "this processor has no spool (SPOOL=off)")
        return spooling

    @routes.get("", dependencies=by_admin, response_model=SpoolPage, responses=responses("not-found"))
    async def list_spool(limit: Limit = 1000, cursor: Cursor | None = None) -> Any:
        """The entries in the quarantine, oldest first, and how much waits in the spool."""
        spool, quarantine = there().spool, there().spool.quarantine
        found = there().quarantining.listed(cursor or "", limit + 1)
        return {
            "entries": await there().quarantining.shown(found[:limit]),
            "next_cursor": found[limit - 1].name if len(found) > limit else None,
            "spooled_entries": spool.entries,
            "spooled_bytes": spool.used_bytes,
            "quarantined_entries": len(quarantine.entries),
            "quarantined_bytes": quarantine.used_bytes,
            "quarantine_max_bytes": quarantine.max_bytes,
        }

    @routes.get("/{name}", dependencies=by_admin, response_model=QuarantinedModel, responses=responses("not-found"))
    async def get_entry(name: Name) -> Any:
        """One entry in the quarantine: whose it is, and why it is there."""
        (shown,) = await there().quarantining.shown([there().quarantining.get(name)])
        return shown

    @routes.get(
        "/{name}/content",
        dependencies=[Depends(allow(Role.REPLAY, act=Action.CHUNK_READ))],
        response_class=Response,
        responses={
            200: {"content": _BINARY},
            **responses("not-found", "chunk-not-found", "session-shredded", "envelope-corrupt", "key-unavailable"),
        },
    )
    async def get_content(name: Name, http: Request) -> Response:
        """The plaintext of a chunk in the quarantine."""
        one = there().quarantining.get(name)
        data = await reader.chunk(there().quarantining, name)
        await audit.of(http).allowed(http.scope, one.session_id)
        return Response(data, media_type="application/octet-stream", headers={"Content-Digest": content_digest(data)})

    @routes.post(
        "/{name}/retry",
        dependencies=[Depends(allow(Role.ADMIN, act=Action.SPOOL_RETRY))],
        status_code=204,
        responses=responses("not-found", "chunk-conflict", "envelope-corrupt", "spool-full"),
    )
    async def retry(name: Name, http: Request) -> None:
        """Put an entry back into the spool, to be delivered again; it may come back under another name.

        503 while the seal of its session is being decided. Repeated, it does no harm.
        """
        one = there().quarantining.get(name)
        async with audit.of(http).change(http.scope, one.session_id):
            await there().quarantining.retry(name)

    @routes.delete(
        "/{name}",
        dependencies=[Depends(allow(Role.ADMIN, act=Action.SPOOL_DROP))],
        status_code=204,
        responses=responses("not-found"),
    )
    async def drop(name: Name, http: Request) -> None:
        """Delete an entry for good. A seal of its session does not wait for that chunk any more."""
        one = there().quarantining.get(name)
        async with audit.of(http).change(http.scope, one.session_id):
            await there().quarantining.drop(name)
        if one.session_id is not None and one.reason != CONFLICT:
            acknowledged.forget(one.session_id)

    return routes
