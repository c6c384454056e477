"""What was delivered or moved is overwritten in segments that stay: soon, and so that no crash makes it damage."""

import asyncio
import errno
import json
import os
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from sessions.core.types import ChunkIndex, SessionId
from sessions.processor import crypt, spool, spool_erasing, spool_leftovers
from sessions.processor.keys import Dek
from sessions.processor.promises import Promises
from sessions.processor.quarantine import Quarantine
from sessions.processor.quarantining import Quarantining
from sessions.processor.spool import Spool
from sessions.processor.spool_erasing import Place
from sessions.processor.spool_format import (
    HEADER_BYTES,
    Damage,
    Erased,
    Found,
    Kind,
    erased_mark,
    header,
    read_erased,
    read_header,
    scan,
)
from sessions.processor.spool_health import spool_checks
from sessions.processor.spool_index import Entry
from sessions.processor.spool_room import SpoolRoom
from sessions.processor.spool_segments import CorruptEntryError
from sessions.processor.spooling import Spooling
from sessions.processor.storage_watch import StorageWatch
from sessions.runtime.health import Check
from tests.unit.processor.spools import MIB, segments_in, waiting_in

A, B = SessionId("a"), SessionId("b")
DEK = Dek.generate()


def _spool(folder: Path) -> Spool:
    one = Spool(segments_in(folder, MIB), SpoolRoom(64 * MIB, 0))
    one.open()
    return one


@pytest.fixture
async def one(tmp_path: Path) -> AsyncIterator[Spool]:
    found = _spool(tmp_path)
    yield found
    await found.close()


async def _put(one: Spool, session: SessionId, index: int, size: int = 100) -> Entry:
    envelope = crypt.seal(DEK, session, ChunkIndex(index), os.urandom(size), 3).envelope
    return (await one.append(Kind.ENVELOPE, session, envelope, index))[0]


async def _open(one: Spool, session: SessionId) -> Entry:
    payload = json.dumps({"session_id": session, "key": "wrapped"}).encode()
    return (await one.append(Kind.OPENING, session, payload))[0]


def _on_disk(folder: Path, entry: Entry) -> bytes:
    data = (folder / f"{entry.place.segment:016d}.seg").read_bytes()
    return data[entry.place.offset + HEADER_BYTES : entry.place.offset + entry.place.entry_bytes]


class Storage:
    """session-storage, which is there."""

    async def reachable(self) -> str | None:
        return None


async def _health(one: Spool) -> Check:
    spooling = Spooling(one, StorageWatch(Storage().reachable, 1.0), Promises(None))
    return (await spool_checks(spooling, Storage()))["spool"]  # type: ignore[arg-type]


def _after_a_crash(one: Spool, folder: Path) -> Spool:
    """Start again without the orderly end of the process before."""
    one._thread.shutdown()
    one._segments.close()
    return _spool(folder)


async def test_what_was_delivered_is_overwritten_by_the_second_turn(one: Spool, tmp_path: Path) -> None:
    opening, first, second = await _open(one, A), await _put(one, A, 0), await _put(one, A, 1)
    staying = await _put(one, B, 0)
    kept = await one.read(staying)
    await one.delivered([opening, first])
    await one.leftovers.turn()
    assert any(_on_disk(tmp_path, first)), "most segments are deleted before that, and cost nothing"
    await one.leftovers.turn()
    assert not any(_on_disk(tmp_path, first))
    assert any(_on_disk(tmp_path, opening)), "what is left of the session needs its key"
    await one.delivered([second])
    for _ in range(2):
        await one.leftovers.turn()
    assert not any(_on_disk(tmp_path, opening) + _on_disk(tmp_path, second))
    assert await one.read(staying) == kept
    again = _after_a_crash(one, tmp_path)
    one._thread, one._segments = again._thread, again._segments
    assert [entry.place for entry in waiting_in(again)] == [staying.place]
    assert again.quarantined == 0


