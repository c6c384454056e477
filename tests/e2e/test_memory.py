"""Memory of both services while many sessions are open and many chunks come: bounded, and flat."""

import asyncio
import os
from collections.abc import Iterator
from statistics import median

import pytest

from bench.load import Connection
from bench.usage import resident_mib
from scripts.devstack.stack import Stack
from tests.conftest import Figure, own_stack

CHUNKS = int(os.environ.get("LUCID_MEMORY_CHUNKS", "6000"))
SESSIONS = 1000
_AT_ONCE = 32
_CHUNK_BYTES = 4 * 1024
_LIMIT_MIB = {"processor": 128, "storage": 160}
"""Interpreter and libraries included."""
_GROWTH = 1.08


@pytest.fixture(scope="module")
def fresh(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """A stack that has done nothing yet."""
    yield from own_stack(tmp_path_factory)


@pytest.mark.timeout(60 + CHUNKS / 50)
async def test_memory_is_bounded_and_flat(fresh: Stack, figure: Figure) -> None:
    seen: dict[str, list[float]] = {"processor": [], "storage": []}
    left = iter(range(CHUNKS))
    content = os.urandom(_CHUNK_BYTES)

    async def record() -> None:
        connection = Connection(fresh.processor_url, fresh.tokens["record"])
        for number in left:
            path = f"/api/v1/sessions/memory-{number % SESSIONS}/chunks/{number // SESSIONS}"
            status, answer = await connection.request("PUT", path, content)
            assert status == 201, answer
            if number % (CHUNKS // 100) == 0:
                for service, figures in seen.items():
                    running = fresh.process(service)
                    assert running is not None
                    figures.append(resident_mib(running.pid))
        await connection.close()

    async with asyncio.TaskGroup() as group:
        for _ in range(_AT_ONCE):
            group.create_task(record())
    for service, figures in seen.items():
        third, last = median(figures[50:75]), median(figures[75:])
        figure(
            f"{service}: at most {max(figures):.0f} MiB resident in {CHUNKS} chunks of {SESSIONS} open sessions; "
            f"{third:.0f} MiB in the third quarter, {last:.0f} MiB in the last"
        )
        assert max(figures) <= _LIMIT_MIB[service]
        assert last <= third * _GROWTH
