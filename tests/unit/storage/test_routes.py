"""session-storage's routes on twins: what is checked before the domain, and cursors."""

import base64
import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sessions.core import frames
from sessions.core.types import SessionId
from sessions.runtime.auth import Authenticator, Principal, Role
from sessions.runtime.budget import ByteBudget
from sessions.runtime.errors import DomainError
from sessions.runtime.times import to_rfc3339
from sessions.storage import anchor_routes, audit_routes, key_routes, retention_routes, routes, submit
from sessions.storage.mongo import Readiness
from sessions.storage.reads import ITEM_BYTES
from sessions.storage.routes import decode_cursor, encode_cursor
from tests import strategies
from tests.unit.runtime.apps import app_of, client_of
from tests.unit.storage.chunks import DEK_ID, House, ample_disk, disk_with, envelope_of, session_record


class _Everybody(Authenticator):
    """Takes the roles' names for tokens; `ROLE@PREFIX` is only for some sessions."""

    def authenticate(self, authorization: str | None) -> Principal:
        role, _, sessions = (authorization or "").removeprefix("Bearer ").partition("@")
        return Principal("x", frozenset({Role(role)}), sessions)


@pytest.fixture
async def client(house: House, readiness: Readiness) -> AsyncIterator[httpx.AsyncClient]:
    everybody = _Everybody([])
    endpoint = submit.SubmitEndpoint(
        house.intake, everybody, readiness=readiness, disk=ample_disk(), budget=ByteBudget(10_000), limit_bytes=5_000
    )
    app = app_of(
        routes.router(house.ledger, house.shredder, house.evidence, readiness, house.reads),
        anchor_routes.router(house.batches, readiness, lambda: 7, house.reads),
        key_routes.router(house.ledger, house.rings, readiness, house.reads),
        retention_routes.router(house.ledger, house.due, house.terms, readiness, house.reads),
        audit_routes.router(house.trail, house.events, house.ledger, readiness, house.reads),
        authenticator=everybody,
        audit=house.audit,
        hot_routes=[submit.route(endpoint)],
    )
    async with client_of(app, headers={"authorization": "Bearer processor"}) as client:
        yield client


_moments = st.integers(0, 250_000_000_000_000).map(
    lambda milliseconds: datetime(1970, 1, 1, tzinfo=UTC) + timedelta(milliseconds=milliseconds)
)


@given(_moments, strategies.session_ids)
def test_a_cursor_comes_back_as_it_went(moment: datetime, name: str) -> None:
    assert decode_cursor(encode_cursor(to_rfc3339(moment), name)) == (moment, name)


def _encoded(value: object) -> str:
    return base64.urlsafe_b64encode(json.dumps(value).encode()).decode()


@pytest.mark.parametrize(
    "cursor",
    [
        "",
        "x",
        "!!!!",
        "é",
        _encoded(None),
        _encoded([]),
        _encoded(["2026-01-01T00:00:00Z"]),
        _encoded(["2026-01-01T00:00:00", "a"]),
        _encoded(["yesterday", "a"]),
        _encoded([5, "a"]),
        _encoded(["2026-01-01T00:00:00Z", "/etc"]),
        _encoded(["2026-01-01T00:00:00Z", 5]),
        _encoded(["2026-01-01T00:00:00Z", "a", "b"]),
        base64.urlsafe_b64encode(b"\xff\xfe").decode(),
        base64.urlsafe_b64encode(b"[" * 300).decode(),
    ],
)
def test_what_is_no_cursor(cursor: str) -> None:
    with pytest.raises(DomainError, match=r"^cursor: ") as caught:
        decode_cursor(cursor)
    assert caught.value.code == "invalid-request"


