"""Anchoring: what a batch costs, how long it takes to make one, and whether all its receipts verify."""

import asyncio
import json
import time
from collections.abc import Callable
from typing import Any, Final

from bench.load import Connection
from bench.results import Results
from scripts.devstack.stack import Stack
from sessions.core import receipt as receipts

BATCHES: Final = (1, 10, 100, 1_000, 10_000)
_AT_ONCE: Final = 32
_CONFIRMED_SECONDS: Final = 120


async def measure(stack: Stack, sizes: tuple[int, ...], results: Results, told: Callable[[str], None]) -> None:
    """Seal so many sessions while anchoring is off, then turn it on, for each size of a batch."""
    for size in sizes:
        told(f"batch of {size:,} sessions")
        await asyncio.to_thread(stack.restart, "storage", {"ANCHORING": "off"})
        await _record(stack, f"batch-{size}", size)
        auditor = Connection(stack.storage_url, stack.tokens["audit"])
        known = {anchor["root"] for anchor in (await _get(auditor, "/api/v1/anchors"))["anchors"]}
        await auditor.close()
        await asyncio.to_thread(stack.restart, "storage", {"ANCHORING": "on"})
        await _anchored(stack, size, known, results)


async def _record(stack: Stack, prefix: str, count: int) -> None:
    left = iter(range(count))

    async def some() -> None:
        connection = Connection(stack.processor_url, stack.tokens["record"])
        for number in left:
            url = f"/api/v1/sessions/{prefix}-{number}"
            for method, path, body, expected in (
                ("PUT", f"{url}/chunks/0", b"session %d" % number, 201),
                ("POST", f"{url}/seal", b'{"chunk_count":1}', 200),
            ):
                status, answer = await connection.request(method, path, body, "application/json")
                if status != expected:
                    raise RuntimeError(f"{method} {path}: HTTP {status}: {answer[:300]!r}")
        await connection.close()

    async with asyncio.TaskGroup() as group:
        for _ in range(_AT_ONCE):
            group.create_task(some())


async def _anchored(stack: Stack, size: int, known: set[str], results: Results) -> None:
    auditor, began = Connection(stack.storage_url, stack.tokens["audit"]), time.perf_counter()
    made = None
    while True:
        anchors = (await _get(auditor, "/api/v1/anchors"))["anchors"]
        new = [anchor for anchor in anchors if anchor["root"] not in known]
        if new and made is None:
            made = time.perf_counter() - began
        if new and all(anchor["anchor"]["state"] == "confirmed" for anchor in new):
            break
        if time.perf_counter() - began > _CONFIRMED_SECONDS:
            raise RuntimeError(f"the batch of {size} sessions was not confirmed in {_CONFIRMED_SECONDS} s")
        await asyncio.sleep(0.05)
    (batch,) = new  # one batch, and so one transaction
    if batch["size"] != size:
        raise RuntimeError(f"the batch holds {batch['size']} sessions of {size}")
    assert made is not None
    results.add(f"batch of {size} | made in", made, "s")
    results.add(f"batch of {size} | gas", batch["gas_used"], "gas")
    results.add(f"batch of {size} | gas a session", batch["gas_used"] / size, "gas")
    began = time.perf_counter()
    for number in range(size):
        _, data = await auditor.request("GET", f"/api/v1/sessions/batch-{size}-{number}/receipt")
        receipts.verify_batch(receipts.from_bytes(data))
    results.add(f"batch of {size} | a receipt, fetched and verified", (time.perf_counter() - began) / size * 1000, "ms")
    await auditor.close()


async def _get(connection: Connection, path: str) -> Any:
    status, answer = await connection.request("GET", path)
    if status != 200:  # noqa: PLR2004
        raise RuntimeError(f"GET {path}: HTTP {status}: {answer[:300]!r}")
    return json.loads(answer)
