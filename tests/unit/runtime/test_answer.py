"""Answers by the short way, from the real server over real sockets: they are what they are by the usual way."""

import asyncio
import gc
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import httpx
from starlette.requests import Request
from starlette.types import Receive, Scope, Send
from uvicorn.protocols.http.httptools_impl import RequestResponseCycle

from sessions.runtime.answer import ANSWER, send_json
from sessions.runtime.app import HotRoute
from sessions.runtime.metrics import REQUEST_SECONDS
from tests.unit.processor.servers import served_as_ours
from tests.unit.runtime.apps import app_of, client_of

_DESK = "https://desk.example"
_LARGE = 8 * 1024 * 1024


class _Hot:
    """Answers with what it was sent; to `large`, with more than a socket takes at once. Keeps which ways it took."""

    def __init__(self) -> None:
        self.short: list[bool] = []
        self.gate = asyncio.Event()
        self.gate.set()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        body = await Request(scope, receive).body()
        await self.gate.wait()
        content = json.dumps("x" * _LARGE if scope["path_params"]["name"] == "large" else body.decode())
        answer = scope.get(ANSWER)
        if answer is None:
            self.short.append(False)
        else:

            def noted(status: int, data: bytes) -> bool:
                self.short.append(answer(status, data))
                return self.short[-1]

            scope[ANSWER] = noted
        await send_json(content, 201, scope, receive, send)


Connect = Callable[[], Awaitable[tuple[asyncio.StreamReader, asyncio.StreamWriter]]]


@asynccontextmanager
async def _served() -> AsyncIterator[tuple[_Hot, Connect, str]]:
    hot = _Hot()
    app = app_of(hot_routes=[(HotRoute("/hot/{name}", hot, methods=["PUT"]), {"responses": {}})], cors_origins=[_DESK])
    async with served_as_ours(app) as (host, port):
        yield hot, lambda: asyncio.open_connection(host, port), f"http://{host}:{port}"


def _request(name: str, body: bytes, more: str = "") -> bytes:
    return f"PUT /hot/{name} HTTP/1.1\r\nhost: x\r\n{more}content-length: {len(body)}\r\n\r\n".encode() + body


async def _answer(reader: asyncio.StreamReader) -> tuple[bytes, bytes]:
    async with asyncio.timeout(20):
        head = await reader.readuntil(b"\r\n\r\n")
        return head, await reader.readexactly(int(head.split(b"content-length: ")[1].split(b"\r\n")[0]))


def _counted() -> float:
    found = REQUEST_SECONDS.labels("PUT", "/hot/{name}", 201)
    return float(found._buckets[-1].get() + sum(bucket.get() for bucket in found._buckets[:-1]))


async def test_it_is_the_same_answer() -> None:
    headers, before = {"x-request-id": "r-1"}, _counted()
    async with _served() as (hot, _, url), httpx.AsyncClient(base_url=url) as client:
        short = await client.put("/hot/a", content=b"hello", headers=headers)
        within = await client.put("/hot/a", content=b"hello", headers={**headers, "origin": _DESK})
    usual = _Hot()
    route = HotRoute("/hot/{name}", usual, methods=["PUT"])
    async with client_of(app_of(hot_routes=[(route, {"responses": {}})])) as client:
        plain = await client.put("/hot/a", content=b"hello", headers=headers)
    assert (hot.short, usual.short) == ([True, False], [False])
    assert short.status_code == within.status_code == plain.status_code == 201
    assert short.json() == within.json() == plain.json() == "hello"
    assert short.headers.pop("date")  # the server's, by either way
    assert within.headers["date"]
    assert sorted(short.headers.multi_items()) == sorted(plain.headers.multi_items())
    assert within.headers["access-control-allow-origin"] == _DESK
    assert "access-control-allow-origin" not in short.headers
    assert _counted() == before + 3


async def test_a_connection_is_kept_and_requests_may_follow_without_waiting() -> None:
    async with _served() as (hot, connect, _):
        reader, writer = await connect()
        bodies = [b"", b"1", b"22" * 40_000, b"333"]
        writer.write(b"".join(_request("a", body) for body in bodies))
        for body in bodies:
            head, content = await _answer(reader)
            assert head.startswith(b"HTTP/1.1 201 Created\r\n")
            assert json.loads(content) == body.decode()
        assert hot.short == [True] * 4
        writer.close()


async def test_one_that_is_the_last_of_its_connection() -> None:
    async with _served() as (hot, connect, _):
        reader, writer = await connect()
        writer.write(_request("a", b"hello", "connection: close\r\n"))
        head, content = await _answer(reader)
        assert b"\r\nconnection: close\r\n" in head
        assert json.loads(content) == "hello"
        assert await reader.read() == b""
        assert hot.short == [False]
        writer.close()


async def test_while_earlier_answers_are_not_taken_it_waits() -> None:
    async with _served() as (hot, connect, _):
        reader, writer = await connect()
        writer.write(_request("large", b"") + _request("a", b"hello"))
        async with asyncio.timeout(10):
            while len(hot.short) < 2:
                await asyncio.sleep(0.01)
        assert hot.short == [True, False]  # the second was not added to what the server holds already
        assert len((await _answer(reader))[1]) == _LARGE + 2
        assert json.loads((await _answer(reader))[1]) == "hello"
        writer.close()


async def test_to_a_client_that_went_away_nothing_is_written() -> None:
    async with _served() as (hot, connect, url):
        hot.gate.clear()
        _, writer = await connect()
        writer.write(_request("a", b"hello"))
        await asyncio.sleep(0.05)
        writer.transport.abort()
        await asyncio.sleep(0.05)
        hot.gate.set()
        async with asyncio.timeout(5):
            while not hot.short:
                await asyncio.sleep(0.01)
        assert hot.short == [False]
        async with httpx.AsyncClient(base_url=url) as client:  # and the server serves on
            assert (await client.put("/hot/a", content=b"next")).json() == "next"


def _requests() -> list[RequestResponseCycle]:
    return [found for found in gc.get_objects() if isinstance(found, RequestResponseCycle)]


async def test_nothing_of_a_request_waits_for_a_garbage_collection() -> None:
    async with _served() as (hot, connect, _):
        gc.collect()
        of_others = _requests()
        gc.disable()
        try:
            for way in ("", "connection: keep-alive\r\n", f"origin: {_DESK}\r\n"):
                reader, writer = await connect()
                for _ in range(20):
                    writer.write(_request("a", b"x" * 1000, way))
                    await _answer(reader)
                writer.close()
            found = [one for one in _requests() if not any(one is other for other in of_others)]
            assert len(hot.short) == 60
            assert len(found) <= 3  # a connection's last one, until it is closed
        finally:
            gc.enable()