async def test_the_list_is_walked_by_its_cursors(house: House, client: httpx.AsyncClient) -> None:
    assert (await client.get("/api/v1/sessions")).json() == {"sessions": [], "next_cursor": None}
    for number in range(5):
        await house.sessions.create(session_record(f"s{number}", minutes=number // 2))
    seen: list[str] = []
    query: dict[str, str | int] = {"limit": 2}
    while True:
        page = (await client.get("/api/v1/sessions", params=query)).json()
        seen += [session["session_id"] for session in page["sessions"]]
        if page["next_cursor"] is None:
            break
        query["cursor"] = page["next_cursor"]
    assert seen == ["s4", "s3", "s2", "s1", "s0"]
    found = await client.get("/api/v1/sessions", params={"status": "open", "opened_after": "2026-01-31T12:02:00.123Z"})
    assert [session["session_id"] for session in found.json()["sessions"]] == ["s4"]


@pytest.mark.parametrize(
    "query",
    [
        *("limit=0", "limit=1001", "status=ajar", "opened_after=now", "opened_after=2026-01-01T00:00:00", "x=1"),
        *("prefix=", "prefix=-a", "prefix=a%2F", "prefix=%3Cb%3E", f"prefix={'a' * 129}", "held=1", "held=false"),
        "prefix=a&opened_after=2026-01-01T00:00:00Z",
        "held=true&opened_before=2026-01-01T00:00:00Z",
    ],
)
async def test_a_query_that_is_not_as_documented(client: httpx.AsyncClient, query: str) -> None:
    answer = await client.get(f"/api/v1/sessions?{query}")
    assert (answer.status_code, answer.json()["code"]) == (400, "invalid-request")


async def test_lists_by_id_are_walked_by_their_cursors(house: House, client: httpx.AsyncClient) -> None:
    for number, name in enumerate(("a-3", "a-1", "b-1", "a-2", "a-4")):
        await house.sessions.create(session_record(name, minutes=number))
    first = (await client.get("/api/v1/sessions?prefix=a-&limit=3")).json()
    assert [session["session_id"] for session in first["sessions"]] == ["a-1", "a-2", "a-3"]
    query = {"prefix": "a-", "limit": 3, "cursor": first["next_cursor"]}
    rest = (await client.get("/api/v1/sessions", params=query)).json()
    assert ([session["session_id"] for session in rest["sessions"]], rest["next_cursor"]) == (["a-4"], None)
    await house.ledger.hold(SessionId("b-1"), held=True)
    held = (await client.get("/api/v1/sessions?held=true")).json()
    assert [session["session_id"] for session in held["sessions"]] == ["b-1"]


_KEY = {
    "dek_id": base64.b64encode(DEK_ID).decode(),
    "kek_id": "k",
    "wrapped": base64.b64encode(b"w").decode(),
    "recovery": None,
}


async def test_a_session_from_open_to_shredded(house: House, client: httpx.AsyncClient) -> None:
    body = {"metadata": {"a": 1}, "key": _KEY}
    assert (await client.put("/api/v1/sessions/a", json=body)).status_code == 201
    again = await client.put("/api/v1/sessions/a", json=body)
    assert (again.status_code, again.json()["keys"]) == (200, [_KEY])
    second = {**_KEY, "dek_id": base64.b64encode(b"1" * 16).decode()}
    assert (await client.post("/api/v1/sessions/a/keys", json=second)).json()["keys"] == [_KEY, second]
    answer = await client.post("/api/v1/envelopes", content=frames.join([envelope_of("a", 0), envelope_of("b", 0)]))
    assert [result["result"] for result in answer.json()["results"]] == ["stored", "unknown-session"]
    assert (await client.get("/api/v1/sessions/a")).json()["keys"] == [_KEY, second]
    auditor = {"authorization": "Bearer audit"}
    told = (await client.get("/api/v1/sessions/a", headers=auditor)).json()
    assert (told["keys"], told["metadata"]) == (None, {"a": 1})
    assert told["key_ids"] == [
        {"dek_id": dek_id, "kek_id": "k", "recipient": None} for dek_id in (DEK_ID.hex(), (b"1" * 16).hex())
    ]
    sealed = (await client.post("/api/v1/sessions/a/seal", json={})).json()
    manifest = await client.get("/api/v1/sessions/a/manifest")
    assert manifest.json() == sealed["manifest"]
    page = (await client.get("/api/v1/sessions/a/chunks")).json()
    assert ([chunk["index"] for chunk in page["chunks"]], page["next_start"]) == ([0], None)
    assert (await client.get("/api/v1/sessions/a/chunks/0/envelope")).content == envelope_of("a", 0)
    assert (await client.get("/api/v1/sessions/a/chunks/0/proof")).json()["root"] == sealed["root"]
    assert (await client.get("/api/v1/sessions/a/receipt")).json()["anchor"]["state"] == "pending"
    admin = {"authorization": "Bearer admin"}
    held = await client.put("/api/v1/sessions/a/hold", json={}, headers=admin)
    assert held.json()["held"] is True
    assert (await client.delete("/api/v1/sessions/a", headers=admin)).json()["code"] == "session-held"
    await client.put("/api/v1/sessions/a/hold", json={"held": False}, headers=admin)
    assert (await client.delete("/api/v1/sessions/a", headers=admin)).json()["status"] == "shredded"
    assert (await client.get("/api/v1/sessions/a/chunks/0/envelope")).status_code == 410
    assert house.sessions.records[SessionId("a")].keys == ()


async def test_terms_of_a_session_and_what_is_due(house: House, client: httpx.AsyncClient) -> None:
    await client.put("/api/v1/sessions/a", json={"metadata": {"retention": {"retain_days": 3}}, "key": _KEY})
    sealed_at = (await client.post("/api/v1/sessions/a/seal", json={})).json()["manifest"]["sealed_at"]
    admin, audit = {"authorization": "Bearer admin"}, {"authorization": "Bearer audit"}
    house.time = datetime.fromisoformat(sealed_at) + timedelta(days=2)
    refused = await client.delete("/api/v1/sessions/a", headers=admin)
    assert (refused.status_code, refused.json()["code"]) == (409, "session-retained")
    assert refused.json()["retained_until"] == to_rfc3339(house.time + timedelta(days=1))
    body = {"delete_after_days": 2}
    kept = (await client.put("/api/v1/sessions/a/retention", json=body, headers=admin)).json()
    assert (kept["retained_until"], kept["delete_at"]) == (None, to_rfc3339(house.time))
    due = (await client.get("/api/v1/retention/due", headers=audit)).json()
    assert due == {
        "sessions": [
            {
                "session_id": "a",
                "sealed_at": sealed_at,
                "delete_at": to_rfc3339(house.time),
                "retained_until": None,
                "verdict": "shred",
            }
        ],
        "next_cursor": None,
    }
    page = (await client.get("/api/v1/retention/due?limit=1", headers=admin)).json()
    rest = await client.get("/api/v1/retention/due", params={"cursor": page["next_cursor"]}, headers=admin)
    assert rest.json() == {"sessions": [], "next_cursor": None}
    for wrong in ({"retain_days": True}, {"retain_days": 1.5}, {"days": 1}, {"retain_days": -1}):
        answer = await client.put("/api/v1/sessions/a/retention", json=wrong, headers=admin)
        assert (answer.status_code, answer.json()["code"]) == (400, "invalid-request")
    shredded = await client.delete("/api/v1/sessions/a?requested_by=boss", headers=admin)
    assert shredded.json()["shredded_by"] == "x"  # only a processor can ask for another token
    gone = (await client.get("/api/v1/sessions/a/chunks/0/envelope")).json()
    assert (gone["code"], gone["shred_reason"], gone["shredded_by"]) == ("session-shredded", "requested", "x")


async def test_a_processor_says_for_whom_it_asks(client: httpx.AsyncClient) -> None:
    await client.put("/api/v1/sessions/a", json={"key": _KEY})
    await client.post("/api/v1/sessions/a/seal", json={})
    assert (await client.delete("/api/v1/sessions/a?requested_by=a%0Ab")).status_code == 400
    assert (await client.delete("/api/v1/sessions/a?requested_by=boss")).json()["shredded_by"] == "boss"


async def test_anchors(client: httpx.AsyncClient) -> None:
    assert (await client.get("/api/v1/anchors")).json() == {"anchors": [], "next_cursor": None, "head_block": 7}
    none = await client.get(f"/api/v1/anchors/{'ab' * 32}")
    assert (none.status_code, none.json()["code"]) == (404, "anchor-not-found")
    for path in ("/api/v1/anchors/abc", "/api/v1/anchors?cursor=x", "/api/v1/anchors?limit=0"):
        assert (await client.get(path)).status_code == 400


@pytest.mark.parametrize(
    ("method", "path", "role"),
    [
        ("GET", "/api/v1/sessions", "record"),
        ("GET", "/api/v1/sessions/a", "admin"),
        ("PUT", "/api/v1/sessions/a", "audit"),
        ("POST", "/api/v1/sessions/a/keys", "admin"),
        ("POST", "/api/v1/sessions/a/seal", "record"),
        ("DELETE", "/api/v1/sessions/a", "audit"),
        ("PUT", "/api/v1/sessions/a/hold", "audit"),
        ("PUT", "/api/v1/sessions/a/retention", "audit"),
        ("GET", "/api/v1/retention/due", "processor"),
        ("GET", "/api/v1/sessions/a/chunks", "replay"),
        ("POST", "/api/v1/envelopes", "record"),
        ("GET", "/api/v1/anchors", "record"),
    ],
)
async def test_other_roles_are_turned_away(client: httpx.AsyncClient, method: str, path: str, role: str) -> None:
    answer = await client.request(method, path, headers={"authorization": f"Bearer {role}"})
    assert (answer.status_code, answer.json()["code"]) == (403, "forbidden")


@pytest.mark.parametrize(
    ("method", "path", "role"),
    [
        ("GET", "/api/v1/sessions", "audit"),
        ("GET", "/api/v1/sessions/desk", "audit"),
        ("GET", "/api/v1/sessions/a/receipt", "audit"),
        ("DELETE", "/api/v1/sessions/a", "admin"),
        ("GET", "/api/v1/sessions/a/keys", "admin"),
        ("PUT", "/api/v1/sessions/a", "processor"),
        ("GET", "/api/v1/keys/outdated?kek_id=k", "processor"),
        ("GET", "/api/v1/anchors", "audit"),
        ("GET", f"/api/v1/anchors/{'ab' * 32}", "audit"),
    ],
)
async def test_a_token_for_some_sessions_sees_no_other(
    client: httpx.AsyncClient, method: str, path: str, role: str
) -> None:
    answer = await client.request(method, path, headers={"authorization": f"Bearer {role}@desk-"})
    assert (answer.status_code, answer.json()["code"]) == (403, "forbidden")
    assert "whose ids begin with desk-" in answer.json()["detail"]


async def test_frames_of_other_sessions_are_refused_and_none_is_stored(house: House, client: httpx.AsyncClient) -> None:
    for name in ("desk-1", "a"):
        assert (await client.put(f"/api/v1/sessions/{name}", json={"metadata": None, "key": _KEY})).status_code == 201
    restricted = {"authorization": "Bearer processor@desk-"}
    both = frames.join([envelope_of("desk-1", 0), envelope_of("a", 0)])
    refused = await client.post("/api/v1/envelopes", content=both, headers=restricted)
    assert (refused.status_code, refused.json()["code"]) == (403, "forbidden")
    assert not house.chunks.records
    own = frames.join([envelope_of("desk-1", 0)])
    answer = await client.post("/api/v1/envelopes", content=own, headers=restricted)
    assert [result["result"] for result in answer.json()["results"]] == ["stored"]
    assert (await client.get("/api/v1/sessions/desk-1", headers=restricted)).status_code == 200


async def test_frames_above_the_limit(client: httpx.AsyncClient) -> None:
    answer = await client.post("/api/v1/envelopes", content=bytes(5_001))
    assert (answer.status_code, answer.json()["code"]) == (413, "body-too-large")


async def test_before_the_database_is_ready_everything_waits(house: House) -> None:
    readiness = Readiness(None)
    everybody = _Everybody([])
    endpoint = submit.SubmitEndpoint(
        house.intake, everybody, readiness=readiness, disk=ample_disk(), budget=ByteBudget(10_000), limit_bytes=5_000
    )
    app = app_of(
        routes.router(house.ledger, house.shredder, house.evidence, readiness, house.reads),
        anchor_routes.router(house.batches, readiness, lambda: 7, house.reads),
        key_routes.router(house.ledger, house.rings, readiness, house.reads),
        authenticator=everybody,
        audit=house.audit,
        hot_routes=[submit.route(endpoint)],
    )
    async with client_of(app, headers={"authorization": "Bearer processor"}) as client:
        for method, path in (
            ("GET", "/api/v1/sessions"),
            ("GET", "/api/v1/sessions/a"),
            ("GET", "/api/v1/anchors"),
            ("POST", "/api/v1/envelopes"),
        ):
            answer = await client.request(method, path)
            assert (answer.status_code, answer.json()["code"]) == (503, "database-unavailable")
            assert answer.headers["retry-after"] == "2"


def test_a_requests_limit_is_the_target_or_one_envelope_of_the_largest_chunk() -> None:
    assert submit.body_limit(1) == 17 * 1024 * 1024
    largest = 64 * 1024 * 1024
    assert largest < submit.body_limit(largest) < largest + 4096


async def test_a_full_disk_refuses_content_before_it_is_read(house: House) -> None:
    readiness = Readiness(None)
    readiness.established.set()
    everybody, disk = _Everybody([]), disk_with(1, keep_mib=100)
    await disk.look()
    endpoint = submit.SubmitEndpoint(
        house.intake, everybody, readiness=readiness, disk=disk, budget=ByteBudget(10_000), limit_bytes=5_000
    )
    app = app_of(authenticator=everybody, hot_routes=[submit.route(endpoint)])
    async with client_of(app, headers={"authorization": "Bearer processor"}) as client:
        answer = await client.post("/api/v1/envelopes", content=frames.join([envelope_of("a", 0)]))
    assert (answer.status_code, answer.json()["code"], answer.headers["retry-after"]) == (507, "storage-full", "30")
    assert everybody.traffic.is_coming
    assert not house.chunks.records


@pytest.mark.parametrize(("query", "items"), [("", 1000), ("?limit=7", 7), ("?limit=%2B1000", 1000)])
async def test_pages_of_chunks_are_paid_for_by_what_they_may_have(
    house: House, client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch, query: str, items: int
) -> None:
    await house.session("a", 0)
    page, used = house.evidence.chunks, []

    async def watched(session_id: SessionId, start: int, limit: int) -> Any:
        used.append(house.reads.lists.used_bytes)
        return await page(session_id, start, limit)

    monkeypatch.setattr(house.evidence, "chunks", watched)
    assert (await client.get(f"/api/v1/sessions/a/chunks{query}")).status_code == 200
    assert used == [items * ITEM_BYTES]
