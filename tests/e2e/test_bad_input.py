"""Every wrong request: the documented code, the same request id in header and body, and nothing stored."""

import base64
import hashlib
import json
import re
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from secrets import token_hex
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest
from bson import MaxKey
from pymongo import MongoClient

from scripts.devstack.process import wait_until
from scripts.devstack.stack import Stack
from sessions.core import frames
from tests.e2e.conftest import Api
from tests.unit.storage.chunks import envelope_of

RUN = f"bad-{token_hex(6)}"
CHUNK_MAX_BYTES = 16 * 1024 * 1024
B64 = base64.b64encode(b"lucid").decode()
EARLY = base64.urlsafe_b64encode(b'["0001-01-01T00:00:00+23:59", "a"]').decode()
KEY = {"dek_id": base64.b64encode(bytes(16)).decode(), "kek_id": "k", "wrapped": B64}


@dataclass(frozen=True)
class Prepared:
    """Sessions in every state, by name; `{open}` in a path stands for one."""

    names: dict[str, str]

    def fill(self, value: Any) -> Any:
        if isinstance(value, str):
            return re.sub(r"\{(\w+)\}", lambda found: self.names[found[1]], value)
        if isinstance(value, dict):
            return {name: self.fill(item) for name, item in value.items()}
        return [self.fill(item) for item in value] if isinstance(value, list) else value


@pytest.fixture(scope="module")
def prepared(api: Api) -> Prepared:
    names = {state: f"{RUN}-{state}" for state in ("open", "gaps", "sealed", "held", "shredded", "none", "told")}
    api.record(names["open"], [b"first", b"second"], seal=False)
    api.put_chunk(names["gaps"], 0, b"first")
    api.put_chunk(names["gaps"], 3, b"fourth")
    for state in ("sealed", "held", "shredded"):
        api.record(names[state], [b"first", b"second"])
    assert api.processor("PUT", f"/api/v1/sessions/{names['told']}", json={"metadata": {"a": 1}}).status_code == 201
    held = api.storage("PUT", f"/api/v1/sessions/{names['held']}/hold", "admin", json={"held": True})
    assert (held.status_code, held.json()["held"]) == (200, True)
    assert api.processor("DELETE", f"/api/v1/sessions/{names['shredded']}", "admin").status_code == 200
    return Prepared(names)


@pytest.fixture(scope="module")
def database(stack: Stack) -> Iterator[Any]:
    with MongoClient(stack.mongodb_url) as client:
        yield client[stack.env["storage"]["MONGODB_DATABASE"]]


def _stored(database: Any) -> Any:
    """All that is stored of this test's sessions, but for what anchoring adds by itself.

    A refused seal leaves its order behind, which an open session does not heed and the next one replaces.
    """
    chunks = {"_id": {"$gte": {"s": RUN}, "$lt": {"s": RUN + "~", "i": MaxKey()}}}
    hidden = {"batch": 0, "unbatched": 0, "seal_order": 0, "closing": 0, "active_seconds": 0}
    return (
        database.sessions.estimated_document_count(),
        list(database.sessions.find({"_id": {"$regex": f"^{RUN}"}}, hidden, sort=[("_id", 1)])),
        list(database.chunks.find(chunks, sort=[("_id", 1)])),
        list(database.bodies.find(chunks, {"data": 0}, sort=[("_id", 1)])),
    )


def _digest(data: bytes) -> str:
    return f"sha-256=:{base64.b64encode(hashlib.sha256(data).digest()).decode()}:"


def _lucid(**changes: Any) -> dict[str, Any]:
    chunk = {"session_id": "{open}", "chunk_id": "{open}-chunk-000002", "chunk_data_base64": B64}
    return {"json": {name: value for name, value in {**chunk, **changes}.items() if value is not None}}


P, S = "processor", "storage"
SESSIONS = "/api/v1/sessions"
CHUNK = SESSIONS + "/{open}/chunks/2"
BODY = {"content": b"never stored"}
TRAIL = SESSIONS + "/lucid-audit-2026-01-31"
TRAIL_FRAME = frames.join([envelope_of("lucid-audit-2026-01-31", 0)])
BATCH = {"session_id": "{open}", "chunks": [{"chunk_id": "no number", "chunk_data_base64": B64}]}

# No JSON as RFC 8259 has it, or with what not every reader reads alike.
ODD_METADATA = [
    *(
        f'{{"a":{value}}}'.encode()
        for value in ("NaN", "Infinity", "-Infinity", "1e400", "01", "+1", ".5", "1.", "0x1")
    ),
    b'{"a":1,}',
    b'{"a":[1,]}',
    b"{'a':1}",
    b"{a:1}",
    b'{"a":1}//',
    b'{"a":"\xff"}',
    b'{"a":"\xed\xa0\x80"}',
    b'{"a":"\xc0\x80"}',
    b'{"a":"\t"}',
    b'{"a":"\\x41"}',
    b'{"a":"\\ud800\\u0041"}',
    b'{"a":' + b"[" * 5000 + b"]" * 5000 + b"}",
    b'{"a":' + b"9" * 5000 + b"}",
    b'{"a":1}{"a":1}',
    b"[1]",
    b'"a"',
    b"1",
    b"true",
]
ODD_BODIES = [
    *(b'{"metadata":' + metadata + b"}" for metadata in ODD_METADATA),
    '{"metadata":{"a":1}}'.encode("utf-16"),
    '{"metadata":{"a":1}}'.encode("utf-32-le"),
    b'{"metadata":{}}\0',
    b"null null",
    b"[]",
    b"\x00",
    b" ",
]

