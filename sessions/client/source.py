"""Where a recording comes from: a path, a binary file object (also a pipe) or an async iterator of bytes.

Reading happens in daemon threads, so that neither the event loop nor the end of the program waits for a pipe in which
nothing comes.
"""

import asyncio
import os
import threading
from collections.abc import AsyncIterable, AsyncIterator, Callable
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO, Protocol, TypeAlias, TypeVar

from sessions.client.errors import SourceError

Source: TypeAlias = str | os.PathLike[str] | BinaryIO | AsyncIterable[bytes]

T = TypeVar("T")


class Pieces(Protocol):
    """A recording cut into chunks of a fixed size; the last one may be shorter."""

    @property
    def size(self) -> int | None:
        """Length in bytes when it is known beforehand."""

    async def read(self) -> bytes:
        """The next chunk; empty at the end."""

    async def skip_to(self, index: int) -> None:
        """Go on at this chunk, which is not before the current one."""

    async def close(self) -> None:
        """Close what was opened here."""


class FilePieces:
    """Chunks of a file object. A seekable one is entered where the chunk begins; of a pipe the rest is read over."""

    def __init__(self, file: BinaryIO, chunk_bytes: int, *, owned: bool) -> None:
        self._file, self._chunk_bytes, self._owned = file, chunk_bytes, owned
        self._index = 0
        self._start: int | None = None
        self.size: int | None = None
        try:
            if file.seekable():
                self._start = file.tell()
                self.size = max(0, file.seek(0, os.SEEK_END) - self._start)
                file.seek(self._start)
        except OSError as error:
            raise SourceError(f"cannot read the recording: {error}") from error

    async def read(self) -> bytes:
        """The next chunk; empty at the end."""
        data = await _in_daemon_thread(self._read)
        self._index += 1
        return data

    def _read(self) -> bytes:
        parts, wanted = [], self._chunk_bytes
        try:
            # A pipe gives what is there: only an empty read is its end.
            while wanted and (part := self._file.read(wanted)):
                parts.append(part)
                wanted -= len(part)
        except (OSError, ValueError) as error:
            raise SourceError(f"cannot read the recording: {error}") from error
        return parts[0] if len(parts) == 1 else b"".join(parts)

    async def skip_to(self, index: int) -> None:
        """Go on at this chunk."""
        if self._start is not None:
            self._file.seek(self._start + index * self._chunk_bytes)
            self._index = index
        while self._index < index and await self.read():
            pass

    async def close(self) -> None:
        """Close the file if it was opened here."""
        if self._owned:
            self._file.close()


class IteratorPieces:
    """Chunks of an async iterator that yields bytes in pieces of any size."""

    size: int | None = None

    def __init__(self, items: AsyncIterable[bytes], chunk_bytes: int) -> None:
        self._items: AsyncIterator[bytes] = aiter(items)
        self._chunk_bytes = chunk_bytes
        self._rest = bytearray()
        self._index = 0

    async def read(self) -> bytes:
        """The next chunk; empty at the end."""
        while len(self._rest) < self._chunk_bytes:
            try:
                self._rest += await anext(self._items)
            except StopAsyncIteration:
                break
        data = bytes(self._rest[: self._chunk_bytes])
        del self._rest[: self._chunk_bytes]
        self._index += 1
        return data

    async def skip_to(self, index: int) -> None:
        """Read over the chunks before this one."""
        while self._index < index and await self.read():
            pass

    async def close(self) -> None:
        """Nothing is held."""


def pieces(source: Source, chunk_bytes: int) -> Pieces:
    """Cut a source into chunks.

    Raises:
        SourceError: the file cannot be opened.
        ValueError: chunks of less than one byte.
    """
    if chunk_bytes < 1:
        raise ValueError("a chunk has at least one byte")
    if isinstance(source, (str, os.PathLike)):
        try:
            return FilePieces(Path(source).open("rb", buffering=0), chunk_bytes, owned=True)
        except OSError as error:
            raise SourceError(f"cannot open {os.fspath(source)}: {error.strerror}") from error
    if isinstance(source, AsyncIterable):
        return IteratorPieces(source, chunk_bytes)
    return FilePieces(source, chunk_bytes, owned=False)


async def _in_daemon_thread(function: Callable[[], T]) -> T:
    loop = asyncio.get_running_loop()
    future: asyncio.Future[T] = loop.create_future()

    def settle(result: T | None, error: BaseException | None) -> None:
        if future.cancelled():
            return
        if error is not None:
            future.set_exception(error)
        else:
            future.set_result(result)  # type: ignore[arg-type]  # None only where T is

    def run() -> None:
        result, error = None, None
        try:
            result = function()
        except Exception as cause:  # noqa: BLE001 - handed to whoever awaits
            error = cause
        with suppress(RuntimeError):  # the loop is closed: nobody waits any more
            loop.call_soon_threadsafe(settle, result, error)

    threading.Thread(target=run, name="lucid-read", daemon=True).start()
    return await future
