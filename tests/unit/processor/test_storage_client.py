import asyncio
import base64
import json
import os
from dataclasses import replace

import pytest
import structlog
from starlette.requests import Request
from starlette.responses import Response

from sessions.core import frames
from sessions.core.audit import Action, Outcome
from sessions.core.errors import CoreError
from sessions.core.key_ring import KeyRing, SealedDek, WrappedDek
from sessions.core.types import SessionId
from sessions.processor.storage_answers import (
    FrameAnswer,
    KeyCounts,
    Replacement,
    ReportAnswer,
    SealAnswer,
    StoredChunk,
    key_json,
    read_keys,
)
from sessions.processor.storage_client import SEAL_CONNECTIONS, StorageClient
from sessions.processor.storage_errors import RequestFailedError, UnheardError, fits_spool, is_away, is_transient
from sessions.processor.wire import BrokenOffError, NoConnectionError, NoRoomError, WireError
from sessions.runtime.audit import Audit
from sessions.runtime.errors import PROBLEMS, DomainError
from sessions.runtime.metadata import MAX_METADATA_BYTES, canonical_metadata
from tests.unit.processor.servers import TOKEN, Script, serving
from tests.unit.storage.chunks import DEK_ID, House, envelope_of, event

A = SessionId("a")
_KEY = WrappedDek(DEK_ID, "k", b"wrapped")


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


async def test_metadata_of_the_greatest_size_arrive_whatever_json_makes_of_them(
    storage: StorageClient, house: House
) -> None:
    """L8: escaped, they were more than storage takes of one request; what the spool had promised was set aside."""
    metadata = {"a": "\x7f" * (MAX_METADATA_BYTES - len('{"a":""}'))}
    assert (await storage.open(A, metadata, _KEY))[1]
    assert house.sessions.records[A].metadata == canonical_metadata(metadata)
    for wrong in ({"a": metadata["a"] + "x"}, {"a": "\ud800"}):
        with pytest.raises((DomainError, CoreError)):
            await storage.open(A, wrong, _KEY)


@pytest.mark.parametrize("levels", [300, 900, 30_000])
async def test_a_status_with_metadata_of_any_depth(storage: StorageClient, house: House, levels: int) -> None:
    """C1, B22: storage failed to serialise it, and the processor took storage for away."""
    await storage.open(A, None, _KEY)
    deep = b'{"a":' + b"[" * levels + b"]" * levels + b"}"
    house.sessions.records[A] = replace(house.sessions.records[A], metadata=deep)
    view, keys = await storage.session(A)
    assert (view["status"], keys, "metadata" in view) == ("open", (_KEY,), False)


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
    sealed = (await storage.seal(A, 1)).sealed
    assert sealed is not None
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
    assert (method, path, body) == ("POST", "/api/v1/envelopes?results=2", frames.join([b"one", b"two"]))
    assert headers["authorization"] == f"Bearer {TOKEN}"
    assert headers["x-request-id"] == "r-5"
    assert headers["content-type"] == "application/octet-stream"
    script.answers.clear()
    script.json({"chunks": [], "next_start": 7})
    assert await scripted.chunks(A, 5, 2) == ([], 7)
    assert script.requests[1][1] == "/api/v1/sessions/a/chunks?start=5&limit=2"


_OURS = {"unauthorized", "forbidden", "internal", "too-many-requests", "not-found"}


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
        (404, "not-found", "knows no such route: check STORAGE_URL, and update it first"),
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


REPORTED = {
    "asks": [{"session_id": "a", "ask_id": "0" * 16}],
    "asked": {"b": "1" * 16},
    "shredded": ["c"],
    "uptime_seconds": 7.5,
    "generation": "g",
    "retain_days": 3,
    "chunk_max_bytes": 1024,
}


async def test_a_report(script: Script, scripted: StorageClient) -> None:
    script.json({**REPORTED, "later": 1})
    assert await scripted.report("p", {"holdings": {}}) == ReportAnswer(
        asks={A: "0" * 16},
        asked={SessionId("b"): "1" * 16},
        shredded=[SessionId("c")],
        uptime_seconds=7.5,
        generation="g",
        retain_days=3,
        chunk_max_bytes=1024,
    )
    method, path, _, body = script.requests[0]
    assert (method, path, body) == ("POST", "/api/v1/processors/p/report", b'{"holdings": {}}')


async def test_a_storage_that_is_older_takes_no_reports(script: Script, scripted: StorageClient) -> None:
    script.problem(404, "not-found")
    script.json({"checks": {}})
    assert await scripted.report("p", {}) is None


@pytest.mark.parametrize(
    "wrong",
    [
        None,
        {},
        *({**REPORTED, name: None} for name in REPORTED if name != "generation"),
        {**REPORTED, "asks": [{"session_id": "../x", "ask_id": "0"}]},
        {**REPORTED, "asked": {"-": "0"}},
        {**REPORTED, "shredded": ["-"]},
        {**REPORTED, "uptime_seconds": "soon"},
    ],
)
async def test_an_answer_to_a_report_that_is_none(script: Script, scripted: StorageClient, wrong: object) -> None:
    script.json(wrong)
    error = await _error(scripted.report("p", {}))
    assert (error.code, isinstance(error, RequestFailedError)) == ("storage-unavailable", True)


async def test_a_seal_that_waits(script: Script, scripted: StorageClient) -> None:
    script.json({"session_id": "a", "waiting_for": [{"name": "p", "state": "missing"}, {"name": "q"}]}, 202)
    assert await scripted.seal(A, 3, processor="me", floor=2) == SealAnswer(None, ["p", "q"])
    assert json.loads(script.requests[0][3]) == {
        "chunk_count": 3,
        "sealed_by": "recorder",
        "processor": "me",
        "floor": 2,
    }
    script.answers.clear()
    script.json({"session_id": "a"}, 202)
    assert (await _error(scripted.seal(A, 3))).code == "storage-unavailable"


