"""What a service tells of its requests: durable before the answer when granted, cheap and bounded when refused."""

import asyncio
import time
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any

import httpx
import pytest
import structlog
from fastapi import APIRouter, Depends, Request
from pydantic import BaseModel
from structlog.testing import capture_logs

from sessions.core.audit import Action, Outcome
from sessions.core.types import SessionId
from sessions.runtime import audit as audits
from sessions.runtime.audit import MAX_WAITING, PRINCIPAL, REFUSED, Audit, require_recording
from sessions.runtime.auth import Authenticator, Principal, Role, allow
from sessions.runtime.errors import DomainError
from sessions.runtime.limits import Limits
from tests.unit.runtime.apps import Written, app_of, client_of

NOON = datetime(2026, 1, 31, 12, tzinfo=UTC)
A = SessionId("a")


class Body(BaseModel):
    x: int


class _Names(Authenticator):
    """Takes roles for tokens, and their names."""

    def authenticate(self, authorization: str | None) -> Principal:
        role = (authorization or "").removeprefix("Bearer ")
        if role not in set(Role):
            raise self._failures.refusal("no")
        return Principal(role, frozenset({Role(role)}))


def _routes() -> APIRouter:
    routes = APIRouter(prefix="/api/v1")
    shredders = Depends(allow(Role.ADMIN, act=Action.SESSION_SHRED))

    @routes.delete("/sessions/{session_id}", dependencies=[shredders])
    async def shred(session_id: str, request: Request) -> str:
        async with audits.of(request).change(request.scope):
            if session_id == "held":
                raise DomainError("session-held", "it is")
            if session_id == "broken":
                raise RuntimeError("boom")
        return "gone"

    @routes.post("/scrub", dependencies=[Depends(allow(Role.ADMIN, act=Action.SCRUB_REQUEST))])
    async def scrub(request: Request, body: Body) -> int:
        await audits.of(request).allowed(request.scope, A)
        return body.x

    @routes.get("/plain", dependencies=[Depends(allow(Role.ADMIN))])
    async def plain() -> str:
        raise DomainError("session-not-found", "none")

    return routes


@pytest.fixture
def written() -> Written:
    return Written()


@pytest.fixture
def audit(written: Written) -> Audit:
    return Audit("small", written, lambda: NOON)


@pytest.fixture
async def client(audit: Audit) -> AsyncIterator[httpx.AsyncClient]:
    app = app_of(_routes(), authenticator=_Names([], Limits(connections_max=8)), audit=audit)
    async with client_of(app) as client:
        yield client


async def _ask(client: httpx.AsyncClient, method: str, path: str, token: str = "admin", **options: Any) -> int:
    headers = {"authorization": f"Bearer {token}", "x-request-id": "r-1"}
    return (await client.request(method, f"/api/v1{path}", headers=headers, **options)).status_code


SHRED = "admin", "session.shred"


async def test_a_change_is_begun_and_then_allowed(client: httpx.AsyncClient, audit: Audit, written: Written) -> None:
    assert await _ask(client, "DELETE", "/sessions/a") == 200
    assert written.told() == [(*SHRED, "a", "begun", None), (*SHRED, "a", "allowed", None)]
    assert {(one.request_id, one.service, one.time) for one in written.events} == {
        ("r-1", "small", "2026-01-31T12:00:00.000Z")
    }
    await audit.flush()
    assert len(written.events) == 2


async def test_one_that_is_refused_or_fails(client: httpx.AsyncClient, audit: Audit, written: Written) -> None:
    assert await _ask(client, "DELETE", "/sessions/held") == 409
    assert await _ask(client, "DELETE", "/sessions/broken") == 500
    assert await _ask(client, "DELETE", "/sessions/a", "record") == 403
    await audit.flush()
    assert written.told() == [
        (*SHRED, "held", "begun", None),
        (*SHRED, "broken", "begun", None),
        (*SHRED, "held", "refused", "session-held"),
        (*SHRED, "broken", "failed", "internal"),
        ("record", "session.shred", "a", "refused", "forbidden"),
    ]