# service, method, path, role, options, status, code
CASES: list[tuple[str, str, str, str, dict[str, Any], int, str]] = [
    # session ids
    (P, "GET", f"{SESSIONS}/{{none}}", "record", {}, 404, "session-not-found"),
    (P, "GET", f"{SESSIONS}/-x", "record", {}, 400, "invalid-session-id"),
    (P, "GET", f"{SESSIONS}/a%20b", "record", {}, 400, "invalid-session-id"),
    (P, "GET", f"{SESSIONS}/a%00b", "record", {}, 400, "invalid-session-id"),
    (P, "GET", f"{SESSIONS}/%C3%A9", "record", {}, 400, "invalid-session-id"),
    (P, "GET", f"{SESSIONS}/a%0A", "record", {}, 400, "invalid-session-id"),
    (P, "GET", f"{SESSIONS}/{'a' * 129}", "record", {}, 400, "invalid-session-id"),
    (P, "GET", f"{SESSIONS}/a%2Fb", "record", {}, 400, "invalid-session-id"),
    (P, "PUT", f"{SESSIONS}/a%20b", "record", {"json": {}}, 400, "invalid-session-id"),
    (P, "PUT", f"{SESSIONS}/{'a' * 129}/chunks/0", "record", BODY, 400, "invalid-session-id"),
    (P, "POST", f"{SESSIONS}/.a/seal", "record", {"json": {}}, 400, "invalid-session-id"),
    (P, "POST", f"{SESSIONS}/{{none}}/seal", "record", {"json": {}}, 404, "session-not-found"),
    (P, "POST", f"{SESSIONS}/{{none}}/finalize", "record", {}, 404, "session-not-found"),
    (P, "GET", f"{SESSIONS}/{{none}}/merkle-root", "record", {}, 404, "session-not-found"),
    (P, "GET", f"{SESSIONS}/{{open}}/merkle-root", "record", {}, 409, "session-open"),
    (P, "DELETE", f"{SESSIONS}/{{none}}", "admin", {}, 404, "session-not-found"),
    (S, "GET", f"{SESSIONS}/{{none}}", "audit", {}, 404, "session-not-found"),
    (S, "GET", f"{SESSIONS}/a%20b", "audit", {}, 400, "invalid-session-id"),
    (S, "PUT", f"{SESSIONS}/a%20b", "processor", {"json": {"key": KEY}}, 400, "invalid-session-id"),
    (S, "PUT", f"{SESSIONS}/{{none}}/hold", "admin", {"json": {"held": True}}, 404, "session-not-found"),
    (S, "POST", f"{SESSIONS}/{{none}}/keys", "processor", {"json": KEY}, 404, "session-not-found"),
    (S, "GET", f"{SESSIONS}?prefix=%3Cb%3E", "audit", {}, 400, "invalid-request"),
    (S, "GET", f"{SESSIONS}?prefix=", "audit", {}, 400, "invalid-request"),
    (S, "GET", f"{SESSIONS}?prefix=a&opened_after=2026-01-01T00:00:00Z", "audit", {}, 400, "invalid-request"),
    (S, "GET", f"{SESSIONS}?held=false", "audit", {}, 400, "invalid-request"),
    (S, "GET", "/api/v1/scrub/findings?session_id=a%2Fb", "audit", {}, 400, "invalid-request"),
    # ids of the audit trail
    (P, "PUT", TRAIL, "record", {"json": {}}, 403, "session-reserved"),
    (P, "PUT", f"{TRAIL}/chunks/0", "record", {"content": b"x"}, 403, "session-reserved"),
    (P, "POST", f"{TRAIL}/seal", "record", {"json": {}}, 403, "session-reserved"),
    (P, "POST", f"{TRAIL}/finalize", "record", {}, 403, "session-reserved"),
    (P, "DELETE", TRAIL, "admin", {}, 403, "session-reserved"),
    (P, "GET", f"{TRAIL}/chunks/0", "replay", {}, 403, "session-reserved"),
    (P, "GET", f"{TRAIL}/content", "replay", {}, 403, "session-reserved"),
    (S, "PUT", TRAIL, "processor", {"json": {"key": KEY}}, 403, "session-reserved"),
    (S, "POST", f"{TRAIL}/keys", "processor", {"json": KEY}, 403, "session-reserved"),
    (S, "GET", f"{TRAIL}/keys", "admin", {}, 403, "session-reserved"),
    (S, "POST", f"{TRAIL}/seal", "processor", {"json": {}}, 403, "session-reserved"),
    (S, "DELETE", TRAIL, "admin", {}, 403, "session-reserved"),
    (S, "PUT", f"{TRAIL}/hold", "admin", {"json": {"held": True}}, 403, "session-reserved"),
    (S, "PUT", f"{TRAIL}/retention", "admin", {"json": {}}, 403, "session-reserved"),
    (S, "POST", "/api/v1/envelopes", "processor", {"content": TRAIL_FRAME}, 403, "session-reserved"),
    (S, "GET", "/api/v1/audit-events", "audit", {}, 400, "invalid-request"),
    (S, "GET", "/api/v1/audit-events?day=2026-02-30", "audit", {}, 400, "invalid-request"),
    (S, "GET", "/api/v1/audit-events?day=2026-1-1", "audit", {}, 400, "invalid-request"),
    (S, "GET", "/api/v1/audit-events?day=2026-01-31&cursor=-1", "audit", {}, 400, "invalid-request"),
    (S, "GET", "/api/v1/audit-days?cursor=x", "audit", {}, 400, "invalid-request"),
    (S, "POST", "/api/v1/audit-events", "processor", {"json": {"events": []}}, 400, "invalid-request"),
    (S, "POST", "/api/v1/audit-events", "processor", {"json": {"events": [{"version": 1}]}}, 400, "invalid-request"),
    (S, "POST", "/api/v1/audit-events", "processor", {"content": b"x" * 300_000}, 413, "body-too-large"),
    # indexes
    (P, "PUT", f"{SESSIONS}/{{open}}/chunks/-1", "record", BODY, 400, "index-out-of-range"),
    (P, "PUT", f"{SESSIONS}/{{open}}/chunks/{2**53 - 1}", "record", BODY, 400, "index-out-of-range"),
    (P, "PUT", f"{SESSIONS}/{{open}}/chunks/{2**53 + 1}", "record", BODY, 400, "index-out-of-range"),
    (P, "PUT", f"{SESSIONS}/{{open}}/chunks/{'9' * 4000}", "record", BODY, 400, "index-out-of-range"),
    (P, "PUT", f"{SESSIONS}/{{open}}/chunks/one", "record", BODY, 400, "invalid-request"),
    (P, "PUT", f"{SESSIONS}/{{open}}/chunks/1.5", "record", BODY, 400, "invalid-request"),
    (P, "PUT", f"{SESSIONS}/{{open}}/chunks/%D9%A1", "record", BODY, 400, "invalid-request"),
    (P, "GET", f"{SESSIONS}/{{open}}/chunks/-1", "replay", {}, 400, "index-out-of-range"),
    (P, "GET", f"{SESSIONS}/{{open}}/chunks/{2**53 + 1}", "replay", {}, 400, "index-out-of-range"),
    (P, "GET", f"{SESSIONS}/{{open}}/chunks/one", "replay", {}, 400, "invalid-request"),
    *(
        (service, method, f"{SESSIONS}/{{sealed}}/chunks/{index}{part}", role, {}, 400, "invalid-request")
        for service, method, part, role in (
            (P, "PUT", "", "record"),
            (P, "GET", "", "replay"),
            (S, "GET", "/envelope", "audit"),
            (S, "GET", "/proof", "audit"),
        )
        for index in ("00", "-0", "+0", "0_0", "%200")
    ),
    (S, "GET", f"{SESSIONS}/{{open}}/chunks/-1/envelope", "audit", {}, 400, "index-out-of-range"),
    (S, "GET", f"{SESSIONS}/{{open}}/chunks/{2**53 + 1}/envelope", "audit", {}, 400, "index-out-of-range"),
    (S, "GET", f"{SESSIONS}/{{sealed}}/chunks/{2**53 + 1}/proof", "audit", {}, 400, "index-out-of-range"),
    (S, "GET", f"{SESSIONS}/{{open}}/chunks?start=-1", "audit", {}, 400, "invalid-request"),
    (S, "GET", f"{SESSIONS}/{{open}}/chunks?limit=1001", "audit", {}, 400, "invalid-request"),
    # bodies
    (
        P,
        "PUT",
        CHUNK,
        "record",
        {"content": b"x", "headers": {"Content-Digest": _digest(b"y")}},
        400,
        "digest-mismatch",
    ),
    (P, "PUT", CHUNK, "record", {"content": b"x", "headers": {"Content-Digest": "md5"}}, 400, "bad-content-digest"),
    (P, "PUT", CHUNK, "record", {"content": b"x", "headers": {"Content-Digest": ""}}, 400, "bad-content-digest"),
    (
        P,
        "PUT",
        CHUNK,
        "record",
        {"content": b"x", "headers": {"Content-Digest": "sha-256=:a:"}},
        400,
        "bad-content-digest",
    ),
    (P, "PUT", f"{SESSIONS}/{{open}}/chunks/0", "record", {"content": b"other"}, 409, "chunk-conflict"),
    (P, "PUT", f"{SESSIONS}/{{none}}", "record", {"content": b"{"}, 400, "invalid-request"),
    (P, "PUT", f"{SESSIONS}/{{none}}", "record", {"json": {"metadata": []}}, 400, "invalid-request"),
    (P, "PUT", f"{SESSIONS}/{{none}}", "record", {"json": {"unknown": 1}}, 400, "invalid-request"),
    (P, "PUT", f"{SESSIONS}/{{none}}", "record", {"json": {"metadata": {"a": "b" * 70_000}}}, 400, "invalid-request"),
    (P, "PUT", f"{SESSIONS}/{{none}}", "record", {"json": {"metadata": {"a": 2**60}}}, 400, "invalid-request"),
    (P, "PUT", f"{SESSIONS}/{{none}}", "record", {"json": {"metadata": {"a": "b" * 300_000}}}, 413, "body-too-large"),
    (P, "PUT", f"{SESSIONS}/{{none}}", "record", {"content": b'{"metadata":{"a":"\\ud800"}}'}, 400, "invalid-request"),
    (P, "PUT", f"{SESSIONS}/{{none}}", "record", {"content": b"[" * 100_000}, 400, "invalid-request"),
    (P, "POST", f"{SESSIONS}/{{open}}/seal", "record", {"json": {"chunk_count": -1}}, 400, "invalid-request"),
    (P, "POST", f"{SESSIONS}/{{open}}/seal", "record", {"json": {"chunk_count": "2"}}, 400, "invalid-request"),
    (P, "POST", f"{SESSIONS}/{{open}}/seal", "record", {"json": {"chunk_count": 2**53}}, 400, "invalid-request"),
    (P, "POST", f"{SESSIONS}/{{open}}/seal", "record", {"json": {"count": 2}}, 400, "invalid-request"),
    (S, "POST", "/api/v1/envelopes", "processor", {"content": b"\0\0\0\5abc"}, 400, "bad-envelope"),
    (S, "POST", "/api/v1/envelopes", "processor", {"content": b"\0\0\0\4LSE1"}, 400, "bad-envelope"),
    (S, "PUT", f"{SESSIONS}/{{none}}", "processor", {"json": {"key": {**KEY, "dek_id": B64}}}, 400, "invalid-request"),
    (S, "PUT", f"{SESSIONS}/{{none}}", "processor", {"json": {"key": {**KEY, "wrapped": "*"}}}, 400, "invalid-request"),
    (
        S,
        "PUT",
        f"{SESSIONS}/{{none}}",
        "processor",
        {"json": {"key": {**KEY, "wrapped": B64 + "*"}}},
        400,
        "invalid-request",
    ),
    (S, "PUT", f"{SESSIONS}/{{open}}/hold", "admin", {"json": {"held": 0}}, 400, "invalid-request"),
    (S, "PUT", f"{SESSIONS}/{{open}}/hold", "admin", {"json": {"held": "yes"}}, 400, "invalid-request"),
    (S, "GET", f"{SESSIONS}?cursor=x", "audit", {}, 400, "invalid-request"),
    (S, "GET", f"{SESSIONS}?status=other", "audit", {}, 400, "invalid-request"),
    (S, "GET", f"{SESSIONS}?unknown=1", "audit", {}, 400, "invalid-request"),
    (S, "GET", f"{SESSIONS}?opened_after=yesterday", "audit", {}, 400, "invalid-request"),
    (S, "GET", f"{SESSIONS}?opened_after=0.5", "audit", {}, 400, "invalid-request"),
    (S, "GET", f"{SESSIONS}?opened_after=2026-01-31T00:00:00", "audit", {}, 400, "invalid-request"),
    (S, "GET", f"{SESSIONS}?opened_after=0001-01-01T00:00:00%2B23:59", "audit", {}, 400, "invalid-request"),
    (S, "GET", f"{SESSIONS}?cursor={EARLY}", "audit", {}, 400, "invalid-request"),
    (S, "GET", "/api/v1/anchors?cursor=x", "audit", {}, 400, "invalid-request"),
    (S, "GET", "/api/v1/anchors/x", "audit", {}, 400, "invalid-request"),
    (S, "GET", f"/api/v1/anchors/{'0' * 64}", "audit", {}, 404, "anchor-not-found"),
    # the Lucid recorder's routes
    (P, "POST", "/api/v1/chunks/process", "record", _lucid(chunk_data_base64="*"), 400, "invalid-request"),
    (P, "POST", "/api/v1/chunks/process", "record", _lucid(chunk_data_base64="AAA"), 400, "invalid-request"),
    (P, "POST", "/api/v1/chunks/process", "record", _lucid(chunk_data_base64=None), 400, "invalid-request"),
    (P, "POST", "/api/v1/chunks/process", "record", _lucid(unknown=1), 400, "invalid-request"),
    (P, "POST", "/api/v1/chunks/process", "record", _lucid(chunk_id="no number"), 400, "invalid-request"),
    (P, "POST", "/api/v1/chunks/process", "record", _lucid(metadata={"chunk_index": -1}), 400, "invalid-request"),
    (P, "POST", "/api/v1/chunks/process", "record", _lucid(metadata={"chunk_index": "2"}), 400, "invalid-request"),
    (P, "POST", "/api/v1/chunks/process", "record", _lucid(chunk_id="c-" + "9" * 18), 400, "index-out-of-range"),
    (P, "POST", "/api/v1/chunks/process", "record", _lucid(session_id="a b"), 400, "invalid-request"),
    (P, "POST", "/api/v1/chunks/process", "record", _lucid(session_id="{sealed}"), 409, "session-sealed"),
    (P, "POST", "/api/v1/chunks/process", "record", {"content": b"{"}, 400, "invalid-request"),
    (P, "POST", "/api/v1/chunks/process", "record", {}, 400, "invalid-request"),
    (P, "POST", "/api/v1/chunks/process-batch", "record", {"json": {"session_id": "{open}"}}, 400, "invalid-request"),
    (P, "POST", "/api/v1/chunks/process-batch", "record", {"json": {**BATCH, "chunks": []}}, 400, "invalid-request"),
    (P, "POST", "/api/v1/chunks/process-batch", "record", {"json": {**BATCH, "x": 1}}, 400, "invalid-request"),
    # states
    (P, "PUT", f"{SESSIONS}/{{sealed}}/chunks/2", "record", BODY, 409, "session-sealed"),
    (P, "PUT", f"{SESSIONS}/{{sealed}}", "record", {"json": {}}, 409, "session-sealed"),
    (P, "PUT", f"{SESSIONS}/{{shredded}}/chunks/2", "record", BODY, 410, "session-shredded"),
    (P, "PUT", f"{SESSIONS}/{{shredded}}", "record", {"json": {}}, 410, "session-shredded"),
    (P, "PUT", f"{SESSIONS}/{{told}}", "record", {"json": {"metadata": {"a": 2}}}, 409, "metadata-conflict"),
    (P, "POST", f"{SESSIONS}/{{gaps}}/seal", "record", {"json": {}}, 409, "chunks-missing"),
    (P, "POST", f"{SESSIONS}/{{gaps}}/seal", "record", {"json": {"chunk_count": 5}}, 409, "chunks-missing"),
    (P, "POST", f"{SESSIONS}/{{gaps}}/finalize", "record", {}, 409, "chunks-missing"),
    (P, "POST", f"{SESSIONS}/{{open}}/seal", "record", {"json": {"chunk_count": 3}}, 409, "chunks-missing"),
    (P, "POST", f"{SESSIONS}/{{open}}/seal", "record", {"json": {"chunk_count": 1}}, 409, "chunk-count-mismatch"),
    (P, "POST", f"{SESSIONS}/{{sealed}}/seal", "record", {"json": {"chunk_count": 3}}, 409, "chunks-missing"),
    (P, "POST", f"{SESSIONS}/{{sealed}}/seal", "record", {"json": {"chunk_count": 1}}, 409, "chunk-count-mismatch"),
    (P, "DELETE", f"{SESSIONS}/{{open}}", "admin", {}, 409, "session-open"),
    (P, "DELETE", f"{SESSIONS}/{{held}}", "admin", {}, 409, "session-held"),
    (S, "DELETE", f"{SESSIONS}/{{held}}", "admin", {}, 409, "session-held"),
    (S, "PUT", f"{SESSIONS}/{{shredded}}/hold", "admin", {"json": {"held": True}}, 410, "session-shredded"),
    (S, "POST", f"{SESSIONS}/{{sealed}}/keys", "processor", {"json": KEY}, 409, "session-sealed"),
    (S, "POST", f"{SESSIONS}/{{shredded}}/keys", "processor", {"json": KEY}, 410, "session-shredded"),
    (S, "GET", f"{SESSIONS}/{{open}}/manifest", "audit", {}, 409, "session-open"),
    (S, "GET", f"{SESSIONS}/{{open}}/receipt", "audit", {}, 409, "session-open"),
    (S, "GET", f"{SESSIONS}/{{open}}/chunks/0/proof", "audit", {}, 409, "session-open"),
    # reading
    (P, "GET", f"{SESSIONS}/{{none}}/content", "replay", {}, 404, "session-not-found"),
    (P, "GET", f"{SESSIONS}/{{none}}/chunks/0", "replay", {}, 404, "session-not-found"),
    (P, "GET", f"{SESSIONS}/{{sealed}}/chunks/2", "replay", {}, 404, "chunk-not-found"),
    (P, "GET", f"{SESSIONS}/{{gaps}}/content", "replay", {}, 409, "chunks-missing"),
    (P, "GET", f"{SESSIONS}/{{gaps}}/chunks/1", "replay", {}, 404, "chunk-not-found"),
    (P, "GET", f"{SESSIONS}/{{shredded}}/content", "replay", {}, 410, "session-shredded"),
    (P, "GET", f"{SESSIONS}/{{shredded}}/chunks/0", "replay", {}, 410, "session-shredded"),
    (S, "GET", f"{SESSIONS}/{{shredded}}/chunks/0/envelope", "audit", {}, 410, "session-shredded"),
    (S, "GET", f"{SESSIONS}/{{sealed}}/chunks/2/envelope", "audit", {}, 404, "chunk-not-found"),
    (S, "GET", f"{SESSIONS}/{{sealed}}/chunks/2/proof", "audit", {}, 404, "chunk-not-found"),
    (
        P,
        "GET",
        f"{SESSIONS}/{{sealed}}/content",
        "replay",
        {"headers": {"Range": "bytes=11-"}},
        416,
        "range-not-satisfiable",
    ),
    (
        P,
        "GET",
        f"{SESSIONS}/{{sealed}}/content",
        "replay",
        {"headers": {"Range": "bytes=-0"}},
        416,
        "range-not-satisfiable",
    ),
    # odd JSON
    *((P, "PUT", f"{SESSIONS}/{{none}}", "record", {"content": odd}, 400, "invalid-request") for odd in ODD_BODIES),
    *(
        (P, "POST", f"{SESSIONS}/{{open}}/seal", "record", {"content": odd}, 400, "invalid-request")
        for odd in ODD_BODIES
    ),
    *((P, "POST", "/api/v1/chunks/process", "record", {"content": odd}, 400, "invalid-request") for odd in ODD_BODIES),
    *((S, "PUT", f"{SESSIONS}/{{none}}", "processor", {"content": odd}, 400, "invalid-request") for odd in ODD_BODIES),
    # what is not there
    (P, "GET", "/api/v1/nothing", "record", {}, 404, "not-found"),
    (P, "POST", f"{SESSIONS}/{{open}}", "record", {}, 405, "method-not-allowed"),
    (P, "DELETE", CHUNK, "record", {}, 405, "method-not-allowed"),
    (S, "GET", "/api/v1/envelopes", "audit", {}, 405, "method-not-allowed"),
]


