"""Abandoned sessions are sealed as they are, and no others."""

import asyncio

import pytest
from structlog.testing import capture_logs

from sessions.core import frames
from sessions.core.types import SessionId
from sessions.runtime.errors import DomainError
from sessions.storage import idle
from sessions.storage.activity import Activity
from sessions.storage.idle import IdleSealer
from sessions.storage.memory import MemorySessions
from sessions.storage.memory_anchoring import LeaseState, MemoryLease
from sessions.storage.memory_replicas import MemoryActivity, MemoryUptime
from sessions.storage.seal_scan import MAX_MISSING_CHUNKS
from sessions.storage.sealing import sealed_manifest
from sessions.storage.store import SessionStatus
from sessions.storage.uptime import UptimeClock
from tests.unit.storage.chunks import House, envelope_of, session_record

A, B = SessionId("a"), SessionId("b")


class Watched(House):
    """A house in which time passes, for the database and for the process alike."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.notes: MemoryActivity = self.activity._store
        self.lease = MemoryLease(LeaseState(), "here", 120, lambda: self.seconds)
        self.sealer_of_idle = IdleSealer(self.activity, self.ledger, self.lease, 3600)

    def pass_minutes(self, minutes: float) -> None:
        self.pass_seconds(minutes * 60)

    async def write(self, name: str, index: int) -> None:
        (answer,) = await self.intake.submit(frames.join([envelope_of(name, index)]))
        assert answer.result.value == "stored"


@pytest.fixture
def house() -> Watched:
    return Watched()


async def test_what_nobody_writes_to_is_sealed_as_it_is(house: Watched) -> None:
    await house.session("a")
    await house.session("b")
    for index in (0, 1, 4):
        await house.write("a", index)
    await house.write("b", 0)
    house.pass_minutes(50)
    await house.write("b", 1)
    house.pass_minutes(17)
    assert await house.sealer_of_idle.sweep() == 1
    sealed = await house.ledger.get(A)
    manifest = sealed_manifest(sealed)
    assert (manifest.sealed_by, manifest.chunk_count, manifest.missing) == ("idle", 5, ((2, 3),))
    assert (await house.ledger.get(B)).status is SessionStatus.OPEN
    house.pass_minutes(50)
    assert await house.sealer_of_idle.sweep() == 1
    assert await house.sealer_of_idle.sweep() == 0


async def test_a_session_without_a_chunk_is_idle_from_when_it_is_first_seen(house: Watched) -> None:
    await house.session("a")
    assert await house.sealer_of_idle.sweep() == 0
    house.pass_minutes(67)
    assert await house.sealer_of_idle.sweep() == 1
    assert sealed_manifest(await house.ledger.get(A)).chunk_count == 0


async def test_one_that_was_opened_here_needs_no_note_for_its_first_chunk(house: Watched) -> None:
    """What comes before the first note is of no later time than that note, so nothing is sealed too early."""
    await house.ledger.open(A, None, session_record("a").keys[0])
    await house.write("a", 0)
    assert A not in house.notes._noted
    house.pass_minutes(5)
    assert await house.sealer_of_idle.sweep() == 0, "noted now"
    await house.write("a", 1)
    house.pass_minutes(60)
    assert await house.sealer_of_idle.sweep() == 0, "it had a chunk an hour ago, and not longer"
    house.pass_minutes(7)
    assert await house.sealer_of_idle.sweep() == 1
    assert sealed_manifest(await house.ledger.get(A)).chunk_count == 2


async def test_steady_writing_is_noted_once_in_a_while(house: Watched) -> None:
    class Counted(MemoryActivity):
        touched = 0

        async def touch(self, session_ids, now_seconds) -> None:
            self.touched += len(session_ids)
            await super().touch(session_ids, now_seconds)

    store = Counted(house.sessions)
    house.intake._activity = Activity(store, house.uptime, 3600, lambda: house.seconds)
    await house.session("a")
    for index in range(120):
        await house.write("a", index)
        house.pass_minutes(0.5)
    assert store.touched == 11  # of an hour, each 5.5 minutes


async def test_what_is_remembered_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sessions.storage.activity._REMEMBERED_SESSIONS", 2)
    sessions = MemorySessions()
    activity = Activity(MemoryActivity(sessions), UptimeClock(MemoryUptime()), 3600)
    for name in "abc":
        await sessions.create(session_record(name))
        await activity.note([SessionId(name)])
    assert list(activity._noted) == ["b", "c"]


async def test_too_many_gaps_are_left_open_and_tried_again_later(house: Watched) -> None:
    await house.session("a")
    await house.write("a", MAX_MISSING_CHUNKS + 1)
    house.pass_minutes(67)
    with capture_logs() as logs:
        assert await house.sealer_of_idle.sweep() == 0
    refused = [("seal_order_refused", "chunks-missing"), ("idle_seal_refused", "chunks-missing")]
    assert [(entry["event"], entry["code"]) for entry in logs] == refused
    assert (await house.ledger.get(A)).status is SessionStatus.OPEN
    assert await house.activity.idle(5) == []
    house.pass_minutes(67)
    assert await house.activity.idle(5) == [A]


async def test_more_than_a_page(house: Watched, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(idle, "_AT_ONCE", 2)
    for name in "abcde":
        await house.session(name)
    await house.activity.idle(1)
    house.pass_minutes(67)
    assert await house.sealer_of_idle.sweep() == 5


async def test_one_replica_seals(house: Watched) -> None:
    await house.session("a")
    await house.activity.idle(1)
    house.pass_minutes(67)
    other = MemoryLease(house.lease._state, "there", 120, lambda: house.seconds)
    assert await other.acquire()
    assert await house.sealer_of_idle.sweep() == 0


class _Ready:
    established = asyncio.Event()


async def _run(sealer: IdleSealer, seconds: float) -> None:
    _Ready.established.set()
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(sealer.run(_Ready()), seconds)


async def test_the_database_may_be_away(house: Watched, monkeypatch: pytest.MonkeyPatch) -> None:
    async def away(*_: object) -> list[SessionId]:
        raise DomainError("database-unavailable", "gone")

    monkeypatch.setattr(house.sessions, "page", away)
    sealer = IdleSealer(house.activity, house.ledger, house.lease, 0.02)
    monkeypatch.setattr(house.activity, "idle", away)
    with capture_logs() as logs:
        await _run(sealer, 0.2)
    assert {entry["event"] for entry in logs} == {"idle_not_sealed"}
    assert len(logs) > 1


async def test_a_seal_that_the_database_ends_is_left_for_the_next_sweep(
    house: Watched, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def away(*_: object, **__: object) -> None:
        raise DomainError("database-unavailable", "gone")

    await house.session("a")
    await house.activity.idle(1)
    house.pass_minutes(67)
    monkeypatch.setattr(house.ledger, "seal", away)
    with pytest.raises(DomainError, match="gone"):
        await house.sealer_of_idle.sweep()


async def test_what_is_written_to_since_the_list_was_read_is_not_sealed(house: Watched) -> None:
    for name in "ab":
        await house.session(name)
        await house.write(name, 0)
    house.pass_minutes(67)
    seal = house.ledger.seal

    async def slow(session_id: SessionId, *args: object, **named: object) -> object:
        if session_id == A:
            await house.write("b", 1)
        return await seal(session_id, *args, **named)

    house.ledger.seal = slow
    assert await house.sealer_of_idle.sweep() == 1
    assert [house.sessions.records[name].status for name in (A, B)] == [SessionStatus.SEALED, SessionStatus.OPEN]


async def test_zero_is_never(house: Watched) -> None:
    never = Activity(MemoryActivity(house.sessions), house.uptime, 0)
    await house.session("a")
    await never.note([A])
    assert not never._noted
    await IdleSealer(never, house.ledger, house.lease, 0).run(_Ready())
