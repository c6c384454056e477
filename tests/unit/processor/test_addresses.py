"""A name with several addresses: each gets its own try (RFC 8305), on the loops of asyncio and of uvloop."""

import asyncio
import socket
import ssl
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TypeVar

import pytest
import uvloop

from sessions.processor import addresses
from sessions.processor.addresses import Address
from sessions.processor.storage_client import StorageClient
from sessions.processor.wire import NoAnswerInTimeError, NoConnectionError, Wire
from tests.certificates import Authority

_OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"
_LOOPS = pytest.mark.parametrize("loop", [asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
T = TypeVar("T")
NewLoop = Callable[[], asyncio.AbstractEventLoop]


@contextmanager
def swallowing(host: str, port: int = 0) -> Iterator[int]:
    """An address whose queue of connections is full, so the kernel drops each SYN that comes; yields its port."""
    with ExitStack() as opened:
        server = opened.enter_context(socket.socket())
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        server.bind((host, port))
        server.listen(0)
        for _ in range(4):
            filling = opened.enter_context(socket.socket())
            filling.setblocking(False)
            filling.connect_ex(server.getsockname())
        yield server.getsockname()[1]


async def _serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while True:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(_OK)
    except (asyncio.IncompleteReadError, ConnectionError):
        writer.close()


async def _hear(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Take all and answer nothing."""
    while await reader.read(4096):
        pass
    writer.close()


def _run(loop: NewLoop, what: Callable[[], Awaitable[T]]) -> T:
    async def run() -> T:
        result = await what()
        await asyncio.sleep(0.1)  # servers see the end of their connections
        return result

    with asyncio.Runner(loop_factory=loop) as runner:
        return runner.run(run())


def _name_with(monkeypatch: pytest.MonkeyPatch, *hosts: str) -> None:
    async def resolve(_host: str, port: int) -> list[Address]:
        return [(socket.AF_INET, (host, port)) for host in hosts]

    monkeypatch.setattr(addresses, "resolve", resolve)


@_LOOPS
def test_an_address_that_swallows_connections_delays_a_request_only(
    monkeypatch: pytest.MonkeyPatch, loop: NewLoop
) -> None:
    """B30: `NoAnswerInTimeError`, and all chunks went to the spool until it was full."""

    async def ask() -> list[float]:
        with swallowing("127.0.0.2") as port:
            server = await asyncio.start_server(_serve, "127.0.0.3", port)
            _name_with(monkeypatch, "127.0.0.2", "127.0.0.3")
            took = []
            async with server:
                for _ in range(3):
                    ours = Wire(f"http://storage.lab:{port}", {}, 5, None)
                    for _ in range(3):
                        begun = time.monotonic()
                        assert (await ours.request("GET", "/")).content == b"ok"
                        took.append(time.monotonic() - begun)
                        while ours._idle:
                            ours._idle.pop().close()
                    ours.close()
            return took

    took = _run(loop, ask)
    assert max(took) < 1
    assert took[1] < 0.2, "the address that answered is asked first"


@_LOOPS
def test_the_last_of_many_addresses_still_gets_its_try(monkeypatch: pytest.MonkeyPatch, loop: NewLoop) -> None:
    async def ask() -> None:
        swallowed = [f"127.0.1.{number}" for number in range(1, 31)]
        with ExitStack() as all_of_them:
            port = all_of_them.enter_context(swallowing(swallowed[0]))
            for host in swallowed[1:]:
                all_of_them.enter_context(swallowing(host, port))
            server = await asyncio.start_server(_serve, "127.0.0.3", port)
            _name_with(monkeypatch, *swallowed, "127.0.0.3")
            ours = Wire(f"http://storage.lab:{port}", {}, 5, None)
            async with server:
                assert (await ours.request("GET", "/")).content == b"ok"
                ours.close()

    _run(loop, ask)


@_LOOPS
def test_an_address_that_takes_no_handshake_is_passed_over(
    monkeypatch: pytest.MonkeyPatch, loop: NewLoop, tmp_path: Path
) -> None:
    authority = Authority(tmp_path)
    shown = authority.issue("storage.lab")
    theirs = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    theirs.load_cert_chain(shown.cert, shown.key)
    ours_trusts = ssl.create_default_context(cafile=str(authority.file))

    async def ask() -> None:
        mute = await asyncio.start_server(_hear, "127.0.0.2", 0)
        port = mute.sockets[0].getsockname()[1]
        server = await asyncio.start_server(_serve, "127.0.0.3", port, ssl=theirs)
        _name_with(monkeypatch, "127.0.0.2", "127.0.0.3")
        ours = Wire(f"https://storage.lab:{port}", {}, 5, ours_trusts)
        async with server:
            assert (await ours.request("GET", "/")).content == b"ok"
            ours.close()
        mute.close()

    _run(loop, ask)


@_LOOPS
def test_an_address_that_answers_no_request_comes_last(monkeypatch: pytest.MonkeyPatch, loop: NewLoop) -> None:
    """A stopped replica: its kernel takes connections, and nobody answers."""

    async def ask() -> None:
        mute = await asyncio.start_server(_hear, "127.0.0.2", 0)
        port = mute.sockets[0].getsockname()[1]
        server = await asyncio.start_server(_serve, "127.0.0.3", port)
        _name_with(monkeypatch, "127.0.0.2", "127.0.0.3")
        ours = Wire(f"http://storage.lab:{port}", {}, 5, None)
        async with server, mute:
            with pytest.raises(NoAnswerInTimeError):
                await ours.request("GET", "/", timeout_seconds=0.2)
            for _ in range(3):
                assert (await ours.request("GET", "/", timeout_seconds=0.2)).content == b"ok"
            ours.close()

    _run(loop, ask)


@_LOOPS
def test_when_none_answers_the_reason_is_given_in_time(monkeypatch: pytest.MonkeyPatch, loop: NewLoop) -> None:
    async def ask() -> None:
        with swallowing("127.0.0.2") as port:
            _name_with(monkeypatch, "127.0.0.2", "127.0.0.3")
            ours = Wire(f"http://storage.lab:{port}", {}, 30, None)
            with pytest.raises(NoConnectionError, match="no connection in time"):
                await ours.request("GET", "/")
            _name_with(monkeypatch, "127.0.0.3", "127.0.0.4")
            with pytest.raises(NoConnectionError, match="Connect call failed"):
                await ours.request("GET", "/")

    begun = time.monotonic()
    _run(loop, ask)
    assert time.monotonic() - begun < 5


def test_families_take_turns() -> None:
    four = [(socket.AF_INET, (f"192.0.2.{number}", 1)) for number in range(3)]
    six = [(socket.AF_INET6, (f"2001:db8::{number}", 1, 0, 0)) for number in range(2)]
    assert addresses.interleaved([*six, *four]) == [six[0], four[0], six[1], four[1], four[2]]
    assert addresses.interleaved([*four, *six]) == [four[0], six[0], four[1], six[1], four[2]]


async def test_a_name_that_is_nobodys_is_no_connection() -> None:
    storage = StorageClient("http://nobody.invalid:1", "t", 5)
    async with storage:
        assert "NoConnectionError" in str(await storage.reachable())