def _problem(answer: httpx.Response, status: int, code: str, request_id: str | None = None) -> dict[str, Any]:
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    body = answer.json()
    assert (body["status"], body["code"]) == (status, code), body
    assert body["type"] == f"urn:lucid-sessions:problem:{code}"
    assert body["title"]
    assert body["detail"]
    assert body["request_id"] == answer.headers["x-request-id"]
    if request_id is not None:
        assert body["request_id"] == request_id
    return body


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case[0]}-{case[1]}-{case[2][-40:]}-{case[6]}")
def test_a_wrong_request(api: Api, prepared: Prepared, database: Any, case: tuple[Any, ...]) -> None:
    service, method, path, role, options, status, code = case
    before = _stored(database)
    wanted = f"bad-input-{token_hex(4)}"
    options = prepared.fill(options)
    headers = {"X-Request-ID": wanted, **options.pop("headers", {})}
    answer = getattr(api, service)(method, prepared.fill(path), role, headers=headers, **options)
    _problem(answer, status, code, wanted)
    assert _stored(database) == before


def test_what_a_problem_says_further(api: Api, prepared: Prepared) -> None:
    gaps = api.processor("POST", prepared.fill(f"{SESSIONS}/{{gaps}}/seal"), json={})
    assert _problem(gaps, 409, "chunks-missing")["missing"] == [[1, 2]]
    content = api.processor("GET", prepared.fill(f"{SESSIONS}/{{gaps}}/content"), "replay")
    assert _problem(content, 409, "chunks-missing")["missing"] == [[1, 2]]
    count = api.processor("POST", prepared.fill(f"{SESSIONS}/{{open}}/seal"), json={"chunk_count": 1})
    assert _problem(count, 409, "chunk-count-mismatch")["chunk_count"] == 2
    options = {"headers": {"Range": "bytes=11-"}}
    beyond = api.processor("GET", prepared.fill(f"{SESSIONS}/{{sealed}}/content"), "replay", **options)
    assert _problem(beyond, 416, "range-not-satisfiable")["total_bytes"] == 11
    assert beyond.headers["content-range"] == "bytes */11"
    other = api.processor("POST", prepared.fill(f"{SESSIONS}/{{open}}"))
    assert set(other.headers["allow"].split(", ")) >= {"GET", "PUT", "DELETE"}


