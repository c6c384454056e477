"""Taking envelopes in: check, store, and tell of each what became of it."""

import asyncio
import hashlib
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Final

from prometheus_client import Counter, Histogram

from sessions.core import envelope, frames
from sessions.core.errors import FormatError
from sessions.core.types import CHUNK_MAX_BYTES_LIMIT, Buffer, Hash, SessionId
from sessions.runtime import tracing
from sessions.runtime.audit import require_recording
from sessions.runtime.errors import DomainError
from sessions.runtime.killpoints import reach
from sessions.runtime.metrics import BATCH_BUCKETS, LATENCY_BUCKETS, SIZE_BUCKETS
from sessions.storage.activity import Activity
from sessions.storage.chunk_records import ChunkRecord, InsertOutcome, NewChunk
from sessions.storage.frame_answers import ENVELOPES, FrameAnswer, FrameResult
from sessions.storage.heads import covered
from sessions.storage.killpoints import Point
from sessions.storage.store import EnvelopeStore, SessionRecord, SessionState, SessionStatus, ShreddedSessions

_INLINE_BYTES: Final = 256 * 1024
"""Up to here hashing takes no more time than the way to a thread and back; the event loop waits 0.2 ms for it."""
MAX_FRAMES: Final = 4096
MAX_ENVELOPE_BYTES: Final = CHUNK_MAX_BYTES_LIMIT + envelope.MAX_HEADER_BYTES + envelope.TAG_BYTES
"""The largest envelope, in bytes: one of the largest chunk that any deployment may allow, which did not compress."""
_OPEN_SECONDS: Final = 1.0
"""So long a session that was open is taken to be open still, before a chunk is stored; it is asked for after it."""
_OPEN_SESSIONS: Final = 10_000
_SEALING_POLL_SECONDS: Final = 0.05
_SEALING_WAIT_SECONDS: Final = 1.0
"""Longest time that a request waits for seals to be decided, in seconds: other sessions' envelopes are in it, too."""

ENVELOPE_BYTES = Counter("lucid_envelope_bytes_total", "Bytes of envelopes that were stored.")
BATCH_ENVELOPES = Histogram("lucid_received_batch_envelopes", "Envelopes in one request.", buckets=BATCH_BUCKETS)
BATCH_BYTES = Histogram("lucid_received_batch_bytes", "Bytes of one request with envelopes.", buckets=SIZE_BUCKETS)
STORE_SECONDS = Histogram(
    "lucid_store_duration_seconds",
    "Time until the database had journaled the envelopes of one request.",
    buckets=LATENCY_BUCKETS,
)


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
            _require_plausible(len(chunks), header.plaintext_bytes, len(frame))
            fingerprint = envelope.fingerprint(header.session_id, header.index, frame)
            chunks.append(
                NewChunk(header.session_id, header.index, header.plaintext_bytes, fingerprint, frame, header.dek_id)
            )
    except FormatError as error:
        raise DomainError("bad-envelope", f"frame {len(chunks)}: {error}") from error
    return chunks


def _require_plausible(position: int, plaintext_bytes: int, envelope_bytes: int) -> None:
    """Refuse lengths that no chunk has: what is stored is added up, in the manifest among others."""
    if plaintext_bytes > CHUNK_MAX_BYTES_LIMIT:
        detail = f"claims {plaintext_bytes} bytes of plaintext; a chunk has at most {CHUNK_MAX_BYTES_LIMIT}"
        raise DomainError("bad-envelope", f"frame {position}: the envelope {detail}")
    if envelope_bytes > MAX_ENVELOPE_BYTES:
        detail = f"has {envelope_bytes} bytes; an envelope has at most {MAX_ENVELOPE_BYTES}"
        raise DomainError("bad-envelope", f"frame {position}: the envelope {detail}")


