"""Delivery of what the spool has: one session that fails delays no other, and an entry that fails alone is quarantined."""

import asyncio
import errno
import json
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from sessions.core import envelope
from sessions.core.key_ring import MAX_KEYS
from sessions.core.types import ChunkIndex, SessionId
from sessions.processor import delivery, drainer, spool_index, storage_watch
from sessions.processor.drainer import DELIVERY_ATTEMPTS
from sessions.processor.keys import Dek, FileKeyWrapper
from sessions.processor.spool_format import Kind
from sessions.processor.storage_answers import FrameAnswer
from sessions.processor.storage_client import StorageClient
from sessions.processor.storage_errors import OverdueError, RequestFailedError
from sessions.runtime.errors import DomainError
from tests.unit.processor.conftest import Parts, parts_of
from tests.unit.processor.test_drainer import Desk, desk_of
from tests.unit.storage.chunks import House

A, B, C = (SessionId(name) for name in "abc")
AWAY = DomainError("storage-unavailable", "away", retry_after_seconds=1)
ODD = RequestFailedError("session-storage answered 'internal'")
Fault = Callable[[SessionId, int], DomainError | None]


class Clock:
    """Monotonic time that passes when a test says so."""

    def __init__(self) -> None:
        self.seconds = 1000.0

    def monotonic(self) -> float:
        return self.seconds


@pytest.fixture
async def desk(
    storage: StorageClient, wrapper: FileKeyWrapper, executor: ThreadPoolExecutor, tmp_path: Path
) -> AsyncIterator[Desk]:
    one = desk_of(tmp_path, storage, wrapper, executor)
    await one.reporter.report()
    yield one
    await one.spool.close()


@pytest.fixture
def other(storage: StorageClient, wrapper: FileKeyWrapper, executor: ThreadPoolExecutor) -> Parts:
    return parts_of(storage, wrapper, executor)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    one = Clock()
    for module in (drainer, storage_watch):
        monkeypatch.setattr(module, "time", one)
    return one


class Faulty:
    """Storage that fails on some envelopes."""

    def __init__(self, storage: StorageClient, monkeypatch: pytest.MonkeyPatch) -> None:
        self.fault: Fault = lambda _session, _index: None
        self.posts: list[list[tuple[SessionId, int]]] = []
        self.result: dict[tuple[SessionId, int], str] = {}
        self._submit = storage.submit
        monkeypatch.setattr(storage, "submit", self.submit)

    async def submit(self, envelopes: Sequence[bytes]) -> list[FrameAnswer]:
        headers = [envelope.parse(data).header for data in envelopes]
        names = [(header.session_id, int(header.index)) for header in headers]
        self.posts.append(names)
        for name in names:
            if (error := self.fault(*name)) is not None:
                raise error
        answers = await self._submit(envelopes)
        said = [self.result.get(name) for name in names]
        return [
            answer if result is None else FrameAnswer(result, None, None)
            for answer, result in zip(answers, said, strict=True)
        ]


@pytest.fixture
def faulty(storage: StorageClient, monkeypatch: pytest.MonkeyPatch) -> Faulty:
    return Faulty(storage, monkeypatch)


def _poison(*which: tuple[SessionId, int], error: DomainError = ODD) -> Fault:
    return lambda session, index: error if (session, index) in which else None


async def _spooled(desk: Desk, *sessions: SessionId, count: int = 3) -> None:
    desk.away()
    for session in sessions:
        for index in range(count):
            await desk.put(index, bytes([index]) * 10, session)
    desk.back()


async def _rounds(desk: Desk, clock: Clock, count: int) -> None:
    """Deliver, and let pauses pass; something else is answered in between."""
    for _ in range(count):
        await desk.drainer.round()
        clock.seconds += 31
        desk.watch.answered_at = clock.seconds
        clock.seconds += 1


async def test_a_poisonous_session_delays_no_other(desk: Desk, other: Parts, faulty: Faulty, clock: Clock) -> None:
    """R5, R12: storage fails on one envelope; what it fails of is in one POST with it the first time only."""
    await _spooled(desk, A, B, C)
    faulty.fault = _poison((B, 1))
    await desk.drainer.round()
    clock.seconds += 1
    await desk.drainer.round()
    assert [await other.recording.read(name, 2) for name in (A, C)] == [bytes([2]) * 10] * 2
    assert list(desk.spool.sessions) == [B]
    assert not desk.watch.away
    clock.seconds += 31
    faulty.posts.clear()
    await desk.drainer.round()
    assert all(len(post) == 1 for post in faulty.posts), "it goes alone, one by one"


