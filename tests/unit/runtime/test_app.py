"""Hot routes: past the framework, and within it for pages of other origins, with the same outcome."""

import pytest
import structlog
from fastapi import FastAPI
from starlette.responses import Response
from starlette.types import Receive, Scope, Send
from structlog.testing import capture_logs

from sessions.core.types import session_id
from sessions.runtime import middleware
from sessions.runtime.app import HotRoute, ServiceApp
from sessions.runtime.errors import DomainError
from sessions.runtime.metrics import REQUESTS_IN_FLIGHT
from tests.unit.runtime.apps import app_of, client_of

_DESK = "https://desk.example"
_WAYS = pytest.mark.parametrize("headers", [{}, {"origin": _DESK}], ids=["past", "within"])


class _Hot:
    def __init__(self) -> None:
        self.served = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.served += 1
        match scope["path_params"]["name"]:
            case "refused":
                raise DomainError("overloaded", "later", retry_after_seconds=3)
            case "crash":
                raise RuntimeError("boom")
            case name:
                assert isinstance(scope["app"], ServiceApp)
                await Response(session_id(name))(scope, receive, send)


@pytest.fixture
def hot() -> _Hot:
    return _Hot()


@pytest.fixture
def app(hot: _Hot, monkeypatch: pytest.MonkeyPatch) -> FastAPI:
    monkeypatch.setattr(middleware, "_log", structlog.get_logger())
    return app_of(hot_routes=[(HotRoute("/hot/{name}", hot, methods=["PUT"]), {"responses": {}})], cors_origins=[_DESK])


@_WAYS
async def test_it_is_served(app: FastAPI, hot: _Hot, headers: dict[str, str]) -> None:
    async with client_of(app) as client:
        answer = await client.put("/hot/x", headers=headers)
    assert (answer.status_code, answer.text) == (200, "x")
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert len(answer.headers["x-request-id"]) == 32
    assert answer.headers.get("access-control-allow-origin") == headers.get("origin")


@_WAYS
@pytest.mark.parametrize(
    ("name", "status", "code"),
    [("refused", 503, "overloaded"), ("not an id", 400, "invalid-session-id"), ("crash", 500, "internal")],
)
async def test_what_is_wrong_is_a_problem(
    app: FastAPI, headers: dict[str, str], name: str, status: int, code: str
) -> None:
    before = REQUESTS_IN_FLIGHT._value.get()
    with capture_logs() as logs:
        async with client_of(app) as client:
            answer = await client.put(f"/hot/{name}", headers={"x-request-id": "r-1", **headers})
    assert (answer.status_code, answer.json()["code"], answer.json()["request_id"]) == (status, code, "r-1")
    assert answer.headers.get("retry-after") == ("3" if name == "refused" else None)
    assert any(line["event"] == "request_failed" for line in logs) == (name == "crash")
    assert REQUESTS_IN_FLIGHT._value.get() == before
    assert "request_id" not in structlog.contextvars.get_contextvars()


async def test_another_method_and_another_path_are_the_frameworks(app: FastAPI, hot: _Hot) -> None:
    async with client_of(app) as client:
        assert (await client.get("/hot/x")).status_code == 405
        assert (await client.put("/hot/x/y")).status_code == 404
        assert (await client.get("/livez")).status_code == 200
    assert hot.served == 0
