"""Taking envelopes in, on twins."""

import asyncio
from dataclasses import replace

import pytest

from sessions.core import frames
from sessions.core.envelope import Codec, Header, fingerprint
from sessions.core.types import ChunkIndex, DekId, SessionId
from sessions.runtime.errors import DomainError
from sessions.storage import ingest
from sessions.storage.chunk_records import InsertOutcome, NewChunk
from sessions.storage.ingest import MAX_FRAMES, FrameResult
from sessions.storage.memory import MemoryChunks
from sessions.storage.store import Change, SealOrder, SessionStatus
from tests.unit.storage.chunks import EPOCH, House, envelope_of, key, new_chunk

A = SessionId("a")
STORED, EXISTS, CONFLICT, SEALED, UNKNOWN, UNKNOWN_KEY, BUSY = FrameResult
_SEALING = Change(status=SessionStatus.SEALING, seal_order=SealOrder(None, "recorder", EPOCH))


def _body(*chunks: NewChunk) -> bytes:
    return frames.join([chunk.envelope for chunk in chunks])


async def _results(house: House, *chunks: NewChunk) -> list[FrameResult]:
    return [answer.result for answer in await house.intake.submit(_body(*chunks))]


async def test_each_frame_is_answered_in_order() -> None:
    house = House()
    await house.session("a", 0)
    await house.session("b")
    await house.session("c", 0)
    await house.sealer.seal(SessionId("c"), None, "recorder")
    chunks = [
        new_chunk("a", 0),
        new_chunk("none", 0),
        new_chunk("a", 0, b"other"),
        new_chunk("b", 7),
        new_chunk("c", 0),
        new_chunk("c", 0, b"other"),
        new_chunk("c", 1),
        new_chunk("b", 7),
    ]
    bytes_before = ingest.ENVELOPE_BYTES._value.get()
    answers = await house.intake.submit(_body(*chunks))
    assert ingest.ENVELOPE_BYTES._value.get() - bytes_before == len(chunks[3].envelope)
    results = [EXISTS, UNKNOWN, CONFLICT, STORED, EXISTS, CONFLICT, SEALED, EXISTS]
    assert [answer.result for answer in answers] == results
    for chunk, answer in zip(chunks, answers, strict=True):
        ours, told = chunk.fingerprint, answer.to_json()
        assert told["result"] == answer.result.value
        if answer.result in (STORED, EXISTS):
            assert told["envelope_sha256"] == ours.envelope_sha256.hex()
            assert told["leaf_hash"] == ours.leaf_hash.hex()
        elif answer.result is CONFLICT:
            assert told["envelope_sha256"] == new_chunk(chunk.session_id, 0).fingerprint.envelope_sha256.hex()
            assert told["leaf_hash"] is None
        else:
            assert (told["envelope_sha256"], told["leaf_hash"]) == (None, None)
    assert sorted(house.chunks.records[A]) == [0]
    assert SessionId("none") not in house.chunks.records


async def test_what_is_stored_has_the_uptime_counted_soon() -> None:
    house = House()
    await house.session("a")
    await _results(house, new_chunk("none", 0))
    assert not house.uptime._stirred
    await _results(house, new_chunk("a", 0))
    assert house.uptime._stirred


async def test_nothing_is_a_request_too() -> None:
    assert await House().intake.submit(b"") == []


async def test_a_large_body_is_parsed_in_a_thread() -> None:
    house = House()
    await house.session("a")
    large = new_chunk("a", 0, bytes(ingest._INLINE_BYTES + 1))
    assert await _results(house, large) == [STORED]


_GOOD = envelope_of("a", 0)


@pytest.mark.parametrize(
    ("body", "frame"),
    [
        (frames.join([_GOOD, b"not an envelope" * 9]), 1),
        (frames.join([_GOOD, _GOOD[:-1]]), 1),
        (frames.join([_GOOD])[:-1], 0),
        (frames.join([_GOOD]) + b"\0", 1),
        (frames.join([_GOOD, b""]), 1),
    ],
)
async def test_one_malformed_frame_and_nothing_is_stored(body: bytes, frame: int) -> None:
    house = House()
    await house.session("a")
    with pytest.raises(DomainError, match=f"^frame {frame}: ") as caught:
        await house.intake.submit(body)
    assert caught.value.code == "bad-envelope"
    assert house.chunks.records == {}


