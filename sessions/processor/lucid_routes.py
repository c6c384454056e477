"""The routes of the existing Lucid recorder: JSON with base64, thin, on the same use case."""

import asyncio
import base64
import binascii
import re
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Annotated, Any, TypeVar

from fastapi import APIRouter, Depends, Request
from pydantic import BaseModel, ValidationError
from starlette.responses import JSONResponse

from sessions.core.types import ChunkIndex, SessionId, chunk_index
from sessions.processor import models
from sessions.processor.chunk_limit import ChunkLimit
from sessions.processor.models import LucidBatchRequest, LucidChunk, LucidProcessRequest
from sessions.processor.recording import Recording
from sessions.processor.session_desk import Queued, SessionDesk
from sessions.processor.storage_client import StorageClient
from sessions.runtime import body
from sessions.runtime.audit import require_recording
from sessions.runtime.auth import Principal, Role, allow
from sessions.runtime.budget import ByteBudget
from sessions.runtime.errors import PROBLEMS, DomainError
from sessions.runtime.json_route import turn_of
from sessions.runtime.json_size import JsonCost
from sessions.runtime.models import SessionIdPath, checked
from sessions.runtime.problems import responses
from sessions.runtime.times import now, to_rfc3339

_TRAILING_NUMBER = re.compile(r"([0-9]{1,18})$")
_JSON_OVERHEAD_BYTES = 1024 * 1024
_BATCH_PARALLEL = 8
RequestT = TypeVar("RequestT", bound=BaseModel)


def _timestamp() -> str:
    return to_rfc3339(now())


def index_of(chunk: LucidChunk) -> ChunkIndex:
    """The chunk's index: `metadata.chunk_index`, else the number that ends `chunk_id`.

    Raises:
        DomainError: `invalid-request`, when there is neither.
    """
    if chunk.metadata is not None and chunk.metadata.chunk_index is not None:
        return chunk_index(chunk.metadata.chunk_index)
    found = _TRAILING_NUMBER.search(chunk.chunk_id)
    if found is None:
        raise DomainError("invalid-request", "give metadata.chunk_index, or a chunk_id that ends in the chunk's number")
    return chunk_index(int(found[1]))


def _decode(chunk: LucidChunk, limit_bytes: int) -> bytes:
    try:
        data = base64.b64decode(chunk.chunk_data_base64, validate=True)
    except (binascii.Error, ValueError):
        raise DomainError("invalid-request", f"chunk_data_base64 of {chunk.chunk_id!r} is not base64") from None
    if len(data) > limit_bytes:
        raise DomainError("body-too-large", f"a chunk may have at most {limit_bytes} bytes", limit_bytes=limit_bytes)
    return data


def _parse(model: type[RequestT], data: bytes | bytearray) -> RequestT:
    try:
        return model.model_validate_json(data)
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False, include_context=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        raise DomainError("invalid-request", f"{where or 'body'}: {first['msg']}") from None


def _json_body(model: type[BaseModel]) -> dict[str, Any]:
    schema = model.model_json_schema(ref_template="#/components/schemas/{model}")
    definitions = schema.pop("$defs", {})
    text = {"application/json": {"schema": _inlined(schema, definitions)}}
    return {"requestBody": {"required": True, "content": text}}


def _inlined(schema: Any, definitions: dict[str, Any]) -> Any:
    """The schema with its references resolved: the body is read by hand, so FastAPI does not collect its parts."""
    if isinstance(schema, list):
        return [_inlined(item, definitions) for item in schema]
    if not isinstance(schema, dict):
        return schema
    if "$ref" in schema:
        return _inlined(definitions[schema["$ref"].rsplit("/", 1)[1]], definitions)
    return {name: _inlined(value, definitions) for name, value in schema.items()}


