import asyncio
import json
import re
import subprocess
import sys

import pytest
import structlog
from fastapi import APIRouter
from starlette.responses import Response, StreamingResponse
from structlog.testing import capture_logs

from sessions.runtime import log, middleware
from sessions.runtime.audit import Audit
from sessions.runtime.errors import DomainError
from sessions.runtime.metrics import REQUEST_SECONDS, REQUESTS_IN_FLIGHT
from sessions.runtime.middleware import RequestContext
from tests.unit.runtime.apps import Written, app_of, client_of


def _routes() -> APIRouter:
    routes = APIRouter()

    @routes.get("/id")
    async def seen() -> str:
        structlog.contextvars.bind_contextvars(principal="p")
        return log.request_id()

    @routes.get("/crash")
    async def crash() -> None:
        raise RuntimeError("boom")

    @routes.get("/late")
    async def late() -> StreamingResponse:
        async def parts():
            yield b"some"
            raise RuntimeError("boom")

        return StreamingResponse(parts())

    @routes.get("/own")
    async def own() -> Response:
        return Response(headers={"Content-Security-Policy": "default-src 'self'", "Cache-Control": "no-cache"})

    @routes.get("/late-refusal")
    async def late_refusal() -> StreamingResponse:
        async def parts():
            yield b"some"
            raise DomainError("envelope-corrupt", "chunk 3 does not open")

        return StreamingResponse(parts())

    return routes


