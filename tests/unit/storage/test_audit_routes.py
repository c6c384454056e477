"""The audit trail over HTTP, on twins."""

from collections.abc import AsyncIterator
from datetime import timedelta

import httpx
import pytest

from sessions.core import frames
from sessions.core.audit import Action, session_of
from sessions.core.types import SessionId
from sessions.runtime.audit import EVENTS_AT_ONCE
from sessions.runtime.errors import DomainError
from sessions.storage import audit_routes, routes
from sessions.storage.mongo import Readiness
from tests.unit.runtime.apps import app_of, client_of
from tests.unit.storage.chunks import EPOCH, House, envelope_of, event
from tests.unit.storage.test_routes import _Everybody

DAY = EPOCH.date().isoformat()
NAME = session_of(DAY)


@pytest.fixture
async def client(house: House, readiness: Readiness) -> AsyncIterator[httpx.AsyncClient]:
    app = app_of(
        audit_routes.router(house.trail, house.events, house.ledger, readiness, house.reads),
        routes.router(house.ledger, house.shredder, house.evidence, readiness, house.reads),
        authenticator=_Everybody([]),
        audit=house.audit,
    )
    async with client_of(app) as client:
        yield client


def _as(role: str) -> dict[str, str]:
    return {"authorization": f"Bearer {role}"}


async def _write(client: httpx.AsyncClient, *events: object) -> httpx.Response:
    return await client.post("/api/v1/audit-events", json={"events": events}, headers=_as("processor"))


async def test_what_a_processor_writes_is_read_page_by_page(client: httpx.AsyncClient) -> None:
    events = [event(number).to_json() for number in range(5)]
    answer = await _write(client, *events)
    assert (answer.status_code, answer.json()) == (201, {"stored": 5})
    seen, cursor, pages = [], "", 0
    while cursor is not None:
        query = {"day": DAY, "limit": 2} | ({"cursor": cursor} if cursor else {})
        page = (await client.get("/api/v1/audit-events", params=query, headers=_as("audit"))).json()
        assert (page["day"], page["session_id"]) == (DAY, NAME)
        seen += page["events"]
        cursor, pages = page["next_cursor"], pages + 1
    assert seen == [{"index": index, "event": value} for index, value in enumerate(events)]
    assert pages == 3
    other = await client.get("/api/v1/audit-events?day=2026-02-01", headers=_as("admin"))
    assert other.json()["events"] == []


@pytest.mark.parametrize(
    "change",
    [
        {"version": 2},
        {"time": "2026-02-30T12:00:00.000Z"},
        {"principal": "x\n"},
        {"principal": "<script>"},
        {"action": "anything"},
        {"session_id": "-"},
        {"count": 0},
        {"count": "1"},
        {"more": 1},
    ],
)
async def test_what_is_no_event_is_refused_with_all_that_came_with_it(
    client: httpx.AsyncClient, house: House, change: dict
) -> None:
    answer = await _write(client, event().to_json(), event().to_json() | change)
    assert (answer.status_code, answer.json()["code"]) == (400, "invalid-request")
    assert house.events.events == {}


async def test_more_than_a_request_may_hold(client: httpx.AsyncClient) -> None:
    many = [event(number).to_json() for number in range(EVENTS_AT_ONCE + 1)]
    assert (await _write(client, *many)).status_code == 400
    assert (await _write(client, *many[1:])).status_code == 201


async def test_bytes_that_somebody_altered_are_shown_as_no_event(client: httpx.AsyncClient, house: House) -> None:
    await _write(client, event(0).to_json(), event(1).to_json())
    house.events.events[NAME][1] = b"{}"
    page = (await client.get(f"/api/v1/audit-events?day={DAY}", headers=_as("audit"))).json()
    assert [one["event"] is None for one in page["events"]] == [False, True]


async def test_days_and_how_far_they_are(client: httpx.AsyncClient, house: House) -> None:
    for days in range(3):
        house.time = EPOCH + timedelta(days=days)
        await house.trail.write([event(days)])
    await house.trail.close(NAME)
    manifest = await house.sealer.seal(NAME, None, "idle")
    page = (await client.get("/api/v1/audit-days?limit=2", headers=_as("audit"))).json()
    assert [one["day"] for one in page["days"]] == ["2026-02-02", "2026-02-01"]
    assert {(one["status"], one["events"], one["sealed_at"]) for one in page["days"]} == {("open", None, None)}
    rest = (await client.get(f"/api/v1/audit-days?limit=2&cursor={page['next_cursor']}", headers=_as("admin"))).json()
    assert rest["next_cursor"] is None
    (day,) = rest["days"]
    assert (day["day"], day["session_id"], day["status"], day["events"]) == (DAY, NAME, "sealed", 2)
    assert (day["root"], day["anchor"]["state"]) == (manifest.root.hex(), "pending")


async def test_a_day_is_shown_like_a_session_but_listed_apart(client: httpx.AsyncClient, house: House) -> None:
    await house.trail.write([event(0), event(1, action=Action.SESSION_SHRED)])
    status = (await client.get(f"/api/v1/sessions/{NAME}", headers=_as("audit"))).json()
    assert (status["status"], status["next_index"], status["chunk_count"], status["missing"]) == ("open", 2, 2, [])
    body = await client.get(f"/api/v1/sessions/{NAME}/chunks/1/envelope", headers=_as("audit"))
    assert body.content == event(1, action=Action.SESSION_SHRED).to_bytes()
    listed = (await client.get("/api/v1/sessions", headers=_as("audit"))).json()["sessions"]
    assert listed == []


async def test_no_envelope_gets_into_a_day(house: House) -> None:
    await house.trail.write([event()])
    await house.session("a")
    body = frames.join([envelope_of("a", 0), envelope_of(NAME, 1)])
    with pytest.raises(DomainError) as caught:
        await house.intake.submit(body)
    assert caught.value.code == "session-reserved"
    assert house.chunks.records.get(SessionId("a"), {}) == {}
