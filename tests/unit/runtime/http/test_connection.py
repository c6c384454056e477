"""What RFC 9110 and RFC 9112 say about connections, and what a client may take, over real sockets."""

import asyncio
import json
import socket
import time

import pytest

from sessions.runtime.errors import PROBLEMS
from sessions.runtime.http.connections import CLOSED
from tests.unit.runtime.http.echo import Echo, served, serving, told


def put(body: bytes, *lines: bytes, path: bytes = b"/") -> bytes:
    head = [b"PUT %b HTTP/1.1" % path, b"Host: x", b"Content-Length: %d" % len(body), *lines]
    return b"\r\n".join(head) + b"\r\n\r\n" + body


def statuses(answers: bytes) -> list[int]:
    return [int(piece[:3]) for piece in answers.split(b"HTTP/1.1 ")[1:]]


def code(answer: bytes) -> str:
    return str(json.loads(answer.split(b"\r\n\r\n", 1)[1])["code"])


@pytest.mark.parametrize("apart", [False, True])
@pytest.mark.parametrize("upgrade", [b"h2c", b"websocket", b"TLS/1.0, h2c"])
async def test_an_upgrade_that_is_offered_changes_nothing(upgrade: bytes, apart: bool) -> None:
    """B1: RFC 9110 section 7.8."""
    offer = (b"Connection: Upgrade, HTTP2-Settings", b"Upgrade: " + upgrade, b"HTTP2-Settings: AAMAAABkAAQAAP__")
    async with served() as (app, reader, writer), asyncio.timeout(10):
        for body in (b"0123456789" * 2, b"next"):
            request = put(body, *offer)
            head, rest = (request[:-5], request[-5:]) if apart else (request, b"")
            writer.write(head)
            if rest:
                await asyncio.sleep(0.05)
                writer.write(rest)
            assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200")
            assert await reader.readexactly(len(body)) == body
        assert app.seen == [b"0123456789" * 2, b"next"]


async def test_the_bodies_of_requests_in_one_segment_do_not_mix() -> None:
    """H8: RFC 9112 section 9.3.2."""
    bodies = [b"a" * 1000, b"b" * 37, b"", b"c" * 70_000]
    app, answers = await told(b"".join(map(put, bodies[:-1])) + put(bodies[-1], b"Connection: close"))
    assert app.seen == bodies
    assert statuses(answers) == [200] * 4


async def test_a_pipelined_body_that_begins_in_the_segment_of_another() -> None:
    first, second = put(b"a" * 1000), put(b"b" * 500, b"Connection: close")
    async with served() as (app, reader, writer), asyncio.timeout(10):
        writer.write(first[:200])
        await asyncio.sleep(0.05)
        writer.write(first[200:] + second[:-100])
        await asyncio.sleep(0.05)
        writer.write(second[-100:])
        assert statuses(await reader.read()) == [200, 200]
        assert app.seen == [b"a" * 1000, b"b" * 500]


@pytest.mark.parametrize("name", [b"Authorization", b"Content-Length", b"X-Request-ID", b"Transfer-Encoding"])
async def test_a_trailer_is_no_header_field(name: bytes) -> None:
    """B8: RFC 9110 section 6.5.1."""
    request = b"PUT / HTTP/1.1\r\nHost: x\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n"
    request += b"3\r\nabc\r\n0\r\n%b: 1\r\n\r\n" % name
    app, answer = await told(request)
    assert statuses(answer) == [200]
    assert app.seen == [b"abc"]
    assert [field for field, _ in app.scopes[0]["headers"]] == [b"host", b"connection", b"transfer-encoding"]


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"GET / HTTP/1.1\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost:\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: a/b\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: a@b\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: a:b\r\n\r\n", 400),
        (b"GET / HTTP/1.0\r\n\r\n", 200),
        (b"GET / HTTP/1.1\r\nHost: a.example:8085\r\nConnection: close\r\n\r\n", 200),
        (b"GET / HTTP/1.1\r\nHost: [::1]:8085\r\nConnection: close\r\n\r\n", 200),
        (b"GET / HTTP/2.0\r\nHost: a\r\n\r\n", 505),
        (b"GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\na", 400),
        (b"GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 1, 1\r\n\r\na", 400),
        (b"GET / HTTP/1.1\r\nHost: a\r\nContent-Length: +1\r\n\r\na", 400),
        (b"GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", 501),
        (
            b"GET / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            400,
        ),
        (b"GET / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
        (b"GET / HTTP/1.1\nHost: a\n\n", 400),
        (b"GET / HTTP/1.1\r\nHost: a\r\n folded\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost : a\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: a\r\nX: \0\r\n\r\n", 400),
        (b"\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n", 200),
        (b"GET / HTTP/1.1\r\nHost: a\r\nExpect: 200-maybe\r\nContent-Length: 1\r\n\r\na", 417),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\n\n", 400),
        (b"GET / HTTP/1.1\r\nHost: a\r\n" + b"a:\r\n" * 200 + b"\r\n", 431),
        (b"GET / HTTP/1.1\r\nHost: a\r\nX: " + b"a" * 40_000 + b"\r\n\r\n", 431),
        (b"GET /" + b"a" * 40_000, 414),
    ],
)
async def test_a_head_is_as_the_rfc_says_or_refused(data: bytes, status: int) -> None:
    app, answer = await told(data)
    assert statuses(answer) == [status]
    assert len(app.scopes) == (status == 200)
    if status != 200:
        assert b"content-type: application/problem+json" in answer
        assert b"connection: close" in answer
        assert PROBLEMS[code(answer)][0] == status


