"""Each call of the client, and each way in which an answer can be wrong."""

import json
import socket

import httpx
import pytest
from starlette.responses import JSONResponse, Response

from sessions.client import AsyncClient, Client, RetryPolicy
from sessions.client import errors as e
from sessions.core.errors import InvalidSessionIdError
from sessions.core.receipt import Anchor, AnchorState
from tests.unit.client.conftest import QUICK
from tests.unit.client.fake import TOKEN, Cut, Fake, problem


async def test_open_put_status_seal(client: AsyncClient, fake: Fake) -> None:
    assert await client.open_session("s", {"who": "me"}) is True
    assert await client.open_session("s", {"who": "me"}) is False
    first = await client.put_chunk("s", 0, b"hello")
    assert (first.new, first.plaintext_bytes, first.durability) == (True, 5, "stored")
    again = await client.put_chunk("s", 0, b"hello")
    assert not again.new
    assert again.leaf_hash == first.leaf_hash
    seen = await client.status("s")
    assert (seen.next_index, seen.missing, seen.status, seen.anchor) == (1, (), "open", None)
    sealed = await client.seal("s", 1)
    assert sealed.root == sealed.manifest.root == first.leaf_hash
    assert (await client.status("s")).anchor == Anchor()


async def test_the_same_id_is_never_sent_when_it_is_none(client: AsyncClient, fake: Fake) -> None:
    for name in ("", "../etc", "a/b", "a b", "x" * 129):
        with pytest.raises(InvalidSessionIdError):
            await client.status(name)
    assert not fake.requests


async def test_auditor_calls(client: AsyncClient, fake: Fake, tmp_path) -> None:
    for index in range(7):
        await client.put_chunk("s", index, bytes([index]) * (index + 1))
    await client.seal("s")
    manifest = fake.sessions["s"].manifest
    assert await client.manifest("s") == manifest
    assert [one.index for one in [c async for c in client.chunks("s")]] == list(range(7))
    assert [one.index for one in [c async for c in client.chunks("s", start=5)]] == [5, 6]
    proof = await client.proof("s", 3)
    assert proof.root == manifest.root
    assert (await client.envelope("s", 2)).startswith(b"LSE1")
    assert (await client.receipt("s")).batch is None
    assert [one.root.hex() async for one in client.anchors()] == ["ab" * 32]
    assert (await client.anchor(bytes.fromhex("ab" * 32))).sessions == ("s",)
    await client.hold("s", held=True)
    for name in ("a", "b", "c", "d"):
        await client.open_session(name)
    assert [one.session_id async for one in client.list_sessions()] == ["s", "d", "c", "b", "a"]
    assert [one.session_id async for one in client.list_sessions(status="sealed")] == ["s"]
    count, size = await client.envelopes("s", tmp_path / "envelopes")
    assert (count, size) == (7, manifest.envelope_bytes)
    asked = len(fake.requests)
    (tmp_path / "envelopes" / "000000000002.lse").write_bytes(b"damaged")
    seen = []
    await client.envelopes("s", tmp_path / "envelopes", progress=lambda *done: seen.append(done))
    fetched = [path for _, path in fake.requests[asked:] if path.endswith("envelope")]
    assert fetched == ["/api/v1/sessions/s/chunks/2/envelope"]
    assert seen[-1] == (7, size)
    await client.delete("s")
    assert not fake.sessions["s"].chunks


async def test_waiting_for_the_anchor(client: AsyncClient, fake: Fake) -> None:
    await client.open_session("s")
    await client.seal("s")
    states = []

    def on_wait(state: str) -> None:
        states.append(state)
        fake.anchor = Anchor(state=AnchorState.SUBMITTED if len(states) == 1 else AnchorState.CONFIRMED)

    got = await client.receipt("s", wait_seconds=5, poll_seconds=0.01, on_wait=on_wait)
    assert states == ["pending", "submitted"]
    assert got.anchor.state is AnchorState.CONFIRMED
    fake.anchor = Anchor()
    assert (await client.receipt("s", wait_seconds=0.05, poll_seconds=0.01)).anchor.state is AnchorState.PENDING


