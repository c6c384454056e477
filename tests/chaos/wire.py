"""A TCP wire between two parts, which can be cut, stalled, or made to lose answers."""

import asyncio
import threading
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager, suppress
from enum import StrEnum
from typing import Any, Self

_PIECE_BYTES = 64 * 1024


class Condition(StrEnum):
    """What a wire does with bytes."""

    WHOLE = "whole"
    CUT = "cut"
    """Connections are reset, and new ones closed at once."""
    STALLED = "stalled"
    """Nothing gets through, and nobody is told."""
    DEAF = "deaf"
    """What is asked gets through; as soon as the answer comes, the connection is reset: the act may have been done."""


class Wire:
    """Listens on a port of its own and forwards to another, all on the loopback."""

    def __init__(self, target_port: int) -> None:
        self.target_port = target_port
        self.port = 0
        self._condition = Condition.WHOLE
        self._whole = asyncio.Event()
        self._whole.set()
        self._open: set[asyncio.StreamWriter] = set()
        self._connections: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._begin, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_exc: object) -> None:
        assert self._server is not None
        self._server.close()
        self._whole.set()
        self._reset()
        await asyncio.gather(*self._connections, return_exceptions=True)

    @property
    def url(self) -> str:
        """Where it listens, as an HTTP URL."""
        return f"http://127.0.0.1:{self.port}"

    def become(self, condition: Condition) -> None:
        """Change what it does, for connections that are open as well."""
        self._condition = condition
        if condition is Condition.STALLED:
            self._whole.clear()
        else:
            self._whole.set()
        if condition is Condition.CUT:
            self._reset()

    def _reset(self) -> None:
        for writer in list(self._open):
            writer.transport.abort()

    def _begin(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connection = asyncio.create_task(self._accept(reader, writer))
        self._connections.add(connection)
        connection.add_done_callback(self._connections.discard)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._condition is Condition.CUT:
            writer.transport.abort()
            return
        try:
            onward_reader, onward_writer = await asyncio.open_connection("127.0.0.1", self.target_port)
        except OSError:
            writer.transport.abort()
            return
        ends = {writer, onward_writer}
        self._open |= ends
        ways = [
            asyncio.create_task(self._forward(reader, onward_writer, answers=False)),
            asyncio.create_task(self._forward(onward_reader, writer, answers=True)),
        ]
        try:
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for way in ways:
                way.cancel()
            await asyncio.gather(*ways, return_exceptions=True)
            self._open -= ends
            for end in ends:
                end.transport.abort()

    async def _forward(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, answers: bool) -> None:
        with suppress(OSError):
            while piece := await reader.read(_PIECE_BYTES):
                await self._whole.wait()
                if answers and self._condition is Condition.DEAF:
                    return
                writer.write(piece)
                await writer.drain()


class HeldWire:
    """A wire that works in another thread, for tests without asyncio."""

    def __init__(self, wire: Wire, loop: asyncio.AbstractEventLoop) -> None:
        self._wire, self._loop = wire, loop
        self.url = wire.url

    def become(self, condition: Condition) -> None:
        """Change what it does; done when this returns."""

        async def change() -> None:
            self._wire.become(condition)

        asyncio.run_coroutine_threadsafe(change(), self._loop).result(10)


@contextmanager
def held_wires(*target_ports: int) -> Iterator[list[HeldWire]]:
    """Wires to these ports, in a thread that ends with them."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, name="wires")
    thread.start()
    wires = [Wire(port) for port in target_ports]

    def do(work: Coroutine[Any, Any, object]) -> None:
        asyncio.run_coroutine_threadsafe(work, loop).result(10)

    try:
        for wire in wires:
            do(wire.__aenter__())
        yield [HeldWire(wire, loop) for wire in wires]
    finally:
        for wire in wires:
            do(wire.__aexit__())
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()