@pytest.fixture
def fresh_log(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(middleware, "_log", structlog.get_logger())


@pytest.mark.parametrize("sent", ["a", "A-z_0.9", "x" * 64])
async def test_a_request_id_is_taken_over(sent: str) -> None:
    async with client_of(app_of(_routes())) as client:
        answer = await client.get("/id", headers={"x-request-id": sent})
    assert answer.json() == answer.headers["x-request-id"] == sent


@pytest.mark.parametrize("sent", [None, "", "x" * 65, "a b", "a\tb", "é".encode(), "a/b", "{}"])
async def test_else_one_is_made(sent: str | None) -> None:
    headers = {} if sent is None else {"x-request-id": sent}
    async with client_of(app_of(_routes())) as client:
        answers = [await client.get("/id", headers=headers) for _ in range(2)]
    for answer in answers:
        assert answer.json() == answer.headers["x-request-id"] != sent
        assert len(answer.json()) == 32
    assert answers[0].json() != answers[1].json()
    assert log.request_id() == ""


async def test_security_headers_are_on_every_answer(fresh_log: None) -> None:
    async with client_of(app_of(_routes())) as client:
        for path in ("/id", "/crash", "/nowhere", "/livez", "/openapi.json", "/docs"):
            with capture_logs():
                answer = await client.get(path)
            expected = {
                "x-content-type-options": "nosniff",
                "cache-control": "no-store",
                "referrer-policy": "no-referrer",
                "x-frame-options": "DENY",
                "cross-origin-resource-policy": "same-origin",
                "cross-origin-opener-policy": "same-origin",
            }
            assert {name: answer.headers[name] for name in expected} == expected
            policy = answer.headers["content-security-policy"]
            assert policy.startswith("default-src 'none'; frame-ancestors 'none'; ")
            assert ("script-src" in policy) == (path == "/docs")
            assert "access-control-allow-origin" not in answer.headers


async def test_a_policy_of_its_own_takes_the_place_of_the_common_one(fresh_log: None) -> None:
    async with client_of(app_of(_routes())) as client:
        answer = await client.get("/own")
    assert answer.headers.get_list("content-security-policy") == ["default-src 'self'"]
    assert answer.headers.get_list("cache-control") == ["no-cache"]
    assert answer.headers["x-content-type-options"] == "nosniff"


async def test_the_page_of_the_document_may_load_what_it_names_and_nothing_else() -> None:
    async with client_of(app_of(_routes())) as client:
        answer = await client.get("/docs")
    directives = dict(part.strip().partition(" ")[::2] for part in answer.headers["content-security-policy"].split(";"))
    found = re.findall(r'<(script|link|img)[^>]* (?:src|href)="(https?://[^/"]+)[^"]*"', answer.text)
    assert len(found) >= 3  # the script, its style, the icon
    named = set(" ".join(directives.values()).split())
    assert {origin for _, origin in found} == {source for source in named if source.startswith("http")}
    for tag, origin in found:
        allowed = directives["script-src"] if tag == "script" else directives["style-src"] + directives["img-src"]
        assert origin in allowed
    assert directives["connect-src"] == "'self'"


async def test_pages_of_named_origins_may_read_answers_and_others_may_not() -> None:
    ours, theirs = "https://desk.example", "https://evil.example"
    preflight = {"access-control-request-method": "PUT", "access-control-request-headers": "authorization"}
    async with client_of(app_of(_routes(), cors_origins=[ours])) as client:
        answer = await client.get("/id", headers={"origin": ours})
        assert answer.headers["access-control-allow-origin"] == ours
        assert "access-control-allow-credentials" not in answer.headers
        asked = await client.options("/id", headers={"origin": ours, **preflight})
        assert asked.status_code == 200
        assert "PUT" in asked.headers["access-control-allow-methods"]
        assert asked.headers["x-content-type-options"] == "nosniff"
        assert "access-control-allow-origin" not in (await client.get("/id", headers={"origin": theirs})).headers
        assert (await client.options("/id", headers={"origin": theirs, **preflight})).status_code == 400


@pytest.mark.parametrize(("characters", "logged"), [(255, 256), (256, 259), (60_000, 259)])
async def test_a_long_path_is_cut_in_the_log(fresh_log: None, characters: int, logged: int) -> None:
    """L7: some hundred requests without a token pushed all else out of the log."""
    async with client_of(app_of(_routes())) as client:
        with capture_logs() as events:
            await client.get("/" + "x" * characters)
    (event,) = [event for event in events if event["event"] == "request_served"]
    assert len(event["path"]) == logged


async def test_a_request_is_logged_with_its_route_and_counted(fresh_log: None) -> None:
    labels = ("GET", "/id", 200)
    before = REQUEST_SECONDS.labels(*labels)._sum.get()
    async with client_of(app_of(_routes())) as client:
        with capture_logs() as events:
            await client.get("/id?token=hidden", headers={"x-request-id": "r"})
    (event,) = [event for event in events if event["event"] == "request_served"]
    assert (event["method"], event["path"], event["status"]) == ("GET", "/id", 200)
    assert event["log_level"] == "info"
    assert event["milliseconds"] >= 0
    assert "hidden" not in str(events)
    assert REQUEST_SECONDS.labels(*labels)._sum.get() > before
    assert REQUESTS_IN_FLIGHT._value.get() == 0


async def test_what_no_route_takes_is_one_series(fresh_log: None) -> None:
    async with client_of(app_of(_routes())) as client:
        with capture_logs() as events:
            await client.get("/some/where")
        await client.request("PROPFIND", "/some/where")
        text = (await client.get("/metrics")).text
    assert events[-1]["status"] == 404
    assert 'route="unmatched"' in text
    assert 'method="other"' in text
    assert "PROPFIND" not in text  # anybody may send any word
    assert "/some/where" not in text


async def test_probes_are_quiet_unless_they_fail(fresh_log: None) -> None:
    from sessions.runtime.health import Check

    for check, level in ((Check("ok"), "debug"), (Check("failed"), "info")):
        async with client_of(app_of(checks={"x": check})) as client:
            with capture_logs() as events:
                await client.get("/health")
        assert events[-1]["log_level"] == level


async def test_a_crash_is_logged_with_its_trace_and_answered_without(fresh_log: None) -> None:
    async with client_of(app_of(_routes())) as client:
        with capture_logs() as events:
            answer = await client.get("/crash", headers={"x-request-id": "r-9"})
    failed = next(event for event in events if event["event"] == "request_failed")
    assert (failed["log_level"], failed["exc_info"], failed["path"]) == ("error", True, "/crash")
    assert answer.status_code == 500
    assert answer.json()["request_id"] == "r-9"
    assert "boom" not in answer.text
    assert "Traceback" not in answer.text


@pytest.mark.parametrize(
    ("path", "logged"),
    [
        ("/late", {"event": "request_failed", "log_level": "error"}),
        ("/late-refusal", {"event": "answer_broken_off", "log_level": "warning", "code": "envelope-corrupt"}),
    ],
)
async def test_what_goes_wrong_after_the_head_is_logged_and_breaks_off(
    fresh_log: None, path: str, logged: dict[str, str]
) -> None:
    sent = []

    async def send(message: dict) -> None:
        sent.append(message)

    async def receive() -> dict:
        await asyncio.sleep(60)  # the client stays
        return {"type": "http.disconnect"}

    scope = {
        "type": "http",
        "method": "GET",
        "path": path,
        "headers": [],
        "query_string": b"",
        "http_version": "1.1",
    }
    with capture_logs() as events:
        await app_of(_routes())(scope, receive, send)
    assert logged.items() <= events[0].items()
    assert [event["event"] for event in events[1:]] == ["request_served"]
    assert [message["type"] for message in sent] == ["http.response.start", "http.response.body"]
    assert sent[1]["more_body"] is True


async def test_other_scopes_pass_through() -> None:
    seen = []

    async def app(scope, receive, send) -> None:
        seen.append(scope["type"])

    await RequestContext(app, Audit("small", Written()))({"type": "lifespan"}, None, None)
    assert seen == ["lifespan"]


_PROGRAM = """
import logging, structlog
from sessions.runtime import log
log.configure("INFO", "small")
own = structlog.get_logger()
with structlog.contextvars.bound_contextvars(request_id="r-7"):
    own.debug("hidden")
    own.info("shown", number=1)
    logging.getLogger("library").warning("of %s", "theirs", extra={"more": 2})
    logging.getLogger("library").info("hidden too")
    try:
        1 / 0
    except ZeroDivisionError:
        own.exception("failed")
"""


def test_logs_are_json_lines_that_hold_the_request_id() -> None:
    done = subprocess.run([sys.executable, "-c", _PROGRAM], capture_output=True, text=True, check=True)
    assert done.stderr == ""
    own, theirs, failed = map(json.loads, done.stdout.splitlines())
    assert (own["event"], own["number"], own["level"], own["service"]) == ("shown", 1, "info", "small")
    assert own["timestamp"].endswith("Z")
    assert (theirs["event"], theirs["more"], theirs["level"], theirs["service"]) == ("of theirs", 2, "warning", "small")
    assert failed["exception"][0]["exc_type"] == "ZeroDivisionError"
    assert {line["request_id"] for line in (own, theirs, failed)} == {"r-7"}
