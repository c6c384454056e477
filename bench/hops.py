"""The least that two services can do to a chunk: two requests and one insert.

zstd, AES-256-GCM, a POST, SHA-256, a journaled insert, on our server and with our client of HTTP. No tokens, sessions,
records, states, batches or metrics: nobody could use it. It says how near to a bare insert two services come, on the
same libraries, that answer when MongoDB has journaled.

`python -m bench.hops ROLE NEXT` serves until it is ended, and prints its URL; NEXT is where it hands things on to.
"""

import hashlib
import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, Final

import uvicorn
import uvloop
import zstandard
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from pymongo import AsyncMongoClient, WriteConcern
from starlette.types import ASGIApp, Receive, Scope, Send

from sessions.processor.wire import Wire
from sessions.runtime import memory
from sessions.runtime.body import read
from sessions.runtime.budget import ByteBudget
from sessions.runtime.http.connection import Connection
from sessions.runtime.http.connections import Connections
from sessions.runtime.http.edge import Edge

_DATABASE: Final = "lucid_bench_hops"
_TIMEOUT_SECONDS: Final = 30
_BODY_MAX_BYTES: Final = 16 * 1024 * 1024
_BUDGET_BYTES: Final = 256 * 1024 * 1024
_NONCE_BYTES: Final = 12


async def _answer(send: Send, told: dict[str, str]) -> None:
    content = json.dumps(told).encode()
    length = str(len(content)).encode()
    await send({"type": "http.response.start", "status": 201, "headers": [(b"content-length", length)]})
    await send({"type": "http.response.body", "body": content})


class Processor:
    """Compresses, seals, hands on."""

    def __init__(self, storage_url: str) -> None:
        self._wire = Wire(storage_url, {}, _TIMEOUT_SECONDS, None)
        self._key = AESGCM(os.urandom(32))
        self._budget = ByteBudget(_BUDGET_BYTES)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002 - ASGI's signature
        """Serve one request."""
        async with self._budget.reserve(0) as room:
            plaintext = await read(receive, _BODY_MAX_BYTES, room)
        nonce = os.urandom(_NONCE_BYTES)
        packed = zstandard.ZstdCompressor(level=3).compress(plaintext)
        stored = await self._wire.request("POST", "/", [nonce + self._key.encrypt(nonce, packed, None)])
        await _answer(send, stored.json())


class Storage:
    """Hashes, inserts."""

    def __init__(self, mongodb_url: str) -> None:
        client: AsyncMongoClient[dict[str, Any]] = AsyncMongoClient(mongodb_url)
        self._budget = ByteBudget(_BUDGET_BYTES)
        self._chunks = client[_DATABASE].get_collection("chunks", write_concern=WriteConcern(w=1, j=True))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002 - ASGI's signature
        """Serve one request."""
        async with self._budget.reserve(0) as room:
            body = await read(receive, _BODY_MAX_BYTES, room)
        digest = hashlib.sha256(body).digest()
        await self._chunks.insert_one({"sha256": digest, "body": bytes(body)})
        await _answer(send, {"durability": "stored", "sha256": digest.hex()})


@contextmanager
def running(mongodb_url: str) -> Iterator[str]:
    """Both of them, for the time of the block; gives the URL that takes chunks.

    Raises:
        RuntimeError: one does not start; it has said why on stderr.
    """
    with _process("storage", mongodb_url) as storage_url, _process("processor", storage_url) as url:
        yield url


@contextmanager
def _process(role: str, following: str) -> Iterator[str]:
    command = [sys.executable, "-m", "bench.hops", role, following]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        url = process.stdout.readline().strip()
        if not url:
            raise RuntimeError(f"bench.hops {role} does not start")
        yield url
    finally:
        process.terminate()
        process.wait()
        process.stdout.close()


async def _serve(role: str, following: str) -> None:
    app: ASGIApp = Processor(following) if role == "processor" else Storage(following)
    listening = socket.create_server(("127.0.0.1", 0))
    print(f"http://127.0.0.1:{listening.getsockname()[1]}", flush=True)
    protocol = partial(Connection, Connections(Edge()))
    settings = uvicorn.Config(app, http=protocol, lifespan="off", log_config=None, access_log=False)  # type: ignore[arg-type]
    memory.settle()
    await uvicorn.Server(settings).serve(sockets=[listening])


if __name__ == "__main__":
    uvloop.run(_serve(*sys.argv[1:]))