async def test_what_fails_with_a_time_out_fails_the_others_once(
    desk: Desk, other: Parts, faulty: Faulty, clock: Clock
) -> None:
    """All that was in one POST is given up with it. They must not meet again, and fail as often as it does."""
    await _spooled(desk, A, B, C)
    faulty.fault = _poison((B, 0), error=OverdueError("late"))
    await desk.drainer.round()
    clock.seconds += 1
    await desk.drainer.round()
    assert list(desk.spool.sessions) == [B]
    assert await other.recording.read(C, 0) == bytes(10)


async def test_an_entry_that_fails_alone_again_and_again_is_quarantined_and_no_other(
    desk: Desk, other: Parts, faulty: Faulty, clock: Clock
) -> None:
    await _spooled(desk, A)
    faulty.fault = _poison((A, 1))
    await _rounds(desk, clock, DELIVERY_ATTEMPTS - 1)
    assert desk.set_aside == 0
    await _rounds(desk, clock, 2)
    (kept,) = desk.spool.quarantine.entries.values()
    assert (kept.session_id, kept.index, kept.reason) == (A, 1, "undeliverable")
    assert "internal" in desk.spool.quarantine.facts(kept.name)["detail"]
    _, payload = await desk.spooling.quarantining.payload(kept.name)
    key = await desk.spooling.quarantining.key_of(kept.name)
    assert key is not None
    assert desk.opened(key, 1, payload) == bytes([1]) * 10
    assert desk.spool.sessions == {}
    assert [await other.recording.read(A, index) for index in (0, 2)] == [bytes(10), bytes([2]) * 10]
    assert desk.reporter.floor(A) == 3, "a seal does not go without it"


async def test_several_poisonous_entries_end_one_after_the_other(desk: Desk, faulty: Faulty, clock: Clock) -> None:
    """Each later one has fewer attempts: a session is done with in the end."""
    await _spooled(desk, A, count=5)
    faulty.fault = _poison((A, 1), (A, 3), (A, 4))
    await _rounds(desk, clock, DELIVERY_ATTEMPTS + 8)
    assert sorted(one.index or 0 for one in desk.spool.quarantine.entries.values()) == [1, 3, 4]
    assert desk.spool.sessions == {}


async def test_entries_that_each_fail_now_and_then_are_not_quarantined(
    desk: Desk, faulty: Faulty, clock: Clock
) -> None:
    """One failure of many entries is not many failures of one: each was delivered when it was tried again."""
    await _spooled(desk, A, count=DELIVERY_ATTEMPTS * 2 + 1)
    failed: set[int] = set()

    def once(_session: SessionId, index: int) -> DomainError | None:
        if index in failed:
            return None
        failed.add(index)
        return ODD

    faulty.fault = once
    await _rounds(desk, clock, DELIVERY_ATTEMPTS * 2 + 3)
    assert (desk.set_aside, desk.spool.sessions) == (0, {})


@pytest.mark.parametrize("error", [DomainError("overloaded", "busy"), AWAY, DomainError("storage-full", "full")])
async def test_no_overload_and_no_outage_counts_as_a_failure(
    desk: Desk, faulty: Faulty, clock: Clock, error: DomainError
) -> None:
    """Not after a failure either, when it is one entry that storage has no time for."""
    await _spooled(desk, A)
    faulty.fault = _poison((A, 1))
    await _rounds(desk, clock, 2)
    failures = desk.spool.sessions[A].failures
    assert failures > 0
    faulty.fault = _poison((A, 1), error=error)
    for _ in range(3 * DELIVERY_ATTEMPTS):
        await _rounds(desk, clock, 1)
        desk.back()
    assert (desk.set_aside, desk.spool.sessions[A].failures) == (0, failures)
    faulty.fault = _poison()
    await _rounds(desk, clock, 1)
    assert desk.spool.sessions == {}