async def test_too_many_frames() -> None:
    house = House()
    await house.session("a")
    chunks = [new_chunk("a", index) for index in range(MAX_FRAMES)]
    assert set(await _results(house, *chunks)) == {STORED}
    with pytest.raises(DomainError, match="at most 4096") as caught:
        await house.intake.submit(_body(*chunks, new_chunk("a", MAX_FRAMES)))
    assert caught.value.code == "bad-envelope"


class _Meeting(MemoryChunks):
    """Does something else between the insert and the look at the state that follows it."""

    def __init__(self) -> None:
        super().__init__()
        self.before = self.after = _nothing

    async def insert(self, chunks: list[NewChunk]) -> list[tuple[InsertOutcome, bytes]]:
        await self.before()
        outcomes = await super().insert(chunks)
        await self.after()
        return outcomes


async def _nothing() -> None:
    return None


@pytest.fixture
def meeting() -> tuple[House, _Meeting]:
    chunks = _Meeting()
    return House(chunks=chunks), chunks


async def test_a_seal_after_the_insert_covers_it(meeting) -> None:
    house, chunks = meeting
    await house.session("a", 0)

    async def seal() -> None:
        chunks.after = _nothing
        await house.sealer.seal(A, None, "recorder")

    chunks.after = seal
    assert await _results(house, new_chunk("a", 1)) == [STORED]
    assert (await house.evidence.proof(A, 1)).tree_size == 2


async def test_a_seal_before_the_insert_does_not_and_the_chunk_is_taken_back(meeting) -> None:
    house, chunks = meeting
    await house.session("a", 0)

    async def seal() -> None:
        await house.sealer.seal(A, None, "recorder")

    chunks.before = seal
    late = new_chunk("a", 1)
    answer = (await house.intake.submit(_body(late)))[0]
    assert (answer.result, answer.envelope_sha256, answer.leaf_hash) == (SEALED, None, None)
    assert sorted(house.chunks.records[A]) == [0]
    assert not [key for key in house.chunks.bodies if key[1] == 1]


async def test_late_into_a_gap_that_the_manifest_names(meeting) -> None:
    house, chunks = meeting
    await house.session("a", 0, 2)

    async def seal() -> None:
        await house.sealer.seal(A, None, "idle")

    chunks.before = seal
    assert await _results(house, new_chunk("a", 1)) == [SEALED]
    assert sorted(house.chunks.records[A]) == [0, 2]
    for index in (0, 2):
        (await house.evidence.proof(A, index)).verify()


async def test_what_a_crash_left_uncovered_is_not_taken_for_stored() -> None:
    house = House()
    await house.session("a", 0)
    await house.sealer.seal(A, None, "recorder")
    late = new_chunk("a", 1)
    await house.chunks.insert([late])  # and the writer died
    assert await _results(house, late, new_chunk("a", 1, b"other")) == [SEALED, SEALED]
    assert [chunk.index for chunk in (await house.evidence.chunks(A, 0, 9))[0]] == [0]


async def _after(seconds: float, house: House, change: Change) -> None:
    await asyncio.sleep(seconds)
    await house.sessions.update(A, SessionStatus.SEALING, change)


async def test_a_seal_that_is_refused_leaves_the_chunk_stored(meeting, monkeypatch) -> None:
    house, chunks = meeting
    monkeypatch.setattr(ingest, "_SEALING_POLL_SECONDS", 0.001)
    await house.session("a")

    async def begin() -> None:
        await house.sessions.update(A, SessionStatus.OPEN, _SEALING)

    chunks.after = begin
    answers, _ = await asyncio.gather(
        house.intake.submit(_body(new_chunk("a", 5))), _after(0.02, house, Change(status=SessionStatus.OPEN))
    )
    assert answers[0].result is STORED
    assert sorted(house.chunks.records[A]) == [5]


async def test_a_chunk_that_meets_a_seal_waits_for_what_becomes_of_it(monkeypatch) -> None:
    monkeypatch.setattr(ingest, "_SEALING_POLL_SECONDS", 0.001)
    house = House()
    await house.session("a", 0)
    await house.sessions.update(A, SessionStatus.OPEN, _SEALING)
    answers, _ = await asyncio.gather(
        house.intake.submit(_body(new_chunk("a", 0), new_chunk("a", 1))),
        _after(0.02, house, Change(status=SessionStatus.OPEN)),
    )
    assert [answer.result for answer in answers] == [EXISTS, STORED]


