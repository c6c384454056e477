"""Clients as people have them: Java's HTTP client, curl with `--http2`, Python's urllib, and clients that break off."""

import os
import random
import socket
import struct
import subprocess
import time
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from secrets import token_hex
from typing import Final
from urllib.parse import urlsplit

import pytest

from tests.conformance.conftest import Doors
from tests.conformance.row import SERVICES, Service, chunked, counted
from tests.conformance.wire import Address, Answer, UnfinishedError, ask, converse, parse, parse_all
from tests.conftest import Figure

_SECONDS: Final = 30
_RESETS: Final = 400
_DRIP: Final = chunked("@DRIP00\r\nX: 1\r\n\r\n")


def _put(doors: Doors, session: str, index: int, data: bytes, *lines: bytes) -> bytes:
    head = f"PUT /api/v1/sessions/{session}/chunks/{index} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(data)}\r\n"
    return head.encode() + b"\r\n".join((doors.authorization("record"), *lines)) + b"\r\n\r\n" + data


def _chunk(doors: Doors, session: str, index: int) -> Answer:
    address = doors.addresses["processor", "direct"]
    return ask(address, f"/api/v1/sessions/{session}/chunks/{index}", doors.authorization("replay"))


@pytest.fixture(params=["direct", pytest.param("haproxy", marks=pytest.mark.replicas)])
def url(request: pytest.FixtureRequest, doors: Doors) -> str:
    """chunk-processor's address, or that of HAProxy before it."""
    if request.param == "haproxy":
        request.getfixturevalue("proxied")
    return "http://{}:{}".format(*doors.addresses["processor", request.param])


@pytest.mark.java
def test_javas_client_as_it_is(url: str, doors: Doors) -> None:
    """B1: it offers h2c with its first request."""
    tokens = doors.stack.tokens
    program = Path(__file__).with_name("Put.java")
    arguments = [url, f"java-{token_hex(6)}", tokens["record"], tokens["replay"]]
    ran = subprocess.run(["java", program, *arguments], capture_output=True, text=True, timeout=60, check=False)
    assert ran.stdout.splitlines() == ["201 200 same"] * 3, ran.stderr


@pytest.mark.parametrize("way", [["--data-binary"], ["-H", "Transfer-Encoding: chunked", "--data-binary"], ["-T"]])
def test_curl_that_offers_http_2(way: list[str], url: str, doors: Doors, tmp_path: Path) -> None:
    """B1: `curl --http2` over plain TCP offers h2c."""
    session, content = f"curl-{token_hex(6)}", random.Random(7).randbytes(200_000)
    file = tmp_path / "content"
    file.write_bytes(content)
    target = f"{url}/api/v1/sessions/{session}/chunks/0"
    source = str(file) if way[-1] == "-T" else f"@{file}"
    command = ["curl", "-sS", "--noproxy", "*", "--http2", "-X", "PUT", "-H", "@-", *way, source, "-w", "%{http_code}"]
    token = doors.authorization("record").decode()
    ran = subprocess.run([*command, "-o", os.devnull, target], input=token, capture_output=True, text=True, check=False)
    assert ran.stdout == "201", ran.stderr
    assert _chunk(doors, session, 0).content == content


def test_chunks_in_a_pipeline(url: str, doors: Doors) -> None:
    """H8: bodies on one connection never mix, however they fall into segments."""
    chance, session = random.Random(11), f"pipeline-{token_hex(6)}"
    bodies = [chance.randbytes(chance.choice((0, 1, 37, 1000, 16_384, 70_000, 300_000))) for _ in range(40)]
    data = b"".join(_put(doors, session, index, content) for index, content in enumerate(bodies))
    cuts = sorted(chance.sample(range(len(data)), 60))
    segments = [data[start:end] for start, end in zip([0, *cuts], [*cuts, len(data)], strict=True)]
    split = urlsplit(url)
    answers = converse((str(split.hostname), int(split.port or 0)), segments, len(bodies))
    assert [answer.status for answer in answers] == [201] * len(bodies)
    for index, content in enumerate(bodies):
        assert _chunk(doors, session, index).content == content


