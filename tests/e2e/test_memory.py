"""Memory of both services while many sessions are open and many chunks come: bounded, and flat."""

import asyncio
import os
import re
from collections.abc import Iterator
from pathlib import Path
from statistics import median
from urllib.parse import urlsplit

import pytest

from scripts.devstack.stack import Stack
from tests.conftest import Figure, own_stack

CHUNKS = int(os.environ.get("LUCID_MEMORY_CHUNKS", "6000"))
SESSIONS = 1000
_AT_ONCE = 32
_CHUNK_BYTES = 4 * 1024
_LIMIT_MIB = {"processor": 160, "storage": 200}
"""Interpreter and libraries of a process that is measured for coverage included."""
_GROWTH = 1.08


@pytest.fixture(scope="module")
def fresh(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """A stack that has done nothing yet."""
    yield from own_stack(tmp_path_factory)


def _resident_mib(pid: int) -> float:
    (line,) = (one for one in Path(f"/proc/{pid}/status").read_text().splitlines() if one.startswith("VmRSS"))
    return int(line.split()[1]) / 1024


@pytest.mark.timeout(60 + CHUNKS / 50)
async def test_memory_is_bounded_and_flat(fresh: Stack, figure: Figure) -> None:
    seen: dict[str, list[float]] = {"processor": [], "storage": []}
    left = iter(range(CHUNKS))
    content = os.urandom(_CHUNK_BYTES)

    async def record() -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", urlsplit(fresh.processor_url).port)
        for number in left:
            path = f"/api/v1/sessions/memory-{number % SESSIONS}/chunks/{number // SESSIONS}"
            head = f"PUT {path} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {fresh.tokens['record']}\r\n"
            writer.write(f"{head}content-length: {len(content)}\r\n\r\n".encode() + content)
            answer = await reader.readuntil(b"\r\n\r\n")
            assert answer.startswith(b"HTTP/1.1 201"), answer
            (length,) = re.findall(rb"(?i)content-length: ([0-9]+)", answer)
            await reader.readexactly(int(length))
            if number % (CHUNKS // 100) == 0:
                for service, figures in seen.items():
                    running = fresh.process(service)
                    assert running is not None
                    figures.append(_resident_mib(running.pid))
        writer.close()

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