@pytest.mark.parametrize(
    "body",
    [
        b"g\r\n",
        b"3\nabc\r\n0\r\n\r\n",
        b"3\r\nabcd\r\n0\r\n\r\n",
        b"3\r\nabc\n0\r\n\r\n",
        b"ffffffffffffffff\r\nabc",
        b"-1\r\n\r\n",
        b"3 abc\r\nabc\r\n0\r\n\r\n",
        b"3;" + b"x" * 2000 + b"\r\nabc\r\n0\r\n\r\n",
        b"0\r\nnot a field\r\n\r\n",
        b"".join(b"1;%b\r\na\r\n" % (b"x" * 1000) for _ in range(20)) + b"0\r\n\r\n",
    ],
)
async def test_a_chunked_body_is_as_the_rfc_says_or_refused(body: bytes) -> None:
    app, answer = await told(b"PUT / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n" + body)
    assert statuses(answer) == [400]
    assert b"connection: close" in answer
    assert app.seen == ["bad-request-body"]


async def test_chunks_of_any_size_in_segments_of_any_size() -> None:
    body = bytes(range(256)) * 40
    chunks, at, size = [], 0, 1
    while at < len(body):
        piece = body[at : at + size]
        chunks.append(b'%X;name="value"\r\n%b\r\n' % (len(piece), piece))
        at, size = at + size, size % 97 + 1
    data = b"PUT / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n" + b"".join(chunks) + b"0\r\n\r\n"
    async with served() as (app, reader, writer), asyncio.timeout(20):
        for step in (1 << 20, 1, 7, 1000):
            for start in range(0, len(data), step):
                writer.write(data[start : start + step])
                if step < 10 and start % 700 == 0:
                    await asyncio.sleep(0)
            await reader.readuntil(b"\r\n\r\n")
            assert await reader.readexactly(len(body)) == body
        assert app.budget.used_bytes == 0


async def test_a_client_that_says_it_sends_no_more_is_answered() -> None:
    """B16."""
    body = b"x" * 2_000_000
    app, answer = await told(put(body), end=True)
    assert statuses(answer) == [200]
    assert app.seen == [body]
    _, answers = await told(put(b"one") + put(b"two"), end=True)
    assert statuses(answers) == [200, 200]
    app, answer = await told(put(body)[:-1], end=True)
    assert statuses(answer) == [400]
    assert app.seen == ["incomplete-body"]
    app, answers = await told(put(b"one") + put(b"two")[:-1], end=True)
    assert statuses(answers) == [200, 400]
    assert app.seen == [b"one", "incomplete-body"]
    _, answer = await told(b"GET / HTTP/1.1\r\nHost:", end=True)
    assert answer == b""


@pytest.mark.parametrize("size", [64 * 1024, 1024 * 1024, 16 * 1024 * 1024])
async def test_a_refusal_reaches_a_client_that_still_sends(size: int) -> None:
    """B17: RFC 9112 section 9.6."""
    app = Echo()
    async with serving(app) as address:

        def client() -> bytes:
            with socket.create_connection(address, timeout=10) as connection:
                connection.sendall(put(bytes(size), b"Connection: close", path=b"/unread"))
                return b"".join(iter(lambda: connection.recv(65536), b""))

        for _ in range(5):
            assert statuses(await asyncio.to_thread(client)) == [204]


async def test_head_is_get_without_its_body() -> None:
    """B13: RFC 9110 section 9.3.2."""
    head = b"HEAD / HTTP/1.1\r\nHost: x\r\n\r\n"
    app, answers = await told(head + put(b"ab", b"Connection: close"))
    assert statuses(answers) == [200, 200]
    assert answers.endswith(b"content-length: 2\r\nconnection: close\r\n\r\nab")
    assert [scope["method"] for scope in app.scopes] == ["GET", "PUT"]


async def test_who_expects_to_be_told_to_go_on_and_is_refused() -> None:
    """RFC 9110 section 10.1.1: whether the body comes is unknown then, so the connection ends."""
    request = put(b"abc", b"Expect: 100-continue", path=b"/unread")[:-3]
    _, answer = await told(request)
    assert statuses(answer) == [204]
    assert b"connection: close" in answer