async def test_a_session_whose_seal_is_being_decided_waits_and_is_not_at_fault(
    desk: Desk, faulty: Faulty, clock: Clock
) -> None:
    await _spooled(desk, A)
    faulty.result = dict.fromkeys([(A, 0), (A, 1), (A, 2)], "busy")
    await _rounds(desk, clock, 3 * DELIVERY_ATTEMPTS)
    assert (desk.set_aside, desk.spool.sessions[A].failures) == (0, 0)
    faulty.result.clear()
    await _rounds(desk, clock, 1)
    assert desk.spool.sessions == {}


async def test_failures_do_not_count_while_storage_answers_nothing_else(
    desk: Desk, faulty: Faulty, clock: Clock
) -> None:
    """Then it is storage that is at fault; but not for ever."""
    await _spooled(desk, A, count=1)
    faulty.fault = _poison((A, 0))
    desk.watch.answered_at = 0.0
    for _ in range(DELIVERY_ATTEMPTS + 5):
        await desk.drainer.round()
        desk.watch.answered_at = 0.0
        clock.seconds += 31
    assert desk.set_aside == 0
    clock.seconds += 1000
    await desk.drainer.round()
    assert desk.set_aside == 1


async def test_pauses_grow_and_end(desk: Desk, faulty: Faulty, clock: Clock) -> None:
    await _spooled(desk, A, count=1)
    faulty.fault = _poison((A, 0))
    pauses = []
    for _ in range(9):
        await desk.drainer.round()
        pauses.append(desk.spool.sessions[A].retry_at - clock.seconds)
        clock.seconds = desk.spool.sessions[A].retry_at
    assert pauses == [0.5, 1, 2, 4, 8, 16, 30, 30, 30]
    faulty.posts.clear()
    clock.seconds -= 1
    await desk.drainer.round()
    assert faulty.posts == []


async def test_what_arrives_of_a_session_that_fails_goes_to_the_spool_and_others_do_not(
    desk: Desk, faulty: Faulty, clock: Clock
) -> None:
    await _spooled(desk, A)
    faulty.fault = _poison((A, 1))
    await desk.drainer.round()
    assert (await desk.put(7, b"later")).durability == "spooled"
    assert (await desk.put(0, b"x", B)).durability == "stored"
    faulty.fault = _poison()
    await _rounds(desk, clock, 2)
    assert (await desk.put(8, b"later")).durability == "stored"


