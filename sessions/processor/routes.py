"""chunk-processor's REST interface, but for the hot route and those of the Lucid recorder."""

from contextlib import AsyncExitStack
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Request, Response
from starlette.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from sessions.core.audit import Action
from sessions.processor.content import Content, Span, parse_range
from sessions.processor.key_rings import KeyRings
from sessions.processor.models import OpenRequest, SealQueued
from sessions.processor.session_desk import Queued, SessionDesk
from sessions.processor.storage_client import StorageClient
from sessions.runtime import audit
from sessions.runtime.audit import require_recording
from sessions.runtime.auth import Principal, Role, allow
from sessions.runtime.digest import content_digest
from sessions.runtime.errors import DomainError
from sessions.runtime.json_route import JsonRoute
from sessions.runtime.models import IndexPath, Sealed, SealRequest, SessionIdPath, Status, checked, checked_index
from sessions.runtime.problems import responses

_BINARY: dict[str, Any] = {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}}
_RANGE_PARAMETER: dict[str, Any] = {
    "parameters": [
        {"name": "Range", "in": "header", "description": "One range of bytes", "schema": {"type": "string"}},
    ]
}


class _ClosingStream(StreamingResponse):
    """A stream that gives back what it holds when it ends, whichever way."""

    def __init__(self, stack: AsyncExitStack, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._stack = stack

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async with self._stack:
            await super().__call__(scope, receive, send)


def router(
    storage: StorageClient, rings: KeyRings, content: Content, desk: SessionDesk, chunk_max_bytes: int
) -> APIRouter:
    """All routes under /api/v1/sessions."""
    routes = APIRouter(prefix="/api/v1/sessions", tags=["sessions"], route_class=JsonRoute)
    recorders = allow(Role.RECORD)
    shredders = allow(Role.ADMIN, act=Action.SESSION_SHRED)
    by_anyone = [Depends(allow(Role.RECORD, Role.REPLAY, Role.AUDIT))]

    @routes.put(
        "/{session_id}",
        response_model=Status,
        responses={
            201: {"model": Status, "description": "Opened now"},
            **responses(
                "metadata-conflict",
                "session-sealed",
                "session-shredded",
                "retention-too-short",
                "session-reserved",
                "spool-full",
            ),
        },
    )
    async def open_session(
        session_id: SessionIdPath,
        response: Response,
        principal: Annotated[Principal, Depends(recorders)],
        request: OpenRequest | None = None,
    ) -> Any:
        """Open a session; 200 when it is open already. While session-storage is away it is opened in the spool."""
        name = require_recording(checked(session_id))
        _, created = await rings.open(name, request.metadata if request else None, principal.name)
        response.status_code = 201 if created else 200
        return await desk.view(name)

    @routes.get(
        "/{session_id}", dependencies=by_anyone, response_model=Status, responses=responses("session-not-found")
    )
    async def get_session(session_id: SessionIdPath) -> Any:
        """A session's state, and where to resume.

        While session-storage is away: what the spool has of a session that was opened meanwhile. What storage has is
        not in it; a recorder that sends that again changes nothing.
        """
        return await desk.view(checked(session_id))

    @routes.post(
        "/{session_id}/seal",
        response_model=Sealed | SealQueued,
        responses={
            200: {"model": Sealed},
            202: {"model": SealQueued, "description": "Kept, and done when session-storage has the whole session"},
            **responses(
                "session-not-found",
                "chunks-missing",
                "chunk-count-mismatch",
                "session-reserved",
                "envelope-corrupt",
                "spool-full",
            ),
        },
    )
    async def seal(
        session_id: SessionIdPath,
        response: Response,
        principal: Annotated[Principal, Depends(recorders)],
        request: SealRequest | None = None,
    ) -> Any:
        """Seal a session: fix its chunk count and root. Repeated, it gives the same answer.

        202 while session-storage is away, or another processor has not handed over what it holds of the session: the
        seal is kept, and happens after that. Ask again for the manifest.
        """
        name = require_recording(checked(session_id))
        answer = await desk.seal(name, request.chunk_count if request else None, by=principal.name)
        if isinstance(answer, Queued):
            response.status_code = 202
            return answer.to_json()
        return answer

    @routes.delete(
        "/{session_id}",
        response_model=Status,
        responses=responses(
            "session-not-found", "session-open", "session-held", "session-retained", "session-reserved"
        ),
    )
    async def shred(session_id: SessionIdPath, principal: Annotated[Principal, Depends(shredders)]) -> Any:
        """Shred a sealed session: its keys and bodies go; its proofs stay, with a tombstone.

        What is done leaves its audit events at session-storage, which does it; what is refused, here.
        """
        name = checked(session_id)
        view = await storage.shred(name, principal.name)
        rings.forget(name)
        return view

    @routes.get(
        "/{session_id}/chunks/{index}",
        dependencies=[Depends(allow(Role.REPLAY, act=Action.CHUNK_READ))],
        response_class=Response,
        responses={
            200: {"content": _BINARY},
            **responses(
                "session-not-found",
                "chunk-not-found",
                "session-shredded",
                "session-reserved",
                "envelope-corrupt",
                "key-unavailable",
            ),
        },
    )
    async def get_chunk(session_id: SessionIdPath, index: IndexPath, request: Request) -> Response:
        """A chunk's plaintext."""
        name = require_recording(checked(session_id))
        data = await content.chunk(name, checked_index(index), chunk_max_bytes)
        await audit.of(request).allowed(request.scope)
        return Response(data, media_type="application/octet-stream", headers={"Content-Digest": content_digest(data)})

    @routes.get(
        "/{session_id}/content",
        dependencies=[Depends(allow(Role.REPLAY, act=Action.CONTENT_READ))],
        response_class=Response,
        responses={
            200: {"content": _BINARY},
            206: {"content": _BINARY, "description": "The range that was asked for"},
            **responses(
                "session-not-found",
                "chunks-missing",
                "session-shredded",
                "session-reserved",
                "range-not-satisfiable",
                "key-unavailable",
                "envelope-corrupt",
            ),
        },
        openapi_extra=_RANGE_PARAMETER,
    )
    async def get_content(session_id: SessionIdPath, request: Request) -> Response:
        """The recording, in order; of an open session, what is there so far."""
        name = require_recording(checked(session_id))
        total = await content.total_bytes(name)
        # No validator is sent, so none can match: then the whole is the answer (RFC 9110 section 13.1.5).
        part = None if "if-range" in request.headers else parse_range(request.headers.get("range"), total)
        span = part or Span(0, total, total)
        headers = {"Accept-Ranges": "bytes", "Content-Length": str(span.end - span.start)}
        if part is not None:
            headers["Content-Range"] = f"bytes {span.start}-{span.end - 1}/{total}"
        stack = AsyncExitStack()
        try:
            stream = await stack.enter_async_context(content.stream(name, span))
            await audit.of(request).allowed(request.scope)
        except DomainError:
            await stack.aclose()
            raise
        return _ClosingStream(
            stack, stream, 206 if part else 200, headers=headers, media_type="application/octet-stream"
        )

    return routes
