"""What becomes of bytes that a client sends after it was refused."""

import asyncio
import contextlib
import time

from tests.unit.runtime.http.echo import LIMIT, served
from tests.unit.runtime.http.test_connection import statuses


async def test_a_head_without_end_is_cut_off_and_not_read_for_long() -> None:
    """Found by the siege: sixteen such clients kept the event loop busy for as long as each lingered."""
    async with served() as (_, reader, writer):
        sent, began = 0, time.monotonic()
        writer.write(b"GET / HTTP/1.1\r\nHost: x\r\n")
        with contextlib.suppress(ConnectionError):
            async with asyncio.timeout(5):
                while True:
                    writer.write(b"a:\r\n" * 4096)
                    sent += 4 * 4096
                    await writer.drain()
                    await asyncio.sleep(0)
        assert time.monotonic() - began < 5
        assert sent < 16 * 1024 * 1024
        with contextlib.suppress(ConnectionError):
            assert statuses(await reader.read()) == [431]


async def test_a_body_that_is_refused_is_dropped_at_a_pace() -> None:
    size = 4 * LIMIT
    async with served() as (_, reader, writer), asyncio.timeout(10):
        began = time.monotonic()
        writer.write(b"PUT / HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: %d\r\n\r\n" % size)
        writer.write(bytes(size))
        await writer.drain()
        assert statuses(await reader.read()) == [400]
        assert 0.5 < time.monotonic() - began < 8
