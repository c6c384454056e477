"""The life of a session, on twins."""

from dataclasses import replace
from datetime import timedelta

import pytest

from sessions.core import receipt as receipts
from sessions.core.key_ring import MAX_KEYS
from sessions.core.receipt import Anchor, AnchorState, Batch
from sessions.core.types import Hash, SessionId
from sessions.runtime.errors import DomainError
from sessions.runtime.metadata import MAX_METADATA_BYTES, canonical_metadata
from sessions.storage.anchor import BatchRecord
from sessions.storage.memory import MemoryChunks, MemorySessions
from sessions.storage.sealing import sealed_manifest
from sessions.storage.store import Change, Placement, Retention, SealOrder, SessionFilter, SessionRecord, SessionStatus
from tests.unit.storage.chunks import EPOCH, TOMBSTONE, House, key, session_record

A = SessionId("a")
OPEN, SEALING, SEALED, SHREDDED = SessionStatus


async def _code(work) -> DomainError:
    with pytest.raises(DomainError) as caught:
        await work
    return caught.value


async def test_open_and_found_open() -> None:
    house = House()
    opened = await house.ledger.open(A, {"b": 1, "a": "x"}, key(1))
    assert (opened.created, opened.record.metadata) == (True, b'{"a":"x","b":1}')
    for metadata in ({"a": "x", "b": 1}, None):
        again = await house.ledger.open(A, metadata, key(2))
        assert (again.created, again.record.keys) == (False, (key(1),))


async def test_what_is_written_has_the_uptime_counted_soon() -> None:
    house = House()
    for work in (
        lambda: house.ledger.open(A, None, key()),
        lambda: house.ledger.add_key(A, key(2)),
        lambda: house.ledger.hold(A, held=True),
        lambda: house.ledger.retain(A, Retention()),
        lambda: house.ledger.seal(A, None, "idle"),
    ):
        house.uptime._stirred = False
        await work()
        assert house.uptime._stirred


@pytest.mark.parametrize("metadata", [{"a": 2}, {}])
async def test_other_metadata_conflicts(metadata: dict) -> None:
    house = House()
    await house.ledger.open(A, {"a": 1}, key())
    assert (await _code(house.ledger.open(A, metadata, key()))).code == "metadata-conflict"


async def test_metadata_that_was_not_given_is_empty() -> None:
    house = House()
    await house.ledger.open(A, None, key())
    assert not (await house.ledger.open(A, {}, key())).created
    assert (await _code(house.ledger.open(A, {"a": 1}, key()))).code == "metadata-conflict"


async def test_a_session_that_a_chunk_opened_takes_the_first_metadata_with_its_terms() -> None:
    """R13: the chunk was faster than what was said of the session."""
    house = House()
    opened = (await house.ledger.open(A, None, key())).record
    assert (opened.metadata, opened.metadata_given) == (b"{}", False)
    assert not (await house.ledger.open(A, None, key(2))).record.metadata_given
    wanted = {"host": "x", "retention": {"retain_days": 5, "delete_after_days": 9}}
    given = await house.ledger.open(A, wanted, key(2))
    record = house.sessions.records[A]
    assert (given.created, given.record, record.metadata_given) == (False, record, True)
    assert (record.metadata, record.keys) == (canonical_metadata(wanted), opened.keys)
    assert record.retention == Retention(5, 9)
    for metadata in (wanted, None):
        assert (await house.ledger.open(A, metadata, key(2))).record == record
    assert (await _code(house.ledger.open(A, {}, key()))).code == "metadata-conflict"


async def test_terms_that_come_later_must_keep_a_session_long_enough() -> None:
    house = House(retain_days=10)
    await house.ledger.open(A, None, key())
    wanted = {"retention": {"retain_days": 5}}
    assert (await _code(house.ledger.open(A, wanted, key()))).code == "retention-too-short"
    assert not house.sessions.records[A].metadata_given