@pytest.mark.parametrize(
    ("status", "code", "kind", "hint"),
    [
        (401, "unauthorized", e.UnauthorizedError, "LUCID_TOKEN"),
        (403, "forbidden", e.UnauthorizedError, "role"),
        (404, "session-not-found", e.NotFoundError, "session id"),
        (409, "chunk-conflict", e.RefusedError, "new session id"),
        (409, "session-sealed", e.RefusedError, "new session id"),
        (410, "session-shredded", e.RefusedError, "destroyed"),
        (413, "body-too-large", e.RefusedError, "smaller"),
        (416, "range-not-satisfiable", e.RefusedError, ""),
        (500, "internal", e.BusyError, ""),
    ],
)
async def test_error_answers_are_raised_at_once(client: AsyncClient, fake: Fake, *, status, code, kind, hint) -> None:
    fake.fault("PUT", "/chunks/0", problem(status, code, extra=1))
    with pytest.raises(kind) as caught:
        await client.put_chunk("s", 0, b"x")
    error = caught.value
    assert (error.status, error.code, error.request_id, error.problem["extra"]) == (status, code, "r-1", 1)
    assert hint in error.hint
    assert str(error) == f"it is {code} [{status} {code}]"
    assert len(fake.requests) == 1


async def test_an_error_without_a_problem_body(client: AsyncClient, fake: Fake) -> None:
    fake.fault(
        "GET",
        "/s",
        Response("<h1>no</h1>", 404, {"x-request-id": "r-9"}),
        JSONResponse([], 404),
        Response(b" " * 2_000_000, 404),
    )
    for _ in range(3):
        with pytest.raises(e.NotFoundError, match="HTTP status 404") as caught:
            await client.status("s")
    assert (caught.value.code, caught.value.detail) == ("", "HTTP status 404")


@pytest.mark.parametrize("status", [429, 502, 503, 504, 507])
async def test_what_may_pass_is_tried_again(client: AsyncClient, fake: Fake, status) -> None:
    fake.fault("PUT", "/chunks/0", *[problem(status, "overloaded")] * 3)
    assert (await client.put_chunk("s", 0, b"x")).new
    assert len(fake.requests) == 4


@pytest.mark.parametrize(
    ("after", "least"), [("1", 1.0), ("Thu, 01 Jan 1970 00:00:00 GMT", 0.0), ("soon", 0.0), ("", 0.0)]
)
async def test_retry_after_is_obeyed(client: AsyncClient, fake: Fake, after, least) -> None:
    fake.fault("PUT", "/chunks/0", problem(503, "overloaded", {"retry-after": after}))
    import time

    begun = time.monotonic()
    await client.put_chunk("s", 0, b"x")
    assert least <= time.monotonic() - begun < least + 0.8


async def test_a_retry_after_beyond_the_budget_is_not_waited_for(client: AsyncClient, fake: Fake) -> None:
    fake.fault("PUT", "/chunks/0", problem(503, "overloaded", {"retry-after": "30"}))
    with pytest.raises(e.BusyError) as caught:
        await client.put_chunk("s", 0, b"x")
    assert caught.value.retry_after_seconds == 30
    assert len(fake.requests) == 1


async def test_connection_refused(fake: Fake) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    policy = RetryPolicy(budget_seconds=0.1, wait_initial_seconds=0.01)
    async with AsyncClient(f"http://127.0.0.1:{port}", token=TOKEN, retry=policy) as client:
        with pytest.raises(e.UnreachableError, match=str(port)) as caught:
            await client.status("s")
    assert "running" in caught.value.hint


async def test_a_service_that_does_not_answer_in_time(fake: Fake) -> None:
    fake.pause_seconds = 0.5
    async with AsyncClient(fake.url, token=TOKEN, retry=RetryPolicy(budget_seconds=0)) as client:
        client._processor._http.timeout = httpx.Timeout(0.05)
        with pytest.raises(e.UnreachableError, match="in time"):
            await client.status("s")


async def test_an_answer_cut_short_is_asked_for_again(client: AsyncClient, fake: Fake) -> None:
    await client.open_session("s")
    fake.fault("GET", "/s", Cut(b'{"session_id": "s"', 500), Cut(b"", 10))
    assert (await client.status("s")).session_id == "s"
    assert len(fake.requests) == 4


