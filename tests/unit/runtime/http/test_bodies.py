"""Bodies that are handed over whole, by the real server over real sockets."""

import asyncio
import gc
import os
from pathlib import Path

import pytest

from tests.unit.runtime.http.echo import LIMIT, Echo, served, serving

_HEAD = "PUT {path} HTTP/1.1\r\nhost: x\r\n{more}\r\n"


def _head(length: int | None, more: str = "", path: str = "/") -> bytes:
    declared = "transfer-encoding: chunked\r\n" if length is None else f"content-length: {length}\r\n"
    return _HEAD.format(path=path, more=declared + more).encode()


async def _answer(reader: asyncio.StreamReader) -> tuple[int, bytes]:
    async with asyncio.timeout(10):
        head = await reader.readuntil(b"\r\n\r\n")
        length = int(head.split(b"content-length: ")[1].split(b"\r\n")[0])
        return int(head[9:12]), await reader.readexactly(length)


@pytest.mark.parametrize("size", [0, 1, 100, 65536, 65537, 3 * 1024 * 1024])
@pytest.mark.parametrize("at_once", [True, False])
async def test_a_body_is_what_was_sent(size: int, at_once: bool) -> None:
    async with served() as (app, reader, writer):
        for _ in range(3):  # over one connection
            content = os.urandom(size)
            if at_once:
                writer.write(_head(size) + content)
            else:
                writer.write(_head(size))
                for start in range(0, size, size // 3 + 1):
                    await asyncio.sleep(0.01)
                    writer.write(content[start : start + size // 3 + 1])
            assert await _answer(reader) == (200, content)
        assert app.budget.used_bytes == 0


async def test_one_that_is_here_before_it_is_asked_for() -> None:
    async with served() as (app, reader, writer):
        app.open = False
        content = os.urandom(200_000)  # so much that reading is paused
        writer.write(_head(len(content)) + content)
        await asyncio.sleep(0.05)
        app.open = True
        assert await _answer(reader) == (200, content)


async def test_requests_that_follow_without_waiting_for_answers() -> None:
    async with served() as (_, reader, writer):
        contents = [os.urandom(size) for size in (70_000, 0, 5, 300_000)]
        writer.write(b"".join(_head(len(content)) + content for content in contents))
        for content in contents:
            assert await _answer(reader) == (200, content)


async def test_who_wants_to_be_told_to_go_on() -> None:
    async with served() as (_, reader, writer):
        writer.write(_head(5, "expect: 100-continue\r\n"))
        async with asyncio.timeout(5):
            assert await reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
        writer.write(b"hello")
        assert await _answer(reader) == (200, b"hello")


async def test_without_a_length_it_comes_in_pieces() -> None:
    async with served() as (_, reader, writer):
        writer.write(_head(None) + b"3\r\nabc\r\n")
        await asyncio.sleep(0.02)
        writer.write(b"2\r\nde\r\n0\r\n\r\n")
        assert await _answer(reader) == (200, b"abcde")


async def test_a_client_that_goes_away_holds_nothing() -> None:
    async with served() as (app, _, writer):
        writer.write(_head(1000) + b"only this")
        async with asyncio.timeout(5):
            while not app.budget.used_bytes:
                await asyncio.sleep(0.001)
            writer.close()
            while not app.seen:
                await asyncio.sleep(0.001)
        assert app.seen == ["incomplete-body"]
        assert app.budget.used_bytes == 0


async def test_one_that_went_before_it_was_asked_for() -> None:
    async with served() as (app, _, writer):
        app.open = False
        writer.write(_head(1000) + b"only this")
        await writer.drain()
        writer.close()
        await asyncio.sleep(0.05)
        app.open = True
        async with asyncio.timeout(5):
            while not app.seen:
                await asyncio.sleep(0.001)
        assert app.seen == ["incomplete-body"]


async def test_one_that_is_too_large_is_refused_unread() -> None:
    async with served() as (_, reader, writer):
        writer.write(_head(LIMIT + 1) + bytes(LIMIT + 1))
        assert await _answer(reader) == (400, b"body-too-large")
        assert await reader.read() == b""  # what is left of it is not worth a connection


async def test_what_little_is_left_of_one_that_nobody_wants_is_dropped() -> None:
    async with served() as (_, reader, writer):
        writer.write(_head(900_000, path="/unread"))
        assert await _answer(reader) == (204, b"")
        writer.write(b"x" * 900_000 + _head(2) + b"ok")
        assert await _answer(reader) == (200, b"ok")


async def test_memory_is_taken_as_bytes_arrive() -> None:
    """Found by the siege: 50 announced bodies of 16 MiB took 800 MiB, since a buffer of zeros is resident."""
    async with serving(Echo()) as address:
        gc.collect()
        before = _resident_bytes()
        writers = []
        for _ in range(30):
            _, writer = await asyncio.open_connection(*address)
            writer.write(b"PUT / HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\nabc" % LIMIT)
            writers.append(writer)
        await asyncio.sleep(0.5)
        taken = _resident_bytes() - before
        for writer in writers:
            writer.close()
        assert taken < 20 * 1024 * 1024


def _resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
