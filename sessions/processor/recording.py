"""The use case: a chunk comes in, and is answered when it is durable, and only then."""

import asyncio
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from typing import Final, Literal, TypeAlias, TypeVar

from prometheus_client import Histogram

from sessions.core import envelope as envelopes
from sessions.core.errors import EnvelopeFormatError
from sessions.core.types import Buffer, ChunkIndex, SessionId
from sessions.processor import crypt
from sessions.processor.acknowledged import Acknowledged
from sessions.processor.crypt import SEAL_INLINE_BYTES, SealedChunk
from sessions.processor.key_rings import KeyRings, OpenRing
from sessions.processor.keys import Dek
from sessions.processor.killpoints import Point
from sessions.processor.pipeline import Submitter
from sessions.processor.recorded import CHUNKS, Recorded, acknowledged, recorded
from sessions.processor.spooling import Spooling
from sessions.processor.storage_answers import FrameAnswer
from sessions.processor.storage_client import StorageClient
from sessions.processor.storage_errors import fits_spool, is_transient
from sessions.processor.turns import Turns
from sessions.runtime import tracing
from sessions.runtime.audit import require_recording
from sessions.runtime.errors import DomainError
from sessions.runtime.killpoints import reach
from sessions.runtime.metrics import LATENCY_BUCKETS

T = TypeVar("T")
SEAL_SECONDS = Histogram(
    "lucid_chunk_seal_duration_seconds",
    "Time to compress and encrypt a chunk, with the wait for a thread.",
    buckets=LATENCY_BUCKETS,
)
ACKNOWLEDGED: Final = ("stored", "exists")
_LOST: Final = ("unknown-session", "unknown-key")
_ATTEMPTS: Final = 3
_BUSY_SECONDS: Final = (0.05, 0.1, 0.2, 0.5, 1.0)
"""Waits, in seconds, before an envelope is sent again whose session's seal is being decided."""
Opened: TypeAlias = tuple[list[bytes], DomainError | None]
"""Plaintexts of chunks that follow one another, as far as they can be read, and what is wrong with the next."""