async def test_it_happens_while_nothing_else_does(one: Spool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert 2 * spool._WATCH_SECONDS < 10, "as docs/operations.md says"
    monkeypatch.setattr(spool, "_WATCH_SECONDS", 0.01)
    first, _ = await _put(one, A, 0), await _put(one, B, 0)
    await one.delivered([first])
    watching = asyncio.create_task(one.watch())
    async with asyncio.timeout(5):
        while any(_on_disk(tmp_path, first)):
            await asyncio.sleep(0.01)
    watching.cancel()


async def test_an_orderly_end_leaves_nothing_that_was_delivered(tmp_path: Path) -> None:
    one = _spool(tmp_path)
    first, _ = await _put(one, A, 0), await _put(one, B, 0)
    await one.delivered([first])
    await one.close()
    assert not any(_on_disk(tmp_path, first))


async def test_what_is_read_while_it_is_overwritten_is_gone_and_not_damaged(one: Spool) -> None:
    first, second = await _put(one, A, 0), await _put(one, B, 0)
    await one.delivered([first])
    await one.leftovers.erase_all()
    with pytest.raises(FileNotFoundError):
        await one.read(first)
    spooling = Spooling(one, StorageWatch(Storage().reachable, 1.0), Promises(None))
    assert await spooling.payload(first) is None
    assert await spooling.quarantining.copy(first, "conflict"), "there is nothing to keep"
    assert one.quarantined == 0
    await one.in_thread(lambda: one._segments.erase([second.place]))
    with pytest.raises(CorruptEntryError):
        await one.read(second)


async def test_a_segment_that_is_deleted_takes_its_leftovers_along(one: Spool, tmp_path: Path) -> None:
    entries = [await _put(one, A, index) for index in range(3)]
    await one.delivered(entries[:2])
    await one.delivered(entries[2:])
    assert list(tmp_path.glob("*.seg")) == []
    assert one.leftovers._places == {}
    await one.leftovers.erase_all()


async def test_much_is_overwritten_in_slices(one: Spool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spool_leftovers, "SLICE_BYTES", 1000)
    entries = [await _put(one, A, index) for index in range(20)]
    await _put(one, B, 0)
    sizes = []
    real = one._segments.erase

    def erase(places: list[Place]) -> None:
        sizes.append(sum(place.entry_bytes for place in places))
        real(places)

    monkeypatch.setattr(one._segments, "erase", erase)
    await one.delivered(entries)
    await one.leftovers.erase_all()
    assert sum(sizes) == sum(entry.place.entry_bytes for entry in entries)
    assert max(sizes) <= 1000


async def test_what_cannot_be_overwritten_is_tried_again_and_shown(
    one: Spool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, _ = await _put(one, A, 0), await _put(one, B, 0)
    await one.delivered([first])

    def refuse(*_: object) -> None:
        raise OSError(errno.EIO, "Input/output error")

    with monkeypatch.context() as patch:
        patch.setattr(spool_erasing.os, "fdatasync", refuse)
        for _ in range(3):
            await one.leftovers.turn()
        with pytest.raises(OSError, match="Input/output"):
            await one.leftovers.erase_all()
        check = await _health(one)
        assert (check.status, "Input/output error" in check.detail) == ("degraded", True)
    await one.leftovers.turn()
    assert not any(_on_disk(tmp_path, first))
    assert (await _health(one)).status == "ok"


# The quarantine


async def test_what_was_moved_is_not_delivered_again_after_a_crash(one: Spool, tmp_path: Path) -> None:
    first, order = await _put(one, A, 0), (await one.append(Kind.SEAL, A, b'{"session_id":"a"}'))[0]
    opening, staying = await _open(one, B), await _put(one, B, 0)
    quarantining = Quarantining(one, Promises(None))
    for entry in (first, order):
        await quarantining.quarantine(entry, "conflict")
    await quarantining.copy(opening, "metadata-refused")
    again = _after_a_crash(one, tmp_path)
    one._thread, one._segments = again._thread, again._segments
    assert [entry.place for entry in waiting_in(again)] == [opening.place, staying.place]
    assert again.quarantined == 3
    await again.leftovers.erase_all()
    assert not any(_on_disk(tmp_path, first) + _on_disk(tmp_path, order))


@pytest.mark.parametrize("restarts", [False, True])
async def test_what_was_dropped_for_good_does_not_come_back(one: Spool, tmp_path: Path, restarts: bool) -> None:
    """The process ends at once after the answer."""
    first, staying = await _put(one, A, 0), await _put(one, B, 0)
    await Quarantining(one, Promises(None)).quarantine(first, "conflict")
    now = _after_a_crash(one, tmp_path) if restarts else one
    await Quarantining(now, Promises(None)).drop(first.place.name)
    assert not any(_on_disk(tmp_path, first))
    again = _after_a_crash(now, tmp_path)
    one._thread, one._segments = again._thread, again._segments
    assert [entry.place for entry in waiting_in(again)] == [staying.place]
    assert again.quarantined == 0


async def test_metadata_that_are_dropped_do_not_take_the_key_along_that_is_needed(one: Spool) -> None:
    opening, _ = await _open(one, A), await _put(one, A, 0)
    payload = await one.read(opening)
    quarantining = Quarantining(one, Promises(None))
    await quarantining.copy(opening, "metadata-refused")
    await one.delivered([opening])
    await quarantining.drop(opening.place.name)
    assert await one.read(opening) == payload


async def test_damage_that_was_dropped_for_good_does_not_come_back(one: Spool, tmp_path: Path) -> None:
    first, staying = await _put(one, A, 0), await _put(one, B, 0)
    with (tmp_path / f"{first.place.segment:016d}.seg").open("r+b") as file:
        file.seek(first.place.offset)
        file.write(b"x")
    now = _after_a_crash(one, tmp_path)
    assert list(now.quarantine.entries) == [first.place.name]
    await Quarantining(now, Promises(None)).drop(first.place.name)
    again = _after_a_crash(now, tmp_path)
    one._thread, one._segments = again._thread, again._segments
    assert ([entry.place for entry in waiting_in(again)], again.quarantined) == ([staying.place], 0)


async def test_a_shred_overwrites_what_was_delivered_or_moved_before(one: Spool, tmp_path: Path) -> None:
    opening, first, second, third = [await _open(one, A), *[await _put(one, A, index) for index in range(3)]]
    await _put(one, B, 0)
    quarantining = Quarantining(one, Promises(None))
    await one.delivered([opening, first])
    await quarantining.quarantine(second, "conflict")
    await quarantining.shred(A)
    assert not any(b"".join(_on_disk(tmp_path, entry) for entry in (opening, first, second, third)))
    assert (list(one.sessions), one.quarantined, one.entries) == ([B], 0, 1)


async def test_what_a_shred_could_not_overwrite_is_overwritten_later(
    one: Spool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, _ = await _put(one, A, 0), await _put(one, B, 0)
    quarantining = Quarantining(one, Promises(None))

    def refuse(*_: object) -> None:
        raise OSError(errno.EIO, "Input/output error")

    with monkeypatch.context() as patch:
        patch.setattr(spool_erasing.os, "fdatasync", refuse)
        with pytest.raises(OSError, match="Input/output"):
            await quarantining.shred(A)
    assert list(one.sessions) == [A, B], "storage is told of it still"
    await quarantining.shred(A)
    assert (list(one.sessions), any(_on_disk(tmp_path, first))) == ([B], False)


async def test_a_disk_that_is_full_at_a_start_loses_no_damaged_entry(
    one: Spool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The processor starts, and the damaged bytes stay until a start can move them, although the others are gone."""
    first, senseless = await _put(one, A, 0), (await one.append(Kind.SEAL, A, b"[]"))[0]
    staying, last = await _put(one, B, 0), await _put(one, B, 1)
    segment = tmp_path / f"{first.place.segment:016d}.seg"
    data = bytearray(segment.read_bytes())
    for place in (first.place, last.place):
        data[place.offset] ^= 1
    segment.write_bytes(data)

    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(Quarantine, "keep", full)
        now = _after_a_crash(one, tmp_path)
    assert [entry.place for entry in waiting_in(now)] == [staying.place]
    assert (await _health(now)).status == "degraded"
    await now.delivered(waiting_in(now))
    await now.leftovers.erase_all()
    again = _after_a_crash(now, tmp_path)
    one._thread, one._segments = again._thread, again._segments
    names = [entry.place.name for entry in (first, senseless, last)]
    assert (waiting_in(again), sorted(again.quarantine.entries)) == ([], names)
    assert again.quarantine.read(names[0]) == bytes(data[: first.place.entry_bytes])
    assert again.unkept == set()
    await again.leftovers.erase_all()


# On the disk


class CrashError(BaseException):
    """The process ends here."""


def _crashing(patch: pytest.MonkeyPatch, step: int, half: bool) -> None:
    """End the process before this step, or with half of it done."""
    left = [step]

    def counted(real: Callable[..., Any], *, writes: bool) -> Callable[..., Any]:
        def work(*arguments: Any) -> Any:
            if left[0] == 0:
                if half and writes and len(arguments[1]) > 8:
                    real(arguments[0], arguments[1][: len(arguments[1]) // 2], arguments[2])
                raise CrashError
            left[0] -= 1
            return real(*arguments)

        return work

    patch.setattr(spool_erasing.os, "pwrite", counted(os.pwrite, writes=True))
    patch.setattr(spool_erasing.os, "fdatasync", counted(os.fdatasync, writes=False))


@pytest.mark.parametrize("half", [False, True])
@pytest.mark.parametrize("last", [False, True])
def test_no_crash_makes_damage_of_what_is_overwritten(tmp_path: Path, half: bool, last: bool) -> None:
    payloads = [os.urandom(300) for _ in range(4)]
    outcomes = set()
    for step in range(20):
        folder = tmp_path / str(step)
        folder.mkdir()
        segments = segments_in(folder, MIB)
        segments.open()
        places = segments.append([(Kind.ENVELOPE, payload) for payload in payloads])
        if not last:
            segments.drop_idle()
            segments.append([(Kind.SEAL, b"later")])
        done = False
        with pytest.MonkeyPatch.context() as patch:
            _crashing(patch, step, half)
            try:
                segments.erase([places[0], places[2]])
                done = True
            except CrashError:
                pass
        segments.close()
        again = segments_in(folder, MIB)
        again.open()
        found = {one.place: again.read(one.place) for one in again.recover()}
        assert again.quarantine.entries == {}
        for number in (1, 3):
            assert found[places[number]] == payloads[number]
        for number in (0, 2):
            assert found.get(places[number], payloads[number]) == payloads[number], "it is whole, or it is gone"
        outcomes.add(len([number for number in (0, 2) if places[number] in found]))
        again.erase(again.leftovers)
        data = (folder / f"{1:016d}.seg").read_bytes()
        for number in (0, 2):
            assert (places[number] in found) == (payloads[number] in data)
            if places[number] not in found:
                start = places[number].offset
                assert not any(data[start + HEADER_BYTES : start + places[number].entry_bytes])
        again.close()
        if done:
            break
    assert done
    assert outcomes == {0, 1, 2}


def test_the_mark_of_an_erased_entry_is_within_a_sector() -> None:
    head = header(Kind.ENVELOPE, b"payload")
    for offset in range(1024):
        at, mark = erased_mark(head, offset)
        assert (offset + at) // 512 == (offset + at + len(mark) - 1) // 512
        erased = head[:at] + mark + head[at + len(mark) :]
        assert read_header(erased) is None
        assert read_erased(erased) == read_header(head)
    assert read_erased(head) is None
    assert read_erased(b"LSP1") is None


def test_no_damage_of_one_byte_looks_erased() -> None:
    head = header(Kind.ENVELOPE, b"payload")
    for at in range(HEADER_BYTES):
        for bits in range(1, 256):
            assert read_erased(head[:at] + bytes([head[at] ^ bits]) + head[at + 1 :]) is None


def test_damage_ends_at_an_erased_entry() -> None:
    parts = [header(Kind.SEAL, payload) + payload for payload in (b"one", b"two", b"three")]
    at, mark = erased_mark(parts[1][:HEADER_BYTES], len(parts[0]))
    parts[1] = parts[1][:at] + mark + parts[1][at + len(mark) : HEADER_BYTES] + bytes(3)
    parts[0] = b"x" + parts[0][1:]
    assert [type(found) for found in scan(b"".join(parts))] == [Damage, Erased, Found]