class Intake:
    """Stores envelopes of any sessions, each answered for itself: one session's trouble is no other's."""

    def __init__(
        self,
        sessions: ShreddedSessions,
        chunks: EnvelopeStore,
        activity: Activity,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._sessions = sessions
        self._chunks = chunks
        self._activity = activity
        self._clock = clock
        self._open: dict[SessionId, tuple[float, SessionState]] = {}

    def opened(self, record: SessionRecord) -> None:
        """Remember a session that was opened now, so that its first chunk needs no question before it is stored."""
        state = SessionState(SessionStatus.OPEN, frozenset(key.dek_id for key in record.keys))
        self._remember([record.session_id], {record.session_id: state})
        self._activity.opened(record.session_id)

    def set_back(self) -> None:
        """Forget which sessions are open: the database was set back to an earlier state."""
        self._open.clear()

    async def submit(self, body: Buffer, require: Callable[[SessionId], None] = lambda _: None) -> list[FrameAnswer]:
        """Store the envelopes of a request body; return one answer each, in order.

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
        wait_until = self._clock() + _SEALING_WAIT_SECONDS
        before = await self._before(chunks, session_ids, wait_until)
        writable = [chunk for chunk in chunks if _is_writable(chunk, before)]
        await self._activity.note(list({chunk.session_id for chunk in writable}))
        reach(Point.CHUNK_NOTED)
        outcomes = iter(await self._insert(writable) if writable else [])
        if writable:
            self._activity.written()
        # The state is read again, after the insert: a seal that began in between may or may not have seen it.
        after = await self._sessions.states(session_ids) if writable else before
        self._remember(session_ids, after)
        answers = [await self._answer(chunk, before, after, outcomes, wait_until) for chunk in chunks]
        BATCH_ENVELOPES.observe(len(chunks))
        BATCH_BYTES.observe(len(body))
        for answer in answers:
            ENVELOPES[answer.result].inc()
        stored = [chunk for chunk, answer in zip(chunks, answers, strict=True) if answer.result is FrameResult.STORED]
        ENVELOPE_BYTES.inc(sum(chunk.fingerprint.envelope_bytes for chunk in stored))
        return answers

    async def _insert(self, chunks: list[NewChunk]) -> Sequence[tuple[InsertOutcome, Hash]]:
        with STORE_SECONDS.time(), tracing.span("store", {"batch.envelopes": len(chunks)}):
            return await self._chunks.insert(chunks)

    async def _answer(
        self,
        chunk: NewChunk,
        before: Mapping[SessionId, SessionState],
        after: Mapping[SessionId, SessionState],
        outcomes: Iterator[tuple[InsertOutcome, Hash]],
        wait_until: float,
    ) -> FrameAnswer:
        if not _is_writable(chunk, before):
            return await self._not_written(chunk, before.get(chunk.session_id))
        outcome, stored_sha256 = next(outcomes)
        state = after.get(chunk.session_id)
        if outcome is InsertOutcome.CONFLICT and state is not None:
            outcome, stored_sha256 = await self._contested(chunk, stored_sha256, state)
        if outcome is not InsertOutcome.CONFLICT and state is not None and state.status is not SessionStatus.OPEN:
            if (refusal := await self._uncovered(chunk, wait_until)) is not None:
                return FrameAnswer(refusal, None, None)
            if state.status is SessionStatus.SHREDDED:  # it had the key when it was sealed with the chunk
                await self._bury(chunk)
                return FrameAnswer(FrameResult(outcome.value), stored_sha256, chunk.fingerprint.leaf_hash)
        if state is None or chunk.dek_id not in state.dek_ids:  # the database was set back to before the session or key
            # One that exists may have been acknowledged before the set-back, when the ring still had its key.
            if outcome is InsertOutcome.STORED and (state is None or state.status is SessionStatus.OPEN):
                await self._take_back(chunk)
            unknown = FrameResult.UNKNOWN_SESSION if state is None else FrameResult.UNKNOWN_KEY
            return FrameAnswer(unknown, None, None)
        if outcome is InsertOutcome.CONFLICT:
            return FrameAnswer(FrameResult.CONFLICT, stored_sha256, None)
        return FrameAnswer(FrameResult(outcome.value), stored_sha256, chunk.fingerprint.leaf_hash)

    async def _not_written(self, chunk: NewChunk, state: SessionState | None) -> FrameAnswer:
        if state is None:
            return FrameAnswer(FrameResult.UNKNOWN_SESSION, None, None)
        if state.status is SessionStatus.SEALING:
            return FrameAnswer(FrameResult.BUSY, None, None)
        if state.status is SessionStatus.OPEN:
            return FrameAnswer(FrameResult.UNKNOWN_KEY, None, None)
        answer = await self._closed(chunk)
        if state.status is SessionStatus.SHREDDED and answer.result is FrameResult.EXISTS:
            # A crash between the insert and `_bury` left its body; nobody was answered then, so it is repeated.
            await self._chunks.remove_body(chunk.session_id, chunk.record)
        return answer

    async def _contested(self, chunk: NewChunk, stored_sha256: Hash, state: SessionState) -> tuple[InsertOutcome, Hash]:
        """Decide a taken index: an envelope whose key is in no ring was never acknowledged, and gives way.

        A crash leaves one where storage found the key missing after the insert, and died before it took it back.
        """
        found = await self._stored(chunk)
        if state.status is not SessionStatus.OPEN or found is None:
            return InsertOutcome.CONFLICT, stored_sha256
        body = await self._chunks.read(chunk.session_id, found)
        if body is None or hashlib.sha256(body).digest() != found.fingerprint.envelope_sha256:
            return InsertOutcome.CONFLICT, stored_sha256  # a damaged one says nothing of its key
        if envelope.parse(body).header.dek_id in state.dek_ids:
            return InsertOutcome.CONFLICT, stored_sha256
        await self._chunks.remove(chunk.session_id, found)
        return (await self._insert([chunk]))[0]

    async def _stored(self, chunk: NewChunk) -> ChunkRecord | None:
        page = await self._chunks.page(chunk.session_id, chunk.index, 1)
        return page[0] if page and page[0].index == chunk.index else None

    async def _closed(self, chunk: NewChunk) -> FrameAnswer:
        """Answer for a session that takes nothing more: a repeat of what it has is still recognised as such."""
        found = await self._stored(chunk)
        if found is None or await self._uncovered(chunk, self._clock()):
            return FrameAnswer(FrameResult.SEALED, None, None)
        stored = found.fingerprint
        same = stored.envelope_sha256 == chunk.fingerprint.envelope_sha256
        result = FrameResult.EXISTS if same else FrameResult.CONFLICT
        return FrameAnswer(result, stored.envelope_sha256, stored.leaf_hash if same else None)

    async def _uncovered(self, chunk: NewChunk, wait_until: float) -> FrameResult | None:
        """Wait for the seal to be decided; if it does not cover the chunk, take the chunk back and say so."""
        record = await self._decided(chunk.session_id, wait_until)
        if record is None:
            return FrameResult.UNKNOWN_SESSION
        if record.status is SessionStatus.SEALING:
            return FrameResult.BUSY
        if record.status is SessionStatus.OPEN or all(await covered(record, [chunk.index])):
            return None  # the seal was refused, or has it
        reach(Point.CHUNK_UNCOVERED)
        # The seal is final, so nobody else can come to count this chunk in.
        await self._take_back(chunk)
        return FrameResult.SEALED

    async def _take_back(self, chunk: NewChunk) -> None:
        await self._chunks.remove(chunk.session_id, chunk.record)

    async def _bury(self, chunk: NewChunk) -> None:
        """Delete the body that an insert wrote again after its session was shredded; should this crash, shredding does.

        The record stays, as those of all chunks that a seal covers.
        """
        await self._sessions.unfinish(chunk.session_id)
        await self._chunks.remove_body(chunk.session_id, chunk.record)

    async def _before(
        self, chunks: Sequence[NewChunk], session_ids: list[SessionId], wait_until: float
    ) -> Mapping[SessionId, SessionState]:
        """States before the insert. One that was open a moment ago is not asked for: the state after it counts.

        But it is for a key that its ring did not have then: what is not known to have a key is not stored at all.
        """
        since = self._clock() - _OPEN_SECONDS
        before = {
            name: known[1] for name in session_ids if (known := self._open.get(name)) is not None and known[0] > since
        }
        for chunk in chunks:
            if (state := before.get(chunk.session_id)) is not None and chunk.dek_id not in state.dek_ids:
                del before[chunk.session_id]
        others = [one for one in session_ids if one not in before]
        return {**before, **await self._decided_states(others, wait_until)} if others else before

    def _remember(self, session_ids: list[SessionId], states: Mapping[SessionId, SessionState]) -> None:
        now = self._clock()
        for session_id in session_ids:
            self._open.pop(session_id, None)
            state = states.get(session_id)
            if state is not None and state.status is SessionStatus.OPEN:
                self._open[session_id] = now, state
        while len(self._open) > _OPEN_SESSIONS:  # the first is the one whose time is up first
            del self._open[next(iter(self._open))]

    async def _decided_states(
        self, session_ids: list[SessionId], wait_until: float
    ) -> Mapping[SessionId, SessionState]:
        """The sessions' states; one whose seal is still undecided when the time is up is left as such."""
        found = dict(await self._sessions.states(session_ids))
        for session_id, state in list(found.items()):
            if state.status is SessionStatus.SEALING:
                record = await self._decided(session_id, wait_until)
                if record is None:  # the database was set back
                    del found[session_id]
                    continue
                found[session_id] = SessionState(record.status, frozenset(key.dek_id for key in record.keys))
        return found

    async def _decided(self, session_id: SessionId, wait_until: float) -> SessionRecord | None:
        """A session once it is not being sealed any more, or when the time is up; None when it is not there."""
        while True:
            record = await self._sessions.get(session_id)
            if record is None or record.status is not SessionStatus.SEALING or self._clock() >= wait_until:
                return record
            await asyncio.sleep(_SEALING_POLL_SECONDS)


def _is_writable(chunk: NewChunk, states: Mapping[SessionId, SessionState]) -> bool:
    state = states.get(chunk.session_id)
    return state is not None and state.status is SessionStatus.OPEN and chunk.dek_id in state.dek_ids
