"""Key rings over HTTP: who may, cursors, and what is refused before a store sees it."""

import base64
import json

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sessions.core import key_ring
from sessions.core.key_ring import KeyRing, key_to_json
from sessions.core.types import SessionId
from sessions.runtime.errors import DomainError
from sessions.storage.key_models import MAX_REPLACEMENTS
from sessions.storage.key_rings import Group, Kind, Place
from sessions.storage.key_routes import decode_cursor, encode_cursor
from tests import strategies
from tests.unit.storage.chunks import House, key, session_record
from tests.unit.storage.test_routes import client

__all__ = ["client"]
A = SessionId("a")
_places = st.builds(Place, st.builds(Group, st.sampled_from(Kind), st.none() | st.text()), strategies.session_ids)


@given(_places)
def test_a_cursor_comes_back_as_it_went(place: Place) -> None:
    assert decode_cursor(encode_cursor(place)) == place


def _encoded(value: object) -> str:
    return base64.urlsafe_b64encode(json.dumps(value).encode()).decode()


@pytest.mark.parametrize(
    "cursor",
    [
        "",
        "x",
        "\u00e9",
        _encoded(None),
        _encoded(["kek", "k"]),
        _encoded(["king", "k", "a"]),
        _encoded([{}, "k", "a"]),
        _encoded(["kek", 5, "a"]),
        _encoded(["kek", "k", "/etc"]),
        _encoded(["kek", "k", None]),
        base64.urlsafe_b64encode(b"[" * 300).decode(),
    ],
)
def test_what_is_no_cursor(cursor: str) -> None:
    with pytest.raises(DomainError, match=r"^cursor: ") as caught:
        decode_cursor(cursor)
    assert caught.value.code == "invalid-request"


@pytest.fixture
async def filled(house: House) -> House:
    for name in ("a", "b", "c"):
        await house.sessions.create(session_record(name))
    return house


@pytest.mark.parametrize("role", ["record", "replay", "audit", "admin"])
@pytest.mark.parametrize("path", ["GET /keys", "GET /keys/outdated?kek_id=k", "POST /keys/replace"])
async def test_only_a_processor_rotates(client: httpx.AsyncClient, role: str, path: str) -> None:
    method, _, target = path.partition(" ")
    headers = {"authorization": f"Bearer {role}"}
    answer = await client.request(method, f"/api/v1{target}", headers=headers, json={"replacements": []})
    assert (answer.status_code, answer.json()["code"]) == (403, "forbidden")


async def test_a_key_ring_is_exported_for_an_administrator(client: httpx.AsyncClient, filled: House) -> None:
    for role, status in (("admin", 200), ("processor", 200), ("audit", 403), ("replay", 403), ("record", 403)):
        answer = await client.get("/api/v1/sessions/a/keys", headers={"authorization": f"Bearer {role}"})
        assert answer.status_code == status
        if status == 200:
            assert key_ring.from_bytes(answer.content) == KeyRing(A, (key(1),))
    assert (await client.get("/api/v1/sessions/none/keys")).json()["code"] == "session-not-found"
    await filled.ledger.seal(A, None, "recorder")
    await filled.shred(A)
    assert (await client.get("/api/v1/sessions/a/keys")).json()["code"] == "session-shredded"


async def test_outdated_rings_page_by_page(client: httpx.AsyncClient, filled: House) -> None:
    seen, cursor = [], None
    while True:
        query = {"kek_id": "new", "limit": 1} | ({"cursor": cursor} if cursor else {})
        page = (await client.get("/api/v1/keys/outdated", params=query)).json()
        seen += [ring["session_id"] for ring in page["rings"]]
        cursor = page["next_cursor"]
        if cursor is None:
            break
    assert seen == ["a", "b", "c"]
    own = (await client.get("/api/v1/keys/outdated", params={"kek_id": "kek-1"})).json()
    assert own == {"rings": [], "next_cursor": None}
    sealed = {"kek_id": "kek-1", "recipient": "0" * 16}
    found = (await client.get("/api/v1/keys/outdated", params=sealed)).json()["rings"]
    assert [ring["session_id"] for ring in found] == ["a", "b", "c"]
    assert found[0]["keys"] == [key_to_json(key(1))]


@pytest.mark.parametrize(
    "query", ["", "kek_id=a%20b", "kek_id=k&limit=0", "kek_id=k&limit=101", "kek_id=k&recipient=x", "kek_id=k&x=1"]
)
async def test_a_query_that_is_not_as_documented(client: httpx.AsyncClient, query: str) -> None:
    answer = await client.get(f"/api/v1/keys/outdated?{query}")
    assert (answer.status_code, answer.json()["code"]) == (400, "invalid-request")


def _replacement(**change: object) -> dict:
    new = {**key_to_json(key(1)), "kek_id": "new", "wrapped": "bmV3"}
    return {"session_id": "a", "expected": key_to_json(key(1))["wrapped"], "key": new, **change}


async def test_replacing(client: httpx.AsyncClient, filled: House) -> None:
    body = {"replacements": [_replacement(), _replacement(session_id="none")]}
    assert (await client.post("/api/v1/keys/replace", json=body)).json() == {"replaced": 1}
    assert (await client.post("/api/v1/keys/replace", json=body)).json() == {"replaced": 0}
    assert filled.sessions.records[A].keys[0].kek_id == "new"
    counts = (await client.get("/api/v1/keys")).json()
    assert counts["keks"] == [{"kek_id": "kek-1", "rings": 2}, {"kek_id": "new", "rings": 1}]
    assert counts["recipients"] == [{"recipient": None, "rings": 3}]
    assert counts["unsealed"] == ["a", "b", "c"]


@pytest.mark.parametrize(
    "replacements",
    [
        None,
        [{}],
        [_replacement(session_id="/")],
        [_replacement(expected="")],
        [_replacement(expected=5)],
        [_replacement(key={**key_to_json(key(1)), "recovery": {"recipient": "x", "sealed": "AAAA"}})],
        [_replacement(key={**key_to_json(key(1)), "recovery": {"recipient": "0" * 16, "sealed": ""}})],
        [
            _replacement(
                key={
                    **key_to_json(key(1)),
                    "recovery": {"recipient": "0" * 16, "sealed": base64.b64encode(bytes(4096)).decode()},
                }
            )
        ],
        [_replacement()] * (MAX_REPLACEMENTS + 1),
    ],
)
async def test_what_is_not_replaced(client: httpx.AsyncClient, filled: House, replacements) -> None:
    answer = await client.post("/api/v1/keys/replace", json={"replacements": replacements})
    assert (answer.status_code, answer.json()["code"]) == (400, "invalid-request")
    assert filled.sessions.records[A].keys == (key(1),)
