"""Processors over HTTP, and seals that wait for them, on twins."""

from collections.abc import AsyncIterator
from functools import partial
from typing import Any

import httpx
import pytest

from sessions.core.types import SessionId
from sessions.runtime.audit import Audit
from sessions.runtime.auth import Authenticator, Principal, Role
from sessions.storage import processor_routes, routes, seal_desk
from sessions.storage.chunk_limits import ChunkLimits
from sessions.storage.mongo import Readiness
from sessions.storage.processor_models import MAX_LISTED
from sessions.storage.processors import ASKS_AT_ONCE, PRESENT_SECONDS
from tests.unit.runtime.apps import Written, app_of, client_of
from tests.unit.storage.chunks import House

A = SessionId("a")
ASK = "0" * 16
LIMIT = 1024 * 1024


class _Everybody(Authenticator):
    """Takes the roles' names for tokens."""

    def authenticate(self, authorization: str | None) -> Principal:
        return Principal("x", frozenset({Role((authorization or "").removeprefix("Bearer "))}))


@pytest.fixture
async def house(monkeypatch: pytest.MonkeyPatch) -> House:
    monkeypatch.setattr(seal_desk, "_POLL_SECONDS", 0.001)
    one = House(retain_days=3)
    monkeypatch.setattr(one.ledger, "seal", partial(one.ledger.seal, wait_seconds=0.01))
    await one.session("a", 0, 1)
    return one


@pytest.fixture
def readiness() -> Readiness:
    one = Readiness(None)
    one.established.set()
    return one


@pytest.fixture
def written() -> Written:
    return Written()


@pytest.fixture
async def client(house: House, readiness: Readiness, written: Written) -> AsyncIterator[httpx.AsyncClient]:
    app = app_of(
        routes.router(house.ledger, house.shredder, house.evidence, readiness, house.reads),
        processor_routes.router(
            house.registry, house.sessions, house.uptime, house.terms, readiness, limits=ChunkLimits(LIMIT)
        ),
        authenticator=_Everybody([]),
        audit=Audit("storage", written),
    )
    async with client_of(app, headers={"authorization": "Bearer processor"}) as one:
        yield one


async def _report(client: httpx.AsyncClient, name: str = "p", **report: Any) -> dict[str, Any]:
    answer = await client.post(f"/api/v1/processors/{name}/report", json={"holdings": {}, **report})
    assert answer.status_code == 200, answer.text
    return dict(answer.json())


async def _seal(client: httpx.AsyncClient, **order: Any) -> httpx.Response:
    return await client.post("/api/v1/sessions/a/seal", json={"chunk_count": 2, **order})


async def test_a_report_and_its_answer(house: House, client: httpx.AsyncClient) -> None:
    house.pass_seconds(7.5)
    holdings = {"spooled_entries": 1, "spooled_bytes": 2, "spooled_sessions": 3, "quarantined_entries": 4}
    assert await _report(client, holdings=holdings) == {
        "asks": [],
        "asked": {},
        "shredded": [],
        "uptime_seconds": 7.5,
        "chunk_max_bytes": LIMIT,
        "generation": house.uptime_store.uptime.generation,
        "retain_days": 3,
    }
    for role in ("processor", "audit", "admin"):
        listed = await client.get("/api/v1/processors", headers={"authorization": f"Bearer {role}"})
        (shown,) = listed.json()["processors"]
        assert shown.pop("last_report_at")
        assert shown == {"name": "p", "state": "present", "missing_seconds": 0, **holdings}


async def test_a_report_of_a_later_version_is_understood(house: House, client: httpx.AsyncClient) -> None:
    await _report(client, holdings={"spooled_entries": 1, "later": 5}, later={"x": 1})
    assert house.processors.records["p"].holdings.spooled_entries == 1


async def test_a_seal_waits_for_a_processor_until_it_confirms(house: House, client: httpx.AsyncClient) -> None:
    for name in "pq":
        await _report(client, name)
    waits = await _seal(client, processor="p", keep=True, floor=2)
    assert waits.status_code == 202
    assert (waits.json()["session_id"], [one["name"] for one in waits.json()["waiting_for"]]) == ("a", ["q"])
    (ask,) = (await _report(client, "q"))["asks"]
    assert ask["session_id"] == "a"
    answer = await _report(client, "q", confirmed=[{**ask, "floor": 1}], promised=["a"])
    assert (answer["asks"], answer["asked"]) == ([], {"a": ask["ask_id"]})
    await house.desk.sweep()
    sealed = await _seal(client, processor="p", keep=True)
    assert (sealed.status_code, sealed.json()["manifest"]["chunk_count"]) == (200, 2)
    assert (await _report(client, "q", promised=["a"]))["asked"] == {}


async def test_an_order_that_is_not_kept_is_answered_and_gone(house: House, client: httpx.AsyncClient) -> None:
    await _report(client, "q")
    assert (await _seal(client, processor="p", keep=False)).status_code == 202
    assert house.sessions.records[A].closing is None


