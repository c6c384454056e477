import asyncio
import base64
import os
from dataclasses import replace

import pytest
import structlog
from starlette.requests import Request
from starlette.responses import Response

from sessions.core import frames
from sessions.core.audit import Action, Outcome
from sessions.core.key_ring import KeyRing, SealedDek, WrappedDek
from sessions.core.types import SessionId
from sessions.processor.storage_answers import FrameAnswer, KeyCounts, Replacement, StoredChunk, key_json, read_keys
from sessions.processor.storage_client import StorageClient
from sessions.runtime.audit import Audit
from sessions.runtime.errors import PROBLEMS, DomainError
from tests.unit.processor.servers import TOKEN, Script, serving
from tests.unit.storage.chunks import House, envelope_of, event

A = SessionId("a")
_KEY = WrappedDek(os.urandom(16), "k", b"wrapped")


async def _error(work) -> DomainError:
    with pytest.raises(DomainError) as caught:
        await work
    return caught.value


async def test_audit_events(storage: StorageClient, house: House, script: Script, scripted: StorageClient) -> None:
    await storage.write([event(0), event(1)])
    (day,) = house.events.events.values()
    assert list(day.values()) == [event(0).to_bytes(), event(1).to_bytes()]
    script.problem(404, "not-found")  # of a storage that has no trail yet
    error = await _error(Audit("processor", scripted).own(Action.KEYS_STATUS, Outcome.ALLOWED, None))
    assert (error.code, error.retry_after_seconds) == ("audit-unavailable", 1)
    assert script.requests[0][:2] == ("POST", "/api/v1/audit-events")


async def test_against_storage_itself(storage: StorageClient, house: House) -> None:
    assert await storage.reachable() is None
    keys, created = await storage.open(A, {"a": 1}, _KEY)
    assert (keys, created) == ((_KEY,), True)
    other = WrappedDek(os.urandom(16), "k", b"other")
    assert await storage.open(A, None, other) == ((_KEY,), False)
    view, keys = await storage.session(A)
    assert (view["status"], keys, "keys" in view) == ("open", (_KEY,), False)
    data = envelope_of("a", 0)
    (answer,) = await storage.submit([data])
    assert answer.result == "stored"
    (unknown,) = await storage.submit([envelope_of("b", 0)])
    assert unknown == FrameAnswer("unknown-session", None, None)
    (chunk,), next_start = await storage.chunks(A, 0, 10)
    assert next_start is None
    assert chunk == StoredChunk(0, 5, len(data), answer.envelope_sha256, answer.leaf_hash)
    assert await storage.envelope(A, 0) == data
    assert (await _error(storage.envelope(A, 1))).code == "chunk-not-found"
    assert await storage.envelopes(A, 0, 9) == [data]
    assert (await _error(storage.envelopes(A, 1, 9))).code == "chunk-not-found"
    sealed = await storage.seal(A, 1)
    assert sealed["manifest"]["chunk_count"] == 1
    assert (await storage.shred(A, "admin-1"))["status"] == "shredded"
    gone = await _error(storage.envelope(A, 0))
    assert (gone.code, gone.members["shred_reason"], gone.members["shredded_by"]) == (
        "session-shredded",
        "requested",
        "admin-1",
    )
    assert (await _error(storage.session(SessionId("b")))).members == {"session_id": "b"}


async def test_what_is_sent(script: Script, scripted: StorageClient) -> None:
    script.json({"results": [{"result": "stored", "envelope_sha256": "x", "leaf_hash": "y"}] * 2})
    with structlog.contextvars.bound_contextvars(request_id="r-5"):
        await scripted.submit([b"one", b"two"])
    method, path, headers, body = script.requests[0]
    assert (method, path, body) == ("POST", "/api/v1/envelopes", frames.join([b"one", b"two"]))
    assert headers["authorization"] == f"Bearer {TOKEN}"
    assert headers["x-request-id"] == "r-5"
    assert headers["content-type"] == "application/octet-stream"
    script.answers.clear()
    script.json({"chunks": [], "next_start": 7})
    assert await scripted.chunks(A, 5, 2) == ([], 7)
    assert script.requests[1][1] == "/api/v1/sessions/a/chunks?start=5&limit=2"


_OURS = {"unauthorized", "forbidden", "internal", "too-many-requests"}


@pytest.mark.parametrize("code", sorted(PROBLEMS.keys() - _OURS))
async def test_a_problem_is_handed_on(script: Script, scripted: StorageClient, code: str) -> None:
    script.problem(PROBLEMS[code][0], code, missing=[[1, 2]], retry_after=7)
    error = await _error(scripted.seal(A, None))
    assert (error.code, error.detail, error.retry_after_seconds) == (code, "why", 7)
    assert error.members == {"missing": [[1, 2]]}


@pytest.mark.parametrize(
    ("status", "code", "message"),
    [
        (401, "unauthorized", "refuses our token: check STORAGE_TOKEN_FILE"),
        (403, "forbidden", "refuses our token: check STORAGE_TOKEN_FILE"),
        (500, "internal", "answered 'internal'"),
        (418, "teapot", "answered 'teapot'"),
    ],
)
async def test_a_problem_that_is_not_the_callers(script, scripted, status: int, code: str, message: str) -> None:
    script.problem(status, code)
    error = await _error(scripted.session(A))
    assert (error.code, error.retry_after_seconds) == ("storage-unavailable", 1)
    assert message in error.detail
    assert TOKEN not in error.detail


async def test_the_limit_of_our_token_is_not_the_callers(script: Script, scripted: StorageClient) -> None:
    script.problem(429, "too-many-requests", retry_after=1)
    error = await _error(scripted.session(A))
    assert (error.code, error.retry_after_seconds) == ("overloaded", 1)