def test_one_bad_chunk_in_a_batch_is_answered_for_itself(api: Api, prepared: Prepared, database: Any) -> None:
    before = _stored(database)
    answer = api.processor("POST", "/api/v1/chunks/process-batch", json=prepared.fill(BATCH))
    assert answer.status_code == 200
    assert (answer.json()["success"], answer.json()["failed_chunks"]) == (False, 1)
    assert answer.json()["results"][0]["error"]["code"] == "invalid-request"
    assert _stored(database) == before


class TestBodyOverTheLimit:
    def test_declared(self, stack: Stack, prepared: Prepared, database: Any) -> None:
        before = _stored(database)
        address = urlsplit(stack.processor_url)
        with socket.create_connection((address.hostname, address.port), timeout=10) as raw:
            head = (
                f"PUT {prepared.fill(CHUNK)} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"
                f"Authorization: Bearer {stack.tokens['record']}\r\nContent-Length: {CHUNK_MAX_BYTES + 1}\r\n\r\n"
            )
            raw.sendall(head.encode())
            # The answer comes before a byte of the body was sent.
            answer = b""
            while b"body-too-large" not in answer and (got := raw.recv(65536)):
                answer += got
        assert answer.startswith(b"HTTP/1.1 413 ")
        assert b"application/problem+json" in answer
        assert _stored(database) == before

    def test_chunked(self, api: Api, prepared: Prepared, database: Any) -> None:
        before = _stored(database)

        def pieces() -> Iterator[bytes]:
            for _ in range(17):
                yield bytes(1024 * 1024)

        answer = api.processor("PUT", prepared.fill(CHUNK), content=pieces())
        assert _problem(answer, 413, "body-too-large")["limit_bytes"] == CHUNK_MAX_BYTES
        assert _stored(database) == before

    def test_one_byte_more_and_not_one_more(self, api: Api, prepared: Prepared) -> None:
        path = f"{SESSIONS}/{RUN}-large/chunks/0"
        _problem(api.processor("PUT", path, content=bytes(CHUNK_MAX_BYTES + 1)), 413, "body-too-large")
        assert api.processor("PUT", path, content=bytes(CHUNK_MAX_BYTES)).status_code == 201

    def test_as_base64(self, api: Api, prepared: Prepared, database: Any) -> None:
        before = _stored(database)
        body = _lucid(chunk_data_base64=base64.b64encode(bytes(CHUNK_MAX_BYTES + 1)).decode())
        _problem(api.processor("POST", "/api/v1/chunks/process", **prepared.fill(body)), 413, "body-too-large")
        assert _stored(database) == before

    def test_envelopes(self, api: Api, prepared: Prepared, database: Any) -> None:
        before = _stored(database)
        answer = api.storage("POST", "/api/v1/envelopes", "processor", content=bytes(18 * 1024 * 1024))
        _problem(answer, 413, "body-too-large")
        assert _stored(database) == before


