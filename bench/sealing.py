"""Sealing sessions of more and more chunks, and proving single chunks of them."""

import json
import random
import time
from collections.abc import Callable
from typing import Any, Final

from pymongo import MongoClient, WriteConcern

from bench.load import Connection
from bench.results import Results
from bench.usage import forget_peak, peak_mib, resident_mib
from scripts.devstack.filling import fill
from scripts.devstack.stack import Stack

SIZES: Final = (1_000, 10_000, 100_000, 1_000_000)
_PROOFS: Final = 40
_OK: Final = 200


async def measure(
    stack: Stack, number: int, sizes: tuple[int, ...], results: Results, told: Callable[[str], None]
) -> None:
    """Seal a session of each size, and have chunks of it proven."""
    storage = stack.process("storage")
    assert storage is not None
    recorder = Connection(stack.processor_url, stack.tokens["record"])
    processor = Connection(stack.storage_url, stack.tokens["processor"])
    auditor = Connection(stack.storage_url, stack.tokens["audit"])
    for size in sizes:
        told(f"seal {size:,} chunks")
        session = f"sealing-{number}-{size}"
        await _expect(recorder, "PUT", f"/api/v1/sessions/{session}", {})
        with MongoClient[dict[str, Any]](stack.mongodb_url) as client:
            database = client[stack.env["storage"]["MONGODB_DATABASE"]]
            root = fill(database.get_collection("chunks", write_concern=WriteConcern(w=1, j=False)), session, size)
        before = resident_mib(storage.pid)
        forget_peak(storage.pid)
        began = time.perf_counter()
        body = {"chunk_count": size, "sealed_by": "recorder"}
        sealed = await _expect(processor, "POST", f"/api/v1/sessions/{session}/seal", body)
        results.add(f"seal {size} | time", time.perf_counter() - began, "s")
        results.add(f"seal {size} | more memory", peak_mib(storage.pid) - before, "MiB")
        if sealed["root"] != root.hex():
            raise RuntimeError(f"{session} was sealed with another root than its chunks have")
        draw = random.Random(number)
        for _ in range(_PROOFS):
            url = f"/api/v1/sessions/{session}/chunks/{draw.randrange(size)}/proof"
            began = time.perf_counter()
            await _expect(auditor, "GET", url)
            results.add(f"prove in {size} | time", (time.perf_counter() - began) * 1000, "ms")
    for connection in (recorder, processor, auditor):
        await connection.close()


async def _expect(connection: Connection, method: str, path: str, body: Any = None) -> Any:
    content = b"" if body is None else json.dumps(body).encode()
    status, answer = await connection.request(method, path, content, "application/json")
    if status not in (_OK, 201):
        raise RuntimeError(f"{method} {path}: HTTP {status}: {answer[:300]!r}")
    return json.loads(answer)
