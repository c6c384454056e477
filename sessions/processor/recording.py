"""The use case: a chunk comes in, and is answered when it is durable, and only then."""

import asyncio
from collections.abc import Callable
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import Any, Final, TypeVar

from prometheus_client import Counter

from sessions.core import envelope as envelopes
from sessions.core.errors import EnvelopeFormatError
from sessions.core.types import Buffer, ChunkIndex, SessionId
from sessions.processor import crypt
from sessions.processor.crypt import SEAL_INLINE_BYTES, SealedChunk
from sessions.processor.key_rings import KeyRings
from sessions.processor.keys import Dek
from sessions.processor.pipeline import Submitter
from sessions.processor.storage_client import StorageClient
from sessions.runtime.errors import DomainError

T = TypeVar("T")
CHUNKS = Counter("lucid_chunks_total", "Chunks by outcome.", ("outcome",))
PLAINTEXT_BYTES = Counter("lucid_chunk_plaintext_bytes_total", "Bytes of chunks that were stored.")
SEALED_BYTES = Counter("lucid_chunk_envelope_bytes_total", "Bytes of their envelopes.")
_ACKNOWLEDGED: Final = ("stored", "exists")


@dataclass(frozen=True, slots=True)
class Recorded:
    """A chunk that is durable. `created`: now, by this request."""

    session_id: SessionId
    index: int
    plaintext_bytes: int
    envelope_bytes: int
    envelope_sha256: str
    leaf_hash: str
    created: bool

    def to_json(self) -> dict[str, Any]:
        """The answer to the recorder."""
        return {
            "session_id": self.session_id,
            "index": self.index,
            "plaintext_bytes": self.plaintext_bytes,
            "envelope_bytes": self.envelope_bytes,
            "envelope_sha256": self.envelope_sha256,
            "leaf_hash": self.leaf_hash,
            "durability": "stored",
        }


class Recording:
    """Records chunks, and opens them again."""

    def __init__(
        self, rings: KeyRings, submitter: Submitter, storage: StorageClient, executor: Executor, zstd_level: int
    ) -> None:
        self._rings = rings
        self._submitter = submitter
        self._storage = storage
        self._executor = executor
        self._zstd_level = zstd_level

    async def record(self, session_id: SessionId, index: ChunkIndex, plaintext: Buffer) -> Recorded:
        """Seal a chunk and have it stored; the same content again is answered as it was.

        Raises:
            DomainError: `chunk-conflict`, `session-sealed`, `session-shredded`, `storage-unavailable`, …
        """
        for _ in range(2):
            try:
                ring = await self._rings.for_sealing(session_id)
            except DomainError as error:
                if error.code != "session-sealed":
                    raise
                return await self._repeated(session_id, index, plaintext, error)

            def seal(dek: Dek = ring.active) -> SealedChunk:
                return crypt.seal(dek, session_id, index, plaintext, self._zstd_level)

            sealed = await self._work(len(plaintext), seal)
            answer = await self._submitter.submit(sealed.envelope)
            if answer.result != "unknown-session":
                break
            self._rings.forget(session_id)  # storage was set back to before the session: open it again
        if answer.result in _ACKNOWLEDGED:
            return _acknowledge(session_id, index, sealed, answer.envelope_sha256)
        if answer.result == "conflict":
            return await self._settle(session_id, index, plaintext)
        if answer.result == "sealed":
            self._rings.forget(session_id)
            await self._rings.for_sealing(session_id)  # says whether it was shredded meanwhile, by somebody else
            detail = f"session {session_id} is sealed and has no chunk {index}"
            raise DomainError("session-sealed", detail, session_id=session_id)
        raise DomainError("session-not-found", f"session {session_id} cannot be opened", session_id=session_id)

    async def read(self, session_id: SessionId, index: int) -> bytes:
        """A chunk's plaintext.

        Raises:
            DomainError: `chunk-not-found`, `session-not-found`, `session-shredded`, `envelope-corrupt`, …
        """
        return await self.open(session_id, index, await self._storage.envelope(session_id, index))

    async def ready(self, session_id: SessionId) -> None:
        """Have a session's keys at hand.

        Raises:
            DomainError: `session-not-found`, `session-shredded`, `key-unavailable`.
        """
        await self._rings.for_opening(session_id)

    async def open(self, session_id: SessionId, index: int, data: bytes) -> bytes:
        """The plaintext of an envelope that storage gave for a chunk.

        Raises:
            DomainError: `envelope-corrupt`, `key-unavailable`.
        """
        try:
            dek_id = envelopes.parse(data).header.dek_id
        except EnvelopeFormatError as error:
            detail = f"chunk {index} of session {session_id} is not an envelope: {error}"
            raise DomainError("envelope-corrupt", detail, session_id=session_id, index=index) from None
        dek = await self._rings.key(session_id, dek_id)
        return await self._work(len(data), lambda: crypt.open_envelope(dek, session_id, index, data))

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
        data = await self._storage.envelope(session_id, index)
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
        )

    async def _work(self, size_bytes: int, work: Callable[[], T]) -> T:
        if size_bytes <= SEAL_INLINE_BYTES:
            return work()
        return await asyncio.get_running_loop().run_in_executor(self._executor, work)


def _acknowledge(session_id: SessionId, index: int, sealed: SealedChunk, stored_sha256: str | None) -> Recorded:
    ours = sealed.fingerprint
    if stored_sha256 != ours.envelope_sha256.hex():
        raise DomainError(
            "storage-unavailable",
            "session-storage acknowledged other bytes than were sent; repeat the request",
            retry_after_seconds=1,
        )
    CHUNKS.labels("stored").inc()
    PLAINTEXT_BYTES.inc(sealed.plaintext_bytes)
    SEALED_BYTES.inc(ours.envelope_bytes)
    return Recorded(
        session_id=session_id,
        index=index,
        plaintext_bytes=sealed.plaintext_bytes,
        envelope_bytes=ours.envelope_bytes,
        envelope_sha256=ours.envelope_sha256.hex(),
        leaf_hash=ours.leaf_hash.hex(),
        created=True,
    )