@pytest.mark.parametrize("seed", range(5))
def test_refusals_in_a_pipeline(seed: int, url: str, doors: Doors) -> None:
    """RFC 9112 section 9.3: a body that nobody wants is read, however it falls into segments; the next request counts."""
    chance, session = random.Random(seed), f"refusals-{token_hex(6)}"
    bodies = [chance.randbytes(chance.choice((0, 1, 37, 1000, 16_384, 70_000, 300_000))) for _ in range(30)]
    ways = {
        "PUT /api": (b"PUT /api", 201),
        "no token": (b"Authorization: none", 401),
        "no path": (b"PUT /none", 404),
        "no method": (b"DELETE /api", 405),
        "coded": (b"PUT /api", 415),
    }
    requests, statuses = [], []
    for index, content in enumerate(bodies):
        way = chance.choice(list(ways))
        line, status = ways[way]
        lines = [b"Content-Encoding: gzip"] if way == "coded" else []
        request = _put(doors, session, index, content, *lines)
        old = doors.authorization("record") if way == "no token" else b"PUT /api"
        requests.append(request.replace(old, line, 1))
        statuses.append(status)
    data = b"".join(requests)
    cuts = sorted(chance.sample(range(len(data)), 20))
    segments = [data[start:end] for start, end in zip([0, *cuts], [*cuts, len(data)], strict=True)]
    split = urlsplit(url)
    answers = converse((str(split.hostname), int(split.port or 0)), segments, len(bodies))
    assert [answer.status for answer in answers] == statuses
    for index, (status, content) in enumerate(zip(statuses, bodies, strict=True)):
        read = _chunk(doors, session, index)
        assert (read.status, read.content if status == 201 else b"") == (
            (200, content) if status == 201 else (404, b"")
        )


@pytest.mark.parametrize("service", SERVICES)
@pytest.mark.parametrize("request_", [counted(), _DRIP])
def test_a_request_byte_by_byte(request_: str, service: Service, doors: Doors) -> None:
    """RFC 9112 section 2.2: where segments end means nothing."""
    words = doors.words(service)
    data = words.fill(request_)
    with socket.create_connection(doors.addresses[service, "direct"], timeout=_SECONDS) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for number in range(len(data)):
            connection.sendall(data[number : number + 1])
        assert parse(connection.recv(65536), ended=False)[0].status == 201
    doors.check_stored(service, words, [words["@BODY0"]])


def _put_or_reset(address: Address, request: bytes, cut: int | None) -> int:
    """Send a request, or its beginning and then a reset; return the status that came before, or 0."""
    with socket.create_connection(address, timeout=_SECONDS) as connection:
        connection.sendall(request[:cut])
        if cut is not None:
            time.sleep(cut % 16 / 1000)
            connection.setblocking(False)
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            try:
                data = connection.recv(65536)
            except BlockingIOError:
                return 0
        else:
            data = connection.recv(65536)
        return parse(data, ended=False)[0].status


def test_what_is_acknowledged_while_clients_break_off_is_what_was_sent(doors: Doors, figure: Figure) -> None:
    """400 PUTs, of which half are reset at any byte."""
    chance, session = random.Random(13), f"resets-{token_hex(6)}"
    bodies = [chance.randbytes(chance.randrange(1, 40_000)) for _ in range(_RESETS)]
    requests = [_put(doors, session, index, content) for index, content in enumerate(bodies)]
    ends = [chance.choice((len(request), chance.randrange(1, len(request)))) for request in requests]
    cuts = [end if number % 2 else None for number, end in enumerate(ends)]
    address = doors.addresses["processor", "direct"]
    with ThreadPoolExecutor(8) as pool:
        statuses = list(pool.map(lambda pair: _put_or_reset(address, *pair), zip(requests, cuts, strict=True)))
    assert {status for status, cut in zip(statuses, cuts, strict=True) if cut is None} == {201}
    stored = 0
    for index, (status, content) in enumerate(zip(statuses, bodies, strict=True)):
        read = _chunk(doors, session, index)
        stored += read.status == 200
        assert read.status == 200 or status != 201
        assert read.status == 404 or read.content == content
    figure(f"{_RESETS} PUTs, half of them reset: {statuses.count(201)} acknowledged, {stored} stored, none differs")


