"""The hot route: POST /api/v1/envelopes. Plain ASGI, since FastAPI's request handling costs more than the work."""

import json
from typing import Any, Final

from starlette.requests import Request
from starlette.types import Receive, Scope, Send

from sessions.core import frames
from sessions.core.envelope import MAX_HEADER_BYTES, TAG_BYTES
from sessions.runtime import body
from sessions.runtime.answer import send_json
from sessions.runtime.app import HotRoute
from sessions.runtime.auth import Authenticator, Role, require
from sessions.runtime.budget import ByteBudget
from sessions.runtime.errors import DomainError
from sessions.runtime.problems import responses
from sessions.storage.disk import DiskWatch
from sessions.storage.frame_answers import FrameAnswer, FrameResult
from sessions.storage.ingest import Intake
from sessions.storage.models import SubmitAnswer
from sessions.storage.mongo import Readiness

PATH: Final = "/api/v1/envelopes"
RESULTS: Final = "results"
_RESULTS_2: Final = b"results=2"
"""Query parameter: with `2` the results `unknown-key` and `busy` are used."""
SUBMIT_TARGET_BYTES: Final = 16 * 1024 * 1024
"""What a processor puts into one request, unless a single envelope is larger."""

OPERATION: Final[dict[str, Any]] = {
    "tags": ["envelopes"],
    "operationId": "submit_envelopes",
    "summary": "Store envelopes, of any sessions",
    "description": "The body is a sequence of frames: u32 big-endian length, then as many bytes of an envelope v1; "
    "none is a sequence, too. "
    "One answer for each, in order; what it acknowledges is journaled.",
    "parameters": [
        {
            "name": RESULTS,
            "in": "query",
            "description": "2: the results `unknown-key` and `busy` are known; else they are told as before 0.2",
            "schema": {"type": "string", "enum": ["2"]},
        }
    ],
    "requestBody": {
        "required": False,
        "content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}},
    },
    "responses": {
        "200": {
            "description": "What became of each envelope",
            "content": {"application/json": {"schema": SubmitAnswer.model_json_schema()}},
        },
        **{
            str(status): answer
            for status, answer in responses("bad-envelope", "body-too-large", "overloaded", "storage-full").items()
        },
    },
}


def _as_before(answer: FrameAnswer) -> FrameAnswer:
    """Return an answer as processors of 0.1.0 know it: with another key they open the session again.

    Raises:
        DomainError: `overloaded`, for an envelope that is to be repeated.
    """
    if answer.result is FrameResult.BUSY:
        raise DomainError("overloaded", "a session is being sealed; repeat the request", retry_after_seconds=1)
    if answer.result is FrameResult.UNKNOWN_KEY:
        return FrameAnswer(FrameResult.UNKNOWN_SESSION, None, None)
    return answer


def body_limit(chunk_max_bytes: int) -> int:
    """The most that one request may hold, in bytes: the target, or one envelope of the largest chunk."""
    largest = chunk_max_bytes + MAX_HEADER_BYTES + TAG_BYTES + frames.LENGTH_BYTES
    return max(SUBMIT_TARGET_BYTES + 1024 * 1024, largest)


class SubmitEndpoint:
    """Takes frames, answers with what became of each."""

    def __init__(
        self,
        intake: Intake,
        authenticator: Authenticator,
        *,
        readiness: Readiness,
        disk: DiskWatch,
        budget: ByteBudget,
        limit_bytes: int,
    ) -> None:
        self._intake = intake
        self._authenticator = authenticator
        self._readiness = readiness
        self._disk = disk
        self._budget = budget
        self._limit_bytes = limit_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        request = Request(scope, receive)
        principal = require(request, self._authenticator, (Role.PROCESSOR,), session_in_body=True)
        self._authenticator.traffic.note()
        self._readiness.require()
        self._disk.require()
        async with body.bounded(request, self._budget, self._limit_bytes, principal.name) as data:
            self._disk.take(len(data))
            answers = await self._intake.submit(data, principal.require_session)
        if scope["query_string"] != _RESULTS_2 and request.query_params.get(RESULTS) != "2":
            answers = [_as_before(answer) for answer in answers]
        content = json.dumps({"results": [answer.to_json() for answer in answers]})
        await send_json(content, 200, scope, receive, send)


def route(endpoint: SubmitEndpoint) -> tuple[HotRoute, dict[str, Any]]:
    """The route and its OpenAPI operation."""
    return HotRoute(PATH, endpoint, methods=["POST"]), OPERATION
