"""Sending a recording: chunks of a source, several in flight, resumed where an earlier attempt ended.

Memory is bounded by (in_flight + 1) chunks. Chunks are sent in order and their answers are taken in order, so that the
tree over them grows here as well: the seal is checked against what was acknowledged.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias

from sessions.client.answers import ChunkAck, SessionStatus
from sessions.client.errors import BadAnswerError, BusyError, NotFoundError, SourceChangedError, from_answer
from sessions.client.seals import Seal
from sessions.client.source import Pieces
from sessions.core.merkle import Frontier


class Recorder(Protocol):
    """What recording needs of the service."""

    async def open_session(self, session_id: str, metadata: Mapping[str, Any] | None = None) -> bool:
        """Open a session."""

    async def put_chunk(self, session_id: str, index: int, data: bytes) -> ChunkAck:
        """Keep one chunk, trying again while that may help."""

    async def seal(self, session_id: str, chunk_count: int | None = None) -> Seal:
        """Fix chunk count and root."""

    async def status(self, session_id: str) -> SessionStatus:
        """How far the session is."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """How far a recording has come. Bytes are of plaintext; `total_bytes` is None for a pipe.

    `chunks` and `bytes_done` include what an earlier attempt had sent.
    """

    chunks: int
    bytes_done: int
    total_bytes: int | None


ProgressCallback: TypeAlias = Callable[[Progress], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Recording:
    """A recording that was sent and sealed. `sent` chunks went over the wire now, `chunk_count` is all of them.

    `root_checked`: every chunk passed through here, and the sealed root is that of exactly these chunks.
    """

    session_id: str
    chunk_count: int
    plaintext_bytes: int
    sent: int
    root_checked: bool
    seal: Seal


class Resume:
    """Which chunks an earlier attempt has sent, as far as the status says."""

    def __init__(self, status: SessionStatus | None, chunk_bytes: int, size: int | None) -> None:
        self.next_index, self._gaps = 0, deque[tuple[int, int]]()
        if status is None or not status.next_index:
            return
        self._gaps.extend(status.missing)
        self.next_index = status.next_index
        if status.missing_truncated:
            # Beyond the last gap that is listed nothing is known: send all of it, what is there is answered 200.
            self.next_index = self._gaps[-1][1] + 1 if self._gaps else 0
        elif size is not None and not _fits(status, chunk_bytes, size):
            raise SourceChangedError(
                f"session {status.session_id} holds {status.plaintext_bytes} bytes in {status.chunk_count} chunks,"
                f" which are not chunks of {chunk_bytes} bytes of this recording",
                "give the same file and chunk size as before, or a new session id",
            )

    def next_needed(self, index: int) -> int:
        """The first chunk from `index` on that is to be sent.

        The last stored chunk is sent again: its content says whether this is the recording that was begun.
        """
        while self._gaps and self._gaps[0][1] < index:
            self._gaps.popleft()
        check = max(0, self.next_index - 1)
        return index if index >= check else min(check, max(index, self._gaps[0][0]) if self._gaps else check)


def _fits(status: SessionStatus, chunk_bytes: int, size: int) -> bool:
    """Whether the stored chunks have the sizes that the same chunks of this recording have."""
    total = -(-size // chunk_bytes)
    if status.next_index > total:
        return False
    last_is_short = status.next_index == total and size % chunk_bytes
    return status.plaintext_bytes == status.chunk_count * chunk_bytes - (
        chunk_bytes - size % chunk_bytes if last_is_short else 0
    )


async def where_to_resume(
    service: Recorder, session_id: str, metadata: Mapping[str, Any] | None, *, resume: bool
) -> SessionStatus | None:
    """Open the session, or find out how far it is.

    Raises:
        RefusedError: it is sealed, or it exists and `resume` is False.
    """
    status = None
    try:
        status = await service.status(session_id)
    except NotFoundError:
        pass
    except BusyError as error:
        if error.code != "storage-unavailable" or not resume:
            raise
        # Storage is away, and the service has not opened the session: then it does, whether or not it is there.
        await service.open_session(session_id, metadata)
        status = await service.status(session_id)
    if status is not None and status.status != "open":
        code = "session-shredded" if status.status == "shredded" else "session-sealed"
        raise from_answer(409, {"code": code, "detail": f"session {session_id} is {status.status} already"})
    if status is not None and not resume:
        raise from_answer(409, {"code": "session-exists", "detail": f"session {session_id} exists already"})
    if status is None or metadata is not None:
        await service.open_session(session_id, metadata)
    return status


async def send(
    service: Recorder,
    session_id: str,
    source: Pieces,
    status: SessionStatus | None,
    *,
    chunk_bytes: int,
    in_flight: int,
    progress: ProgressCallback | None,
) -> Recording:
    """Send the chunks of a source that are not stored yet, and seal.

    Raises:
        SourceChangedError: the source is not the one that the session was begun with.
        BadAnswerError: the seal does not cover what was acknowledged.
        ClientError: as `put_chunk` and `seal` do.
    """
    resume = Resume(status, chunk_bytes, source.size)
    tree, waiting = Frontier(), deque[asyncio.Task[ChunkAck]]()
    index, sent, last_bytes = 0, 0, chunk_bytes

    async def settle() -> None:
        ack = await waiting[0]
        waiting.popleft()
        if ack.index == tree.size:
            tree.append(ack.leaf_hash)
        if progress is not None:
            done = ack.index * chunk_bytes + ack.plaintext_bytes
            progress(Progress(chunks=ack.index + 1, bytes_done=done, total_bytes=source.size))

    try:
        while True:
            needed = resume.next_needed(index)
            if needed != index:
                await source.skip_to(needed)
                index = needed
            data = await source.read()
            if not data:
                break
            while len(waiting) >= max(1, in_flight):
                await settle()
            waiting.append(asyncio.create_task(service.put_chunk(session_id, index, data)))
            index, sent, last_bytes = index + 1, sent + 1, len(data)
        while waiting:
            await settle()
    finally:
        for task in waiting:
            task.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)
    if index < resume.next_index:
        raise SourceChangedError(
            f"session {session_id} holds {resume.next_index} chunks, more than this recording has",
            "give the same recording as before, or a new session id",
        )
    answer = await service.seal(session_id, index)
    plaintext_bytes = index * chunk_bytes - (chunk_bytes - last_bytes if index else 0)
    whole = tree.size == index
    _check_seal(answer, index, plaintext_bytes, tree if whole else None)
    return Recording(
        session_id=session_id,
        chunk_count=index,
        plaintext_bytes=plaintext_bytes,
        sent=sent,
        root_checked=whole,
        seal=answer,
    )


def _check_seal(answer: Seal, chunk_count: int, plaintext_bytes: int, tree: Frontier | None) -> None:
    sealed = answer.manifest
    if (sealed.chunk_count, sealed.plaintext_bytes, sealed.missing) != (chunk_count, plaintext_bytes, ()):
        raise BadAnswerError(
            f"{chunk_count} chunks of {plaintext_bytes} bytes were sent,"
            f" and {sealed.chunk_count} of {sealed.plaintext_bytes} were sealed"
        )
    if tree is not None and tree.root() != sealed.root:
        raise BadAnswerError("the sealed root is not that of the chunks that were acknowledged", "keep the recording")
