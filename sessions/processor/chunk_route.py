"""The hot route: PUT /api/v1/sessions/{id}/chunks/{index}. Plain ASGI, past FastAPI's request handling."""

import json
from typing import Any, Final

from starlette.requests import Request
from starlette.types import Receive, Scope, Send

from sessions.core.errors import IndexOutOfRangeError
from sessions.core.types import MAX_CHUNK_INDEX, SESSION_ID_PATTERN, ChunkIndex, chunk_index, session_id
from sessions.processor.chunk_limit import ChunkLimit
from sessions.processor.models import RecordedModel
from sessions.processor.recording import Recording
from sessions.runtime import body, digest
from sessions.runtime.answer import send_json
from sessions.runtime.app import HotRoute
from sessions.runtime.auth import Authenticator, Role, require
from sessions.runtime.budget import ByteBudget
from sessions.runtime.errors import DomainError
from sessions.runtime.models import INDEX
from sessions.runtime.problems import responses

PATH: Final = "/api/v1/sessions/{session_id}/chunks/{index}"
_INDEX_CHARACTERS: Final = 20

_ANSWER: Final = {"application/json": {"schema": RecordedModel.model_json_schema()}}
OPERATION: Final[dict[str, Any]] = {
    "tags": ["chunks"],
    "operationId": "put_chunk",
    "summary": "Record a chunk",
    "description": "The body is the chunk, as it is; empty is a chunk too. Opens the session if need be. "
    "`durability` is `spooled` while session-storage is away: on this service's disk, and brought there later. "
    "A repeat with the same content is a 200, with other content a 409 that changes nothing.",
    "parameters": [
        {
            "name": "session_id",
            "in": "path",
            "required": True,
            "schema": {"type": "string", "pattern": SESSION_ID_PATTERN, "maxLength": 128},
        },
        {
            "name": "index",
            "in": "path",
            "required": True,
            "schema": {"type": "integer", "minimum": 0, "maximum": MAX_CHUNK_INDEX},
        },
        {
            "name": "Content-Digest",
            "in": "header",
            "description": "RFC 9530; checked when sent",
            "schema": {"type": "string", "pattern": digest.HEADER_PATTERN},
        },
    ],
    "requestBody": {
        "required": False,
        "content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}},
    },
    "responses": {
        "201": {"description": "Durable", "content": _ANSWER},
        "200": {"description": "Was there already, with this content", "content": _ANSWER},
        **{
            str(status): answer
            for status, answer in responses(
                "invalid-session-id",
                "index-out-of-range",
                "bad-content-digest",
                "digest-mismatch",
                "chunk-conflict",
                "precondition-failed",
                "session-reserved",
                "session-sealed",
                "session-shredded",
                "body-too-large",
                "unsupported-media-type",
                "overloaded",
                "storage-unavailable",
                "storage-full",
                "spool-full",
                "envelope-corrupt",
            ).items()
        },
    },
}


def parse_index(text: str) -> ChunkIndex:
    """The chunk index of a path.

    Raises:
        DomainError: `invalid-request`; or `IndexOutOfRangeError` of the core.
    """
    if not INDEX.fullmatch(text):
        raise DomainError("invalid-request", "the chunk index is a whole number, without leading zeros")
    if len(text) > _INDEX_CHARACTERS:
        raise IndexOutOfRangeError(int(text[: _INDEX_CHARACTERS + 1]), MAX_CHUNK_INDEX)
    return chunk_index(int(text))


class ChunkEndpoint:
    """Takes one chunk, answers when it is durable."""

    def __init__(
        self, recording: Recording, authenticator: Authenticator, budget: ByteBudget, limit: ChunkLimit
    ) -> None:
        self._recording = recording
        self._authenticator = authenticator
        self._budget = budget
        self._limit = limit

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        request = Request(scope, receive)
        principal = require(request, self._authenticator, (Role.RECORD,))
        self._authenticator.traffic.note()
        session, index = session_id(request.path_params["session_id"]), parse_index(request.path_params["index"])
        declared = body.declared_length(request.headers.get("content-length"), self._limit.bytes)
        self._recording.require_room(session, declared or 0, principal.name)
        async with body.bounded(request, self._budget, self._limit.bytes, principal.name, part=session) as plaintext:
            digest.check(request.headers, plaintext, scope.get(body.TRAILERS, ()))
            recorded = await self._recording.record(session, index, plaintext, principal.name)
        if not recorded.created:
            body.require_new(request.headers)
        status = 201 if recorded.created else 200
        await send_json(json.dumps(recorded.to_json()), status, scope, receive, send)


def route(endpoint: ChunkEndpoint) -> tuple[HotRoute, dict[str, Any]]:
    """The route and its OpenAPI operation."""
    return HotRoute(PATH, endpoint, methods=["PUT"]), OPERATION
