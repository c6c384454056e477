"""Header fields that change the meaning of a request (RFC 9110), sent over raw connections to the real service."""

import base64
import hashlib
import socket
from urllib.parse import urlsplit

import pytest

from scripts.devstack.stack import Stack
from tests.e2e.conftest import Api, session_name

BODY = b"01234567890123456789"


def exchange(stack: Stack, head: str, body: bytes = BODY) -> tuple[int, bytes]:
    """Send a request head as it is; return the status and all that came."""
    address = urlsplit(stack.processor_url)
    token = stack.tokens["record"]
    lines = f"{head}\r\nHost: x\r\nAuthorization: Bearer {token}\r\nConnection: close\r\n\r\n"
    with socket.create_connection((address.hostname, address.port), timeout=20) as connection:
        connection.sendall(lines.encode() + body)
        answer = b"".join(iter(lambda: connection.recv(65536), b""))
    return int(answer.split(b" ", 2)[1]), answer


def put(session: str, *lines: str) -> str:
    return "\r\n".join([f"PUT /api/v1/sessions/{session}/chunks/0 HTTP/1.1", f"Content-Length: {len(BODY)}", *lines])


def digest_of(data: bytes, name: str = "sha-256") -> str:
    algorithm = {"sha-256": hashlib.sha256, "sha-512": hashlib.sha512}[name]
    return f"Content-Digest: {name}=:{base64.b64encode(algorithm(data).digest()).decode()}:"


@pytest.mark.parametrize(
    ("lines", "status", "code"),
    [
        ((digest_of(BODY),), 201, b""),
        (("Content-Digest: md5=:AAAA:", digest_of(b"wrong")), 400, b"digest-mismatch"),
        ((digest_of(BODY, "sha-512"), digest_of(b"wrong")), 400, b"digest-mismatch"),
        (("Content-Range: bytes 0-19/40",), 400, b"invalid-request"),
        (("Content-Range: bytes */40",), 400, b"invalid-request"),
        (("Content-Encoding: gzip",), 415, b"unsupported-media-type"),
        (("Content-Encoding: identity",), 201, b""),
    ],
)
def test_fields_of_a_chunk(stack: Stack, api: Api, lines: tuple[str, ...], status: int, code: bytes) -> None:
    """B9, B11: no 2xx acknowledges other bytes than were meant."""
    session = session_name("fields")
    got, answer = exchange(stack, put(session, *lines))
    assert (got, code in answer) == (status, True), answer
    read = api.processor("GET", f"/api/v1/sessions/{session}/chunks/0", "replay")
    assert (read.status_code, read.content if status == 201 else b"") == ((200, BODY) if status == 201 else (404, b""))


@pytest.mark.parametrize("validator", ['"abc"', 'W/"abc"', "Sun, 29 Nov 2026 00:00:00 GMT"])
def test_a_range_under_a_condition_that_cannot_hold_is_the_whole(api: Api, validator: str) -> None:
    """B10: RFC 9110 section 13.1.5; the service sends no validator."""
    session = session_name("if-range")
    api.record(session, [BODY])
    url = f"/api/v1/sessions/{session}/content"
    part = api.processor("GET", url, "replay", headers={"Range": "bytes=5-9"})
    assert (part.status_code, part.content) == (206, BODY[5:10])
    whole = api.processor("GET", url, "replay", headers={"Range": "bytes=5-9", "If-Range": validator})
    assert (whole.status_code, whole.content) == (200, BODY)
