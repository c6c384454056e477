"""The wire does to bytes what it says."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from tests.chaos.wire import Condition, Wire


async def _echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    heard.append(line := await reader.readline())
    writer.write(line)
    await writer.drain()
    writer.close()


heard: list[bytes] = []


@pytest.fixture
async def wire() -> AsyncIterator[Wire]:
    heard.clear()
    server = await asyncio.start_server(_echo, "127.0.0.1", 0)
    async with Wire(server.sockets[0].getsockname()[1]) as one:
        yield one
    server.close()


async def _say(wire: Wire) -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", wire.port)
    try:
        writer.write(b"hello\n")
        return await reader.readline()
    except ConnectionResetError:
        return b""
    finally:
        writer.transport.abort()


async def test_whole(wire: Wire) -> None:
    assert await _say(wire) == b"hello\n"


async def test_cut_and_mended(wire: Wire) -> None:
    wire.become(Condition.CUT)
    assert await _say(wire) == b""
    assert heard == []
    wire.become(Condition.WHOLE)
    assert await _say(wire) == b"hello\n"


async def test_stalled_and_mended(wire: Wire) -> None:
    wire.become(Condition.STALLED)
    said = asyncio.create_task(_say(wire))
    await asyncio.sleep(0.1)
    assert not said.done()
    assert heard == []
    wire.become(Condition.WHOLE)
    assert await said == b"hello\n"


async def test_deaf(wire: Wire) -> None:
    wire.become(Condition.DEAF)
    assert await _say(wire) == b""
    assert heard == [b"hello\n"]


async def test_nothing_at_the_other_end() -> None:
    async with Wire(1) as wire:
        assert await _say(wire) == b""
