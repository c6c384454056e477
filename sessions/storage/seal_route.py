"""The route that seals a session."""

from typing import Any

from fastapi import APIRouter, Request, Response
from starlette.responses import JSONResponse

from sessions.runtime.audit import require_recording
from sessions.runtime.models import Sealed, SessionIdPath, checked
from sessions.runtime.problems import responses
from sessions.storage import problems, processor_models
from sessions.storage.ledger import Ledger
from sessions.storage.reads import Reads
from sessions.storage.seal_desk import WAIT_SECONDS, Waiting
from sessions.storage.seal_orders import Confirmation
from sessions.storage.sealed_answer import require_sealed_as_asked, seal_json


def add(routes: APIRouter, ledger: Ledger, reads: Reads, by_processor: list[Any]) -> None:
    """Add the route."""

    @routes.post(
        "/{session_id}/seal",
        dependencies=by_processor,
        response_model=Sealed,
        responses={
            202: {
                "model": processor_models.SealWaiting,
                "description": "Kept until these processors hand over",
            },
            **responses(
                "session-not-found", "chunks-missing", "chunk-count-mismatch", "session-reserved", "envelope-corrupt"
            ),
        },
    )
    async def seal(session_id: SessionIdPath, http: Request, request: processor_models.StorageSealRequest) -> Any:
        """Seal a session; repeated, it gives the same manifest."""
        name, hold = require_recording(checked(session_id)), reads.seal(http)
        first, floor = None, 0
        if request.processor is not None:
            floor = request.floor
            first = Confirmation(request.processor, floor, request.until_seconds, request.generation)
        if (record := await ledger.sealed_already(name, hold)) is not None:
            await require_sealed_as_asked(record, request.chunk_count, request.sealed_by, floor)
            return Response(await seal_json(record), media_type="application/json")
        keep = request.keep and first is not None  # a processor of 0.1.0 keeps the order itself
        wait_seconds = WAIT_SECONDS if request.wait else 0.0
        sealed = await ledger.seal(
            name, request.chunk_count, request.sealed_by, first, keep=keep, wait_seconds=wait_seconds
        )
        if isinstance(sealed, Waiting):
            if first is None:
                raise problems.seal_waits(name, [known.record.name for known in sealed.processors])
            waiting = {"session_id": name, "waiting_for": [known.to_json() for known in sealed.processors]}
            return JSONResponse(waiting, 202)
        assert sealed.seal is not None  # it does not wait
        await hold(len(sealed.seal.manifest))
        return Response(await seal_json(sealed), media_type="application/json")
