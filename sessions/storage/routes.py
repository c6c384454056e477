"""session-storage's REST interface, but for the hot route in `submit.py`."""

from typing import Annotated, Any, Final

from fastapi import APIRouter, Depends, Query, Request, Response

from sessions.core import frames
from sessions.core.audit import Action
from sessions.core.types import session_id
from sessions.runtime import audit
from sessions.runtime.audit import ACTION, PRINCIPAL, require_recording
from sessions.runtime.auth import Principal, Role, allow
from sessions.runtime.errors import DomainError
from sessions.runtime.json_route import JsonRoute
from sessions.runtime.models import (
    IndexPath,
    Limit,
    ManifestModel,
    SessionIdPath,
    Status,
    checked,
    checked_index,
)
from sessions.runtime.problems import responses
from sessions.storage import cursors, models, seal_route
from sessions.storage.evidence import Evidence
from sessions.storage.ledger import Ledger
from sessions.storage.models import key_ids, key_json
from sessions.storage.mongo import Readiness
from sessions.storage.reads import Reads
from sessions.storage.shredding import Shredder
from sessions.storage.store import Cursor, SessionFilter, SessionStatus, ShredReason

READERS = allow(Role.AUDIT, Role.PROCESSOR)
ENVELOPES_MAX_BYTES: Final = 4 * 1024 * 1024
CHUNKS_LIMIT: Final = 1000
"""Records of chunks in a page whose request names no limit."""
_OCTETS: dict[int | str, dict[str, Any]] = {
    200: {"content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}}}
}


def encode_cursor(opened_at: str, last: str) -> str:
    """A page's end, opaque to clients."""
    return cursors.encode((opened_at, last))


def decode_cursor(text: str | None) -> Cursor | None:
    """Read a cursor.

    Raises:
        DomainError: `invalid-request`.
    """
    return cursors.decode(text, lambda opened_at, last: (cursors.time(opened_at), session_id(last)))


def router(ledger: Ledger, shredder: Shredder, evidence: Evidence, readiness: Readiness, reads: Reads) -> APIRouter:
    """All routes under /api/v1/sessions."""

    async def ready() -> None:
        readiness.require()

    # Access first: whoever may not ask learns nothing of the database's state.
    routes = APIRouter(prefix="/api/v1/sessions", tags=["sessions"], route_class=JsonRoute)
    by_processor = [Depends(allow(Role.PROCESSOR)), Depends(ready)]
    by_reader = [Depends(READERS), Depends(ready)]
    shredders = allow(Role.ADMIN, Role.PROCESSOR, act=Action.SESSION_SHRED)
    holders = allow(Role.ADMIN, Role.PROCESSOR, act=Action.SESSION_HOLD)
    _processor_routes(routes, ledger, by_processor)
    seal_route.add(routes, ledger, reads, by_processor)
    one_session = [*by_reader, Depends(reads.session)]
    _reader_routes(routes, evidence, reads, by_reader)

    @routes.get("", dependencies=[*by_reader, Depends(reads.items())], response_model=models.SessionPage)
    async def list_sessions(query: Annotated[models.SessionQuery, Query()]) -> Any:
        """Recordings, newest opening first; days of the audit trail are listed by `/api/v1/audit-days`.

        With `prefix` (of their ids) or `held` they come in order of their ids, and `opened_*` do not go.
        """
        which = SessionFilter(
            status=SessionStatus(query.status) if query.status else None,
            prefix=query.prefix,
            held=query.held is not None,
            opened_after=query.opened_after,
            opened_before=query.opened_before,
        )
        if which.by_id and (query.opened_after or query.opened_before):
            raise DomainError("invalid-request", "opened_after and opened_before do not go with prefix or held")
        found, more = await ledger.page(which, query.limit, decode_cursor(query.cursor))
        return {
            "sessions": found,
            "next_cursor": encode_cursor(found[-1]["opened_at"], found[-1]["session_id"]) if more else None,
        }

    @routes.get(
        "/{session_id}",
        dependencies=one_session,
        response_model=models.StatusWithKeys,
        responses=responses("session-not-found"),
    )
    async def get_session(session_id: SessionIdPath, principal: Annotated[Principal, Depends(READERS)]) -> Any:
        """A session, and where to resume; with its key ring for the role `processor`."""
        record = await ledger.get(checked(session_id))
        keys = [key_json(key) for key in record.keys] if Role.PROCESSOR in principal.roles else None
        view = {**await ledger.status(record), "key_ids": [key_ids(key) for key in record.keys], "keys": keys}
        return Response(models.StatusWithKeys.dumps(view, record.metadata), media_type="application/json")

    @routes.delete(
        "/{session_id}",
        dependencies=[Depends(shredders), Depends(ready)],
        response_model=Status,
        responses=responses(
            "session-not-found", "session-open", "session-held", "session-retained", "session-reserved"
        ),
    )
    async def shred(
        session_id: SessionIdPath,
        http: Request,
        principal: Annotated[Principal, Depends(shredders)],
        requested_by: models.RequestedBy = None,
    ) -> Any:
        """Shred a sealed session: its keys and bodies go; its proofs stay, with a tombstone.

        A processor says in `requested_by` for whom it asks; others ask for themselves.
        """
        asked_for = requested_by if Role.PROCESSOR in principal.roles else None
        by = http.scope[PRINCIPAL] = asked_for or principal.name
        name = require_recording(checked(session_id))
        async with audit.of(http).change(http.scope):
            shredded = await shredder.shred(name, ShredReason.REQUESTED, by)
        return await ledger.status(shredded)

    @routes.put(
        "/{session_id}/hold",
        dependencies=[Depends(holders), Depends(ready)],
        response_model=Status,
        responses=responses("session-not-found", "session-shredded", "session-reserved"),
    )
    async def hold(session_id: SessionIdPath, http: Request, request: models.HoldRequest) -> Any:
        """Set or lift the legal hold: while it is set, the session cannot be shredded."""
        http.scope[ACTION] = Action.SESSION_HOLD if request.held else Action.SESSION_RELEASE
        name = require_recording(checked(session_id))
        async with audit.of(http).change(http.scope):
            held = await ledger.hold(name, held=request.held)
        return await ledger.status(held)

    return routes


def _processor_routes(routes: APIRouter, ledger: Ledger, by_processor: list[Any]) -> None:
    @routes.put(
        "/{session_id}",
        dependencies=by_processor,
        response_model=models.SessionWithKeys,
        responses={
            201: {"model": models.SessionWithKeys, "description": "Opened now"},
            **responses(
                "metadata-conflict", "session-sealed", "session-shredded", "retention-too-short", "session-reserved"
            ),
        },
    )
    async def open_session(session_id: SessionIdPath, request: models.OpenRequest, response: Response) -> Any:
        """Open a session with its first key; when it is open already, its own key ring is the answer."""
        opened = await ledger.open(require_recording(checked(session_id)), request.metadata, request.key.to_key())
        response.status_code = 201 if opened.created else 200
        keys = [key_json(key) for key in opened.record.keys]
        return {"session": await ledger.summary(opened.record), "keys": keys}

    @routes.post(
        "/{session_id}/keys",
        dependencies=by_processor,
        response_model=models.SessionWithKeys,
        responses=responses("session-not-found", "session-sealed", "session-shredded", "session-reserved"),
    )
    async def add_key(session_id: SessionIdPath, request: models.KeyModel) -> Any:
        """Add a wrapped key to an open session's ring."""
        record = await ledger.add_key(require_recording(checked(session_id)), request.to_key())
        return {"session": await ledger.summary(record), "keys": [key_json(key) for key in record.keys]}


def _reader_routes(routes: APIRouter, evidence: Evidence, reads: Reads, by_reader: list[Any]) -> None:
    @routes.get(
        "/{session_id}/manifest",
        dependencies=by_reader,
        responses={
            200: {"content": {"application/json": {"schema": ManifestModel.model_json_schema()}}},
            **responses("session-not-found", "session-open"),
        },
    )
    async def manifest(session_id: SessionIdPath, http: Request) -> Response:
        """The manifest, in its canonical bytes."""
        body = await evidence.manifest(checked(session_id), reads.manifest(http))
        return Response(body, media_type="application/json")

    @routes.get(
        "/{session_id}/chunks",
        dependencies=[*by_reader, Depends(reads.items(default_limit=CHUNKS_LIMIT))],
        response_model=models.ChunkPage,
        responses=responses("session-not-found"),
    )
    async def chunks(
        session_id: SessionIdPath,
        start: Annotated[int, Query(ge=0, le=2**53 - 1)] = 0,
        limit: Limit = CHUNKS_LIMIT,
    ) -> Any:
        """Records of stored chunks by index."""
        found, next_start = await evidence.chunks(checked(session_id), start, limit)
        return {"chunks": [chunk.to_json() for chunk in found], "next_start": next_start}

    @routes.get(
        "/{session_id}/chunks/{index}/envelope",
        dependencies=by_reader,
        response_class=Response,
        responses={
            **_OCTETS,
            **responses("session-not-found", "chunk-not-found", "session-shredded", "envelope-corrupt"),
        },
    )
    async def envelope(session_id: SessionIdPath, index: IndexPath, http: Request) -> Response:
        """An envelope, byte for byte as it was stored."""
        body = await evidence.envelope(checked(session_id), checked_index(index), reads.envelopes(http))
        return Response(body, media_type="application/octet-stream")

    @routes.get(
        "/{session_id}/envelopes",
        dependencies=by_reader,
        response_class=Response,
        responses={
            **_OCTETS,
            **responses("session-not-found", "chunk-not-found", "session-shredded", "envelope-corrupt"),
        },
    )
    async def envelopes(
        session_id: SessionIdPath,
        http: Request,
        start: Annotated[int, Query(ge=0, le=2**53 - 1)] = 0,
        limit: Limit = 1000,
    ) -> Response:
        """Envelopes from a chunk on, as frames (u32 big-endian length, then the envelope), in order of index.

        As many as are asked for, or as go into a few MiB; at least one. Each says its index itself.
        """
        found = await evidence.envelopes(checked(session_id), start, limit, ENVELOPES_MAX_BYTES, reads.envelopes(http))
        return Response(frames.join(found), media_type="application/octet-stream")

    @routes.get(
        "/{session_id}/chunks/{index}/proof",
        dependencies=by_reader,
        response_model=models.ProofModel,
        responses=responses("session-not-found", "chunk-not-found", "session-open", "envelope-corrupt"),
    )
    async def proof(session_id: SessionIdPath, index: IndexPath, http: Request) -> Any:
        """The proof that a chunk is in its sealed session."""
        return (await evidence.proof(checked(session_id), checked_index(index), reads.manifest(http))).to_json()

    @routes.get(
        "/{session_id}/receipt",
        dependencies=by_reader,
        response_model=models.ReceiptModel,
        responses=responses("session-not-found", "session-open"),
    )
    async def receipt(session_id: SessionIdPath, http: Request) -> Any:
        """What a third party keeps; `anchor.state` says how far the anchor has come."""
        body = await evidence.receipt(checked(session_id), reads.manifest(http))
        return Response(body, media_type="application/json")
