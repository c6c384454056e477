"""The spool in memory: bounds, groups, what is under way, what is damaged."""

import asyncio
import errno
import gc
import itertools
import json
import os
import resource
import shutil
import threading
import tracemalloc
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from scripts.devstack.process import ROOT
from sessions.core.types import ChunkIndex, SessionId
from sessions.processor import crypt
from sessions.processor.keys import Dek
from sessions.processor.promises import Promises
from sessions.processor.quarantining import Quarantining
from sessions.processor.spool import Spool
from sessions.processor.spool_format import HEADER_BYTES, Kind
from sessions.processor.spool_room import MAX_ENTRIES, Room, SpoolRoom
from sessions.processor.spool_segments import CorruptEntryError
from sessions.processor.spool_shares import Holding
from sessions.runtime.errors import DomainError
from tests.unit.processor.spools import segments_in, waiting_in

A, B = SessionId("a"), SessionId("b")
DEK = Dek.generate()
MIB = 1024 * 1024


def _envelope(session: SessionId, index: int, size: int = 100) -> bytes:
    return crypt.seal(DEK, session, ChunkIndex(index), os.urandom(size), 3).envelope


def _spool(folder: Path, max_bytes: int = MIB, **room: int) -> Spool:
    one = Spool(segments_in(folder, 10_000), SpoolRoom(max_bytes, room.pop("free_min_bytes", 0), **room))
    one.open()
    return one


@pytest.fixture
async def spool(tmp_path: Path) -> AsyncIterator[Spool]:
    one = _spool(tmp_path)
    yield one
    await one.close()


async def _error(work) -> DomainError:
    with pytest.raises(DomainError) as caught:
        await work
    return caught.value


async def _keep(spool: Spool, session: SessionId, index: int, size: int = 100) -> bytes:
    data = _envelope(session, index, size)
    assert (await spool.append(Kind.ENVELOPE, session, data, index, plaintext_bytes=size))[1]
    return data


async def test_all_is_there_after_a_restart_in_order(spool: Spool, tmp_path: Path) -> None:
    opening = json.dumps({"session_id": A}).encode()
    await spool.append(Kind.OPENING, A, opening)
    kept = [await _keep(spool, A, index, 3000) for index in (2, 0, 1)]
    await spool.append(Kind.SEAL, A, opening)
    await spool.close()
    again = _spool(tmp_path)
    found = waiting_in(again)
    assert [(entry.kind, entry.index) for entry in found] == [
        (Kind.OPENING, -1),
        (Kind.ENVELOPE, 2),
        (Kind.ENVELOPE, 0),
        (Kind.ENVELOPE, 1),
        (Kind.SEAL, -1),
    ]
    assert [await again.read(entry) for entry in found] == [opening, *kept, opening]
    assert [entry.plaintext_bytes for entry in found] == [0, 3000, 3000, 3000, 0]
    assert list(again.sessions[A].waiting()) == found
    assert [entry.index for entry in again.sessions[A].window(4000)] == [2]
    assert [entry.index for entry in again.sessions[A].window(MIB)] == [2, 0, 1]
    again.sessions[A].isolating = True
    assert [entry.index for entry in again.sessions[A].window(MIB)] == [2]
    await again.close()


async def test_each_entry_names_its_sender_also_after_a_restart(spool: Spool, tmp_path: Path) -> None:
    opening = json.dumps({"session_id": A}).encode()
    await spool.append(Kind.OPENING, A, opening, by="victim")
    await spool.append(Kind.ENVELOPE, A, data := _envelope(A, 0), 0, by="evil")
    await spool.append(Kind.SEAL, A, opening, by="third")
    await _keep(spool, A, 1)
    senders = [entry.sender for entry in waiting_in(spool)]
    assert senders == ["victim", "evil", "third", "victim"]
    await spool.close()
    again = _spool(tmp_path)
    found = waiting_in(again)
    assert [entry.sender for entry in sorted(found, key=lambda entry: entry.place)] == senders
    assert await again.read(found[1]) == data
    await again.close()


