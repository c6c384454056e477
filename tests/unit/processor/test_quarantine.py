"""The quarantine's folder, and the ways of its entries: back into the spool, opened, or deleted."""

import asyncio
import gc
import itertools
import os
import sys
import threading
import tracemalloc
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from sessions.core import key_ring
from sessions.core.types import ChunkIndex, SessionId
from sessions.processor import crypt, quarantine, quarantining
from sessions.processor.keys import Dek, FileKeyWrapper
from sessions.processor.promises import Promises
from sessions.processor.quarantine import Quarantine
from sessions.processor.quarantine_reader import QuarantineReader
from sessions.processor.quarantining import Quarantining
from sessions.processor.spool import Spool
from sessions.processor.spool_format import HEADER_BYTES, Kind, header
from sessions.processor.spool_index import Entry
from sessions.processor.spool_room import SpoolRoom
from sessions.processor.spool_segments import Segments
from sessions.runtime.errors import DomainError
from tests.unit.processor.conftest import Parts
from tests.unit.processor.servers import MIB

A = SessionId("a")
SEAL = b'{"session_id":"a","chunk_count":1,"ordered_at":"2026-01-31T00:00:00.000Z"}'


@dataclass
class House:
    """A spool with its quarantine, and a key of one session."""

    folder: Path
    spool: Spool
    promises: Promises
    quarantining: Quarantining
    dek: Dek
    key: dict[str, Any]

    @property
    def aside(self) -> list[str]:
        return [one.name for one in self.quarantining.listed()]

    async def put(self, index: int, content: bytes) -> Entry:
        sealed = crypt.seal(self.dek, A, ChunkIndex(index), content, 3)
        return (await self.spool.append(Kind.ENVELOPE, A, sealed.envelope, index, plaintext_bytes=len(content)))[0]

    async def aside_of(self, entry: Entry, reason: str = "left-out", **facts: Any) -> str:
        before = set(self.aside)
        await self.quarantining.quarantine(entry, reason, **facts)
        (name,) = set(self.aside) - before
        return name


def _spool(folder: Path, max_bytes: int = 8 * MIB) -> Spool:
    spool = Spool(Segments(folder, MIB, Quarantine(folder / "quarantine", 4 * MIB)), SpoolRoom(max_bytes, 0))
    spool.open()
    return spool


@pytest.fixture
async def kept(tmp_path: Path, wrapper: FileKeyWrapper) -> AsyncIterator[House]:
    spool, promises, dek = _spool(tmp_path), Promises(None), Dek.generate()
    key = key_ring.key_to_json(wrapper.wrap(A, dek))
    yield House(tmp_path, spool, promises, Quarantining(spool, promises), dek, key)
    await spool.close()


async def _code(work: Any) -> str:
    with pytest.raises(DomainError) as caught:
        await work
    return caught.value.code


async def test_a_retry_brings_the_key_and_then_the_envelope(kept: House) -> None:
    entry = await kept.put(0, b"x")
    envelope = await kept.spool.read(entry)
    name = await kept.aside_of(entry, key=kept.key)
    assert (kept.spool.entries, kept.aside) == (0, [name])
    await kept.quarantining.retry(name)
    session = kept.spool.sessions[A]
    (opening,) = session.openings
    assert b'"metadata": null' in await kept.spool.read(opening)
    assert kept.key["wrapped"].encode() in await kept.spool.read(opening)
    assert (opening.place.segment, opening.place.offset) < (session.chunks[0].place[:2])
    assert await kept.spool.read(session.chunks[0]) == envelope
    assert session.chunks[0].plaintext_bytes == 1
    assert (kept.aside, kept.spool.quarantine.used_bytes) == ([], 0)
    assert list((kept.folder / "quarantine").iterdir()) == []
    assert await _code(kept.quarantining.retry(name)) == "not-found"


async def test_an_envelope_without_its_key_goes_alone(kept: House) -> None:
    name = await kept.aside_of(await kept.put(0, b"x"))
    await kept.quarantining.retry(name)
    assert [entry.kind for entry in kept.spool.sessions[A].waiting()] == [Kind.ENVELOPE]