@pytest.mark.parametrize("size", [64 * 1024, 1024 * 1024, 4 * 1024 * 1024, 17 * 1024 * 1024])
@pytest.mark.parametrize("valid", [True, False])
def test_a_refusal_reaches_urllib(size: int, valid: bool, doors: Doors) -> None:
    """B17: urllib sends `Connection: close` and its whole body before it reads (RFC 9112 section 9.6)."""
    token = doors.stack.tokens["record"] if valid else "none"
    url = f"{doors.stack.processor_url}/api/v1/sessions/urllib-{token_hex(6)}/chunks/0"
    request = urllib.request.Request(url, bytes(size), {"Authorization": f"Bearer {token}"}, method="PUT")
    for _ in range(5):
        try:
            with urllib.request.urlopen(request, timeout=_SECONDS) as answer:
                status = answer.status
        except urllib.error.HTTPError as error:
            status = error.code
            error.close()
        assert status in ((401,) if not valid else (413,) if size > 16 * 1024 * 1024 else (200, 201))


@pytest.mark.parametrize("service", SERVICES)
@pytest.mark.parametrize(
    "path",
    [
        *("/health", "/livez", "/readyz", "/metrics", "/openapi.json", "/none"),
        *("/api/v1/sessions/{}", "/api/v1/sessions/{}/content", "/api/v1/sessions/{}/chunks/0"),
        *("/api/v1/sessions/{}/manifest", "/api/v1/sessions", "/api/v1/anchors", "/console"),
    ],
)
def test_head_has_the_fields_of_get(service: Service, path: str, doors: Doors) -> None:
    """B13: RFC 9110 section 9.3.2, at each route that is read, with and without a token."""
    address, path = doors.addresses[service, "direct"], path.format(doors.sealed)
    for role in ("replay", "audit", "admin"):
        by_get, by_head = (ask(address, path, doors.authorization(role), method) for method in ("GET", "HEAD"))
        assert by_head.status == by_get.status
        assert by_head.content == b""
        differs = {"date", "x-request-id"}
        if path in ("/metrics", "/health", "/readyz"):
            differs.add("content-length")
        names = [[field for field in one.fields if field[0] not in differs] for one in (by_get, by_head)]
        assert names[0] == names[1]


def test_too_many_requests_without_a_token_are_told_when_to_return(doors: Doors) -> None:
    """RFC 6585 section 4, RFC 9110 section 10.2.3."""
    address = doors.addresses["processor", "direct"]
    request = b"GET /api/v1/sessions/x HTTP/1.1\r\nHost: x\r\n\r\n"
    with socket.create_connection(address, timeout=_SECONDS) as connection:
        connection.sendall(request * 300)
        connection.shutdown(socket.SHUT_WR)
        data = b"".join(iter(lambda: connection.recv(65536), b""))
    answers = parse_all(data)
    assert len(answers) == 300
    assert {answer.status for answer in answers} == {401, 429}
    assert all(answer.one("retry-after") == "1" for answer in answers if answer.status == 429)


def test_the_reader_of_answers_is_strict() -> None:
    """What the table would not notice, it could not hold."""
    good = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nab"
    assert [answer.content for answer in parse_all(good * 2)] == [b"ab", b"ab"]
    assert parse_all(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n1\r\na\r\n0\r\n\r\n")[0].content == b"a"
    with pytest.raises(UnfinishedError):
        parse_all(good[:-1])
    for bad in (
        b"HTTP/1.1 200 OK\r\n\r\n",
        b"HTTP/1.0 200 OK\r\ncontent-length: 0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\ncontent-length: 0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nx : 1\r\ncontent-length: 0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\ntransfer-encoding: chunked\r\n\r\n",
        b"HTTP/1.1 204 No Content\r\ncontent-length: 2\r\n\r\nab",
        good + b"ab\r\n\r\n",
    ):
        with pytest.raises(AssertionError):
            parse_all(bad)
