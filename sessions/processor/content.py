"""Replaying a recording: its chunks in order, opened a few ahead, from any byte on."""

import asyncio
import re
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass
from typing import Any, Final

from sessions.core.types import SessionId
from sessions.processor.recording import Opened, Recording
from sessions.processor.storage_answers import StoredChunk
from sessions.processor.storage_client import StorageClient
from sessions.runtime.budget import ByteBudget
from sessions.runtime.errors import DomainError
from sessions.runtime.tasks import end_all

_PAGE_CHUNKS: Final = 1000
_AHEAD: Final = 1
"""So many groups of chunks are fetched and opened before they are asked for: while one is sent, the next is read."""
_GROUP_BYTES: Final = 8 * 1024 * 1024
"""Envelopes and plaintexts of a group, which share a request to session-storage: to it, one is as much work as the
chunks of two MiB. Fewer and larger groups in the same memory read a recording sooner."""
_RANGE = re.compile(r"bytes=([0-9]{0,1000})-([0-9]{0,1000})", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Span:
    """Bytes [start, end) of a recording of `total` bytes."""

    start: int
    end: int
    total: int


def parse_range(header: str | None, total: int) -> Span | None:
    """The span that a Range header asks for; None when the whole is to be sent (no header, or not one we serve).

    Raises:
        DomainError: `range-not-satisfiable`.
    """
    found = _RANGE.fullmatch(header or "")
    if found is None or found[1] == found[2] == "":
        return None  # several ranges, or other units: the whole is a right answer (RFC 9110 section 14.2)
    if found[1] == "":
        start, end = max(0, total - int(found[2])), total
    else:
        start = int(found[1])
        end = min(total, int(found[2]) + 1) if found[2] else total
        if found[2] and int(found[2]) < start:
            return None  # not a range at all
    if start >= end:
        raise DomainError("range-not-satisfiable", f"the recording has {total} bytes", total_bytes=total)
    return Span(start, end, total)


class Content:
    """Recordings as streams of bytes."""

    def __init__(self, storage: StorageClient, recording: Recording, budget: ByteBudget) -> None:
        self._storage = storage
        self._recording = recording
        self._budget = budget

    async def chunk(self, session_id: SessionId, index: int, chunk_max_bytes: int) -> bytes:
        """One chunk's plaintext.

        Raises:
            DomainError: as `Recording.read`, or `overloaded`.
        """
        async with self._budget.reserve(2 * chunk_max_bytes):  # envelope and plaintext, unknown before it is fetched
            return await self._recording.read(session_id, index)

    async def total_bytes(self, session_id: SessionId) -> int:
        """How long the recording is: of a sealed session all of it, of an open one what is there now.

        Raises:
            DomainError: `session-not-found`, `session-shredded`, `chunks-missing`.
        """
        view: dict[str, Any]
        view, _ = await self._storage.session(session_id)
        if view["status"] == "shredded":
            tombstone = {name: view.get(name) for name in ("shredded_at", "shred_reason", "shredded_by")}
            detail = f"session {session_id} was shredded"
            raise DomainError("session-shredded", detail, session_id=session_id, **tombstone)
        if view["missing"]:
            detail = f"session {session_id} has gaps, so its bytes have no places: read its chunks one by one"
            raise DomainError("chunks-missing", detail, session_id=session_id, missing=view["missing"])
        return int(view["plaintext_bytes"])

    @asynccontextmanager
    async def stream(self, session_id: SessionId, span: Span) -> AsyncIterator[AsyncIterator[bytes]]:
        """The bytes of a span, paid for out of the budget for as long as it is read.

        Raises:
            DomainError: `key-unavailable`, `envelope-corrupt`, `overloaded` before it starts; what goes wrong later
                breaks the stream off.
        """
        if span.start == span.end:
            yield _nothing()
            return
        await self._recording.ready(session_id)
        first, _ = await self._storage.chunks(session_id, 0, _PAGE_CHUNKS)
        if not first:
            raise _corrupt(session_id, 0, "has no record")
        sizes = [_held_bytes(chunk) for chunk in first]
        largest = max(*sizes, min(_GROUP_BYTES, sum(sizes)))
        # The stream is closed by hand: a reader that goes away would leave its chunks to the garbage collector.
        async with self._budget.reserve(largest * (_AHEAD + 1)), aclosing(self._bytes(session_id, span)) as stream:
            yield stream

    async def _bytes(self, session_id: SessionId, span: Span) -> AsyncGenerator[bytes, None]:
        ahead: deque[tuple[int, asyncio.Task[Opened]]] = deque()
        try:
            async for offset, group in self._groups(session_id, span):
                ahead.append((offset, asyncio.create_task(self._read(session_id, group))))
                if len(ahead) > _AHEAD:
                    for part in _parts(span, *await _first(ahead)):
                        yield part
            while ahead:
                for part in _parts(span, *await _first(ahead)):
                    yield part
        finally:
            await end_all(task for _, task in ahead)

    async def _read(self, session_id: SessionId, group: list[StoredChunk]) -> Opened:
        """The chunks of a group."""
        read: list[bytes] = []
        try:
            while len(read) < len(group):
                first = group[len(read)].index
                run = await self._storage.envelopes(session_id, first, len(group) - len(read))
                plaintexts, problem = await self._recording.open_run(session_id, first, run)
                for plaintext in plaintexts:
                    chunk = group[len(read)]
                    if len(plaintext) != chunk.plaintext_bytes:  # the record said where it begins and ends
                        raise _corrupt(session_id, chunk.index, "has another length than its record says")
                    read.append(plaintext)
                if problem is not None:
                    return read, problem
        except DomainError as error:
            return read, error
        return read, None

    async def _groups(self, session_id: SessionId, span: Span) -> AsyncIterator[tuple[int, list[StoredChunk]]]:
        """The chunks of a span, those that follow one another in groups, and where each group starts."""
        group, begin, size = list[StoredChunk](), 0, 0
        async for offset, chunk in self._places(session_id, span):
            held = _held_bytes(chunk)
            if group and (size + held > _GROUP_BYTES or len(group) == _PAGE_CHUNKS):
                yield begin, group
                group, size = [], 0
            if not group:
                begin = offset
            group.append(chunk)
            size += held
        if group:
            yield begin, group

    async def _places(self, session_id: SessionId, span: Span) -> AsyncIterator[tuple[int, StoredChunk]]:
        """The chunks that have bytes of the span, and where each starts in the recording.

        A record that is gone from the database would move all that follows it: nothing is given from there on.
        """
        offset, start, index = 0, 0, 0
        next_start: int | None = 0
        while next_start is not None:
            start = next_start
            page, next_start = await self._storage.chunks(session_id, start, _PAGE_CHUNKS)
            for chunk in page:
                if offset >= span.end:
                    return
                if chunk.index != index:
                    raise _corrupt(session_id, index, "has no record")
                index += 1
                if offset + chunk.plaintext_bytes > span.start:
                    yield offset, chunk
                offset += chunk.plaintext_bytes
        if offset < span.end:
            raise _corrupt(session_id, index, "has no record")


def _corrupt(session_id: SessionId, index: int, problem: str) -> DomainError:
    detail = f"chunk {index} of session {session_id} {problem} in the database"
    return DomainError("envelope-corrupt", detail, session_id=session_id, index=index)


def _held_bytes(chunk: StoredChunk) -> int:
    return chunk.plaintext_bytes + chunk.envelope_bytes


async def _first(ahead: deque[tuple[int, asyncio.Task[Opened]]]) -> tuple[int, Opened]:
    offset, task = ahead[0]
    opened = await task
    ahead.popleft()
    return offset, opened


def _parts(span: Span, offset: int, opened: Opened) -> Iterator[bytes]:
    """What of a group's chunks is in the span.

    Raises:
        DomainError: what is wrong with the chunk that would come next.
    """
    plaintexts, error = opened
    for plaintext in plaintexts:
        yield plaintext[max(0, span.start - offset) : span.end - offset]
        offset += len(plaintext)
    if error is not None:
        raise error


async def _nothing() -> AsyncIterator[bytes]:
    return
    yield b""  # what makes this a generator