async def test_of_a_seal_that_does_not_end_its_sessions_envelopes_are_told_alone(monkeypatch) -> None:
    monkeypatch.setattr(ingest, "_SEALING_POLL_SECONDS", 0)
    house = House()
    await house.session("a")
    await house.sessions.update(A, SessionStatus.OPEN, _SEALING)
    monkeypatch.setattr(ingest, "_SEALING_WAIT_SECONDS", 0.02)
    await house.session("b")
    assert await _results(house, new_chunk("a", 1), new_chunk("b", 0)) == [BUSY, STORED]
    assert A not in house.chunks.records


async def test_a_session_that_vanishes_meanwhile(monkeypatch) -> None:
    house = House()
    await house.session("a")
    await house.sessions.update(A, SessionStatus.OPEN, _SEALING)

    async def gone(_: SessionId) -> None:
        return None

    monkeypatch.setattr(house.sessions, "get", gone)
    await house.session("b")
    assert await _results(house, new_chunk("a", 1), new_chunk("b", 0)) == [UNKNOWN, STORED]


async def _at_first_one(house: House) -> list[str]:
    """A chunk is stored, so that the session is known to be open; then each question for states is noted."""
    await house.session("a")
    assert await _results(house, new_chunk("a", 0)) == [STORED]
    asked: list[str] = []
    states = house.sessions.states

    async def noted(session_ids: list[SessionId]) -> object:
        asked.append(",".join(session_ids))
        return await states(session_ids)

    house.sessions.states = noted
    return asked


async def test_a_session_that_was_open_a_moment_ago_is_asked_for_only_after_the_insert(monkeypatch) -> None:
    house = House()
    asked = await _at_first_one(house)
    await house.session("b")
    asked.clear()
    assert await _results(house, new_chunk("a", 1), new_chunk("b", 0)) == [STORED, STORED]
    assert ["a" in one for one in asked].count(True) == 1, "and of b it is asked before, too"
    assert sorted(asked[-1].split(",")) == ["a", "b"]
    asked.clear()
    monkeypatch.setattr(ingest, "_OPEN_SECONDS", 0.0)
    assert await _results(house, new_chunk("a", 2)) == [STORED]
    assert asked == ["a", "a"]


async def test_the_first_chunk_of_a_session_that_was_opened_here_asks_only_after_the_insert() -> None:
    house = House()
    asked = await _at_first_one(house)
    await house.ledger.open(SessionId("b"), None, key())
    asked.clear()
    assert await _results(house, new_chunk("b", 0)) == [STORED]
    assert asked == ["b"]
    await house.sealer.seal(SessionId("b"), None, "recorder")
    assert await _results(house, new_chunk("b", 1)) == [SEALED]


async def test_a_session_that_was_open_a_moment_ago_and_is_sealed_takes_nothing_more() -> None:
    house = House()
    await _at_first_one(house)
    await house.sealer.seal(A, None, "recorder")
    assert await _results(house, new_chunk("a", 1)) == [SEALED]
    assert sorted(house.chunks.records[A]) == [0]
    assert not [key for key in house.chunks.bodies if key[1] == 1]
    assert await _results(house, new_chunk("a", 0)) == [EXISTS]


async def test_a_session_that_was_open_a_moment_ago_and_is_shredded_takes_nothing_more() -> None:
    """Its ring has no keys any more, which is not why: what comes late is taken out of the store again."""
    house = House()
    await _at_first_one(house)
    await house.sealer.seal(A, None, "recorder")
    await house.shred(A)
    assert await _results(house, new_chunk("a", 1)) == [SEALED]
    assert sorted(house.chunks.records[A]) == [0]
    assert not [key for key in house.chunks.bodies if key[1] == 1]


async def _shredded_while_a_body_comes_back(house: House, chunks: "_Meeting") -> None:
    """Have a replica that took the session for open write a body again, as `MongoChunks.insert` does, after all."""
    await house.session("a", 0)

    async def shred() -> None:
        await house.sealer.seal(A, None, "recorder")
        await house.shred(A)
        one = new_chunk("a", 0)
        house.chunks.bodies[A, 0, one.fingerprint.envelope_sha256] = bytes(one.envelope)

    assert await _results(house, new_chunk("a", 0)) == [EXISTS]
    chunks.before = shred