async def test_an_old_client_gets_the_end_of_the_connection_as_the_end() -> None:
    _, answer = await told(b"PUT / HTTP/1.0\r\nContent-Length: 2\r\n\r\nab")
    assert answer.endswith(b"connection: close\r\n\r\nab")
    _, answers = await told(
        b"PUT / HTTP/1.0\r\nConnection: keep-alive\r\nContent-Length: 2\r\n\r\nab" + put(b"cd", b"Connection: close")
    )
    assert statuses(answers) == [200, 200]


def closed(reason: str) -> float:
    return CLOSED.labels(reason)._value.get()


@pytest.mark.parametrize(
    ("sent", "status", "reason"),
    [
        (b"", [], "head"),
        (b"GET / HT", [408], "head"),
        (b"GET / HTTP/1.1\r\nHost: x\r\n", [408], "head"),
        (put(b""), [200], "idle"),
        (put(b"") + b"GET /", [200, 408], "head"),
        (put(b"abc")[:-1], [400], "body"),
        (b"PUT / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nab", [400], "body"),
    ],
)
async def test_nobody_is_waited_for_without_end(sent: bytes, status: list[int], reason: str) -> None:
    """H4, B5, B7."""
    before = closed(reason)
    app, answers = await told(sent, head_seconds=1, idle_seconds=1, stall_seconds=1)
    assert statuses(answers) == status
    assert closed(reason) == before + 1
    if reason == "body":
        assert app.seen == ["request-timeout"]
        assert app.budget.used_bytes == 0


async def test_a_head_that_comes_byte_by_byte_has_its_time_and_no_more() -> None:
    async with served(head_seconds=2) as (_, reader, writer), asyncio.timeout(10):
        begun = time.monotonic()
        writer.write(b"GET / HTTP/1.1\r\nX: ")
        while not reader.at_eof() and not reader._buffer:
            writer.write(b"a")
            await asyncio.sleep(0.05)
        assert 1.5 < time.monotonic() - begun < 5


async def test_a_body_that_trickles_ends_and_one_that_is_slow_enough_does_not() -> None:
    settings = {"stall_seconds": 1, "bytes_per_second_min": 1000}
    for pause, status in ((0.2, 400), (0.02, 200)):
        async with served(**settings) as (_, reader, writer), asyncio.timeout(20):
            writer.write(put(bytes(4000))[:-4000])
            for _ in range(100):
                if reader._buffer:
                    break
                writer.write(bytes(40))
                await asyncio.sleep(pause)
            assert (await reader.readuntil(b"\r\n"))[9:12] == str(status).encode()


async def test_an_answer_that_nobody_reads_ends() -> None:
    """M11."""
    before = closed("answer")
    async with served(stall_seconds=1) as (_, reader, writer), asyncio.timeout(20):
        reader._transport.pause_reading()
        writer.write(b"GET /endless HTTP/1.1\r\nHost: x\r\n\r\n")
        while closed("answer") == before:
            await asyncio.sleep(0.1)


async def test_of_one_address_the_oldest_idle_connection_makes_room() -> None:
    async with served(connections_max_per_address=8, connections_max=16) as (_, reader, writer):
        writer.write(put(b"abc")[:-1])  # one that works is left alone
        await asyncio.sleep(0.05)
        address = writer.get_extra_info("peername")
        others = []
        for _ in range(20):
            others.append(await asyncio.open_connection(*address))
            await asyncio.sleep(0.01)
        ended = [reader.at_eof() or reader.exception() is not None for reader, _ in others]
        assert ended == [True] * 13 + [False] * 7
        writer.write(b"c")
        assert (await reader.readuntil(b"\r\n")).startswith(b"HTTP/1.1 200")
        for _, one in others:
            one.close()


async def test_where_all_connections_work_another_one_is_refused() -> None:
    async with served(connections_max_per_address=8) as (_, _, writer):
        address = writer.get_extra_info("peername")
        busy = [await asyncio.open_connection(*address) for _ in range(7)]
        for _, one in [*busy, (None, writer)]:
            one.write(put(b"abc")[:-1])
        await asyncio.sleep(0.1)
        reader, late = await asyncio.open_connection(*address)
        answer = await asyncio.wait_for(reader.read(), 15)
        assert statuses(answer) == [503]
        assert b"retry-after: 5" in answer.lower()
        for _, one in [*busy, (None, late)]:
            one.close()


async def test_announced_bodies_hold_next_to_nothing() -> None:
    """H2: the budget is taken as bytes arrive."""
    async with served() as (app, reader, writer):
        address = writer.get_extra_info("peername")
        announced = [await asyncio.open_connection(*address) for _ in range(30)]
        for _, one in announced:
            one.write(put(bytes(LIMIT_BYTES))[: -LIMIT_BYTES + 1])
        async with asyncio.timeout(10):
            while len(app.scopes) < 30:
                await asyncio.sleep(0.01)
        await asyncio.sleep(0.1)
        assert app.budget.used_bytes <= 30 * 64 * 1024
        writer.write(put(b"honest"))
        assert (await asyncio.wait_for(reader.readuntil(b"\r\n"), 1)).startswith(b"HTTP/1.1 200")
        for _, one in announced:
            one.close()


LIMIT_BYTES = 4 * 1024 * 1024
