import hashlib
from collections.abc import AsyncIterator
from typing import Any

import pytest
from fastapi import APIRouter, Depends, Request
from pydantic import BaseModel

from sessions.runtime import body
from sessions.runtime.auth import Authenticator, Principal, Role, allow
from sessions.runtime.body import declared_length
from sessions.runtime.budget import ByteBudget
from sessions.runtime.errors import DomainError
from sessions.runtime.json_route import JSON_BODY_MAX_BYTES, JsonRoute
from tests.unit.runtime.apps import app_of, client_of


def test_a_declared_length() -> None:
    assert declared_length(None, 5) is None
    assert declared_length("5", 5) == 5
    with pytest.raises(DomainError) as caught:
        declared_length("6", 5)
    assert (caught.value.code, caught.value.members) == ("body-too-large", {"limit_bytes": 5})


def _receive(*messages: dict):
    left = list(messages)

    async def receive() -> dict:
        return left.pop(0)

    receive.left = left
    return receive


def _part(data: bytes, more: bool) -> dict:
    return {"type": "http.request", "body": data, "more_body": more}


async def _read(receive, limit: int, length: int | None = None) -> bytes:
    async with ByteBudget(100).reserve(0) as room:
        found = await body.read(receive, limit, room, length)
        assert room.size_bytes == len(found)
        return bytes(found)


async def test_a_body_in_parts() -> None:
    assert await _read(_receive(_part(b"ab", True), _part(b"", True), _part(b"c", False)), 3) == b"abc"
    assert await _read(_receive({"type": "http.request"}), 3) == b""
    assert await _read(_receive(_part(b"abc", False)), 3) == b"abc"


@pytest.mark.parametrize("length", [None, 0, 1, 5, 9])
@pytest.mark.parametrize("pieces", [[b"abcde"], [b"ab", b"c", b"", b"de"]])
async def test_a_body_is_as_long_as_it_is_declared_or_refused(length: int | None, pieces: list[bytes]) -> None:
    parts = [_part(piece, True) for piece in pieces[:-1]] + [_part(pieces[-1], False)]
    if length in (None, 5):
        assert await _read(_receive(*parts), 9, length) == b"abcde"
        return
    with pytest.raises(DomainError) as caught:
        await _read(_receive(*parts), 9, length)
    assert caught.value.code == "incomplete-body"


async def test_it_stops_at_the_first_byte_too_many() -> None:
    for parts in ((b"ab", b"cd"), (b"abcd",)):
        receive = _receive(*(_part(part, True) for part in parts), _part(b"never read", False))
        with pytest.raises(DomainError) as caught:
            await _read(receive, 3)
        assert caught.value.code == "body-too-large"
        assert len(receive.left) == 1


async def test_a_client_that_goes_away() -> None:
    with pytest.raises(DomainError) as caught:
        await _read(_receive(_part(b"ab", True), {"type": "http.disconnect"}), 3)
    assert caught.value.code == "incomplete-body"


def _request(receive, **headers: str) -> Request:
    raw = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
    return Request({"type": "http", "headers": raw}, receive)


@pytest.mark.parametrize("headers", [{"content_length": "2"}, {}])
async def test_what_is_held_is_what_has_come(headers: dict[str, str]) -> None:
    budget = ByteBudget(100)
    async with body.bounded(_request(_receive(_part(b"ab", False)), **headers), budget, 8, "recorder") as data:
        assert (data, budget.used_bytes) == (b"ab", 2)
    assert budget.used_bytes == 0


@pytest.mark.parametrize(
    ("message", "headers", "code"),
    [
        (_part(b"", False), {"content_length": "9"}, "body-too-large"),
        (_part(b"123456789", False), {}, "body-too-large"),
        ({"type": "http.disconnect"}, {}, "incomplete-body"),
    ],
)
async def test_a_refused_body_holds_nothing(message: dict, headers: dict[str, str], code: str) -> None:
    budget = ByteBudget(100)
    with pytest.raises(DomainError) as caught:
        async with body.bounded(_request(_receive(message), **headers), budget, 8, "recorder"):
            pytest.fail("not reached")
    assert (caught.value.code, budget.used_bytes) == (code, 0)


class _Model(BaseModel):
    text: str


def _json_routes() -> APIRouter:
    routes = APIRouter(route_class=JsonRoute)

    @routes.post("/echo")
    async def echo(request: _Model) -> int:
        return len(request.text)

    return routes


async def _in_parts(data: bytes) -> AsyncIterator[bytes]:
    for at in range(0, len(data), 50_000):
        yield data[at : at + 50_000]


@pytest.mark.parametrize("declared", [True, False])
async def test_small_json_is_bounded(declared: bool) -> None:
    async with client_of(app_of(_json_routes())) as client:
        for size, status in ((JSON_BODY_MAX_BYTES - 11, 200), (JSON_BODY_MAX_BYTES - 10, 413)):
            data = b'{"text":"' + b"x" * size + b'"}'
            content = data if declared else _in_parts(data)
            answer = await client.post("/echo", content=content, headers={"content-type": "application/json"})
            assert answer.status_code == status
            if status == 413:
                assert answer.json()["code"] == "body-too-large"


async def test_whoever_may_not_is_refused_before_the_body_is_read() -> None:
    """Found by trying each role with a body that is no JSON: FastAPI reads it first, and answered 400."""
    routes = APIRouter(route_class=JsonRoute, dependencies=[Depends(allow(Role.ADMIN))])

    @routes.post("/guarded")
    async def guarded(request: _Model) -> int:
        return len(request.text)

    entries = [(hashlib.sha256(role.encode()).digest(), Principal(role, frozenset({role}))) for role in Role]
    sent = 0

    async def counted() -> AsyncIterator[bytes]:
        nonlocal sent
        for _ in range(10):
            sent += 1
            yield b"{"

    async with client_of(app_of(routes, authenticator=Authenticator(entries))) as client:
        for token, status in ((None, 401), ("wrong", 401), ("audit", 403), ("admin", 400)):
            headers = {"content-type": "application/json"} | ({"authorization": f"Bearer {token}"} if token else {})
            sent = 0
            assert (await client.post("/guarded", content=counted(), headers=headers)).status_code == status
            assert (sent > 0) == (status == 400)
        headers = {"authorization": "Bearer admin"}
        assert (await client.post("/guarded", json={"text": "abc"}, headers=headers)).json() == 3


async def test_json_is_paid_for_at_what_it_costs_until_it_is_answered() -> None:
    """H5: 8 MB of empty lists became 420 MB; nothing counted them."""
    routes = APIRouter(route_class=JsonRoute)
    held: list[int] = []

    @routes.post("/lists")
    async def lists(request: list[Any]) -> int:
        held.append(app.state.budget.used_bytes)
        return len(request)

    app = app_of(routes)
    async with client_of(app) as client:
        for count, status in ((20_000, 200), (70_000, 400)):
            data = f"[{','.join(['[]'] * count)}]".encode()
            answer = await client.post("/lists", content=data, headers={"content-type": "application/json"})
            assert answer.status_code == status, answer.text
    assert held == [held[0]]
    assert held[0] > 40_000 * 100
    assert app.state.budget.used_bytes == 0


async def test_coded_json_is_refused() -> None:
    async with client_of(app_of(_json_routes())) as client:
        headers = {"content-type": "application/json", "content-encoding": "gzip"}
        answer = await client.post("/echo", content=b"{}", headers=headers)
        assert (answer.status_code, answer.json()["code"]) == (415, "unsupported-media-type")