@pytest.mark.parametrize(
    ("change", "code"),
    [
        (Change(metadata=b'{"a":2}'), "metadata-conflict"),
        (Change(status=SEALING, seal_order=SealOrder(None, "recorder", EPOCH)), "overloaded"),
        (Change(metadata=b'{"a":1}'), None),
    ],
)
async def test_metadata_that_another_gives_in_the_same_moment(change: Change, code: str | None) -> None:
    house = House(sessions=_Contended(change))
    house.sessions.records[A] = replace(session_record("a"), metadata_given=False)
    if code is None:
        assert (await house.ledger.open(A, {"a": 1}, key())).record.metadata == b'{"a":1}'
    else:
        assert (await _code(house.ledger.open(A, {"a": 1}, key()))).code == code


async def test_metadata_has_a_limit() -> None:
    house = House()
    room = MAX_METADATA_BYTES - len('{"a":""}')
    assert (await _code(house.ledger.open(A, {"a": "x" * (room + 1)}, key()))).code == "invalid-request"
    assert house.sessions.records == {}
    assert (await house.ledger.open(A, {"a": "x" * room}, key())).created


async def test_metadata_without_a_canonical_form() -> None:
    with pytest.raises(ValueError, match="canonical"):
        await House().ledger.open(A, {"a": 2**60}, key())


@pytest.mark.parametrize(
    ("status", "code"), [(SEALING, "overloaded"), (SEALED, "session-sealed"), (SHREDDED, "session-shredded")]
)
async def test_what_is_not_open_is_not_opened(status: SessionStatus, code: str) -> None:
    house = House()
    house.sessions.records[A] = replace(session_record("a"), status=status)
    assert (await _code(house.ledger.open(A, None, key()))).code == code
    assert (await _code(house.ledger.add_key(A, key(2)))).code == code


async def test_no_session() -> None:
    house = House()
    for work in (
        house.ledger.get(A),
        house.ledger.readable(A),
        house.ledger.add_key(A, key()),
        house.ledger.hold(A, held=True),
        house.shred(A),
    ):
        assert (await _code(work)).code == "session-not-found"


async def test_keys_are_added_once_and_up_to_a_limit() -> None:
    house = House()
    await house.session("a")
    for number in (*range(1, MAX_KEYS + 1), MAX_KEYS, 1):
        record = await house.ledger.add_key(A, key(number))
    assert record.keys == tuple(map(key, range(1, MAX_KEYS + 1)))
    assert (await _code(house.ledger.add_key(A, key(MAX_KEYS + 1)))).code == "invalid-request"


class _Contended(MemorySessions):
    """Somebody else is quicker, once."""

    def __init__(self, change: Change) -> None:
        super().__init__()
        self.first: Change | None = change

    async def update(self, session_id: SessionId, expected: SessionStatus, change: Change, order=None, **more):
        if self.first is not None:
            await super().update(session_id, expected, self.first)
            self.first = None
        return await super().update(session_id, expected, change, order, **more)


async def test_a_key_that_another_adds_in_the_same_moment() -> None:
    house = House(sessions=_Contended(Change(add_key=key(2))))
    await house.session("a")
    assert (await house.ledger.add_key(A, key(2))).keys == (key(1), key(2))


async def test_a_hold_while_the_state_changes() -> None:
    house = House(sessions=_Contended(Change(status=SEALING)))
    await house.session("a")
    record = await house.ledger.hold(A, held=True)
    assert (record.held, record.status) == (True, SEALING)


async def _sealed(house: House) -> None:
    await house.session("a", 0, 1)
    await house.ledger.seal(A, None, "recorder")


async def test_a_hold_keeps_a_session_from_being_shredded() -> None:
    house = House()
    await _sealed(house)
    assert (await house.ledger.hold(A, held=True)).held
    assert (await _code(house.shred(A))).code == "session-held"
    assert len(house.chunks.bodies) == 2
    assert not (await house.ledger.hold(A, held=False)).held
    assert (await house.shred(A)).status is SHREDDED
    assert (await _code(house.ledger.hold(A, held=True))).code == "session-shredded"


class _Watching(MemoryChunks):
    """Notes what is left of the keys when the bodies go."""

    sessions: MemorySessions
    fail = False

    async def drop(self, session_id: SessionId) -> None:
        self.seen = self.sessions.records[session_id].keys
        if self.fail:
            raise DomainError("database-unavailable", "died here")
        await super().drop(session_id)