class Recording:
    """Records chunks, and opens them again."""

    def __init__(
        self,
        rings: KeyRings,
        submitter: Submitter,
        storage: StorageClient,
        executor: Executor,
        zstd_level: int,
        *,
        spooling: Spooling | None = None,
        acknowledged: Acknowledged | None = None,
    ) -> None:
        self._rings = rings
        self._submitter = submitter
        self._storage = storage
        self._executor = executor
        self._zstd_level = zstd_level
        self._spooling = spooling
        self._acknowledged = acknowledged
        self._turns = Turns()

    def require_room(self, session_id: SessionId, size_bytes: int, by: str | None = None) -> None:
        """Before a body is read: refuse a token's chunk of this size, should it have to go to a spool that has no room.

        Raises:
            DomainError: `spool-full`.
        """
        if self._spooling is not None:
            self._spooling.require_room(session_id, size_bytes, by)

    async def record(
        self, session_id: SessionId, index: ChunkIndex, plaintext: Buffer, by: str | None = None
    ) -> Recorded:
        """Encrypt a chunk and have it stored or spooled; the same content again is answered as it was.

        `by` is the name of the recorder's token.

        Raises:
            DomainError: `chunk-conflict`, `session-sealed`, `session-shredded`, `session-reserved`, …
        """
        require_recording(session_id)  # storage, which says so too, may be away
        done = await self._record(session_id, index, plaintext, by)
        if self._acknowledged is not None:
            self._acknowledged.note(session_id, index)
        return done

    async def _record(self, session_id: SessionId, index: ChunkIndex, plaintext: Buffer, by: str | None) -> Recorded:
        spooling = self._spooling
        answer: FrameAnswer | None = None
        for _ in range(_ATTEMPTS):
            if spooling is not None and spooling.concerns(session_id):
                repeated = await self._spooled_before(spooling, session_id, index, plaintext)
                if repeated is not None:
                    return repeated
            try:
                ring = await self._rings.for_sealing(session_id, by)
            except DomainError as error:
                if error.code != "session-sealed":
                    raise
                return await self._repeated(session_id, index, plaintext, error)
            sealed = await self.encrypt(ring, session_id, index, plaintext)
            reach(Point.CHUNK_SEALED)
            answer = await self._submit(session_id, sealed.envelope)
            if answer is None:
                assert spooling is not None
                await spooling.keep_key(session_id, ring.wrapped, by)
                if await spooling.keep(session_id, index, sealed.envelope, sealed.plaintext_bytes, by):
                    return recorded(session_id, index, sealed, "spooled")
                continue  # another request of the same chunk was faster: it is compared
            if answer.result not in _LOST:
                return await self._answered(session_id, index, plaintext, sealed, answer)
            self._rings.forget(session_id)  # storage was set back to before the session or the key: open it again
        if answer is None:
            detail = f"chunk {index} of session {session_id} is being written by another request; repeat the request"
            raise DomainError("overloaded", detail, retry_after_seconds=1)
        detail = f"session-storage does not keep the key of session {session_id}; repeat the request"
        raise DomainError("storage-unavailable", detail, retry_after_seconds=1)

    async def encrypt(self, ring: OpenRing, session_id: SessionId, index: ChunkIndex, plaintext: Buffer) -> SealedChunk:
        """Compress and encrypt a chunk under the active key of a ring."""

        def seal(dek: Dek = ring.active) -> SealedChunk:
            return crypt.seal(dek, session_id, index, plaintext, self._zstd_level)

        began = time.perf_counter()
        with tracing.span("seal", {"chunk.bytes": len(plaintext)}):
            sealed = await self._work(len(plaintext), seal)
        SEAL_SECONDS.observe(time.perf_counter() - began)
        return sealed

    async def _answered(
        self, session_id: SessionId, index: ChunkIndex, plaintext: Buffer, sealed: SealedChunk, answer: FrameAnswer
    ) -> Recorded:
        if answer.result in ACKNOWLEDGED:
            return acknowledged(session_id, index, sealed, answer.envelope_sha256)
        if answer.result == "conflict":
            return await self._settle(session_id, index, plaintext)
        if answer.result == "sealed":
            self._rings.forget(session_id)
            await self._rings.for_sealing(session_id)  # says whether it was shredded meanwhile, by somebody else
            detail = f"session {session_id} is sealed and has no chunk {index}"
            raise DomainError("session-sealed", detail, session_id=session_id)
        detail = f"the seal of session {session_id} is being decided; repeat the request"
        raise DomainError("overloaded", detail, retry_after_seconds=1)

    async def _submit(self, session_id: SessionId, envelope: bytes) -> FrameAnswer | None:
        """Return what storage answers; None when the envelope is for the spool."""
        if self._spooling is None:
            answer = await self._submitter.submit(session_id, envelope)
        elif self._spooling.takes(session_id):
            return None
        else:
            try:
                answer = await self._submitter.submit(session_id, envelope)
            except DomainError as error:
                if not fits_spool(error):
                    raise
                return None
        waits = iter(_BUSY_SECONDS)
        while answer.result == "busy" and (seconds := next(waits, None)) is not None:
            await asyncio.sleep(seconds)  # the same bytes again: the seal has them, or is refused, or takes nothing
            answer = await self._submitter.submit(session_id, envelope)
        return answer

    async def read(self, session_id: SessionId, index: int) -> bytes:
        """A chunk's plaintext.

        Raises:
            DomainError: `chunk-not-found`, `session-not-found`, `session-shredded`, `envelope-corrupt`, …
        """
        spooling = self._spooling
        spooled = None if spooling is None else await spooling.envelope(session_id, index)
        if spooled is None:
            data = await self._storage.envelope(session_id, index)
        elif spooling is not None and spooling.watch.answers:
            data = await self._stored_or(spooled, session_id, index)
        else:
            data = spooled
        return await self.open(session_id, index, data)

    async def _stored_or(self, spooled: bytes, session_id: SessionId, index: int) -> bytes:
        """What storage has of a chunk, before what the spool has: that may be other content, which is set aside."""
        try:
            return await self._storage.envelope(session_id, index)
        except DomainError as error:
            if not is_transient(error) and error.code not in ("chunk-not-found", "session-not-found"):
                raise
            return spooled

    async def ready(self, session_id: SessionId) -> None:
        """Have a session's keys at hand.

        Raises:
            DomainError: `session-not-found`, `session-shredded`, `key-unavailable`.
        """
        await self._rings.for_opening(session_id)

    async def open(self, session_id: SessionId, index: int, data: Buffer) -> bytes:
        """The plaintext of an envelope that storage gave for a chunk.

        Raises:
            DomainError: `envelope-corrupt`, `key-unavailable`.
        """
        dek = await self._key(session_id, index, data)
        return await self._work(len(data), lambda: crypt.open_envelope(dek, session_id, index, data))

    async def open_run(self, session_id: SessionId, first: int, run: Sequence[Buffer]) -> Opened:
        """The plaintexts of envelopes that storage gave for the chunks from `first` on.

        All of them go to a thread together: for small ones the way there is more work than the opening.
        """
        keys, problem = list[Dek](), None
        try:
            for index, data in enumerate(run, first):
                keys.append(await self._key(session_id, index, data))
        except DomainError as error:
            problem = error

        def work() -> Opened:
            plaintexts: list[bytes] = []
            try:
                for offset, dek in enumerate(keys):
                    plaintexts.append(crypt.open_envelope(dek, session_id, first + offset, run[offset]))
            except DomainError as error:
                return plaintexts, error
            return plaintexts, problem

        return await self._work(sum(map(len, run)), work)

    async def _key(self, session_id: SessionId, index: int, data: Buffer) -> Dek:
        try:
            dek_id = envelopes.parse(data).header.dek_id
        except EnvelopeFormatError as error:
            detail = f"chunk {index} of session {session_id} is not an envelope: {error}"
            raise DomainError("envelope-corrupt", detail, session_id=session_id, index=index) from None
        return await self._rings.key(session_id, dek_id)

    async def _repeated(
        self, session_id: SessionId, index: ChunkIndex, plaintext: Buffer, sealed: DomainError
    ) -> Recorded:
        """A session that was sealed before this process had its keys: a repeat of what it has is still answered."""
        try:
            return await self._settle(session_id, index, plaintext)
        except DomainError as error:
            raise (sealed if error.code == "chunk-not-found" else error) from None

    async def _settle(self, session_id: SessionId, index: ChunkIndex, plaintext: Buffer) -> Recorded:
        """The rare path: the index is taken. Fetch what is there, open it, compare."""
        return await self._compare(session_id, index, plaintext, await self._storage.envelope(session_id, index))

    async def _spooled_before(
        self, spooling: Spooling, session_id: SessionId, index: ChunkIndex, plaintext: Buffer
    ) -> Recorded | None:
        """The answer for a chunk that is in the spool; None when it is not."""
        data = await spooling.envelope(session_id, index)
        if data is None:
            return None
        return await self._compare(session_id, index, plaintext, data, "spooled")

    async def _compare(
        self,
        session_id: SessionId,
        index: ChunkIndex,
        plaintext: Buffer,
        data: bytes,
        durability: Literal["stored", "spooled"] = "stored",
    ) -> Recorded:
        if await self.open(session_id, index, data) != plaintext:
            CHUNKS.labels("conflict").inc()
            detail = f"chunk {index} of session {session_id} is there already, with other content; it was not changed"
            raise DomainError("chunk-conflict", detail, session_id=session_id, index=index)
        CHUNKS.labels("repeated").inc()
        found = envelopes.fingerprint(session_id, index, data)
        return Recorded(
            session_id=session_id,
            index=index,
            plaintext_bytes=len(plaintext),
            envelope_bytes=found.envelope_bytes,
            envelope_sha256=found.envelope_sha256.hex(),
            leaf_hash=found.leaf_hash.hex(),
            created=False,
            durability=durability,
        )

    async def _work(self, size_bytes: int, work: Callable[[], T]) -> T:
        if size_bytes <= SEAL_INLINE_BYTES:
            await self._turns.mine()
            return work()
        return await asyncio.get_running_loop().run_in_executor(self._executor, work)