async def test_what_says_that_storage_is_away_and_what_says_it_of_one_request(
    script: Script, scripted: StorageClient
) -> None:
    """R5: one session that storage fails on must not send all others to the spool."""
    for status, code in ((500, "internal"), (418, "teapot"), (404, "not-found")):
        script.answers.clear()
        script.problem(status, code)
        error = await _error(scripted.session(A))
        assert (is_away(error), is_transient(error), fits_spool(error)) == (False, True, True)
    for status, code in ((503, "database-unavailable"), (507, "storage-full"), (401, "unauthorized")):
        script.answers.clear()
        script.problem(status, code)
        error = await _error(scripted.session(A))
        assert (is_away(error), is_transient(error), fits_spool(error)) == (True, True, True)
    for status, code, transient in ((503, "overloaded", True), (409, "session-sealed", False)):
        script.answers.clear()
        script.problem(status, code)
        error = await _error(scripted.session(A))
        assert (is_away(error), is_transient(error), fits_spool(error)) == (False, transient, False)
    async with StorageClient("http://127.0.0.1:1", TOKEN, 2) as nobody:
        assert is_away(await _error(nobody.session(A)))


# Pools


async def _hanging(script: Script) -> asyncio.Event:
    """A server that answers seals when the event is set, and all else at once."""
    goes_on = asyncio.Event()

    async def seal(request: Request) -> Response:
        if request.url.path.endswith("/seal"):
            await goes_on.wait()
        if request.url.path.endswith("/report"):
            report = {"asks": [], "asked": {}, "shredded": [], "uptime_seconds": 1, "generation": "g", "retain_days": 0}
            return Response(json.dumps(report))
        session = {"keys": [key_json(_KEY)], "root": "r", "manifest_sha256": "m", "checks": {}, "session_id": "a"}
        return Response(json.dumps(session))

    script.answers.append(seal)
    return goes_on


async def test_seals_that_take_long_take_no_connections_of_others(script: Script, scripted: StorageClient) -> None:
    goes_on = await _hanging(script)
    seals = [asyncio.create_task(scripted.seal(SessionId(f"evil-{number}"), 1, owner="evil")) for number in range(160)]
    async with asyncio.timeout(4):
        while len(script.requests) < SEAL_CONNECTIONS:
            await asyncio.sleep(0.001)
        await asyncio.sleep(0.05)
        assert len(script.requests) == SEAL_CONNECTIONS
        assert await scripted.reachable() is None
        assert await scripted.report("p", {}) is not None
        await scripted.open(A, None, _KEY)
        await scripted.session(A)
        goes_on.set()
        await asyncio.gather(*seals)


async def test_one_token_does_not_keep_others_from_sealing(script: Script, scripted: StorageClient) -> None:
    goes_on = await _hanging(script)
    flood = [asyncio.create_task(scripted.seal(SessionId(f"evil-{number}"), 1, owner="evil")) for number in range(160)]
    await asyncio.sleep(0.05)
    seal = asyncio.create_task(scripted.seal(A, 1, owner="other"))
    async with asyncio.timeout(4):
        await asyncio.sleep(0.05)
        goes_on.set()
        await seal
        await asyncio.gather(*flood)
    sealed = [path.split("/")[4] for _, path, *_ in script.requests]
    assert sealed.index("a") == SEAL_CONNECTIONS, "its turn is the next"


async def test_a_seal_that_gets_no_turn_may_be_repeated(
    script: Script, scripted: StorageClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    goes_on = await _hanging(script)
    monkeypatch.setattr(scripted._seal_turns, "_wait_seconds", 0.05)
    seals = [asyncio.create_task(scripted.seal(A, 1)) for _ in range(SEAL_CONNECTIONS)]
    await asyncio.sleep(0.05)
    error = await _error(scripted.seal(A, 1))
    assert (error.code, is_away(error), is_transient(error)) == ("overloaded", False, True)
    goes_on.set()
    await asyncio.gather(*seals)
    assert (await scripted.seal(A, 1)).sealed is not None


async def test_a_pool_in_use_is_no_outage(scripted: StorageClient, monkeypatch: pytest.MonkeyPatch) -> None:
    async def full(*_: object, **__: object) -> None:
        raise NoRoomError("all connections are in use")

    for wire in (scripted._wire, scripted._status):
        monkeypatch.setattr(wire, "request", full)
    error = await _error(scripted.session(A))
    assert (error.code, is_away(error)) == ("overloaded", False)
    assert await scripted.reachable() is None


async def test_only_a_request_that_was_not_repeated_is_known_to_be_unheard(
    scripted: StorageClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    errors: list[WireError] = []

    async def fails(*_: object, **__: object) -> None:
        raise errors.pop(0)

    monkeypatch.setattr(scripted._wire, "request", fails)
    for errors[:], unheard in (
        ([NoConnectionError()], True),
        ([BrokenOffError(), NoConnectionError()], False),
    ):
        error = await _error(scripted.session(A))
        assert (is_away(error), isinstance(error, UnheardError)) == (True, unheard)


async def test_who_asks_whether_storage_is_ready_shares_a_probe(script: Script, scripted: StorageClient) -> None:
    script.json({"checks": {}})
    assert await asyncio.gather(*(scripted.reachable() for _ in range(100))) == [None] * 100
    assert len(script.requests) == 1
    script.answers.clear()
    script.json({}, 503)
    asking = asyncio.create_task(scripted.reachable())
    await asyncio.sleep(0)
    asking.cancel()
    assert await scripted.reachable() == "session-storage is not ready (HTTP 503)"