async def test_entries_of_version_0_1_0_are_of_the_token_that_opened_their_session(tmp_path: Path) -> None:
    shutil.copytree(ROOT / "tests" / "fixtures" / "0.1.0" / "spool", tmp_path / "spool")
    spool = _spool(tmp_path / "spool", 100 * MIB)
    found = waiting_in(spool)
    assert {entry.kind for entry in found} == set(Kind)
    assert all(entry.by is None for entry in found)
    for entry in found:
        await spool.read(entry)
    await spool.close()


async def test_an_opening_of_an_earlier_version_names_its_sender_in_its_payload(tmp_path: Path) -> None:
    segments = segments_in(tmp_path, 10_000)
    segments.open()
    opening = json.dumps({"session_id": A, "by": "desk"}).encode()
    segments.append([(Kind.OPENING, opening), (Kind.ENVELOPE, _envelope(A, 0))])
    segments.append([(Kind.SEAL, json.dumps({"session_id": B, "by": 7}).encode())])
    segments.close()
    spool = _spool(tmp_path)
    assert [entry.sender for entry in waiting_in(spool)] == ["desk", "desk", None]
    await spool.close()


async def test_what_arrives_during_an_fsync_shares_the_next(spool: Spool, monkeypatch: pytest.MonkeyPatch) -> None:
    syncs = 0
    real = os.fdatasync

    def counting(file: int) -> None:
        nonlocal syncs
        syncs += 1
        real(file)

    monkeypatch.setattr(os, "fdatasync", counting)
    await asyncio.gather(*(_keep(spool, A, index) for index in range(50)))
    assert syncs <= 3


async def test_one_index_twice_at_once_is_one_entry(spool: Spool) -> None:
    one, two = _envelope(A, 0), _envelope(A, 0)
    answers = await asyncio.gather(*(spool.append(Kind.ENVELOPE, A, data, 0) for data in (one, two)))
    assert sorted(created for _, created in answers) == [False, True]
    assert answers[0][0] is answers[1][0]
    assert (await spool.append(Kind.ENVELOPE, A, two, 0))[1] is False
    assert spool.entries == 1


async def test_segments_go_when_all_of_them_is_delivered(spool: Spool, tmp_path: Path) -> None:
    for index in range(8):
        await _keep(spool, A, index, 4000)
    assert len(list(tmp_path.glob("*.seg"))) == 3
    await spool.delivered(waiting_in(spool)[:4])
    assert len(list(tmp_path.glob("*.seg"))) == 2
    await spool.delivered(waiting_in(spool))
    assert list(tmp_path.glob("*.seg")) == []
    assert (spool.entries, spool.used_bytes, spool.sessions) == (0, 0, {})
    assert not spool.arrived.is_set()
    await _keep(spool, A, 9)
    assert spool.arrived.is_set()


