"""Taking envelopes in: check, store, and tell of each what became of it."""

import asyncio
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

from prometheus_client import Counter, Histogram

from sessions.core import envelope, frames
from sessions.core.errors import FormatError
from sessions.core.types import Buffer, Hash, SessionId
from sessions.runtime import tracing
from sessions.runtime.audit import require_recording
from sessions.runtime.errors import DomainError
from sessions.runtime.killpoints import reach
from sessions.runtime.metrics import BATCH_BUCKETS, LATENCY_BUCKETS, SIZE_BUCKETS
from sessions.storage import problems
from sessions.storage.activity import Activity
from sessions.storage.heads import covered
from sessions.storage.killpoints import Point
from sessions.storage.store import (
    ChunkRecord,
    ChunkStore,
    InsertOutcome,
    NewChunk,
    SessionRecord,
    SessionStatus,
    SessionStore,
)

_INLINE_BYTES: Final = 256 * 1024
"""Up to here hashing takes no more time than the way to a thread and back; the event loop waits 0.2 ms for it."""
MAX_FRAMES: Final = 4096
_OPEN_SECONDS: Final = 1.0
"""So long a session that was open is taken to be open still, before a chunk is stored; it is asked for after it."""
_OPEN_SESSIONS: Final = 10_000
_SEALING_POLL_SECONDS: Final = 0.05
_SEALING_POLLS: Final = 200

ENVELOPES = Counter("lucid_envelopes_total", "Envelopes by what became of them.", ("result",))
ENVELOPE_BYTES = Counter("lucid_envelope_bytes_total", "Bytes of envelopes that were stored.")
BATCH_ENVELOPES = Histogram("lucid_received_batch_envelopes", "Envelopes in one request.", buckets=BATCH_BUCKETS)
BATCH_BYTES = Histogram("lucid_received_batch_bytes", "Bytes of one request with envelopes.", buckets=SIZE_BUCKETS)
STORE_SECONDS = Histogram(
    "lucid_store_duration_seconds",
    "Time until the database had journaled the envelopes of one request.",
    buckets=LATENCY_BUCKETS,
)


class FrameResult(StrEnum):
    """What became of one envelope."""

    STORED = "stored"
    EXISTS = "exists"
    CONFLICT = "conflict"
    SEALED = "sealed"
    UNKNOWN_SESSION = "unknown-session"


for _result in FrameResult:
    ENVELOPES.labels(_result.value)


@dataclass(frozen=True, slots=True)
class FrameAnswer:
    """What became of it, and the SHA-256 of the envelope that is stored at its place (None where there is none)."""

    result: FrameResult
    envelope_sha256: Hash | None
    leaf_hash: Hash | None

    def to_json(self) -> dict[str, Any]:
        """The answer as a JSON object."""
        return {
            "result": self.result.value,
            "envelope_sha256": self.envelope_sha256 and self.envelope_sha256.hex(),
            "leaf_hash": self.leaf_hash and self.leaf_hash.hex(),
        }


def parse(body: Buffer) -> list[NewChunk]:
    """The envelopes of a request body, fingerprinted.

    Raises:
        DomainError: `bad-envelope`; nothing of the request is stored then.
    """
    chunks: list[NewChunk] = []
    try:
        for frame in frames.split(body):
            if len(chunks) == MAX_FRAMES:
                raise DomainError("bad-envelope", f"a request may hold at most {MAX_FRAMES} envelopes")
            header = envelope.parse(frame).header
            fingerprint = envelope.fingerprint(header.session_id, header.index, frame)
            chunks.append(NewChunk(header.session_id, header.index, header.plaintext_bytes, fingerprint, frame))
    except FormatError as error:
        raise DomainError("bad-envelope", f"frame {len(chunks)}: {error}") from error
    return chunks