async def test_a_processor_of_an_earlier_version_keeps_its_order_itself(
    house: House, client: httpx.AsyncClient
) -> None:
    """0.1.0 knows no 202: it would take it for a seal."""
    await _report(client, "q")
    waits = await _seal(client)
    assert (waits.status_code, waits.json()["code"], waits.json()["waiting_for"]) == (503, "overloaded", ["q"])
    assert waits.headers["retry-after"] == "2"
    assert house.sessions.records[A].closing is None
    (ask,) = (await _report(client, "q"))["asks"] or [None]
    assert ask is None
    house.pass_seconds(601)
    assert (await _seal(client)).status_code == 200, "a lost one is not waited for"


async def test_a_processor_learns_which_of_its_quarantined_sessions_were_shredded(
    house: House, client: httpx.AsyncClient
) -> None:
    await house.session("b")
    await house.sealer.seal(A, None, "recorder")
    house.pass_seconds(3 * 86_400)
    await house.shred(A)
    assert (await _report(client, quarantined=["a", "b", "none"]))["shredded"] == ["a"]


async def test_one_that_leaves_is_not_waited_for(client: httpx.AsyncClient) -> None:
    await _report(client, "q")
    await _report(client, "q", leaving=True)
    assert (await _seal(client, processor="p")).status_code == 200


async def test_one_is_forgotten_by_an_admin_and_that_is_audited(client: httpx.AsyncClient, written: Written) -> None:
    await _report(client, "q")
    admin = {"authorization": "Bearer admin"}
    assert (await client.delete("/api/v1/processors/q", headers=admin)).status_code == 204
    gone = await client.delete("/api/v1/processors/q", headers=admin)
    assert (gone.status_code, gone.json()["code"]) == (404, "not-found")
    assert (await _seal(client, processor="p")).status_code == 200
    assert [(action, outcome) for _, action, _, outcome, _ in written.told()] == [
        ("processor.forget", "begun"),
        ("processor.forget", "allowed"),
        ("processor.forget", "begun"),
    ]


@pytest.mark.parametrize(
    ("method", "path", "role"),
    [
        *(("GET", "/api/v1/processors", role) for role in ("record", "replay")),
        *(("POST", "/api/v1/processors/p/report", role) for role in ("record", "replay", "audit", "admin")),
        *(("DELETE", "/api/v1/processors/p", role) for role in ("record", "replay", "audit", "processor")),
    ],
)
async def test_other_roles_are_turned_away(client: httpx.AsyncClient, method: str, path: str, role: str) -> None:
    answer = await client.request(method, path, headers={"authorization": f"Bearer {role}"})
    assert (answer.status_code, answer.json()["code"]) == (403, "forbidden")


@pytest.mark.parametrize("name", ["-p", ".p", "p%2Fq", "p%00", "p q", "p" * 129, "$p", "p%0A"])
async def test_what_is_no_name(client: httpx.AsyncClient, name: str) -> None:
    answer = await client.post(f"/api/v1/processors/{name}/report", json={"holdings": {}})
    assert answer.status_code in (400, 404)


@pytest.mark.parametrize(
    "report",
    [
        {},
        {"holdings": None},
        {"holdings": {"spooled_entries": -1}},
        {"holdings": {"spooled_bytes": 2**53}},
        {"holdings": {"spooled_entries": "x"}},
        {"holdings": {}, "confirmed": [{"session_id": "../a", "ask_id": ASK}]},
        {"holdings": {}, "confirmed": [{"session_id": "a", "ask_id": "0" * 15}]},
        {"holdings": {}, "confirmed": [{"session_id": "a", "ask_id": {"$ne": ""}}]},
        {"holdings": {}, "confirmed": [{"session_id": "a", "ask_id": ASK, "floor": -1}]},
        {"holdings": {}, "confirmed": [{"session_id": "a", "ask_id": ASK}] * (ASKS_AT_ONCE + 1)},
        {"holdings": {}, "promised": ["a"] * (MAX_LISTED + 1)},
        {"holdings": {}, "promised": [{"$gt": ""}]},
        {"holdings": {}, "quarantined": ["a"] * (MAX_LISTED + 1)},
        {"holdings": {}, "after": "/"},
        {"holdings": {}, "leaving": "perhaps"},
    ],
)
async def test_what_is_no_report(house: House, client: httpx.AsyncClient, report: dict[str, Any]) -> None:
    answer = await client.post("/api/v1/processors/p/report", json=report)
    assert (answer.status_code, answer.json()["code"]) == (400, "invalid-request")
    assert house.processors.records == {}


async def test_before_the_database_is_ready_everything_waits(client: httpx.AsyncClient, readiness: Readiness) -> None:
    readiness.established.clear()
    for method, path, role in (
        ("GET", "/api/v1/processors", "admin"),
        ("POST", "/api/v1/processors/p/report", "processor"),
        ("DELETE", "/api/v1/processors/p", "admin"),
    ):
        answer = await client.request(method, path, json={"holdings": {}}, headers={"authorization": f"Bearer {role}"})
        assert (answer.status_code, answer.json()["code"]) == (503, "database-unavailable")


async def test_a_missing_processor_is_shown_as_such(house: House, client: httpx.AsyncClient) -> None:
    await _report(client, "q")
    house.pass_seconds(PRESENT_SECONDS + 5)
    (waited,) = (await _seal(client, processor="p")).json()["waiting_for"]
    assert (waited["name"], waited["state"], waited["missing_seconds"]) == ("q", "missing", 20)