@pytest.mark.parametrize(
    "answer",
    [
        Response("not json"),
        Response(b"\xff\xfe"),
        Response("[" * 100_000),
        JSONResponse([]),
        JSONResponse({}),
        JSONResponse({"session_id": "s", "status": "odd"}),
        Response(b" " * (16 * 1024 * 1024 + 1)),
        Response("", 304),
        Response("", 302, {"location": "https://elsewhere.invalid/"}),
    ],
)
async def test_answers_that_are_none(client: AsyncClient, fake: Fake, answer) -> None:
    fake.fault("GET", "/s", answer)
    with pytest.raises(e.BadAnswerError):
        await client.status("s")
    assert len(fake.requests) == 1


@pytest.mark.parametrize("missing", ["x", [[1]], [[0, True]], [1], None])
async def test_a_status_with_odd_gaps(client: AsyncClient, fake: Fake, missing) -> None:
    await client.open_session("s")
    fake.fault("GET", "/s", JSONResponse({**fake._status("s"), "missing": missing}))
    with pytest.raises(e.BadAnswerError, match="missing"):
        await client.status("s")


@pytest.mark.parametrize(
    "change",
    [
        {"envelope_sha256": "00" * 32},
        {"leaf_hash": "00" * 32},
        {"leaf_hash": "zz" * 32},
        {"leaf_hash": "00"},
        {"envelope_bytes": 1},
        {"durability": "perhaps"},
        {"plaintext_bytes": 4},
        {"index": -1},
    ],
)
async def test_an_acknowledgement_that_does_not_hold(client: AsyncClient, fake: Fake, change) -> None:
    await client.put_chunk("s", 0, b"x")
    fake.fault("PUT", "/chunks/0", JSONResponse({**fake.ack("s", 0), **change}))
    with pytest.raises(e.BadAnswerError):
        await client.put_chunk("s", 0, b"x")


async def test_answers_about_something_else(client: AsyncClient, fake: Fake) -> None:
    for name in ("s", "t"):
        for index in range(2):
            await client.put_chunk(name, index, b"x")
    fake.fault("PUT", "/s/chunks/0", JSONResponse(fake.ack("s", 1)))
    with pytest.raises(e.BadAnswerError, match="another one"):
        await client.put_chunk("s", 0, b"x")
    sealed = json.loads(fake._seal("t", fake.sessions["t"], None).body)
    fake.fault("POST", "/s/seal", JSONResponse(sealed), JSONResponse({**sealed, "root": "00" * 32}))
    with pytest.raises(e.BadAnswerError, match="another session"):
        await client.seal("s")
    with pytest.raises(e.BadAnswerError, match="not that of its manifest"):
        await client.seal("s")
    fake.fault("GET", "/s/receipt", JSONResponse(fake.receipt("t").to_json()))
    with pytest.raises(e.BadAnswerError, match="another one"):
        await client.receipt("s")
    fake.fault("GET", "/s/chunks/0/proof", JSONResponse(fake.proof("t", 0).to_json()))
    with pytest.raises(e.BadAnswerError, match="another one"):
        await client.proof("s", 0)
    fake.fault("GET", "/t/chunks/0/proof", JSONResponse({**fake.proof("t", 0).to_json(), "path": ["00" * 32]}))
    with pytest.raises(e.BadAnswerError, match="another root"):
        await client.proof("t", 0)
    fake.fault("GET", "/manifest", Response(json.dumps(sealed["manifest"])))
    with pytest.raises(e.BadAnswerError, match="canonical"):
        await client.manifest("t")


async def test_lists_that_do_not_end(client: AsyncClient, fake: Fake) -> None:
    for index in range(2):
        await client.put_chunk("s", index, b"x")
    rows = [fake.ack("s", 0), fake.ack("s", 1)]
    for answer in (
        {"chunks": rows[::-1], "next_start": None},
        {"chunks": rows, "next_start": 0},
        {"chunks": [{**rows[0], "leaf_hash": None}], "next_start": None},
    ):
        fake.fault("GET", "/chunks", JSONResponse(answer))
        with pytest.raises(e.BadAnswerError):
            [one async for one in client.chunks("s")]
    fake.fault("GET", "/anchors", JSONResponse({"anchors": [{"sessions": 1}], "next_cursor": None}))
    with pytest.raises(e.BadAnswerError):
        [one async for one in client.anchors()]
    fake.fault("GET", "/anchors/", JSONResponse({**json.loads(fake._anchors([]).body)["anchors"][0], "sessions": [1]}))
    with pytest.raises(e.BadAnswerError, match="session ids"):
        await client.anchor(b"\1" * 32)


