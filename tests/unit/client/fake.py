"""Both services in one small server, real enough for a client: real HTTP, real trees, no keys and no database.

An envelope here is a true header, the plaintext as it is, and 16 bytes in place of the tag. Faults are scripted.
"""

import asyncio
import base64
import hashlib
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from sessions.core import merkle
from sessions.core.envelope import Codec, Header, fingerprint, missing_leaf_input
from sessions.core.manifest import Manifest, metadata_sha256
from sessions.core.proof import ChunkProof
from sessions.core.receipt import Anchor, AnchorState, Batch, Receipt
from sessions.core.types import ChunkIndex, DekId, Hash, SessionId

TOKEN = "lucid_" + "t" * 43
OPENED, SEALED = "2026-01-31T10:00:00.000Z", "2026-01-31T11:00:00.000Z"


def seal_chunk(session: str, index: int, data: bytes) -> bytes:
    header = Header(Codec.STORED, DekId(bytes(16)), bytes(12), ChunkIndex(index), len(data), SessionId(session))
    return header.to_bytes() + data + bytes(16)


def problem(status: int, code: str, headers: dict[str, str] | None = None, **members: object) -> Response:
    body = {"title": code, "status": status, "detail": f"it is {code}", "code": code, "request_id": "r-1", **members}
    return Response(json.dumps(body), status, headers, "application/problem+json")


class Cut(Response):
    """Promises `promised` bytes, sends the body, and breaks the connection."""

    def __init__(self, body: bytes, promised: int, status: int = 200, headers: dict[str, str] | None = None) -> None:
        super().__init__(body, status, {**(headers or {}), "content-length": str(promised)})

    async def __call__(self, scope, receive, send) -> None:
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        await send({"type": "http.response.body", "body": self.body, "more_body": True})
        # Returning early makes the server close the connection.


@dataclass
class FakeSession:
    chunks: dict[int, bytes] = field(default_factory=dict)
    metadata: dict = field(default_factory=dict)
    manifest: Manifest | None = None


Fault = Callable[[], Response | None]