async def test_a_body_that_comes_back_while_its_session_is_shredded_is_deleted(meeting) -> None:
    house, chunks = meeting
    await _shredded_while_a_body_comes_back(house, chunks)
    assert await _results(house, new_chunk("a", 0)) == [EXISTS]
    assert (house.chunks.bodies, sorted(house.chunks.records[A])) == ({}, [0])
    assert await house.shredder.resume(10) == 1
    assert await house.sessions.unfinished(10) == []


@pytest.mark.parametrize("then", ["resumed", "repeated"])
async def test_a_body_that_came_back_outlives_no_crash(meeting, monkeypatch, then: str) -> None:
    house, chunks = meeting
    await _shredded_while_a_body_comes_back(house, chunks)

    async def dies(*_: object) -> None:
        raise DomainError("database-unavailable", "gone")

    with monkeypatch.context() as patch:
        patch.setattr(house.chunks if then == "resumed" else house.sessions, _DIES_IN[then], dies)
        with pytest.raises(DomainError, match="gone"):
            await _results(house, new_chunk("a", 0))
    assert len(house.chunks.bodies) == 1
    chunks.before = _nothing
    if then == "resumed":
        assert await house.shredder.resume(10) == 1
    else:
        assert await _results(house, new_chunk("a", 0)) == [EXISTS]
    assert (house.chunks.bodies, sorted(house.chunks.records[A])) == ({}, [0])


_DIES_IN = {"resumed": "remove_body", "repeated": "unfinish"}


async def test_a_session_that_was_open_a_moment_ago_and_is_no_more_known_keeps_nothing() -> None:
    house = House()
    await _at_first_one(house)
    del house.sessions.records[A]  # the database was set back
    house.chunks.records[A].clear()
    house.chunks.bodies.clear()
    assert await _results(house, new_chunk("a", 1)) == [UNKNOWN]
    assert not house.chunks.records[A]
    assert not house.chunks.bodies


async def test_only_so_many_open_sessions_are_remembered(monkeypatch) -> None:
    monkeypatch.setattr(ingest, "_OPEN_SESSIONS", 1)
    house = House()
    asked = await _at_first_one(house)
    await house.session("b")
    assert await _results(house, new_chunk("b", 0)) == [STORED]
    asked.clear()
    assert await _results(house, new_chunk("a", 1)) == [STORED]
    assert asked == ["a", "a"]


def _under(number: int, session: str, index: int, body: bytes = b"chunk") -> NewChunk:
    """A chunk that is encrypted under another key than `DEK_ID`."""
    name, dek = SessionId(session), DekId(number.to_bytes(16, "big"))
    header = Header(Codec.STORED, dek, bytes(12), ChunkIndex(index), len(body), name)
    data = header.to_bytes() + body + bytes(16)
    return NewChunk(name, index, len(body), fingerprint(name, index, data), data, dek)


async def test_an_envelope_whose_key_is_not_in_the_ring_is_refused_alone() -> None:
    """R1: nobody could ever open it, and a seal would prove that it is there."""
    house = House()
    await house.session("a")
    assert await _results(house, _under(2, "a", 0), new_chunk("a", 1), _under(2, "none", 0)) == [
        UNKNOWN_KEY,
        STORED,
        UNKNOWN,
    ]
    assert sorted(house.chunks.records[A]) == [1]
    await house.ledger.add_key(A, key(2))
    assert await _results(house, _under(2, "a", 0), new_chunk("a", 1)) == [STORED, EXISTS]


async def test_a_key_that_was_added_a_moment_ago_is_asked_for_before_the_insert() -> None:
    house = House()
    asked = await _at_first_one(house)
    await house.ledger.add_key(A, key(2))
    asked.clear()
    assert await _results(house, _under(2, "a", 1), new_chunk("a", 2)) == [STORED, STORED]
    assert asked == ["a", "a"]


async def test_a_key_that_the_ring_lost_a_moment_ago_keeps_nothing() -> None:
    """R9: the database was set back to before the key."""
    house = House()
    await house.session("a")
    await house.ledger.add_key(A, key(2))
    assert await _results(house, _under(2, "a", 0)) == [STORED]
    house.sessions.records[A] = replace(house.sessions.records[A], keys=(key(1),))
    house.chunks.records[A].clear()
    house.chunks.bodies.clear()
    assert await _results(house, _under(2, "a", 0), new_chunk("a", 1)) == [UNKNOWN_KEY, STORED]
    assert (sorted(house.chunks.records[A]), [key[1] for key in house.chunks.bodies]) == ([1], [1])