async def test_nothing_is_done_that_cannot_be_recorded(
    client: httpx.AsyncClient, audit: Audit, written: Written
) -> None:
    written.away = True
    assert await _ask(client, "DELETE", "/sessions/broken") == 503  # it would be 500 had it been tried
    assert await _ask(client, "POST", "/scrub", json={"x": 1}) == 503
    with pytest.raises(DomainError):
        await audit.flush()
    written.away = False
    await audit.flush()
    assert written.told() == [
        (*SHRED, "broken", "failed", "audit-unavailable"),
        ("admin", "scrub.request", None, "failed", "audit-unavailable"),
    ]
    written.away = True
    with pytest.raises(DomainError) as caught:
        await audit.own(Action.SCRUB_FINDING, Outcome.FAILED, A, "missing")
    assert (caught.value.code, caught.value.retry_after_seconds) == ("audit-unavailable", 1)


async def test_a_bad_request_for_a_privileged_act(client: httpx.AsyncClient, audit: Audit, written: Written) -> None:
    assert await _ask(client, "POST", "/scrub", json={"x": "x"}) == 400
    assert await _ask(client, "POST", "/scrub", json={"x": 1}) == 200
    await audit.flush()
    assert written.told() == [
        ("admin", "scrub.request", "a", "allowed", None),
        ("admin", "scrub.request", None, "refused", "invalid-request"),
    ]


async def test_of_other_routes_only_who_may_not(client: httpx.AsyncClient, audit: Audit, written: Written) -> None:
    assert await _ask(client, "GET", "/plain") == 404
    assert await _ask(client, "GET", "/nowhere") == 404
    assert await _ask(client, "GET", "/plain", "replay") == 403
    assert await _ask(client, "GET", "/plain", "nobody") == 401
    await audit.flush()
    refused = "request.refused"
    assert written.told() == [
        ("replay", refused, None, "refused", "forbidden"),
        (None, refused, None, "refused", "unauthorized"),
    ]


async def test_without_a_token_no_session_is_taken_from_the_path(
    client: httpx.AsyncClient, audit: Audit, written: Written
) -> None:
    assert await _ask(client, "DELETE", "/sessions/anything", "nobody") == 401
    assert await _ask(client, "DELETE", "/sessions/%0Aforged", "record") == 403
    await audit.flush()
    assert written.told() == [
        (None, "session.shred", None, "refused", "unauthorized"),
        ("record", "session.shred", None, "refused", "forbidden"),
    ]


def _scope(session: str, principal: str | None = "p") -> dict[str, Any]:
    return {"path_params": {"session_id": session}, PRINCIPAL: principal}


async def test_what_is_alike_is_one_event_with_a_count(audit: Audit, written: Written) -> None:
    before = {code: REFUSED.labels(code)._value.get() for code in ("unauthorized", "forbidden")}
    for _ in range(1000):
        audit.refused(_scope("a", None), "unauthorized")
        audit.refused(_scope("a"), "forbidden")
    audit.refused(_scope("a"), "session-not-found")
    counted = {code: REFUSED.labels(code)._value.get() - before[code] for code in before}
    assert counted == {"unauthorized": 1000, "forbidden": 1000}
    await audit.flush()
    assert [(one.principal, one.session_id, one.count) for one in written.events] == [
        (None, None, 1000),
        ("p", "a", 1000),
    ]
    await audit.flush()
    assert len(written.events) == 2


async def test_many_that_differ_take_no_more_than_the_bound_and_none_is_forgotten(
    audit: Audit, written: Written
) -> None:
    started = time.perf_counter()
    for number in range(20_000):
        audit.refused(_scope(f"s-{number}", f"p-{number % 2000}"), "forbidden")
    seconds = time.perf_counter() - started
    assert seconds < 2, "a refusal is to cost next to nothing"
    await audit.flush()
    assert len(written.events) <= MAX_WAITING + 1
    assert sum(one.count for one in written.events) == 20_000
    last = written.events[-1]
    assert (last.action, last.principal, last.request_id) == (Action.EVENTS_DROPPED, None, None)
    assert last.count > 1000