@pytest.mark.parametrize("body", [b"", b"<html>", b"[]", b"{}", b'{"code": "x"}', b"null", b"\xff"])
async def test_an_answer_of_something_else(script: Script, scripted: StorageClient, body: bytes) -> None:
    script.answers.append(Response(body, 502, {"retry-after": "soon"}))
    error = await _error(scripted.session(A))
    assert (error.code, error.detail) == (
        "storage-unavailable",
        "session-storage answered HTTP 502; repeat the request",
    )


@pytest.mark.parametrize("body", [b"", b"<html>", b"[]", b"{}", b'{"results": [{}]}', b'{"keys": [{}]}'])
async def test_success_of_something_else(script: Script, scripted: StorageClient, body: bytes) -> None:
    script.answers.append(Response(body, 200))
    for work in (
        lambda: scripted.submit([b"x"]),
        lambda: scripted.session(A),
        lambda: scripted.open(A, None, _KEY),
        lambda: scripted.chunks(A, 0, 1),
    ):
        error = await _error(work())
        assert (error.code, error.retry_after_seconds) == ("storage-unavailable", 1)


@pytest.mark.parametrize("body", [b"", b"<html>", b"\0\0\0\5four", frames.join([b"x"] * 4)])
async def test_no_envelopes(script: Script, scripted: StorageClient, body: bytes) -> None:
    script.answers.append(Response(body, 200))
    error = await _error(scripted.envelopes(A, 0, 3))
    assert (error.code, error.retry_after_seconds) == ("storage-unavailable", 1)
    assert script.requests[0][1] == "/api/v1/sessions/a/envelopes?start=0&limit=3"


@pytest.mark.parametrize("body", [b"", b"<html>", b"5", b"null", b"[5]"])
async def test_no_object(script: Script, scripted: StorageClient, body: bytes) -> None:
    script.answers.append(Response(body, 200))
    for work in (lambda: scripted.seal(A, None), lambda: scripted.shred(A, "admin-1")):
        assert (await _error(work())).code == "storage-unavailable"


async def test_no_retry_after_that_is_no_number(script: Script, scripted: StorageClient) -> None:
    script.problem(503, "database-unavailable", retry_after="soon")
    assert (await _error(scripted.session(A))).retry_after_seconds is None


@pytest.mark.parametrize("count", [0, 1, 3])
async def test_another_number_of_answers(script: Script, scripted: StorageClient, count: int) -> None:
    script.json({"results": [{"result": "stored", "envelope_sha256": "x", "leaf_hash": "y"}] * count})
    error = await _error(scripted.submit([b"one", b"two"]))
    assert (error.code, error.retry_after_seconds) == ("storage-unavailable", 1)


async def test_nobody_there() -> None:
    async with StorageClient("http://127.0.0.1:1", TOKEN, 2) as client:
        error = await _error(client.session(A))
        assert (error.code, error.retry_after_seconds) == ("storage-unavailable", 1)
        assert "NoConnectionError" in error.detail
        assert await client.reachable() == "STORAGE_URL does not answer (NoConnectionError)"


async def test_too_slow(script: Script) -> None:
    async def slow(_: Request) -> Response:
        await asyncio.sleep(0.5)
        return Response()

    script.answers.append(slow)
    async with serving(script) as url, StorageClient(url, TOKEN, 0.05) as client:
        error = await _error(client.session(A))
        assert "NoAnswerInTimeError" in error.detail


async def test_not_ready(script: Script, scripted: StorageClient) -> None:
    script.json({"status": "failed"}, 503)
    assert await scripted.reachable() == "session-storage is not ready (HTTP 503)"


def test_keys_travel_as_base64() -> None:
    sealed = replace(_KEY, recovery=SealedDek("0123456789abcdef", b"sealed"))
    assert read_keys([key_json(_KEY), key_json(sealed)]) == (_KEY, sealed)
    assert base64.b64decode(key_json(_KEY)["dek_id"]) == _KEY.dek_id
    assert "recovery" not in key_json(_KEY), "storage that is older does not know it"
    assert read_keys([{**key_json(_KEY), "new": 1}]) == (_KEY,), "storage that is newer may know more"


async def test_rotation_against_storage_itself(storage: StorageClient, house: House) -> None:
    await storage.open(A, None, _KEY)
    await storage.open(SessionId("b"), None, _KEY)
    assert await storage.key_counts() == KeyCounts({"k": 2}, {None: 2}, ["a", "b"])
    assert await storage.outdated_rings("k", None, None, 10) == ([], None)
    (first,), cursor = await storage.outdated_rings("new", None, None, 1)
    (second,), _ = await storage.outdated_rings("new", None, cursor, 1)
    assert (first, second) == (KeyRing(A, (_KEY,)), KeyRing(SessionId("b"), (_KEY,)))
    new = replace(_KEY, kek_id="new", wrapped=b"anew", recovery=SealedDek("0123456789abcdef", b"sealed"))
    assert await storage.replace_keys([Replacement(A, _KEY, new)]) == 1
    assert await storage.replace_keys([Replacement(A, _KEY, new)]) == 0
    assert (await storage.session(A))[1] == (new,)
    assert (await _error(storage.outdated_rings("new", None, "nonsense", 1))).code == "invalid-request"


async def _break_off(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answers one request on each connection, offers to keep it, and closes it when the next one comes."""
    await reader.readuntil(b"\r\n\r\n")
    writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\n\r\n*")
    await writer.drain()
    await reader.read(1)
    writer.close()


async def test_a_kept_connection_that_is_closed_meanwhile_costs_nothing() -> None:
    server = await asyncio.start_server(_break_off, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with server, StorageClient(f"http://127.0.0.1:{port}", TOKEN, 5) as client:
        for _ in range(4):
            assert await client.envelope(A, 0) == b"*"