# method, path as in the document, body, roles that may
ROUTES: dict[str, list[tuple[str, str, dict[str, Any], set[str]]]] = {
    P: [
        ("PUT", "/api/v1/sessions/{session_id}", {"json": {}}, {"record"}),
        ("GET", "/api/v1/sessions/{session_id}", {}, {"record", "replay", "audit"}),
        ("DELETE", "/api/v1/sessions/{session_id}", {}, {"admin"}),
        ("PUT", "/api/v1/sessions/{session_id}/chunks/{index}", BODY, {"record"}),
        ("GET", "/api/v1/sessions/{session_id}/chunks/{index}", {}, {"replay"}),
        ("GET", "/api/v1/sessions/{session_id}/content", {}, {"replay"}),
        ("POST", "/api/v1/sessions/{session_id}/seal", {"json": {}}, {"record"}),
        ("POST", "/api/v1/sessions/{session_id}/finalize", {}, {"record"}),
        ("GET", "/api/v1/sessions/{session_id}/merkle-root", {}, {"record"}),
        ("GET", "/api/v1/spool", {}, {"admin"}),
        ("GET", "/api/v1/spool/{name}", {}, {"admin"}),
        ("DELETE", "/api/v1/spool/{name}", {}, {"admin"}),
        ("GET", "/api/v1/spool/{name}/content", {}, {"replay"}),
        ("POST", "/api/v1/spool/{name}/retry", {}, {"admin"}),
        ("POST", "/api/v1/chunks/process", {"json": {}}, {"record"}),
        ("POST", "/api/v1/chunks/process-batch", {"json": {}}, {"record"}),
        ("GET", "/api/v1/keys", {}, {"admin"}),
        ("POST", "/api/v1/keys/rotate", {"json": {}}, {"admin"}),
    ],
    S: [
        ("PUT", "/api/v1/sessions/{session_id}", {"json": {}}, {"processor"}),
        ("GET", "/api/v1/sessions/{session_id}", {}, {"audit", "processor"}),
        ("DELETE", "/api/v1/sessions/{session_id}", {}, {"admin", "processor"}),
        ("POST", "/api/v1/sessions/{session_id}/keys", {"json": {}}, {"processor"}),
        ("GET", "/api/v1/sessions/{session_id}/keys", {}, {"admin", "processor"}),
        ("GET", "/api/v1/keys", {}, {"processor"}),
        ("GET", "/api/v1/keys/outdated", {"params": {"kek_id": "k"}}, {"processor"}),
        ("POST", "/api/v1/keys/replace", {"json": {"replacements": []}}, {"processor"}),
        ("POST", "/api/v1/sessions/{session_id}/seal", {"json": {}}, {"processor"}),
        ("PUT", "/api/v1/sessions/{session_id}/hold", {"json": {}}, {"admin", "processor"}),
        ("POST", "/api/v1/envelopes", BODY, {"processor"}),
        ("GET", "/api/v1/sessions", {}, {"audit", "processor"}),
        ("GET", "/api/v1/sessions/{session_id}/manifest", {}, {"audit", "processor"}),
        ("GET", "/api/v1/sessions/{session_id}/chunks", {}, {"audit", "processor"}),
        ("GET", "/api/v1/sessions/{session_id}/chunks/{index}/envelope", {}, {"audit", "processor"}),
        ("GET", "/api/v1/sessions/{session_id}/envelopes", {}, {"audit", "processor"}),
        ("GET", "/api/v1/sessions/{session_id}/chunks/{index}/proof", {}, {"audit", "processor"}),
        ("GET", "/api/v1/sessions/{session_id}/receipt", {}, {"audit", "processor"}),
        ("GET", "/api/v1/processors", {}, {"audit", "admin", "processor"}),
        ("POST", "/api/v1/processors/{name}/report", {"json": {"holdings": {}, "leaving": True}}, {"processor"}),
        ("DELETE", "/api/v1/processors/{name}", {}, {"admin"}),
        ("GET", "/api/v1/anchors", {}, {"audit", "processor"}),
        ("GET", "/api/v1/anchors/{root}", {}, {"audit", "processor"}),
        ("GET", "/api/v1/retention/due", {}, {"audit", "admin"}),
        ("PUT", "/api/v1/sessions/{session_id}/retention", {"json": {}}, {"admin", "processor"}),
        ("POST", "/api/v1/scrub", {"json": {}}, {"audit", "admin"}),
        ("GET", "/api/v1/scrub/findings", {}, {"audit", "admin"}),
        ("POST", "/api/v1/audit-events", {"json": {"events": []}}, {"processor"}),
        ("GET", "/api/v1/audit-events", {"params": {"day": "2026-01-31"}}, {"audit", "admin"}),
        ("GET", "/api/v1/audit-days", {}, {"audit", "admin"}),
    ],
}
ENTRY = "0000000000000001-000000000000"
ROLES = ("record", "replay", "audit", "admin", "processor")