async def test_an_answer_for_other_bytes_is_no_delivery_and_no_outage(
    desk: Desk, storage: StorageClient, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    await _spooled(desk, A, count=1)
    submit = storage.submit

    async def lies(envelopes: Sequence[bytes]) -> list[FrameAnswer]:
        return [FrameAnswer("stored", "ab" * 32, None) for _ in envelopes]

    monkeypatch.setattr(storage, "submit", lies)
    await desk.drainer.round()
    assert (list(desk.spool.sessions), desk.watch.away) == ([A], False)
    monkeypatch.setattr(storage, "submit", submit)
    await _rounds(desk, clock, 2)
    assert desk.spool.sessions == {}


async def test_a_key_that_storage_lost_is_brought_again(
    desk: Desk, house: House, other: Parts, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """R9: the database was set back after the opening was delivered, and before the envelopes were."""
    await _spooled(desk, A)
    envelopes = desk.drainer._delivery._envelopes

    async def set_back(*arguments: Any) -> None:
        monkeypatch.setattr(desk.drainer._delivery, "_envelopes", envelopes)
        house.sessions.records.clear()
        house.intake.set_back()
        await envelopes(*arguments)

    monkeypatch.setattr(desk.drainer._delivery, "_envelopes", set_back)
    await _rounds(desk, clock, 3)
    assert (desk.spool.sessions, desk.set_aside) == ({}, 0)
    assert await other.recording.read(A, 2) == bytes([2]) * 10


async def test_a_key_that_storage_never_keeps_ends_in_quarantine(desk: Desk, faulty: Faulty, clock: Clock) -> None:
    await _spooled(desk, A, count=1)
    faulty.result = {(A, 0): "unknown-key"}
    await _rounds(desk, clock, DELIVERY_ATTEMPTS + 5)
    assert (desk.spool.sessions, desk.set_aside) == ({}, 1)
    assert not desk.watch.away


async def test_an_opening_of_another_version_ends_in_quarantine_with_what_needs_it(
    desk: Desk, clock: Clock, wrapper: FileKeyWrapper
) -> None:
    await _spooled(desk, A, B)
    await desk.spool.append(Kind.OPENING, A, json.dumps({"session_id": A, "version": 9}).encode())
    await desk.spool.append(Kind.SEAL, C, json.dumps({"session_id": C, "count": 9}).encode())
    await desk.drainer.round()
    assert sorted(desk.spool.sessions) == [A, C]
    assert (await desk.put(0, bytes(10), A)).durability == "spooled", "a repeat is answered still"
    with capture_logs():
        await _rounds(desk, clock, DELIVERY_ATTEMPTS + 8)
    assert desk.spool.sessions == {}
    kinds = sorted(one.kind for one in desk.spool.quarantine.entries.values())
    assert kinds[-2:] == ["opening", "seal"]
    for one in desk.spool.quarantine.entries.values():
        if one.kind == "envelope":
            key = await desk.spooling.quarantining.key_of(one.name)
            assert key is not None


async def test_an_opening_that_storage_refuses_for_good_takes_its_envelopes_along_with_their_keys(
    desk: Desk, storage: StorageClient, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def refuse(*_: object) -> None:
        raise DomainError("session-reserved", "no")

    await _spooled(desk, A)
    monkeypatch.setattr(storage, "open", refuse)
    await _rounds(desk, clock, DELIVERY_ATTEMPTS + 2)
    assert desk.spool.sessions == {}
    kept = sorted(desk.spool.quarantine.entries.values(), key=lambda one: one.name)
    assert [one.kind for one in kept] == ["opening", "envelope", "envelope", "envelope"]
    for one in kept[1:]:
        _, payload = await desk.spooling.quarantining.payload(one.name)
        key = await desk.spooling.quarantining.key_of(one.name)
        assert key is not None
        assert desk.opened(key, one.index or 0, payload) == bytes([one.index or 0]) * 10


async def test_metadata_that_storage_refuses_are_kept_and_the_rest_is_delivered(
    desk: Desk, other: Parts, house: House
) -> None:
    await other.rings.open(A, {"host": "theirs"})
    desk.away()
    await desk.rings.open(A, {"host": "ours"})
    await desk.put(0, b"x")
    await desk.drain()
    (kept,) = desk.spool.quarantine.entries.values()
    assert (kept.kind, kept.reason) == ("opening", "metadata-refused")
    assert "metadata-conflict" in desk.spool.quarantine.facts(kept.name)["detail"]
    _, payload = await desk.spooling.quarantining.payload(kept.name)
    assert json.loads(payload)["metadata"] == {"host": "ours"}
    assert house.sessions.records[A].metadata == b'{"host":"theirs"}'


async def _sealed_without(desk: Desk, other: Parts, house: House, theirs: dict[str, Any] | None) -> None:
    """Spool metadata of a session that another processor opens with its own and seals."""
    desk.away()
    await desk.rings.open(A, {"host": "ours"})
    await other.rings.open(A, theirs)
    await other.recording.record(A, ChunkIndex(0), b"x")
    await house.registry.forget(desk.reporter.identity.name)
    await house.ledger.seal(A, 1, "recorder")


@pytest.mark.parametrize(("theirs", "aside"), [(None, 1), ({"host": "ours"}, 0)])
async def test_metadata_of_a_session_that_was_sealed_without_them_are_kept(
    desk: Desk, other: Parts, house: House, theirs: dict[str, Any] | None, aside: int
) -> None:
    """The seal did not wait for this processor. After a crash it may also be its own session, delivered and sealed."""
    await _sealed_without(desk, other, house, theirs)
    await desk.drain()
    assert (desk.spool.sessions, desk.set_aside) == ({}, aside)
    if aside:
        (kept,) = desk.spool.quarantine.entries.values()
        assert (kept.kind, kept.reason, kept.session_id) == ("opening", "metadata-refused", A)
        _, payload = await desk.spooling.quarantining.payload(kept.name)
        assert json.loads(payload)["metadata"] == {"host": "ours"}


async def test_metadata_that_can_neither_be_compared_nor_quarantined_stay_in_the_spool(
    desk: Desk, other: Parts, house: House, monkeypatch: pytest.MonkeyPatch, clock: Clock
) -> None:
    await _sealed_without(desk, other, house, None)
    desk.back()

    async def odd(_: SessionId) -> str:
        raise ODD

    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(desk.recording._storage, "metadata_sha256", odd)
        await _rounds(desk, clock, 1)
    assert (list(desk.spool.sessions), desk.set_aside) == ([A], 0)
    with monkeypatch.context() as patch:
        patch.setattr(desk.spool.quarantine, "keep", full)
        await _rounds(desk, clock, 1)
    assert (list(desk.spool.sessions), desk.set_aside) == ([A], 0)
    await _rounds(desk, clock, 1)
    assert (list(desk.spool.sessions), desk.set_aside) == ([], 1)


async def test_a_session_that_a_chunk_opened_takes_the_metadata_that_were_spooled(
    desk: Desk, other: Parts, house: House
) -> None:
    """R13."""
    await other.rings.open(A, None)
    desk.away()
    await desk.rings.open(A, {"host": "ours"})
    await desk.drain()
    assert (house.sessions.records[A].metadata, desk.set_aside) == (b'{"host":"ours"}', 0)


async def test_a_quarantine_that_cannot_be_written_keeps_the_entry_in_the_spool(
    desk: Desk, faulty: Faulty, clock: Clock, other: Parts, monkeypatch: pytest.MonkeyPatch
) -> None:
    await other.recording.record(A, 0, b"theirs")  # type: ignore[arg-type]
    await _spooled(desk, A)

    def refuse(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(desk.spool.quarantine, "keep", refuse)
        await _rounds(desk, clock, 2 * DELIVERY_ATTEMPTS)
    assert [entry.index for entry in desk.spool.sessions[A].waiting()] == [0]
    assert [await other.recording.read(A, index) for index in (1, 2)] == [bytes([1]) * 10, bytes([2]) * 10]
    await _rounds(desk, clock, 1)
    (kept,) = desk.spool.quarantine.entries.values()
    assert (kept.index, kept.reason, desk.spool.sessions) == (0, "conflict", {})


async def test_a_session_that_cannot_be_delivered_makes_no_seal_wait_for_long(
    desk: Desk, faulty: Faulty, clock: Clock
) -> None:
    """`hurry` gives up at once: the order goes into the spool, after the envelopes."""
    await _spooled(desk, A)
    faulty.fault = _poison((A, 1))
    await desk.drainer.round()
    running = asyncio.create_task(desk.drainer.run())
    async with asyncio.timeout(2):
        assert not await desk.drainer.hurry(A)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


async def test_many_sessions_are_delivered_side_by_side_and_so_many_at_once(
    desk: Desk, storage: StorageClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = [SessionId(f"s{number}") for number in range(20)]
    await _spooled(desk, *names, count=1)
    at_once: list[int] = []
    opened = storage.open
    under_way = 0

    async def slow(*arguments: Any) -> Any:
        nonlocal under_way
        under_way += 1
        at_once.append(under_way)
        await asyncio.sleep(0.01)
        under_way -= 1
        return await opened(*arguments)

    monkeypatch.setattr(storage, "open", slow)
    await desk.drain()
    assert max(at_once) == 8


async def test_a_drainer_that_is_ended_ends_its_deliveries(
    desk: Desk, storage: StorageClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    await _spooled(desk, A, B)
    began = asyncio.Event()

    async def hangs(*_: object) -> None:
        began.set()
        await asyncio.sleep(60)

    monkeypatch.setattr(storage, "open", hangs)
    before = asyncio.all_tasks()
    running = asyncio.create_task(desk.drainer.run())
    await began.wait()
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    await asyncio.sleep(0.3)
    assert asyncio.all_tasks() == before
    assert sorted(desk.spool.sessions) == [A, B]


async def test_a_ring_that_is_full_keeps_the_spools_envelopes_readable_by_others(
    desk: Desk, house: House, other: Parts, storage: StorageClient
) -> None:
    """R7, and again after a crash: the nonce differs then, and the content does not."""
    await other.recording.record(A, 0, b"zero")  # type: ignore[arg-type]
    for _ in range(MAX_KEYS - 1):
        await storage.add_key(A, other.rings._wrapper.wrap(A, Dek.generate()))
    desk.away()
    await desk.put(1, b"one")
    (segment,) = desk.folder.glob("*.seg")
    copy = segment.read_bytes()
    await desk.drain()
    sealed = house.chunks.records[A][1].fingerprint
    await desk.spool.close()
    segment.write_bytes(copy)
    again = desk_of(desk.folder, desk.recording._storage, desk.rings._wrapper, desk.recording._executor)  # type: ignore[arg-type]
    await again.drain()
    assert (again.set_aside, house.chunks.records[A][1].fingerprint) == (0, sealed)
    await again.spool.close()


# Turns


async def _ordered(desk: Desk, *sessions: SessionId) -> None:
    desk.away()
    for session in sessions:
        await desk.desk.seal(session, 1)
    desk.back()


async def test_orders_that_storage_holds_take_no_turns_of_sessions_with_chunks(
    desk: Desk, house: House, storage: StorageClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Storage holds an order for sessions that nobody knows for seconds, and answers that it has no time then."""
    held: set[SessionId] = set()
    at_once = 0

    async def hold(session_id: SessionId, *_: object, **__: object) -> Any:
        nonlocal at_once
        held.add(session_id)
        at_once = max(at_once, len(held))
        await asyncio.sleep(0.05)
        held.discard(session_id)
        raise DomainError("overloaded", "its seal waits for other processors", retry_after_seconds=1)

    monkeypatch.setattr(storage, "seal", hold)
    await _ordered(desk, *(SessionId(f"evil-{number}") for number in range(24)))
    await _spooled(desk, A, count=1)
    async with desk.running(), asyncio.timeout(5):
        while A not in house.sessions.records:
            await asyncio.sleep(0.005)
        assert any(session.overloads == 0 for session in desk.spool.sessions.values()), "not after all of the orders"
        while any(session.overloads == 0 for session in desk.spool.sessions.values()):
            await asyncio.sleep(0.005)
    assert (at_once, A in desk.spool.sessions) == (2, False)


async def test_orders_have_their_turns_while_others_have_chunks_all_the_time(
    desk: Desk, storage: StorageClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    await _ordered(desk, A)
    await _spooled(desk, *(SessionId(f"s{number}") for number in range(20)), count=1)
    begun: list[SessionId] = []
    opened, sealed = storage.open, storage.seal

    async def opens(session_id: SessionId, *arguments: Any) -> Any:
        begun.append(session_id)
        return await opened(session_id, *arguments)

    async def seals(session_id: SessionId, *arguments: Any, **claims: Any) -> Any:
        begun.append(session_id)
        return await sealed(session_id, *arguments, **claims)

    monkeypatch.setattr(storage, "open", opens)
    monkeypatch.setattr(storage, "seal", seals)
    await desk.drain()
    assert begun.index(A) < 16


async def test_pauses_after_an_overload_grow_and_end(desk: Desk, faulty: Faulty, clock: Clock) -> None:
    await _spooled(desk, A, count=1)
    faulty.result = {(A, 0): "busy"}
    pauses = []
    for _ in range(6):
        await desk.drainer.round()
        pauses.append(desk.spool.sessions[A].retry_at - clock.seconds)
        clock.seconds = desk.spool.sessions[A].retry_at
    assert pauses == [0.5, 1, 2, 4, 8, 8]
    faulty.result.clear()
    await desk.drainer.round()
    assert desk.spool.sessions == {}


async def test_one_that_failed_comes_after_all_others(desk: Desk, faulty: Faulty, clock: Clock) -> None:
    names = [SessionId(f"s{number:02}") for number in range(10)]
    await _spooled(desk, *names, count=1)
    faulty.result = {(name, 0): "busy" for name in names[:8]}
    begun: list[SessionId] = []
    deliver = desk.drainer._delivery.deliver

    async def noted(session: Any, *arguments: Any) -> None:
        begun.append(session.session_id)
        await deliver(session, *arguments)

    desk.drainer._delivery.deliver = noted  # type: ignore[method-assign]
    await desk.drainer.round()
    clock.seconds += 10
    await _spooled(desk, A, B, count=1)
    await desk.drainer.round()
    assert begun[:10] == names
    assert begun[10:12] == [A, B]


async def _windows(desk: Desk, faulty: Faulty, monkeypatch: pytest.MonkeyPatch, turn_seconds: float) -> list[SessionId]:
    """Sessions of several windows, and one that came after them: whose window was delivered when."""
    monkeypatch.setattr(delivery, "TURN_SECONDS", turn_seconds)
    monkeypatch.setattr(spool_index, "WINDOW_ENTRIES", 2)
    names = [SessionId(f"s{number}") for number in range(8)]
    await _spooled(desk, *names, count=6)
    await _spooled(desk, A, count=1)
    seen: list[SessionId] = []
    envelopes = desk.drainer._delivery._envelopes

    async def noted(session: Any, entries: Any) -> None:
        seen.append(session.session_id)
        await envelopes(session, entries)

    monkeypatch.setattr(desk.drainer._delivery, "_envelopes", noted)
    await desk.drain()
    assert len(seen) == 8 * 3 + 1
    return seen


async def test_a_turn_ends_when_others_wait(desk: Desk, faulty: Faulty, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = await _windows(desk, faulty, monkeypatch, 0.0)
    assert seen.index(A) < 16, "after one window of each of the others, and not after all of one"


async def test_a_short_turn_goes_on(desk: Desk, faulty: Faulty, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = await _windows(desk, faulty, monkeypatch, 60.0)
    assert seen.index(A) >= 3


async def test_conflicts_are_settled_in_bounded_time(
    desk: Desk, other: Parts, faulty: Faulty, monkeypatch: pytest.MonkeyPatch
) -> None:
    await asyncio.gather(*(other.recording.record(A, ChunkIndex(index), b"theirs") for index in range(20)))
    await _spooled(desk, A, count=20)
    monkeypatch.setattr(delivery, "TURN_SECONDS", 0.0)
    monkeypatch.setattr(delivery, "_SETTLE_SECONDS", 0.0)
    monkeypatch.setattr(delivery, "_CONTESTED_ENTRIES", 3)
    session = desk.spool.sessions[A]
    await desk.drainer._delivery.deliver(session, 1, lambda: True)
    assert (desk.set_aside, len(session.chunks), session.contested) == (1, 19, True)
    faulty.posts.clear()
    await desk.drainer._delivery.deliver(session, 1, lambda: True)
    assert (desk.set_aside, sum(map(len, faulty.posts))) == (2, 3)
    await desk.drain()
    assert (desk.set_aside, desk.spool.sessions) == (20, {})


async def test_urgent_sessions_do_not_take_all_turns(
    desk: Desk, house: House, storage: StorageClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    urgent = [SessionId(f"urgent-{number}") for number in range(20)]
    desk.watch.overdue_seconds = 60.0
    await _spooled(desk, A, *urgent, count=1)
    opened = storage.open
    goes_on = asyncio.Event()
    held = 0

    async def hold(session_id: SessionId, *arguments: Any) -> Any:
        nonlocal held
        if session_id in urgent:
            held += 1
            await goes_on.wait()
        return await opened(session_id, *arguments)

    monkeypatch.setattr(storage, "open", hold)
    for name in urgent:
        desk.drainer.urge(name)
    async with desk.running(), asyncio.timeout(5):
        while A not in house.sessions.records:
            await asyncio.sleep(0.005)
        assert held >= 6
        goes_on.set()
        while desk.spool.entries:
            await asyncio.sleep(0.005)


async def test_a_turn_that_ends_before_the_entry_that_fails_is_no_success(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is looked for still, one entry at a time."""
    await _spooled(desk, A)
    session = desk.spool.sessions[A]
    session.isolating, session.failures = True, 1
    monkeypatch.setattr(delivery, "TURN_SECONDS", 0.0)
    monkeypatch.setattr(desk.drainer, "_others_wait", lambda: True)
    await desk.drainer._deliver(session)
    assert (sorted(session.chunks), session.isolating, session.failures) == ([1, 2], True, 1)
    for _ in range(2):
        await desk.drainer._deliver(session)
    assert (session.isolating, session.failures) == (False, 0)


async def test_an_order_follows_its_chunks_without_a_pause(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    await _spooled(desk, A, count=1)
    await _ordered(desk, A)
    monkeypatch.setattr(drainer, "_PAUSE_SECONDS", 60.0)
    await desk.drain()
    assert (desk.spool.sessions, desk.set_aside) == ({}, 0)