async def test_keys_go_first_and_a_repeat_finishes_what_a_crash_left() -> None:
    chunks = _Watching()
    house = House(chunks=chunks)
    chunks.sessions = house.sessions
    await _sealed(house)
    chunks.fail = True
    assert (await _code(house.shred(A))).code == "database-unavailable"
    assert chunks.seen == ()
    record = await house.ledger.get(A)
    assert (record.status, record.keys, len(house.chunks.bodies)) == (SHREDDED, (), 2)
    chunks.fail = False
    again = await house.shred(A)
    assert again.tombstone == record.tombstone == TOMBSTONE
    assert house.chunks.bodies == {}
    assert sorted(house.chunks.records[A]) == [0, 1]
    assert (await house.evidence.proof(A, 1)).tree_size == 2
    assert receipts.from_bytes(await house.evidence.receipt(A)).manifest.chunk_count == 2
    for work in (house.evidence.envelope(A, 0), house.ledger.readable(A), house.ledger.add_key(A, key(3))):
        assert (await _code(work)).code == "session-shredded"


async def test_what_a_crash_left_is_finished_in_the_background() -> None:
    chunks = _Watching()
    house = House(chunks=chunks)
    chunks.sessions = house.sessions
    await _sealed(house)
    chunks.fail = True
    for work in (house.shred(A), house.shredder.resume(5)):
        assert (await _code(work)).code == "database-unavailable"
    assert (await house.ledger.get(A)).tombstone == TOMBSTONE
    assert len(house.chunks.bodies) == 2
    error = await _code(house.evidence.envelope(A, 0))
    assert (error.code, error.members["shred_reason"]) == ("session-shredded", "requested")
    chunks.fail = False
    assert await house.shredder.resume(5) == 1
    assert house.chunks.bodies == {}
    assert await house.shredder.resume(5) == 0


async def test_a_hold_that_comes_while_a_session_is_shredded_stands() -> None:
    house = House(sessions=_Contended(Change(held=True)))
    contended, house.sessions.first = house.sessions.first, None
    await _sealed(house)
    house.sessions.first = contended
    assert (await _code(house.shred(A))).code == "session-held"
    assert (await house.ledger.get(A)).status is SEALED
    assert len(house.chunks.bodies) == 2


@pytest.mark.parametrize("status", [OPEN, SEALING])
async def test_only_a_sealed_session_can_be_shredded(status: SessionStatus) -> None:
    house = House()
    house.sessions.records[A] = replace(session_record("a"), status=status)
    assert (await _code(house.shred(A))).code == "session-open"


async def test_two_who_shred_at_once() -> None:
    house = House(sessions=_Contended(Change(status=SHREDDED, tombstone=TOMBSTONE)))
    contended, house.sessions.first = house.sessions.first, None
    await _sealed(house)
    house.sessions.first = contended
    house.time += timedelta(hours=1)
    assert (await house.shred(A)).tombstone == TOMBSTONE


async def _begun(house: House, *names: SessionId, order: SealOrder) -> None:
    for name in names:
        await house.sessions.update(name, OPEN, Change(status=SEALING, seal_order=order))


async def test_seals_of_the_last_seconds_are_left_to_who_began_them() -> None:
    house = House()
    await house.session("a")
    await _begun(house, A, order=SealOrder(None, "idle", house.time))
    for _ in range(10):
        assert await house.ledger.resume_seals(10) == 0
        house.pass_seconds(0.99)
    assert house.sessions.records[A].status is SEALING
    house.pass_seconds(0.1)
    assert await house.ledger.resume_seals(10) == 1


@pytest.mark.parametrize("days", [365, -365])
async def test_a_seal_that_a_crash_left_is_resumed_whatever_the_databases_clock_says(days: int) -> None:
    house = House()
    await house.session("a", 0)
    await _begun(house, A, order=SealOrder(1, "recorder", house.time + timedelta(days=days)))
    assert await house.resume_seals() == 1
    assert house.sessions.records[A].status is SessionStatus.SEALED