async def test_a_retry_that_a_crash_interrupts_is_repeated(kept: House, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is in both places: nothing is lost, and the second time nothing is there twice."""
    name = await kept.aside_of(await kept.put(0, b"x"), key=kept.key)

    def fail(_: str) -> None:
        raise OSError("as after a crash")

    with monkeypatch.context() as patch:
        patch.setattr(kept.spool.quarantine, "drop", fail)
        with pytest.raises(OSError, match="as after a crash"):
            await kept.quarantining.retry(name)
    assert (kept.aside, list(kept.spool.sessions[A].chunks)) == ([name], [0])
    await kept.quarantining.retry(name)
    assert (kept.aside, list(kept.spool.sessions[A].chunks), kept.spool.sessions[A].earlier) == ([], [0], [])


async def test_two_retries_at_once(kept: House) -> None:
    name = await kept.aside_of(await kept.put(0, b"x"), key=kept.key)
    await asyncio.gather(kept.quarantining.retry(name), kept.quarantining.retry(name))
    assert (kept.aside, list(kept.spool.sessions[A].chunks), kept.spool.sessions[A].earlier) == ([], [0], [])


async def test_a_retry_while_the_seal_is_being_decided(kept: House) -> None:
    """What was confirmed to storage stays true: the spool takes nothing of a promised session."""
    name = await kept.aside_of(await kept.put(0, b"x"), key=kept.key)
    kept.promises.bind(A, "0" * 16)
    assert await _code(kept.quarantining.retry(name)) == "overloaded"
    assert (kept.aside, kept.spool.entries) == ([name], 0)
    order = await kept.aside_of((await kept.spool.append(Kind.SEAL, A, SEAL))[0], "undeliverable")
    await kept.quarantining.retry(order)  # an order is nothing that a seal could leave out
    assert [entry.kind for entry in kept.spool.sessions[A].waiting()] == [Kind.SEAL]


async def test_a_promise_that_comes_between_the_key_and_the_envelope(
    kept: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = await kept.aside_of(await kept.put(0, b"x"), key=kept.key)
    append = kept.spool.append

    async def promised(*what: Any, **more: Any) -> Any:
        found = await append(*what, **more)
        kept.promises.bind(A, "0" * 16)
        return found

    monkeypatch.setattr(kept.spool, "append", promised)
    assert await _code(kept.quarantining.retry(name)) == "overloaded"
    assert (kept.aside, list(kept.spool.sessions[A].chunks)) == ([name], [])


async def test_a_retry_into_a_full_spool(kept: House) -> None:
    name = await kept.aside_of(await kept.put(0, os.urandom(3 * MIB)), key=kept.key)
    for index in range(1, 3):
        await kept.put(index, os.urandom(3 * MIB))
    assert await _code(kept.quarantining.retry(name)) == "spool-full"
    assert (kept.aside, kept.spool.sessions[A].openings) == ([name], [])


async def test_a_retry_behind_another_envelope_of_its_chunk(kept: House) -> None:
    name = await kept.aside_of(await kept.put(0, b"x"))
    other = await kept.put(0, b"y")
    assert await _code(kept.quarantining.retry(name)) == "chunk-conflict"
    await kept.spool.in_thread(lambda: kept.spool._segments.erase([other.place]))
    assert await _code(kept.quarantining.retry(name)) == "chunk-conflict"
    assert (kept.aside, kept.spool.entries) == ([name], 1)


async def test_what_is_damaged_is_neither_sent_nor_opened(kept: House, parts: Parts) -> None:
    name = await kept.aside_of(await kept.put(0, b"x"))
    file = kept.folder / "quarantine" / f"{name}.entry"
    data = file.read_bytes()
    file.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    senseless = kept.spool.quarantine.keep("0" * 16 + "-" + "0" * 12, header(Kind.SEAL, b"[]") + b"[]").name
    for broken in (name, senseless):
        assert await _code(kept.quarantining.retry(broken)) == "envelope-corrupt"
    reader = QuarantineReader(parts.rings, parts.recording, parts.budget, MIB)
    assert await _code(reader.chunk(kept.quarantining, name)) == "envelope-corrupt"
    assert kept.aside == [senseless, name]
    file.unlink()
    assert await _code(kept.quarantining.retry(name)) == "not-found"
    await kept.quarantining.drop(name)
    assert kept.aside == [senseless]


async def test_a_chunk_is_opened_with_the_key_beside_it_or_with_one_of_storage(kept: House, parts: Parts) -> None:
    reader = QuarantineReader(parts.rings, parts.recording, parts.budget, MIB)
    beside = await kept.aside_of(await kept.put(0, b"beside"), key=kept.key)
    assert await reader.chunk(kept.quarantining, beside) == b"beside"
    await parts.storage.open(A, None, key_ring.key_from_json(kept.key))
    without = await kept.aside_of(await kept.put(1, b"without"))
    assert await reader.chunk(kept.quarantining, without) == b"without"
    order = await kept.aside_of((await kept.spool.append(Kind.SEAL, A, SEAL))[0])
    assert await _code(reader.chunk(kept.quarantining, order)) == "chunk-not-found"
    nonsense = kept.spool.quarantine.keep("0" * 16 + "-" + "0" * 12, header(Kind.ENVELOPE, b"x") + b"x").name
    assert await _code(reader.chunk(kept.quarantining, nonsense)) == "envelope-corrupt"
    assert await _code(reader.chunk(kept.quarantining, "0" * 16 + "-" + "9" * 12)) == "not-found"


async def test_pages_and_what_is_dropped(kept: House) -> None:
    for index in range(3):
        await kept.aside_of(await kept.put(index, b"x"))
    first, second, third = kept.aside
    assert [one.name for one in kept.quarantining.listed(limit=2)] == [first, second]
    assert [one.name for one in kept.quarantining.listed(second, 2)] == [third]
    await kept.quarantining.drop(second)
    assert kept.aside == [first, third]
    assert await _code(kept.quarantining.drop(second)) == "not-found"


async def test_entries_of_version_0_1_0_say_themselves_whose_they_are(kept: House) -> None:
    """They have no facts beside them; and what a crash left unfinished is deleted, which may hold a wrapped key."""
    chunk = await kept.aside_of(await kept.put(7, b"x"), key=kept.key)
    order = await kept.aside_of((await kept.spool.append(Kind.SEAL, A, SEAL))[0])
    folder = kept.folder / "quarantine"
    for name in (chunk, order):
        (folder / f"{name}.json").unlink()
    other = "0" * 16 + "-" + "0" * 12
    (folder / f"{other}.entry").write_bytes(bytes(HEADER_BYTES))
    torn = "9" * 16 + "-" + "0" * 12
    for left in (f"{torn}.json", f"{torn}.json.part", f"{torn}.entry.part", f"{chunk}.entry.part"):
        (folder / left).write_bytes(b"{}")
    quarantine = Quarantine(folder, MIB)
    quarantine.open()
    found = {one.name: (one.kind, one.session_id, one.index, one.reason) for one in quarantine.entries.values()}
    assert found == {
        chunk: ("envelope", A, 7, "unknown"),
        order: ("seal", A, None, "unknown"),
        other: ("", None, None, "unknown"),
    }
    assert {file.name for file in folder.iterdir()} == {f"{name}.entry" for name in found}
    assert quarantine.floor(A) == 8
    assert [one.name for one in quarantine.of_session(A)] == sorted([chunk, order])


async def test_a_start_reads_only_the_heads_of_large_entries(kept: House) -> None:
    name = await kept.aside_of(await kept.put(0, os.urandom(3 * MIB)))
    (kept.folder / "quarantine" / f"{name}.json").unlink()
    quarantine = Quarantine(kept.folder / "quarantine", 4 * MIB)
    tracemalloc.start()
    quarantine.open()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert (quarantine.entries[name].session_id, peak < MIB) == (A, True)


async def test_memory_for_each_entry(kept: House, monkeypatch: pytest.MonkeyPatch) -> None:
    """What MAX_ENTRIES is reckoned with: each took 3.1 kB, as the wrapped key was in memory."""
    monkeypatch.setattr(quarantine, "write_durably", lambda path, data: path.write_bytes(data))
    one = Quarantine(kept.folder / "many", 1024 * MIB)
    key = {**kept.key, "recovery": {"recipient": "0" * 16, "sealed": "A" * 1580}}
    for number in range(1000):
        one.keep(
            f"{1:016d}-{number:012d}",
            b"x",
            reason="conflict",
            kind="envelope",
            session_id=SessionId(f"{number:0128d}"),
            index=10**6 + number,
            by="d" * 64,
            detail="session-storage answered conflict",
            key=key,
        )
    measured = []
    for _ in range(3):  # what other threads take meanwhile is counted, too
        again = Quarantine(kept.folder / "many", 1024 * MIB)
        gc.collect()
        tracemalloc.start()
        again.open()
        gc.collect()
        measured.append(tracemalloc.get_traced_memory()[0])
        tracemalloc.stop()
        assert again.entries == one.entries
    assert min(measured) / 1000 < 1024, "with a session of its own, of the longest name"
    assert quarantine.MAX_ENTRIES * 1024 <= 128 * MIB
    assert quarantine.MAX_ENTRIES * 2 * quarantine.BLOCK_BYTES == 1024 * MIB, (
        "the default of SPOOL_QUARANTINE_MAX_BYTES"
    )


async def test_a_quarantine_that_is_gone_is_no_delivery(kept: House, monkeypatch: pytest.MonkeyPatch) -> None:
    entry = await kept.put(0, b"x")

    def gone(*_: object) -> None:
        raise FileNotFoundError(2, "No such file or directory")

    with monkeypatch.context() as patch:
        patch.setattr(quarantine, "write_durably", gone)
        await kept.quarantining.quarantine(entry, "conflict")
    assert (kept.aside, kept.spool.entries) == ([], 1)
    await kept.quarantining.quarantine(entry, "conflict")
    assert (kept.aside, kept.spool.entries) == ([entry.place.name], 0)


async def test_what_a_full_quarantine_does_not_take_stays_in_the_spool(kept: House) -> None:
    kept.spool.quarantine.max_bytes = 8192
    first, second = await kept.put(0, b"x"), await kept.put(1, b"x")
    for entry in (first, second):
        await kept.quarantining.quarantine(entry, "conflict")
    assert (kept.aside, list(kept.spool.sessions[A].chunks)) == ([first.place.name], [1])
    await kept.quarantining.drop(first.place.name)
    await kept.quarantining.quarantine(second, "conflict")
    assert (kept.aside, kept.spool.sessions) == ([second.place.name], {})


async def test_a_list_while_entries_come_and_go(kept: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(quarantine, "write_durably", lambda *_: None)
    monkeypatch.setattr(quarantine, "sync_folder", lambda _: None)
    one = kept.spool.quarantine
    one.max_bytes = 1024 * MIB
    names = [f"{1:016d}-{number:012d}" for number in range(2000)]
    for name in names:
        one.keep(name, b"x", reason="conflict")
    done = threading.Event()

    def come_and_go() -> None:
        for number in itertools.count(2000):
            if done.is_set():
                return
            one.keep(f"{1:016d}-{number:012d}", b"x", reason="conflict")
            one.drop(f"{1:016d}-{number:012d}")

    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    working = asyncio.create_task(asyncio.to_thread(come_and_go))
    try:
        for _ in range(500):
            assert [found.name for found in kept.quarantining.listed(limit=2000)] == names
            await asyncio.sleep(0)
    finally:
        sys.setswitchinterval(before)
        done.set()
        await working


async def test_a_shred_leaves_room_for_others_in_between(kept: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(quarantining, "DROPS_AT_ONCE", 4)
    for index in range(20):
        await kept.aside_of(await kept.put(index, b"x"))
    at_once: list[int] = []
    real = kept.spool.in_thread

    async def counted(work: Any) -> Any:
        before = len(kept.spool.quarantine.entries)
        found = await real(work)
        at_once.append(before - len(kept.spool.quarantine.entries))
        return found

    monkeypatch.setattr(kept.spool, "in_thread", counted)
    await kept.quarantining.shred(A)
    assert (sum(at_once), max(at_once)) == (20, 4)
    assert list((kept.folder / "quarantine").iterdir()) == []