class TestAccess:
    @pytest.mark.parametrize("service", [P, S])
    def test_every_route_is_in_the_list(self, api: Api, service: str) -> None:
        document = getattr(api, service)("GET", "/openapi.json", None).json()
        documented = {
            (method.upper(), path)
            for path, operations in document["paths"].items()
            for method in operations
            if path.startswith("/api/")
        }
        assert documented == {(method, path) for method, path, _, _ in ROUTES[service]}

    @pytest.mark.parametrize(
        ("service", "route"),
        [(service, route) for service, routes in ROUTES.items() for route in routes],
        ids=lambda value: value if isinstance(value, str) else f"{value[0]}-{value[1]}",
    )
    def test_no_token_an_unknown_one_and_each_wrong_role(
        self, api: Api, prepared: Prepared, database: Any, service: str, route: tuple[Any, ...]
    ) -> None:
        method, template, options, allowed = route
        path = template.format(session_id=prepared.names["sealed"], index=0, root="0" * 64, name=ENTRY)
        before = _stored(database)
        send = getattr(api, service)
        for role in (None, "nobody"):
            answer = send(method, path, role, **options)
            _problem(answer, 401, "unauthorized")
            assert answer.headers["www-authenticate"].startswith("Bearer")
        for authorization in ("", "Basic eDp5", "Bearer", "Bearer " + "x" * 5000, api.token("record")):
            headers = {"Authorization": authorization}
            _problem(send(method, path, None, headers=headers, **options), 401, "unauthorized")
        for role in sorted(set(ROLES) - allowed):
            _problem(send(method, path, role, **options), 403, "forbidden")
        assert _stored(database) == before

    def test_probes_need_no_token(self, api: Api) -> None:
        for path in ("/health", "/livez", "/readyz", "/metrics", "/openapi.json", "/docs"):
            assert api.processor("GET", path, None).status_code == 200
            assert api.storage("GET", path, None).status_code == 200


