"""What a client asks of chunk-processor: recording, sealing, replaying, shredding."""

import base64
import hashlib
from collections.abc import Callable, Mapping
from typing import Any, Final

from sessions.client import answers, recording, replaying, seals
from sessions.client.answers import ChunkAck, SessionStatus
from sessions.client.errors import BadAnswerError, SealQueuedError
from sessions.client.recording import ProgressCallback, Recording
from sessions.client.retry import RetryPolicy, retrying
from sessions.client.seals import Seal
from sessions.client.source import Source, pieces
from sessions.client.targets import Out, open_out
from sessions.client.transport import MAX_JSON_BYTES, Transport, session_path
from sessions.core.types import chunk_index

CHUNK_BYTES_DEFAULT: Final = 1024 * 1024
IN_FLIGHT_DEFAULT: Final = 4
_CREATED: Final = 201
_QUEUED: Final = 202


class ProcessorCalls:
    """The calls to chunk-processor; `AsyncClient` has them."""

    _processor: Transport
    _policy: RetryPolicy

    async def open_session(self, session_id: str, metadata: Mapping[str, Any] | None = None) -> bool:
        """Open a session. True when it is new, False when it was open already."""
        body = {} if metadata is None else {"metadata": dict(metadata)}
        return await self._processor.json(
            "PUT", session_path(session_id), lambda _, status: status == _CREATED, json=body
        )

    async def put_chunk(self, session_id: str, index: int, data: bytes) -> ChunkAck:
        """Keep one chunk. When this returns, no crash loses it. The same again changes nothing."""
        digest = base64.b64encode(hashlib.sha256(data).digest()).decode()
        headers = {"Content-Type": "application/octet-stream", "Content-Digest": f"sha-256=:{digest}:"}
        path = f"{session_path(session_id)}/chunks/{chunk_index(index)}"
        ack = await self._processor.json(
            "PUT",
            path,
            lambda value, status: answers.chunk_ack(value, new=status == _CREATED),
            content=data,
            headers=headers,
        )
        if (ack.session_id, ack.index, ack.plaintext_bytes) != (session_id, index, len(data)):
            raise BadAnswerError(f"chunk {index} of {session_id} was sent, and another one was acknowledged")
        return ack

    async def seal(self, session_id: str, chunk_count: int | None = None) -> Seal:
        """Fix a session's chunk count and root. With `chunk_count`, chunks 0 .. chunk_count - 1 must all be there.

        While session-storage is away, or other processors hold some of the session, the service keeps the seal. This
        waits for it, as for an answer. A seal that did not wait for lost processors names them in `unheard`.

        Raises:
            SealQueuedError: that took longer than the time for retries; the session will be sealed later.
        """
        body = {} if chunk_count is None else {"chunk_count": chunk_count}
        path = f"{session_path(session_id)}/seal"

        def read(value: object, status: int) -> Seal | tuple[str, ...]:
            return seals.waiting_for(value) if status == _QUEUED else seals.seal(value)

        async def attempt() -> Seal:
            sealed = await self._processor.json("POST", path, read, json=body)
            if isinstance(sealed, tuple):
                raise SealQueuedError(session_id, sealed)
            return sealed

        answer = await retrying(self._policy, attempt)
        if answer.manifest.session_id != session_id:
            raise BadAnswerError(f"{session_id} was to be sealed, and the answer is about another session")
        return answer

    async def status(self, session_id: str) -> SessionStatus:
        """How far a session is."""
        return await self._processor.json(
            "GET", session_path(session_id), lambda value, _: answers.session_status(value)
        )

    async def record(
        self,
        source: Source,
        session_id: str,
        *,
        chunk_bytes: int = CHUNK_BYTES_DEFAULT,
        in_flight: int = IN_FLIGHT_DEFAULT,
        resume: bool = True,
        metadata: Mapping[str, Any] | None = None,
        progress: ProgressCallback | None = None,
    ) -> Recording:
        """Send a whole recording in chunks, several in flight, and seal the session.

        With `resume`, a session that was begun before (with the same source and chunk size) goes on where it ended: a
        seekable file at the right byte, a pipe by reading over what is stored. The last stored chunk is sent again, so
        that another recording under the same id is refused and not appended.

        Args:
            source: A path, a binary file object (also a pipe, then best an unbuffered one: a buffered one that waits
                holds a lock, on which the end of the interpreter trips), or an async iterator of bytes.
            session_id: Id of the session.
            chunk_bytes: Size of a chunk.
            in_flight: How many chunks are under way at once; memory is bounded by one more than these.
            resume: Go on with a session that exists; else it is refused.
            metadata: What to keep with the session, a JSON object.
            progress: Called in the loop's thread for each chunk, in order.
        """
        session_path(session_id)  # refuses an id that cannot be, before anything is opened
        cut = pieces(source, chunk_bytes)
        try:
            status = await recording.where_to_resume(self, session_id, metadata, resume=resume)
            return await recording.send(
                self, session_id, cut, status, chunk_bytes=chunk_bytes, in_flight=in_flight, progress=progress
            )
        finally:
            await cut.close()

    async def replay(
        self,
        session_id: str,
        out: Out,
        *,
        start: int | None = None,
        overwrite: bool = False,
        progress: Callable[[int, int | None], None] | None = None,
    ) -> int:
        """Fetch a recording, from byte `start`; how many bytes that were. A broken connection is taken up again.

        `out` is a binary file object, or a path; a file at that path appears only when it is complete.
        `progress(bytes_done, total_bytes)` counts from the recording's first byte.
        """
        path = f"{session_path(session_id)}/content"
        with open_out(out, overwrite=overwrite) as write:
            return await replaying.replay(
                self._processor, path, write, policy=self._policy, start=start or 0, progress=progress
            )

    async def delete(self, session_id: str) -> None:
        """Shred a session: its keys and bodies are destroyed, its proofs stay."""
        await self._processor.body("DELETE", session_path(session_id), MAX_JSON_BYTES)