class Intake:
    """Stores envelopes of any sessions."""

    def __init__(
        self,
        sessions: SessionStore,
        chunks: ChunkStore,
        activity: Activity,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._sessions = sessions
        self._chunks = chunks
        self._activity = activity
        self._clock = clock
        self._open: dict[SessionId, float] = {}

    def opened(self, session_id: SessionId) -> None:
        """Know of a session that it was opened now, so that its first chunk asks for nothing before it is stored."""
        self._remember([session_id], {session_id: SessionStatus.OPEN})
        self._activity.opened(session_id)

    async def submit(self, body: Buffer, require: Callable[[SessionId], None] = lambda _: None) -> list[FrameAnswer]:
        """Store the envelopes of a request body; one answer each, in order.

        `require` raises for a session that the caller may not write to; nothing of the request is stored then.

        Raises:
            DomainError: `bad-envelope`, `session-reserved`, `database-unavailable`.
        """
        chunks = parse(body) if len(body) <= _INLINE_BYTES else await asyncio.to_thread(parse, body)
        if not chunks:
            return []
        session_ids = list({chunk.session_id for chunk in chunks})
        for session_id in session_ids:
            require(require_recording(session_id))
        before = await self._before(session_ids)
        await self._activity.note([one for one in session_ids if before.get(one) is SessionStatus.OPEN])
        reach(Point.CHUNK_NOTED)
        writable = [chunk for chunk in chunks if before.get(chunk.session_id) is SessionStatus.OPEN]
        outcomes = iter(await self._insert(writable) if writable else [])
        # The state is read again, after the insert: a seal that began in between may or may not have seen it.
        after = await self._sessions.statuses(session_ids) if writable else before
        self._remember(session_ids, after)
        answers = [await self._answer(chunk, before, after, outcomes) for chunk in chunks]
        BATCH_ENVELOPES.observe(len(chunks))
        BATCH_BYTES.observe(len(body))
        for answer in answers:
            ENVELOPES.labels(answer.result.value).inc()
        stored = [chunk for chunk, answer in zip(chunks, answers, strict=True) if answer.result is FrameResult.STORED]
        ENVELOPE_BYTES.inc(sum(chunk.fingerprint.envelope_bytes for chunk in stored))
        return answers

    async def _insert(self, chunks: list[NewChunk]) -> Sequence[tuple[InsertOutcome, Hash]]:
        with STORE_SECONDS.time(), tracing.span("store", {"batch.envelopes": len(chunks)}):
            return await self._chunks.insert(chunks)

    async def _answer(
        self,
        chunk: NewChunk,
        before: Mapping[SessionId, SessionStatus],
        after: Mapping[SessionId, SessionStatus],
        outcomes: Iterator[tuple[InsertOutcome, Hash]],
    ) -> FrameAnswer:
        status = before.get(chunk.session_id)
        if status is None:
            return FrameAnswer(FrameResult.UNKNOWN_SESSION, None, None)
        if status is not SessionStatus.OPEN:
            return await self._closed(chunk)
        outcome, stored_sha256 = next(outcomes)
        if chunk.session_id not in after:  # the database was set back to before the session
            await self._take_back(chunk)
            return FrameAnswer(FrameResult.UNKNOWN_SESSION, None, None)
        if outcome is InsertOutcome.CONFLICT:
            return FrameAnswer(FrameResult.CONFLICT, stored_sha256, None)
        if after[chunk.session_id] is not SessionStatus.OPEN and not await self._covered(chunk):
            return FrameAnswer(FrameResult.SEALED, None, None)
        return FrameAnswer(FrameResult(outcome.value), stored_sha256, chunk.fingerprint.leaf_hash)

    async def _closed(self, chunk: NewChunk) -> FrameAnswer:
        """For a session that takes nothing more: a repeat of what it has is still recognised as such."""
        page = await self._chunks.page(chunk.session_id, chunk.index, 1)
        if not page or page[0].index != chunk.index or not await self._covered(chunk):
            return FrameAnswer(FrameResult.SEALED, None, None)
        stored = page[0].fingerprint
        same = stored.envelope_sha256 == chunk.fingerprint.envelope_sha256
        result = FrameResult.EXISTS if same else FrameResult.CONFLICT
        return FrameAnswer(result, stored.envelope_sha256, stored.leaf_hash if same else None)

    async def _covered(self, chunk: NewChunk) -> bool:
        """Wait for the seal to be decided; if it does not cover the chunk, take the chunk back."""
        record = await self._decided(chunk.session_id)
        if record.status is SessionStatus.OPEN:  # the seal was refused
            return True
        if all(await covered(record, [chunk.index])):
            return True
        reach(Point.CHUNK_UNCOVERED)
        # The seal is final, so nobody else can come to count this chunk in.
        await self._take_back(chunk)
        return False

    async def _take_back(self, chunk: NewChunk) -> None:
        record = ChunkRecord(chunk.index, chunk.plaintext_bytes, chunk.fingerprint)
        await self._chunks.remove(chunk.session_id, record)

    async def _before(self, session_ids: list[SessionId]) -> Mapping[SessionId, SessionStatus]:
        """States before the insert. One that was open a moment ago is not asked for: the state after it counts."""
        since = self._clock() - _OPEN_SECONDS
        before = {one: SessionStatus.OPEN for one in session_ids if self._open.get(one, since) > since}
        others = [one for one in session_ids if one not in before]
        return {**before, **await self._decided_statuses(others)} if others else before

    def _remember(self, session_ids: list[SessionId], states: Mapping[SessionId, SessionStatus]) -> None:
        now = self._clock()
        for session_id in session_ids:
            self._open.pop(session_id, None)
            if states.get(session_id) is SessionStatus.OPEN:
                self._open[session_id] = now
        while len(self._open) > _OPEN_SESSIONS:  # the first is the one whose time is up first
            del self._open[next(iter(self._open))]

    async def _decided_statuses(self, session_ids: list[SessionId]) -> Mapping[SessionId, SessionStatus]:
        """The sessions' states, none of them half-way to a seal, which may yet be refused."""
        found = dict(await self._sessions.statuses(session_ids))
        for session_id, status in found.items():
            if status is SessionStatus.SEALING:
                found[session_id] = (await self._decided(session_id)).status
        return found

    async def _decided(self, session_id: SessionId) -> SessionRecord:
        """A session once it is not being sealed any more.

        Raises:
            DomainError: `overloaded`, when that takes too long.
        """
        for _ in range(_SEALING_POLLS):
            record = await self._sessions.get(session_id)
            if record is None:
                raise problems.session_not_found(session_id)
            if record.status is not SessionStatus.SEALING:
                return record
            await asyncio.sleep(_SEALING_POLL_SECONDS)
        raise DomainError("overloaded", "the session is being sealed; repeat the request", retry_after_seconds=2)