class LucidRecorder:
    """The chunk routes of the Lucid recorder."""

    def __init__(self, recording: Recording, budget: ByteBudget, limit: ChunkLimit, batch_body_max_bytes: int) -> None:
        self._recording = recording
        self._budget = budget
        self._limit = limit
        self._single_body_bytes = -(-limit.own_bytes // 3) * 4 + _JSON_OVERHEAD_BYTES
        self._batch_body_bytes = max(batch_body_max_bytes, self._single_body_bytes)

    @asynccontextmanager
    async def _read(
        self, request: Request, principal: Principal, model: type[RequestT], limit_bytes: int
    ) -> AsyncIterator[RequestT]:
        """Read a request in its token's turn; its memory is paid for until the block ends."""
        async with AsyncExitStack() as paid:
            async with turn_of(request, principal):
                bounded = body.bounded(request, self._budget, limit_bytes, principal.name, cost=JsonCost())
                data = await paid.enter_async_context(bounded)
                # Parsing 20 MB of JSON takes tens of milliseconds: not on the event loop.
                found = await asyncio.to_thread(_parse, model, data)
                del data
            yield found

    async def process(self, request: Request, principal: Principal) -> dict[str, Any]:
        """Record one chunk."""
        async with self._read(request, principal, LucidProcessRequest, self._single_body_bytes) as chunk:
            principal.require_session(chunk.session_id)
            return await self._record(SessionId(chunk.session_id), chunk, principal.name)

    async def process_batch(self, request: Request, principal: Principal) -> dict[str, Any]:
        """Record several chunks; each is answered for itself."""
        async with self._read(request, principal, LucidBatchRequest, self._batch_body_bytes) as batch:
            principal.require_session(batch.session_id)
            slots = asyncio.Semaphore(_BATCH_PARALLEL)

            async def one(chunk: LucidChunk) -> dict[str, Any]:
                async with slots:
                    return await self._result(SessionId(batch.session_id), chunk, principal.name)

            results = await asyncio.gather(*map(one, batch.chunks))
        successful = sum(result["success"] for result in results)
        return {
            "success": successful == len(results),
            "session_id": batch.session_id,
            "total_chunks": len(results),
            "successful_chunks": successful,
            "failed_chunks": len(results) - successful,
            "results": results,
            "timestamp": _timestamp(),
        }

    async def _result(self, session_id: SessionId, chunk: LucidChunk, by: str) -> dict[str, Any]:
        try:
            return await self._record(session_id, chunk, by)
        except (DomainError, ValueError) as error:
            if isinstance(error, DomainError) and PROBLEMS[error.code][0] >= 500:  # noqa: PLR2004
                raise  # the whole batch may be repeated: every chunk of it is idempotent
            code = error.code if isinstance(error, DomainError) else "index-out-of-range"
            return {
                "success": False,
                "session_id": session_id,
                "chunk_id": chunk.chunk_id,
                "error": {"code": code, "detail": str(error)},
                "processing_time_ms": 0.0,
                "timestamp": _timestamp(),
            }

    async def _record(self, session_id: SessionId, chunk: LucidChunk, by: str) -> dict[str, Any]:
        started = time.perf_counter()
        index = index_of(chunk)
        plaintext = await asyncio.to_thread(_decode, chunk, self._limit.bytes)
        recorded = await self._recording.record(session_id, index, plaintext, by)
        return {
            "success": True,
            "session_id": session_id,
            "chunk_id": chunk.chunk_id,
            "metadata": recorded.to_json(),
            "processing_time_ms": round((time.perf_counter() - started) * 1000, 3),
            "timestamp": _timestamp(),
        }


def router(recorder: LucidRecorder, storage: StorageClient, desk: SessionDesk) -> APIRouter:
    """The four routes of the Lucid recorder."""
    routes = APIRouter(prefix="/api/v1", tags=["Lucid recorder"])
    recorders = allow(Role.RECORD)
    by_recorder = [Depends(recorders)]
    in_body = allow(Role.RECORD, session_in_body=True)
    refusals = responses(
        "chunk-conflict",
        "session-reserved",
        "session-sealed",
        "session-shredded",
        "body-too-large",
        "index-out-of-range",
        "envelope-corrupt",
        "storage-full",
        "spool-full",
    )

    @routes.post(
        "/chunks/process",
        response_model=models.LucidResult,
        responses=refusals,
        openapi_extra=_json_body(LucidProcessRequest),
    )
    async def process(request: Request, principal: Annotated[Principal, Depends(in_body)]) -> Any:
        """Record one chunk, sent as base64 in JSON."""
        return await recorder.process(request, principal)

    @routes.post(
        "/chunks/process-batch",
        response_model=models.LucidBatchResult,
        responses=responses("body-too-large", "envelope-corrupt", "spool-full"),
        openapi_extra=_json_body(LucidBatchRequest),
    )
    async def process_batch(request: Request, principal: Annotated[Principal, Depends(in_body)]) -> Any:
        """Record several chunks of one session; each has its own result."""
        return JSONResponse(await recorder.process_batch(request, principal))

    @routes.post(
        "/sessions/{session_id}/finalize",
        response_model=models.LucidFinalized,
        responses=responses("session-not-found", "chunks-missing", "chunk-count-mismatch", "session-reserved"),
    )
    async def finalize(session_id: SessionIdPath, principal: Annotated[Principal, Depends(recorders)]) -> Any:
        """Seal a session."""
        # This route's answer is the root. While there is none nothing is promised, so nothing is ordered either.
        sealed = await desk.seal(require_recording(checked(session_id)), None, keep=False, by=principal.name)
        if isinstance(sealed, Queued):
            detail = f"session {session_id} is not sealed yet; repeat the request"
            raise DomainError("storage-unavailable", detail, retry_after_seconds=5)
        return {
            "session_id": session_id,
            "merkle_root": sealed["root"],
            "finalized": True,
            "timestamp": _timestamp(),
        }

    @routes.get(
        "/sessions/{session_id}/merkle-root",
        dependencies=by_recorder,
        response_model=models.LucidRoot,
        responses=responses("session-not-found", "session-open"),
    )
    async def merkle_root(session_id: SessionIdPath) -> Any:
        """The root of a sealed session."""
        view, _ = await storage.session(checked(session_id))
        if view["root"] is None:
            raise DomainError("session-open", f"session {session_id} has no root until it is finalized")
        return {"session_id": session_id, "merkle_root": view["root"], "timestamp": _timestamp()}

    return routes