async def test_what_arrives_while_segments_are_dropped_is_not_dropped(
    spool: Spool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two go at once, and the second was the current one until something came in between."""
    await _keep(spool, A, 0, 11_000)
    await _keep(spool, A, 1)
    dropping, goes_on, drop = threading.Event(), threading.Event(), spool._segments.drop

    def slow(number: int) -> None:
        dropping.set()
        assert goes_on.wait(5)
        drop(number)

    monkeypatch.setattr(spool._segments, "drop", slow)
    delivered = asyncio.create_task(spool.delivered(waiting_in(spool)))
    await asyncio.to_thread(dropping.wait, 5)
    late = asyncio.create_task(_keep(spool, B, 0))
    await asyncio.sleep(0)
    goes_on.set()
    await delivered
    data = await late
    (entry,) = waiting_in(spool)
    assert await spool.read(entry) == data


async def _put_while_a_full_segment_is_taken_out(spool: Spool) -> bytes:
    await _keep(spool, A, 0, 10_000)
    putting = asyncio.create_task(_keep(spool, A, 1))
    await asyncio.sleep(0)
    await spool.delivered(waiting_in(spool)[:1])  # as far as is known now, more may be written behind it
    return await putting


async def test_a_full_segment_that_is_taken_out_during_a_write_goes_after_it(spool: Spool, tmp_path: Path) -> None:
    data = await _put_while_a_full_segment_is_taken_out(spool)
    await spool.written()
    assert [file.stem.lstrip("0") for file in tmp_path.glob("*.seg")] == ["2"]
    assert [await spool.read(entry) for entry in waiting_in(spool)] == [data]


async def test_a_segment_that_cannot_be_deleted_holds_up_no_other_write(
    spool: Spool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(number: int) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO), str(number))

    monkeypatch.setattr(spool._segments, "drop", fails)
    kept = [await _put_while_a_full_segment_is_taken_out(spool)]
    kept += await asyncio.gather(*(_keep(spool, B, index) for index in range(3)))
    await spool.written()
    assert [await spool.read(entry) for entry in waiting_in(spool)] == kept
    assert len(list(tmp_path.glob("*.seg"))) == 2, "the next start drops what is left"


async def test_a_chunk_that_a_restart_finds_twice(spool: Spool, tmp_path: Path) -> None:
    """As when one was delivered before, in a segment that had others: both are of the session, until both are gone."""
    await _keep(spool, A, 0)
    await spool.close()
    segments = segments_in(tmp_path, 10_000)
    segments.open()
    segments.append([(Kind.ENVELOPE, _envelope(A, 0))])
    segments.close()
    again = _spool(tmp_path)
    first, second = waiting_in(again)
    assert (await again.find(A, 0), list(again.sessions[A].waiting())) == (second, [first, second])
    await again.delivered([second])
    assert (await again.find(A, 0), list(again.sessions[A].waiting())) == (first, [first])
    await again.delivered([first])
    assert again.sessions == {}
    await again.close()
    segments.open()
    segments.append([(Kind.ENVELOPE, _envelope(A, index)) for index in (0, 1, 0)])
    segments.close()
    again = _spool(tmp_path)
    first, other, second = waiting_in(again)
    await again.delivered([first])
    assert list(again.sessions[A].waiting()) == [second, other]
    await again.close()


async def test_a_seal_that_is_ordered_twice_at_once(spool: Spool, tmp_path: Path) -> None:
    order = json.dumps({"session_id": A}).encode()
    await asyncio.gather(*(spool.append(Kind.SEAL, A, order) for _ in range(2)))
    first, second = spool.sessions[A].waiting()
    assert spool.sessions[A].seals == [first, second]
    await spool.delivered([second])
    assert list(spool.sessions[A].waiting()) == [first]
    await spool.delivered([first])
    assert (spool.sessions, list(tmp_path.glob("*.seg"))) == ({}, [])


async def test_an_opening_stays_while_there_are_envelopes(spool: Spool, tmp_path: Path) -> None:
    opening, _ = await spool.append(Kind.OPENING, A, b"{}")
    await _keep(spool, A, 0)
    session = spool.sessions[A]
    assert session.opening_waits
    await spool.delivered([opening])
    assert not session.opening_waits
    assert session.openings == [opening], "its key may still be asked for"
    await spool.delivered(list(session.waiting()))
    assert (A in spool.sessions, list(tmp_path.glob("*.seg"))) == (False, [])


async def test_beyond_the_bound_it_is_refused_until_there_is_room_again(tmp_path: Path) -> None:
    spool = _spool(tmp_path, 40_000)
    count = 0
    while spool.used_bytes + 4300 < 40_000:
        await _keep(spool, A, count, 4000)
        count += 1
    assert count == 9
    error = await _error(_keep(spool, A, count, 4000))
    assert (error.code, error.retry_after_seconds) == ("spool-full", 30)
    await _keep(spool, A, 100, 1000)
    assert spool.room.state is Room.FULL
    assert (await _error(_keep(spool, A, 101, 1))).code == "spool-full", "not stop and go"
    await spool.delivered(waiting_in(spool)[:3])
    assert spool.room.state is Room.LOW
    await _keep(spool, A, 101, 1)
    await spool.close()


@pytest.mark.parametrize("used", [0, 949])
def test_what_does_not_fit_closes_the_spool_to_nobody_else(used: int) -> None:
    """One head of a request with a large Content-Length did, for as long as it was repeated."""
    room = SpoolRoom(1000, 0)
    room.note(used, 0)
    before = room.state
    with pytest.raises(DomainError):
        room.require(10**12)
    with pytest.raises(DomainError):
        room.require(1001 - used)
    assert room.state is before
    room.require(51)


@pytest.mark.parametrize(
    ("max_bytes", "max_entries", "size"), [(100_000, MAX_ENTRIES, 300), (MIB, 200, 1)], ids=["bytes", "entries"]
)
async def test_a_token_that_fills_the_spool_leaves_room_for_others(
    tmp_path: Path, max_bytes: int, max_entries: int, size: int
) -> None:
    spool = _spool(tmp_path, max_bytes, max_entries=max_entries)
    indexes = itertools.count()

    async def fill(by: str) -> int:
        """Return how many were taken."""
        begun = spool.entries
        session = SessionId(by)

        async def endless() -> None:
            for index in indexes:
                await spool.append(Kind.ENVELOPE, session, _envelope(session, index, size), index, by=by)

        assert (await _error(endless())).code == "spool-full"
        return spool.entries - begun

    await fill("evil")
    assert 0.95 <= spool.room.fill() < 0.96, "a single token gets nearly all of it"
    assert spool.room.state is Room.FULL
    assert [await fill(by) > 0 for by in ("victim", "other", "evil")] == [True, True, False]
    assert spool.room.fill() <= 1
    await spool.delivered(list(spool.sessions[SessionId("victim")].waiting()))
    assert await fill("victim") > 0, "what was delivered is not held against it"
    await spool.close()


async def test_entries_of_tokens_count_after_a_restart_and_not_after_a_failure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spool = _spool(tmp_path)
    entry, _ = await spool.append(Kind.ENVELOPE, A, _envelope(A, 0), 0, by="desk")
    order, _ = await spool.append(Kind.SEAL, A, json.dumps({"session_id": A}).encode(), by="desk")
    held = Holding(entry.place.entry_bytes + order.place.entry_bytes, 2, 1)

    def fail(_file: int) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    with monkeypatch.context() as patch:
        patch.setattr(os, "fdatasync", fail)
        await _error(spool.append(Kind.ENVELOPE, A, _envelope(A, 1), 1, by="desk"))
    assert spool.room.shares.of("desk") == held
    await spool.close()
    again = _spool(tmp_path)
    assert again.room.shares.of("desk") == held
    await again.delivered(waiting_in(again))
    assert again.room.shares.of("desk") == Holding()
    await again.close()


async def test_entries_are_bounded_too(tmp_path: Path) -> None:
    spool = _spool(tmp_path, max_entries=10)
    for index in range(10):
        await _keep(spool, A, index, 1)
    assert (await _error(_keep(spool, A, 10, 1))).code == "spool-full"
    await spool.close()


async def test_what_is_being_written_counts(tmp_path: Path) -> None:
    """Concurrent writes are accepted up to the limit on entries, and up to the free space of the disk."""
    (tmp_path / "entries").mkdir()
    (tmp_path / "disk").mkdir()
    by_entries = _spool(tmp_path / "entries", max_entries=10)
    by_disk = _spool(tmp_path / "disk", free_min_bytes=10_000)
    by_disk.room.note(0, 0, 20_000)
    for spool, fit in ((by_entries, 10), (by_disk, 9)):
        kept = await asyncio.gather(*(_keep(spool, A, index, 900) for index in range(20)), return_exceptions=True)
        assert [isinstance(one, bytes) for one in kept] == [True] * fit + [False] * (20 - fit)
        assert spool.entries == fit
        await spool.close()


def test_states_by_bytes_with_hysteresis() -> None:
    room = SpoolRoom(1000, 0)
    seen = []
    for used in (0, 499, 500, 450, 399, 500, 800, 750, 699, 800, 949, 950, 900, 899, 0):
        room.note(used, 0)
        seen.append(room.state.value)
    assert seen == [
        *("ok", "ok", "low", "low", "ok", "low"),
        *("critical", "critical", "low", "critical", "critical"),
        *("full", "full", "critical", "ok"),
    ]


def test_states_by_free_disk() -> None:
    room = SpoolRoom(10**12, 1000)
    seen = []
    for free in (10_000, 2200, 1500, 1000, 1200, 1300, 5000):
        room.note(0, 0, free)
        seen.append(room.state.value)
    assert seen == ["ok", "low", "critical", "full", "full", "critical", "ok"]
    room.note(0, 0, 1500)
    room.require(400)
    with pytest.raises(DomainError):
        room.require(501)


@pytest.mark.parametrize(("number", "code"), [(errno.ENOSPC, "spool-full"), (errno.EIO, "storage-unavailable")])
async def test_a_disk_that_fails(
    spool: Spool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, code: str
) -> None:
    await _keep(spool, A, 0)

    def fail(_file: int) -> None:
        raise OSError(number, os.strerror(number))

    with monkeypatch.context() as patch:
        patch.setattr(os, "fdatasync", fail)
        errors = await asyncio.gather(*(_error(_keep(spool, B, index)) for index in range(3)))
    assert {error.code for error in errors} == {code}
    assert B not in spool.sessions
    await spool.delivered(waiting_in(spool))
    with monkeypatch.context() as patch:
        patch.setattr(os, "fdatasync", fail)
        spool.room.note(0, 0, 10**12)
        await _error(_keep(spool, B, 0))
    assert list(tmp_path.glob("*.seg")) == []
    spool.room.note(0, 0, 10**12)
    await _keep(spool, A, 0)
    spool.room.note(0, 0, 10**12)
    await _keep(spool, B, 0)
    assert spool.entries == 2


async def test_a_recorder_that_goes_away_leaves_its_chunk(spool: Spool) -> None:
    task = asyncio.create_task(spool.append(Kind.ENVELOPE, A, _envelope(A, 0), 0))
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    await _keep(spool, A, 1)
    assert spool.entries == 2


async def test_a_damaged_entry_is_told_and_set_aside(spool: Spool, tmp_path: Path) -> None:
    entry, _ = await spool.append(Kind.ENVELOPE, A, _envelope(A, 0), 0)
    path = tmp_path / f"{entry.place.segment:016d}.seg"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    with pytest.raises(CorruptEntryError):
        await spool.read(entry)
    await Quarantining(spool, Promises(None)).quarantine(entry, "damaged")
    assert (spool.entries, spool.quarantined) == (0, 1)
    assert (spool.used_bytes, spool.quarantine.used_bytes) == (0, 8192), "it has room of its own"


async def test_entries_that_make_no_sense_are_set_aside(tmp_path: Path) -> None:
    segments = segments_in(tmp_path, 10_000)
    segments.open()
    segments.append([(Kind.ENVELOPE, b"no envelope"), (Kind.OPENING, b"[]"), (Kind.SEAL, b'{"session_id": "../x"}')])
    segments.close()
    spool = _spool(tmp_path)
    assert (spool.entries, spool.quarantined, list(tmp_path.glob("*.seg"))) == (0, 3, [])
    await spool.close()


async def test_memory_for_each_entry(tmp_path: Path) -> None:
    """What MAX_ENTRIES is reckoned with."""
    spool = _spool(tmp_path, 100 * MIB)
    data = _envelope(A, 0, 1)
    await _keep(spool, A, 10**6)
    tracemalloc.start()
    for index in range(0, 3000, 100):
        await asyncio.gather(
            *(spool.append(Kind.ENVELOPE, A, data, index + offset, plaintext_bytes=1) for offset in range(100))
        )
    gc.collect()
    used, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert used / 3000 < 500
    assert MAX_ENTRIES * 500 < 128 * MIB
    assert HEADER_BYTES == 48
    await spool.close()


async def test_a_file_that_cannot_grow(spool: Spool, tmp_path: Path) -> None:
    """The system itself writes a part of an entry and refuses the rest; what was acknowledged stays."""
    kept = await _keep(spool, A, 0, 3000)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (5000, hard))
    try:
        error = await _error(_keep(spool, A, 1, 3000))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert error.code == "spool-full"
    await spool.close()
    again = _spool(tmp_path)
    assert [await again.read(entry) for entry in waiting_in(again)] == [kept]
    assert again.quarantined == 0
    await again.close()
