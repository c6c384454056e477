"""The use case, on session-storage over HTTP."""

import asyncio
import os
from dataclasses import replace

import pytest

from sessions.core.types import ChunkIndex, SessionId
from sessions.processor.recording import Recording
from sessions.processor.storage_answers import FrameAnswer
from sessions.runtime.errors import DomainError
from tests.altering import altered_end
from tests.unit.processor.conftest import Parts
from tests.unit.storage.chunks import House, envelope_of, new_chunk

A = SessionId("a")
ZERO = ChunkIndex(0)


async def _error(work) -> DomainError:
    with pytest.raises(DomainError) as caught:
        await work
    return caught.value


@pytest.mark.parametrize("content", [b"", b"x", bytes(1_000_000), os.urandom(300_000)])
async def test_what_is_recorded_is_read(parts: Parts, house: House, content: bytes) -> None:
    recorded = await parts.recording.record(A, ZERO, bytearray(content))
    stored = house.chunks.records[A][0].fingerprint
    assert recorded.created
    assert recorded.to_json() == {
        "session_id": "a",
        "index": 0,
        "plaintext_bytes": len(content),
        "envelope_bytes": stored.envelope_bytes,
        "envelope_sha256": stored.envelope_sha256.hex(),
        "leaf_hash": stored.leaf_hash.hex(),
        "durability": "stored",
    }
    assert await parts.recording.read(A, 0) == content


async def test_the_same_content_again_is_answered_as_it_was(parts: Parts) -> None:
    first = await parts.recording.record(A, ZERO, b"content")
    again = await parts.recording.record(A, ZERO, b"content")
    assert again == replace(first, created=False)


async def test_other_content_is_a_conflict_that_changes_nothing(parts: Parts) -> None:
    await parts.recording.record(A, ZERO, b"content")
    error = await _error(parts.recording.record(A, ZERO, b"other"))
    assert (error.code, error.members) == ("chunk-conflict", {"session_id": "a", "index": 0})
    assert await parts.recording.read(A, 0) == b"content"


async def test_many_at_once_of_one_index(parts: Parts) -> None:
    works = [parts.recording.record(A, ZERO, b"content %d" % (number % 2)) for number in range(20)]
    results = await asyncio.gather(*works, return_exceptions=True)
    recorded = [result for result in results if not isinstance(result, DomainError)]
    assert len(recorded) == 10
    assert sum(result.created for result in recorded) == 1
    assert {result.code for result in results if isinstance(result, DomainError)} == {"chunk-conflict"}


async def test_after_the_seal_a_repeat_is_known_and_the_rest_is_refused(parts: Parts) -> None:
    first = await parts.recording.record(A, ZERO, b"content")
    await parts.storage.seal(A, None)
    assert await parts.recording.record(A, ZERO, b"content") == replace(first, created=False)
    assert (await _error(parts.recording.record(A, ZERO, b"other"))).code == "chunk-conflict"
    assert (await _error(parts.recording.record(A, ChunkIndex(1), b"more"))).code == "session-sealed"
    # A processor that has not its keys, such as one that was restarted, refused a repeat.
    for content, code in ((b"content", ""), (b"other", "chunk-conflict")):
        parts.rings.forget(A)
        if code:
            assert (await _error(parts.recording.record(A, ZERO, content))).code == code
        else:
            assert await parts.recording.record(A, ZERO, content) == replace(first, created=False)
    parts.rings.forget(A)
    assert (await _error(parts.recording.record(A, ChunkIndex(1), b"more"))).code == "session-sealed"
    await parts.rings.for_opening(A)
    await parts.storage.shred(A, "admin-1")
    # By another process: this one has the keys yet.
    for index in (ZERO, ChunkIndex(1)):
        assert (await _error(parts.recording.record(A, index, b"content"))).code == "session-shredded"


async def test_a_storage_that_was_set_back_gets_the_session_again(parts: Parts, house: House) -> None:
    await parts.recording.record(A, ZERO, b"content")
    house.sessions.records.clear()
    house.chunks.records.clear()
    assert (await parts.recording.record(A, ChunkIndex(1), b"more")).created
    assert await parts.recording.read(A, 1) == b"more"


class _Submitter:
    """Answers what it is told, and counts."""

    def __init__(self, answer: FrameAnswer) -> None:
        self.answer, self.count = answer, 0

    async def submit(self, session_id: SessionId, envelope: bytes) -> FrameAnswer:
        self.count += 1
        return self.answer


def _with(parts: Parts, answer: FrameAnswer) -> tuple[Recording, _Submitter]:
    submitter = _Submitter(answer)
    return Recording(parts.rings, submitter, parts.storage, parts.recording._executor, 3), submitter


async def test_a_session_that_cannot_be_opened(parts: Parts) -> None:
    recording, submitter = _with(parts, FrameAnswer("unknown-session", None, None))
    error = await _error(recording.record(A, ZERO, b"x"))
    assert (error.code, error.retry_after_seconds, submitter.count) == ("storage-unavailable", 1, 3)


@pytest.mark.parametrize("sha256", [None, "ab" * 32])
@pytest.mark.parametrize("result", ["stored", "exists"])
async def test_other_bytes_than_were_sent_are_not_acknowledged(parts: Parts, result: str, sha256: str | None) -> None:
    recording, _ = _with(parts, FrameAnswer(result, sha256, None))
    error = await _error(recording.record(A, ZERO, b"x"))
    assert (error.code, error.retry_after_seconds) == ("storage-unavailable", 1)


@pytest.mark.parametrize("change", ["cut", "bit", "other key"])
async def test_a_stored_envelope_that_does_not_open(parts: Parts, house: House, change: str) -> None:
    await parts.recording.record(A, ZERO, b"content")
    ((key, data),) = house.chunks.bodies.items()
    bodies = {"cut": data[:20], "bit": altered_end(data), "other key": envelope_of("a", 0)}
    house.chunks.bodies[key] = bodies[change]
    error = await _error(parts.recording.read(A, 0))
    assert error.code == ("key-unavailable" if change == "other key" else "envelope-corrupt")
    assert (await _error(parts.recording.record(A, ZERO, b"content"))).code == error.code


async def test_no_such_chunk_or_session(parts: Parts, house: House) -> None:
    await house.session("b")
    assert (await _error(parts.recording.read(A, 0))).code == "session-not-found"
    assert (await _error(parts.recording.read(SessionId("b"), 0))).code == "chunk-not-found"
    await house.chunks.insert([new_chunk("b", 0)])
    assert (await _error(parts.recording.read(SessionId("b"), 0))).code == "key-unavailable"