@dataclass
class Fake:
    sessions: dict[str, FakeSession] = field(default_factory=dict)
    faults: list[tuple[str, str, list[Response]]] = field(default_factory=list)
    requests: list[tuple[str, str]] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    anchor: Anchor = field(default_factory=Anchor)
    page_items: int = 3
    pause_seconds: float = 0
    in_flight: int = 0
    most_in_flight: int = 0
    url: str = ""

    def fault(self, method: str, part: str, *answers: Response) -> None:
        """The next requests of this method whose path contains `part` get these answers, one each."""
        self.faults.append((method, part, list(answers)))

    def _scripted(self, request: Request) -> Response | None:
        for method, part, answers in self.faults:
            if request.method == method and part in request.url.path and answers:
                return answers.pop(0)
        return None

    async def __call__(self, request: Request) -> Response:
        self.requests.append((request.method, request.url.path))
        self.headers.append(dict(request.headers))
        self.in_flight += 1
        self.most_in_flight = max(self.most_in_flight, self.in_flight)
        try:
            body = await request.body()
            await asyncio.sleep(self.pause_seconds)
            if (answer := self._scripted(request)) is not None:
                return answer
            if request.headers.get("authorization") != f"Bearer {TOKEN}":
                return problem(401, "unauthorized")
            return self._route(request, body)
        finally:
            self.in_flight -= 1

    def _route(self, request: Request, body: bytes) -> Response:  # noqa: PLR0911
        parts = request.url.path.removeprefix("/api/v1/").split("/")
        if parts[0] == "anchors":
            return self._anchors(parts[1:])
        if len(parts) == 1:
            return self._list(request)
        name, rest = parts[1], parts[2:]
        if request.method == "PUT" and (not rest or (rest[0] == "chunks" and name not in self.sessions)):
            new = name not in self.sessions
            session = self.sessions.setdefault(name, FakeSession())
            if not rest:
                session.metadata = json.loads(body).get("metadata", {})
                return JSONResponse(self._status(name), 201 if new else 200)
        if name not in self.sessions:
            return problem(404, "session-not-found")
        session = self.sessions[name]
        match request.method, rest:
            case "GET", []:
                return JSONResponse(self._status(name))
            case "DELETE", []:
                session.chunks.clear()
                return JSONResponse({})
            case "PUT", ["hold"]:
                return JSONResponse(json.loads(body))
            case "PUT", ["chunks", index]:
                return self._put(name, session, int(index), body, request)
            case "POST", ["seal"]:
                return self._seal(name, session, json.loads(body).get("chunk_count"))
            case "GET", ["content"]:
                return self._content(session, request.headers.get("range"))
            case "GET", ["chunks"]:
                return self._chunks(name, session, int(request.query_params["start"]))
            case "GET", ["chunks", index, "envelope"]:
                return Response(seal_chunk(name, int(index), session.chunks[int(index)]))
            case "GET", ["chunks", index, "proof"]:
                return JSONResponse(self.proof(name, int(index)).to_json())
            case "GET", ["manifest"]:
                assert session.manifest is not None
                return Response(session.manifest.to_bytes())
            case "GET", ["receipt"]:
                return JSONResponse(self.receipt(name).to_json()) if session.manifest else problem(409, "session-open")
        return problem(404, "not-found")

    def _put(self, name: str, session: FakeSession, index: int, data: bytes, request: Request) -> Response:
        digest = base64.b64encode(hashlib.sha256(data).digest()).decode()
        assert request.headers["content-digest"] == f"sha-256=:{digest}:"
        if session.manifest is not None:
            return problem(409, "session-sealed")
        new = index not in session.chunks
        if not new and session.chunks[index] != data:
            return problem(409, "chunk-conflict")
        session.chunks[index] = data
        return JSONResponse(self.ack(name, index), 201 if new else 200)

    def ack(self, name: str, index: int) -> dict:
        data = self.sessions[name].chunks[index]
        marks = fingerprint(SessionId(name), index, seal_chunk(name, index, data))
        return {
            "session_id": name,
            "index": index,
            "plaintext_bytes": len(data),
            "envelope_bytes": marks.envelope_bytes,
            "envelope_sha256": marks.envelope_sha256.hex(),
            "leaf_hash": marks.leaf_hash.hex(),
            "durability": "stored",
        }

    def _status(self, name: str) -> dict:
        session = self.sessions[name]
        have = sorted(session.chunks)
        gaps: list[list[int]] = []
        for index in range(have[-1] + 1 if have else 0):
            if index not in session.chunks:
                if gaps and gaps[-1][1] == index - 1:
                    gaps[-1][1] = index
                else:
                    gaps.append([index, index])
        return {
            "session_id": name,
            "status": "sealed" if session.manifest else "open",
            "next_index": have[-1] + 1 if have else 0,
            "missing": gaps,
            "chunk_count": len(have),
            "plaintext_bytes": sum(map(len, session.chunks.values())),
            "envelope_bytes": sum(len(seal_chunk(name, 0, data)) for data in session.chunks.values()),
            "opened_at": OPENED,
            "sealed_at": SEALED if session.manifest else None,
            "root": session.manifest.root.hex() if session.manifest else None,
            "anchor": self.anchor.to_json() if session.manifest else None,
            "something_new": 1,
        }

    def leaves(self, name: str) -> list[bytes]:
        session = self.sessions[name]
        count = session.manifest.chunk_count if session.manifest else max(session.chunks, default=-1) + 1
        return [
            fingerprint(SessionId(name), index, seal_chunk(name, index, session.chunks[index])).leaf_hash
            if index in session.chunks
            else merkle.leaf_hash(missing_leaf_input(SessionId(name), index))
            for index in range(count)
        ]

    def seal(self, name: str, missing: tuple[tuple[int, int], ...] = ()) -> Manifest:
        session = self.sessions[name]
        manifest = Manifest(
            session_id=SessionId(name),
            chunk_count=max(session.chunks, default=-1) + 1,
            missing=missing,
            plaintext_bytes=sum(map(len, session.chunks.values())),
            envelope_bytes=sum(len(seal_chunk(name, 0, data)) for data in session.chunks.values()),
            root=merkle.root(self.leaves(name)),
            opened_at=OPENED,
            sealed_at=SEALED,
            sealed_by="idle" if missing else "recorder",
            metadata_sha256=metadata_sha256(session.metadata),
        )
        session.manifest = manifest
        return manifest

    def _seal(self, name: str, session: FakeSession, count: int | None) -> Response:
        if self._status(name)["missing"]:
            return problem(409, "chunks-missing", missing=self._status(name)["missing"])
        if count is not None and count != len(session.chunks):
            return problem(409, "chunk-count-mismatch")
        manifest = session.manifest or self.seal(name)
        return JSONResponse(
            {"manifest": manifest.to_json(), "manifest_sha256": manifest.sha256().hex(), "root": manifest.root.hex()}
        )

    def _content(self, session: FakeSession, wanted: str | None) -> Response:
        data = b"".join(session.chunks[index] for index in sorted(session.chunks))
        if wanted is None:
            return Response(data)
        start = int(wanted.removeprefix("bytes=").removesuffix("-"))
        if start >= len(data):
            return problem(416, "range-not-satisfiable")
        return Response(data[start:], 206, {"content-range": f"bytes {start}-{len(data) - 1}/{len(data)}"})

    def _chunks(self, name: str, session: FakeSession, start: int) -> Response:
        have = [index for index in sorted(session.chunks) if index >= start]
        page = [self.ack(name, index) for index in have[: self.page_items]]
        more = have[self.page_items :]
        return JSONResponse({"chunks": page, "next_start": more[0] if more else None})

    def _list(self, request: Request) -> Response:
        names = sorted(self.sessions, reverse=True)
        start = int(request.query_params.get("cursor", "0"))
        status = request.query_params.get("status")
        items = [one for one in map(self._status, names) if status in (None, one["status"])]
        following = start + self.page_items
        cursor = str(following) if following < len(items) else None
        return JSONResponse({"sessions": items[start:following], "next_cursor": cursor})

    def _anchors(self, rest: list[str]) -> Response:
        one = {
            "root": "ab" * 32,
            "size": 1,
            "sequence": 0,
            "created_at": SEALED,
            "anchor": self.anchor.to_json(),
            "gas_used": 46000,
        }
        if rest:
            return (
                JSONResponse({**one, "sessions": ["s"]}) if rest[0] == "ab" * 32 else problem(404, "anchor-not-found")
            )
        return JSONResponse({"anchors": [one], "next_cursor": None})

    def proof(self, name: str, index: int) -> ChunkProof:
        leaves, manifest = self.leaves(name), self.sessions[name].manifest
        assert manifest is not None
        marks = fingerprint(SessionId(name), index, seal_chunk(name, index, self.sessions[name].chunks[index]))
        return ChunkProof(
            session_id=SessionId(name),
            index=index,
            envelope_bytes=marks.envelope_bytes,
            envelope_sha256=marks.envelope_sha256,
            leaf_hash=marks.leaf_hash,
            tree_size=len(leaves),
            root=manifest.root,
            path=tuple(merkle.inclusion_path(index, leaves)),
        )

    def receipt(self, name: str) -> Receipt:
        manifest = self.sessions[name].manifest
        assert manifest is not None
        batch = None
        if self.anchor.state is not AnchorState.PENDING:
            others = [Hash(bytes([7]) * 32), manifest.leaf_hash(), Hash(bytes([9]) * 32)]
            batch = Batch(root=merkle.root(others), size=3, index=1, path=tuple(merkle.inclusion_path(1, others)))
        return Receipt(manifest=manifest, batch=batch, anchor=self.anchor)


@contextmanager
def serve(endpoint: Callable) -> Iterator[str]:
    """Serve an endpoint for every path on a free loopback port; the URL."""
    app = Starlette(routes=[Route("/{path:path}", endpoint, methods=["GET", "PUT", "POST", "DELETE"])])
    # With the protocol named, asyncio switches Nagle's algorithm off.
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.bind(("127.0.0.1", 0))
    config = uvicorn.Config(app, log_level="critical", ws="none", lifespan="off", loop="asyncio", http="h11")
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.005)
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(10)
        listener.close()