async def test_a_key_that_the_ring_lost_takes_no_chunk_that_was_acknowledged_with_it() -> None:
    """This request has not stored it, so it does not take it back; the processor brings the key again."""
    house = House()
    await house.session("a")
    await house.ledger.add_key(A, key(2))
    assert await _results(house, _under(2, "a", 0)) == [STORED]
    with_key = house.sessions.records[A]
    house.sessions.records[A] = replace(with_key, keys=(key(1),))
    assert await _results(house, _under(2, "a", 0)) == [UNKNOWN_KEY]
    assert (sorted(house.chunks.records[A]), len(house.chunks.bodies)) == ([0], 1)
    house.sessions.records[A] = with_key
    assert await _results(house, _under(2, "a", 0)) == [EXISTS]


async def test_after_a_set_back_no_session_is_taken_to_be_open() -> None:
    house = House()
    asked = await _at_first_one(house)
    house.intake.set_back()
    asked.clear()
    assert await _results(house, new_chunk("a", 1)) == [STORED]
    assert asked == ["a", "a"]


@pytest.mark.parametrize("content", [b"chunk", b"other"])
async def test_what_a_crash_left_under_a_key_of_no_ring_gives_way(content: bytes) -> None:
    """Storage found the key missing after the insert, and died before it took the envelope out again."""
    house = House()
    await house.session("a")
    await house.chunks.insert([_under(2, "a", 0), new_chunk("a", 1)])
    answers = await house.intake.submit(_body(new_chunk("a", 0, content), new_chunk("a", 1, b"other")))
    assert [answer.result for answer in answers] == [STORED, CONFLICT]
    assert answers[0].envelope_sha256 == new_chunk("a", 0, content).fingerprint.envelope_sha256
    assert house.chunks.records[A][0].fingerprint == new_chunk("a", 0, content).fingerprint
    assert len(house.chunks.bodies) == 2


@pytest.mark.parametrize("damage", ["cut", "key", "gone"])
async def test_a_damaged_envelope_gives_way_to_nothing_and_fails_no_other(damage: str) -> None:
    """It was acknowledged; that its bytes name another key by now does not mean that it was not."""
    house = House()
    await house.session("a", 0)
    await house.session("b")
    ((place, data),) = house.chunks.bodies.items()
    if damage == "gone":
        del house.chunks.bodies[place]
    else:
        house.chunks.bodies[place] = data[:9] if damage == "cut" else _under(2, "a", 0).envelope
    before = house.chunks.records[A][0]
    assert await _results(house, new_chunk("a", 0, b"other"), new_chunk("b", 0)) == [CONFLICT, STORED]
    assert house.chunks.records[A][0] == before


async def test_what_is_sealed_gives_way_to_nothing() -> None:
    house = House()
    await house.session("a")
    await house.chunks.insert([_under(2, "a", 0)])
    assert await _results(house, new_chunk("a", 1)) == [STORED]
    await house.sealer.seal(A, None, "recorder")
    assert await _results(house, new_chunk("a", 0)) == [CONFLICT]
    assert house.chunks.records[A][0].fingerprint == _under(2, "a", 0).fingerprint


async def test_a_session_whose_seal_is_being_decided_keeps_no_other_waiting(monkeypatch) -> None:
    """R4: it is answered `busy`, each envelope alone, after one second for all of a request together."""
    monkeypatch.setattr(ingest, "_SEALING_WAIT_SECONDS", 0.05)
    monkeypatch.setattr(ingest, "_SEALING_POLL_SECONDS", 0.001)
    house = House()
    for name in "abcd":
        await house.session(name)
    for name in "abc":
        await house.sessions.update(SessionId(name), SessionStatus.OPEN, _SEALING)
    began = asyncio.get_running_loop().time()
    chunks = [new_chunk(name, index) for name in "abcd" for index in (0, 1)]
    assert await _results(house, *chunks) == [BUSY] * 6 + [STORED] * 2
    assert asyncio.get_running_loop().time() - began < 0.5
    for name in "abc":
        await house.sealer.settle(house.sessions.records[SessionId(name)])
    assert await _results(house, *chunks) == [SEALED] * 6 + [EXISTS] * 2
