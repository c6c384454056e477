import json
import re
from pathlib import Path

import pytest
from fastapi import APIRouter
from pydantic import BaseModel
from starlette.exceptions import HTTPException
from structlog.testing import capture_logs

import sessions
from sessions.core.errors import EnvelopeFormatError
from sessions.core.types import chunk_index, session_id
from sessions.runtime import problems
from sessions.runtime.errors import PROBLEMS, DomainError
from tests.unit.runtime.apps import app_of, client_of

_CALL = re.compile(r'DomainError\(\s*"([a-z-]+)"')
_CODES = re.compile(r"\bresponses\(([^)]*)\)")


def test_every_code_that_is_raised_or_documented_has_a_status() -> None:
    used: set[str] = set()
    for part in ("runtime", "processor", "storage"):
        for path in (Path(sessions.__file__).parent / part).rglob("*.py"):
            text = path.read_text()
            used |= set(_CALL.findall(text))
            for arguments in _CODES.findall(text):
                used |= set(re.findall(r'"([a-z-]+)"', arguments))
    assert len(used) > 20
    assert used <= PROBLEMS.keys()


@pytest.mark.parametrize("code", PROBLEMS)
def test_the_answer_of_each_code(code: str) -> None:
    answer = problems.response(DomainError(code, "why", retry_after_seconds=3, missing=[[1, 2]]))
    status, title = PROBLEMS[code]
    assert (answer.status_code, answer.media_type) == (status, "application/problem+json")
    assert 400 <= status < 600
    body = json.loads(answer.body)
    assert body == {
        "type": f"urn:lucid-sessions:problem:{code}",
        "title": title,
        "status": status,
        "detail": "why",
        "code": code,
        "request_id": "",
        "missing": [[1, 2]],
    }
    assert answer.headers["retry-after"] == "3"
    assert ("www-authenticate" in answer.headers) == (status == 401)


def test_no_retry_after_unless_it_is_known() -> None:
    assert "retry-after" not in problems.response(DomainError("not-found", "x")).headers


class _Model(BaseModel):
    number: int


def _routes() -> APIRouter:
    routes = APIRouter()

    @routes.get("/raise/{what}")
    async def fail(what: str) -> None:
        match what:
            case "id":
                session_id("!")
            case "index":
                chunk_index(-1)
            case "core":
                raise EnvelopeFormatError("odd")
            case "teapot":
                raise HTTPException(418, "short and stout", headers={"x-kettle": "1"})
            case "domain":
                raise DomainError("overloaded", "later", retry_after_seconds=2)
            case _:
                raise RuntimeError("a secret detail")

    @routes.post("/model")
    async def model(request: _Model, limit: int = 1) -> None:
        """Nothing."""

    return routes


@pytest.mark.parametrize(
    ("what", "status", "code"),
    [
        ("id", 400, "invalid-session-id"),
        ("index", 400, "index-out-of-range"),
        ("core", 400, "invalid-request"),
        ("teapot", 400, "invalid-request"),
        ("domain", 503, "overloaded"),
        ("crash", 500, "internal"),
    ],
)
async def test_errors_of_every_kind_are_problems(what: str, status: int, code: str) -> None:
    async with client_of(app_of(_routes())) as client:
        with capture_logs():  # to render the trace of a crash takes seconds
            answer = await client.get(f"/raise/{what}", headers={"x-request-id": "r-1"})
    assert (answer.status_code, answer.json()["code"], answer.json()["status"]) == (status, code, status)
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.headers["x-request-id"] == answer.json()["request_id"] == "r-1"
    assert "Traceback" not in answer.text
    assert "secret" not in answer.text
    assert answer.headers.get("x-kettle") == ("1" if what == "teapot" else None)


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "/nowhere", 404, "not-found"),
        ("DELETE", "/model", 405, "method-not-allowed"),
        ("GET", "/model/", 404, "not-found"),
    ],
)
async def test_what_no_route_takes(method: str, path: str, status: int, code: str) -> None:
    async with client_of(app_of(_routes())) as client:
        answer = await client.request(method, path)
    assert (answer.status_code, answer.json()["code"]) == (status, code)
    assert answer.headers["x-request-id"] == answer.json()["request_id"] != ""
    assert ("allow" in answer.headers) == (status == 405)


@pytest.mark.parametrize(
    ("path", "content", "where"),
    [
        ("/model", b'{"number": "x"}', "number: "),
        ("/model", b"{", "1: "),
        ("/model", b"", "body: "),
        ("/model?limit=x", b'{"number": 1}', "query.limit: "),
    ],
)
async def test_validation_names_the_place(path: str, content: bytes, where: str) -> None:
    async with client_of(app_of(_routes())) as client:
        answer = await client.post(path, content=content, headers={"content-type": "application/json"})
    assert (answer.status_code, answer.json()["code"]) == (400, "invalid-request")
    assert answer.json()["detail"].startswith(where)


def test_the_documents_entries_are_by_status() -> None:
    found = problems.responses("session-sealed", "chunk-conflict", "forbidden")
    assert found.keys() == {409, 403}
    assert found[409]["description"] == "`chunk-conflict`, `session-sealed`"