async def test_another_order_is_waited_for_anew() -> None:
    house = House()
    await house.session("a", 0)
    await _begun(house, A, order=SealOrder(1, "recorder", house.time))
    await house.ledger.resume_seals(10)
    house.pass_seconds(9)
    other = SealOrder(1, "recorder", house.time)
    house.sessions.records[A] = replace(house.sessions.records[A], seal_order=other)
    await house.ledger.resume_seals(10)
    house.pass_seconds(9)
    assert await house.ledger.resume_seals(10) == 0
    house.pass_seconds(1)
    assert await house.ledger.resume_seals(10) == 1
    assert house.ledger._begun._seen.keys() == {A}
    await house.ledger.resume_seals(10)
    assert house.ledger._begun._seen == {}


async def test_what_is_remembered_of_seals_is_bounded_and_all_have_their_turn(monkeypatch) -> None:
    monkeypatch.setattr("sessions.storage.begun_seals._REMEMBERED", 2)
    house = House()
    names = [await house.session(name, 0) for name in "abcde"]
    await _begun(house, *names, order=SealOrder(1, "recorder", house.time))
    done = []
    for _ in range(8):
        done.append(await house.ledger.resume_seals(2))
        assert len(house.ledger._begun._seen) <= 2
        house.pass_seconds(10)
    assert sum(done) == 5


async def test_a_look_that_breaks_off_forgets_nothing(monkeypatch) -> None:
    house = House()
    names = [await house.session(name, 0) for name in "ab"]
    await _begun(house, *names, order=SealOrder(1, "recorder", house.time))
    await house.ledger.resume_seals(1)

    async def away(*_: object) -> None:
        raise DomainError("database-unavailable", "gone")

    with monkeypatch.context() as patch:
        patch.setattr(house.sessions, "page", away)
        assert (await _code(house.ledger.resume_seals(1))).code == "database-unavailable"
    assert house.ledger._begun._seen.keys() == set(names)
    house.pass_seconds(10)
    assert await house.ledger.resume_seals(1) == 2


async def test_status_and_summary_of_each_state() -> None:
    house = House()
    await house.session("a", 0, 3)
    record = await house.ledger.get(A)
    summary, status = await house.ledger.summary(record), await house.ledger.status(record)
    assert (summary["status"], summary["chunk_count"], summary["root"], summary["anchor"]) == ("open", None, None, None)
    assert (status["next_index"], status["missing"], status["chunk_count"]) == (4, [[1, 2]], 2)
    manifest = sealed_manifest(await house.ledger.seal(A, None, "idle"))
    record = await house.ledger.get(A)
    status = await house.ledger.status(record)
    assert (status["next_index"], status["missing"], status["chunk_count"]) == (4, [[1, 2]], 2)
    assert (status["root"], status["sealed_at"]) == (manifest.root.hex(), manifest.sealed_at)
    assert status["anchor"]["state"] == "pending"
    shredded = await house.ledger.status(await house.shred(A))
    assert (shredded["status"], shredded["root"]) == ("shredded", manifest.root.hex())
    assert (shredded["shredded_at"], shredded["shred_reason"], shredded["shredded_by"]) == (
        "2026-01-31T12:00:00.123Z",
        "requested",
        "admin-1",
    )
    views, more = await house.ledger.page(SessionFilter(), 5, None)
    assert ([view["session_id"] for view in views], more) == (["a"], False)


async def test_the_anchor_is_the_batchs(monkeypatch) -> None:
    house = House()
    await _sealed(house)
    batch = Batch(root=Hash(bytes(32)), size=1, index=0, path=())
    record = replace(await house.ledger.get(A), placement=Placement(4, batch))
    house.sessions.records[A] = record
    assert await house.ledger.anchor_of(record) == Anchor()
    anchor = Anchor(state=AnchorState.SUBMITTED, chain_id=5)

    async def get_by_sequence(sequence: int) -> BatchRecord:
        return BatchRecord(sequence=sequence, root=batch.root, size=1, created_at=EPOCH, anchor=anchor)

    monkeypatch.setattr(house.batches, "get_by_sequence", get_by_sequence)
    receipt = receipts.from_bytes(await house.evidence.receipt(A))
    assert (receipt.anchor, receipt.batch) == (anchor, batch)
    assert isinstance(record, SessionRecord)