async def test_anchors_come_in_pages(client: AsyncClient, fake: Fake) -> None:
    first = json.loads(fake._anchors([]).body)
    fake.fault("GET", "/anchors", JSONResponse({**first, "next_cursor": "7"}))
    assert len([one async for one in client.anchors()]) == 2


@pytest.mark.parametrize("body", [b"another", b"\0" * 5000])
async def test_an_envelope_that_is_not_the_listed_one(client: AsyncClient, fake: Fake, tmp_path, body) -> None:
    await client.put_chunk("s", 0, b"x" * 10)
    fake.fault("GET", "/envelope", Response(body))
    with pytest.raises(e.BadAnswerError):
        await client.envelopes("s", tmp_path)
    assert not list(tmp_path.glob("*.lse"))


async def test_a_folder_that_cannot_be_written(client: AsyncClient, fake: Fake, tmp_path) -> None:
    await client.put_chunk("s", 0, b"x")
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(e.TargetError, match="cannot write"):
        await client.envelopes("s", tmp_path / "file")
    (tmp_path / "000000000000.lse.part").mkdir()
    with pytest.raises(e.TargetError, match="cannot write"):
        await client.envelopes("s", tmp_path)


async def test_without_storage(fake: Fake) -> None:
    async with AsyncClient(fake.url, token=TOKEN, retry=QUICK) as client:
        with pytest.raises(e.ClientError, match="storage") as caught:
            await client.proof("s", 0)
    assert "LUCID_STORAGE_URL" in caught.value.hint


@pytest.mark.parametrize(
    "url", ["ftp://x", "127.0.0.1:8085", "http://", "http://[", "http://\0", "http://127.0.0.1:99999"]
)
async def test_urls_that_are_none(url) -> None:
    with pytest.raises(e.ClientError):
        async with AsyncClient(url, retry=RetryPolicy(budget_seconds=0)) as client:
            await client.status("s")


@pytest.mark.parametrize("token", ["lucid_ü", "a\nb"])
async def test_tokens_that_no_header_holds(fake: Fake, token) -> None:
    with pytest.raises(e.ClientError) as caught:
        async with AsyncClient(fake.url, token=token, retry=QUICK) as client:
            await client.status("s")
    assert token not in str(caught.value)


async def test_the_token_is_in_no_repr(client: AsyncClient) -> None:
    assert TOKEN not in repr(client) + repr(client._processor) + str(vars(client))


def test_the_synchronous_face(fake: Fake, tmp_path) -> None:
    with Client(fake.url, fake.url, token=TOKEN, retry=QUICK) as client:
        assert client.open_session("s")
        client.put_chunk("s", 0, b"hello")
        assert client.status("s").next_index == 1
        client.seal("s")
        assert client.manifest("s") == fake.sessions["s"].manifest
        assert [one.index for one in client.chunks("s")] == [0]
        assert client.proof("s", 0).index == 0
        assert client.envelope("s", 0).startswith(b"LSE1")
        assert client.envelopes("s", tmp_path)[0] == 1
        assert client.receipt("s").batch is None
        assert [one.session_id for one in client.list_sessions()] == ["s"]
        assert client.session_page(limit=1)[1] is None
        assert len(list(client.anchors())) == 1
        assert client.anchor(bytes.fromhex("ab" * 32)).size == 1
        client.hold("s", held=False)
        with (tmp_path / "out").open("wb") as out:
            assert client.replay("s", out) == 5
        assert (tmp_path / "out").read_bytes() == b"hello"
        client.delete("s")
        with pytest.raises(e.NotFoundError):
            client.status("nobody")
    client.close()


def test_names_of_the_package() -> None:
    import sessions.client

    assert sessions.client.ClientError is e.ClientError
    with pytest.raises(AttributeError):
        _ = sessions.client.Nothing