class TestRequestId:
    @pytest.mark.parametrize("sent", ["", "a b", "x" * 65, "é", "{}"])
    def test_one_that_is_none_is_replaced(self, api: Api, prepared: Prepared, sent: str) -> None:
        headers = {"X-Request-ID": sent.encode()}
        answer = api.processor("GET", prepared.fill(f"{SESSIONS}/{{none}}"), headers=headers)
        assert _problem(answer, 404, "session-not-found")["request_id"] not in ("", sent)

    def test_both_logs_have_it(self, api: Api, stack: Stack) -> None:
        before = {part: stack.env[part]["LOG_LEVEL"] for part in (S, P)}
        for part in (S, P):
            stack.restart(part, {"LOG_LEVEL": "DEBUG"})  # requests that go well are logged at this level only
        wanted = f"joined-{token_hex(6)}"
        answer = api.put_chunk(f"{RUN}-joined", 0, b"chunk", headers={"X-Request-ID": wanted})
        assert (answer.status_code, answer.headers["x-request-id"]) == (201, wanted)

        def logged(part: str) -> list[dict[str, Any]]:
            lines = [line for line in stack.log(part).read_text().splitlines() if wanted in line]
            return [json.loads(line) for line in lines]

        try:
            # A service logs a request when it has answered it: its caller may have done so by then.
            assert wait_until(lambda: "/api/v1/envelopes" in {line["path"] for line in logged(S)}, 10)
            assert wait_until(lambda: bool(logged(P)), 10)
            assert {line["path"] for line in logged(P)} == {f"{SESSIONS}/{RUN}-joined/chunks/0"}
            for part in (P, S):
                assert {line["request_id"] for line in logged(part)} == {wanted}
                assert {line["event"] for line in logged(part)} == {"request_served"}
        finally:
            for part in (S, P):
                stack.restart(part, {"LOG_LEVEL": before[part]})