async def test_what_waits_while_nothing_can_be_written_is_bounded_and_comes_later(
    audit: Audit, written: Written
) -> None:
    written.away = True
    for _ in range(3):
        for number in range(2000):
            audit.refused(_scope("a", f"p-{number}"), "forbidden")
        with pytest.raises(DomainError):
            await audit.flush()
        assert len(audit._waiting) <= MAX_WAITING + 1
    written.away = False
    await audit.flush()
    assert sum(one.count for one in written.events) == 6000
    assert len([one for one in written.events if one.action is Action.EVENTS_DROPPED]) == 1


async def test_what_was_written_before_a_failure_is_not_written_again(audit: Audit) -> None:
    class Fails(Written):
        async def write(self, events: Any) -> None:
            self.away = bool(self.events) and not self.away
            await super().write(events)

    fails = Fails()
    audit._sink = fails
    for number in range(200):
        audit.note(Action.REQUEST_REFUSED, Outcome.REFUSED, "forbidden", principal=f"p-{number}")
    with pytest.raises(DomainError):
        await audit.flush()
    assert len(fails.events) == audits.EVENTS_AT_ONCE
    await audit.flush()
    assert [one.principal for one in fails.events] == [f"p-{number}" for number in range(200)]


async def test_it_writes_each_second_and_at_the_end(
    audit: Audit, written: Written, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(audits, "_FLUSH_SECONDS", 0.01)
    monkeypatch.setattr(audits, "_RETRY_SECONDS", 0.01)
    written.away = True
    running = asyncio.create_task(audit.run())
    audit.note(Action.TOKENS_RELOAD, Outcome.ALLOWED, None)
    while not audit.problem:
        await asyncio.sleep(0.005)
    assert audit.problem == "audit events wait: it is away"
    written.away = False
    while not written.events:
        await asyncio.sleep(0.005)
    monkeypatch.setattr(audits, "_FLUSH_SECONDS", 60)
    await asyncio.sleep(0.05)
    assert audit.problem == ""
    audit.note(Action.SERVICE_START, Outcome.ALLOWED, None)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    assert [one.action for one in written.events] == [Action.TOKENS_RELOAD, Action.SERVICE_START]


async def test_what_is_lost_at_the_end_is_said(audit: Audit, written: Written, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(audits, "_log", structlog.get_logger())
    running = asyncio.create_task(audit.run())
    await asyncio.sleep(0)
    written.away = True
    audit.note(Action.SERVICE_START, Outcome.ALLOWED, None)
    audit.note(Action.SERVICE_START, Outcome.ALLOWED, None)
    running.cancel()
    with capture_logs() as logged:
        outcome = await asyncio.gather(running, return_exceptions=True)
    assert isinstance(outcome[0], asyncio.CancelledError)
    assert logged == [{"event": "audit_lost", "log_level": "error", "refusals": 2}]


def test_a_service_may_be_called_anything() -> None:
    assert Audit("the processor\n№ 1" + "x" * 99, Written())._service == ("the-processor---1" + "x" * 99)[:64]


def test_ids_of_the_trail_are_not_for_recordings() -> None:
    assert require_recording(A) == A
    for name in ("lucid-audit-", "lucid-audit-2026-01-31"):
        with pytest.raises(DomainError) as caught:
            require_recording(SessionId(name))
        assert caught.value.code == "session-reserved"


async def test_an_event_that_the_sink_does_not_understand_keeps_no_other_waiting() -> None:
    """M7: an older session-storage that did not know an action kept all events of a processor waiting, for ever."""

    class Older(Written):
        async def write(self, events) -> None:
            if any(event.action is Action.KEYS_ROTATE for event in events):
                raise DomainError("invalid-request", "events.1.action: not known")
            await super().write(events)

    written = Older()
    audit = Audit("x", written)
    for action in (Action.SERVICE_START, Action.KEYS_ROTATE, Action.TOKENS_RELOAD):
        audit.note(action, Outcome.ALLOWED, None)
    with capture_logs() as logs:
        await audit.flush()
    assert [event.action for event in written.events] == [Action.SERVICE_START, Action.TOKENS_RELOAD]
    assert [(log["event"], log["audit_event"]["action"]) for log in logs] == [("audit_event_refused", "keys.rotate")]
    await audit.flush()
    assert len(written.events) == 2
