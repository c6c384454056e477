"""Recording while storage is away, and what becomes of it afterwards: storage is real over HTTP, on its twins."""

import asyncio
import os
import time
from collections.abc import AsyncIterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from sessions.core.key_ring import MAX_KEYS, key_from_json
from sessions.core.types import ChunkIndex, SessionId
from sessions.processor import crypt, kept_orders
from sessions.processor.acknowledged import Acknowledged
from sessions.processor.delivery import Delivery
from sessions.processor.drainer import Drainer
from sessions.processor.kept_orders import MAX_ORDERS
from sessions.processor.key_rings import KeyRings
from sessions.processor.keys import Dek, FileKeyWrapper
from sessions.processor.pipeline import Submitter
from sessions.processor.promises import Promises
from sessions.processor.recording import Recording
from sessions.processor.reporting import Identity, Reporter
from sessions.processor.seal_orders import SealOrders
from sessions.processor.session_desk import Queued, SessionDesk
from sessions.processor.spool import Spool
from sessions.processor.spool_format import HEADER_BYTES, Erased, scan
from sessions.processor.spool_room import SpoolRoom
from sessions.processor.spooling import Spooling
from sessions.processor.storage_client import StorageClient
from sessions.processor.storage_watch import StorageWatch
from sessions.runtime.errors import DomainError
from tests.unit.processor.conftest import Parts, parts_of
from tests.unit.processor.servers import MIB, Script
from tests.unit.processor.spools import segments_in

A = SessionId("a")
AWAY = DomainError("storage-unavailable", "away", retry_after_seconds=1)


@dataclass
class Desk:
    """A processor with a spool. `away` simulates an outage of storage; `back` and `drain` end it."""

    spool: Spool
    spooling: Spooling
    watch: StorageWatch
    rings: KeyRings
    recording: Recording
    drainer: Drainer
    desk: SessionDesk
    folder: Path
    reporter: Reporter

    def away(self) -> None:
        assert self.watch.lost(AWAY)

    def back(self) -> None:
        self.watch.gone.clear()
        self.watch.back.set()

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """End the outage, and run the drainer and the reporter."""
        self.back()
        task = asyncio.gather(self.drainer.run(), self.reporter.run())
        try:
            yield
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def drain(self, seconds: float = 30) -> None:
        async with self.running(), asyncio.timeout(seconds):
            while self.spool.entries or self.spool.arrived.is_set():  # the last segment goes after its entries
                await asyncio.sleep(0.005)

    async def seal(self, count: int | None, session: SessionId = A, *, keep: bool = True) -> dict[str, Any] | Queued:
        """Ask for a seal. The drainer and the reporter run meanwhile, except in an outage of storage."""
        if self.watch.away:
            return await self.desk.seal(session, count, keep=keep)
        async with self.running():
            return await self.desk.seal(session, count, keep=keep)

    async def put(self, index: int, content: bytes, session: SessionId = A, by: str | None = None):
        return await self.recording.record(session, ChunkIndex(index), content, by)

    def opened(self, key: Mapping[str, Any], index: int, payload: bytes, session: SessionId = A) -> bytes:
        """A quarantined envelope, by the key that is with it alone."""
        dek = self.rings._wrapper.unwrap(session, key_from_json(dict(key)))
        return crypt.open_envelope(dek, session, index, payload)

    @property
    def set_aside(self) -> int:
        return len(list((self.folder / "quarantine").glob("*.entry")))


def desk_of(folder: Path, storage: StorageClient, wrapper: FileKeyWrapper, executor: ThreadPoolExecutor) -> Desk:
    spool = Spool(segments_in(folder, MIB), SpoolRoom(8 * MIB, 0))
    spool.open()
    promises = Promises(folder / "promises.json")
    promises.load()
    watch = StorageWatch(storage.reachable, 1.0)
    spooling = Spooling(spool, watch, promises)
    rings = KeyRings(wrapper, storage, 100, spooling=spooling)
    submitter = Submitter(storage, watch)
    acknowledged = Acknowledged()
    recording = Recording(rings, submitter, storage, executor, 3, spooling=spooling, acknowledged=acknowledged)
    reporter = Reporter(Identity(folder, "host"), spooling, storage, acknowledged, (rings.set_back,))
    orders = SealOrders(storage, spooling, reporter)
    drainer = Drainer(spooling, Delivery(spooling, storage, submitter, recording, rings=rings, orders=orders))
    desk = SessionDesk(storage, spooling, drainer, orders)
    return Desk(spool, spooling, watch, rings, recording, drainer, desk, folder, reporter)


@pytest.fixture
async def desk(
    storage: StorageClient, wrapper: FileKeyWrapper, executor: ThreadPoolExecutor, tmp_path: Path
) -> AsyncIterator[Desk]:
    one = desk_of(tmp_path, storage, wrapper, executor)
    yield one
    await one.spool.close()


@pytest.fixture
def other(storage: StorageClient, wrapper: FileKeyWrapper, executor: ThreadPoolExecutor) -> Parts:
    """Another processor, which reaches storage all the time."""
    return parts_of(storage, wrapper, executor)


async def _error(work) -> DomainError:
    with pytest.raises(DomainError) as caught:
        await work
    return caught.value


async def test_with_storage_there_nothing_is_written(desk: Desk) -> None:
    assert (await desk.put(0, b"x")).durability == "stored"
    assert [file.name for file in desk.folder.iterdir() if file.suffix == ".seg"] == []


async def test_a_session_that_two_processors_open(desk: Desk, other: Parts) -> None:
    """Storage knows it already, under another key: both keys are in its ring afterwards."""
    await other.recording.record(A, ChunkIndex(0), b"theirs")
    desk.away()
    assert (await desk.put(1, b"ours")).durability == "spooled"
    await desk.drain()
    assert [await other.recording.read(A, index) for index in (0, 1)] == [b"theirs", b"ours"]
    assert (await desk.put(2, b"on")).durability == "stored"
    assert await other.recording.read(A, 2) == b"on"
    assert desk.set_aside == 0


async def test_the_same_content_again_is_no_conflict(desk: Desk, other: Parts) -> None:
    await other.recording.record(A, ChunkIndex(0), b"same")
    desk.away()
    assert (await desk.put(0, b"same")).created
    await desk.drain()
    assert (await other.recording.read(A, 0), desk.set_aside) == (b"same", 0)


@pytest.mark.parametrize("restart", [False, True])
async def test_a_conflict_takes_the_place_of_its_sender(
    desk: Desk,
    storage: StorageClient,
    wrapper: FileKeyWrapper,
    executor: ThreadPoolExecutor,
    *,
    restart: bool,
) -> None:
    """Not of the token that opened the session: a stranger used up the victim's share of the quarantine."""

    async def put(index: int, content: bytes, by: str, session: SessionId = A) -> str:
        return (await desk.recording.record(session, ChunkIndex(index), content, by)).durability

    for index in range(4):
        await put(index, b"x", "victim")
    desk.away()
    await put(4, b"x", "victim")
    for index in range(4):  # of 8 MiB one token may have 2
        assert await put(index, os.urandom(600_000), "evil") == "spooled"
    again = desk
    if restart:
        await desk.spool.close()
        again = desk_of(desk.folder, storage, wrapper, executor)
    await again.drain()
    assert {one.by for one in again.spool.quarantine.entries.values()} == {"evil"}
    quarantine = again.spool.quarantine
    assert (quarantine.is_full_for("evil"), quarantine.is_full_for("victim")) == (True, False)
    again.away()
    desk.recording = again.recording
    assert await put(0, b"x", "victim", SessionId("victim-2")) == "spooled"
    assert (await _error(put(0, b"x", "evil", SessionId("evil-2")))).code == "spool-full"
    await again.spool.close()


async def test_orders_of_one_token_for_sessions_that_are_nowhere_are_bounded(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kept_orders, "MAX_UNKNOWN_ORDERS", 5)

    async def order(name: str, by: str) -> bool:
        answers = await asyncio.gather(desk.desk.seal(SessionId(name), 1, by=by), return_exceptions=True)
        (code,) = [answer.code if isinstance(answer, DomainError) else "" for answer in answers]
        assert code in {"", "spool-full"}
        return not code

    stored, spooled = SessionId("stored"), SessionId("spooled")
    await desk.put(0, b"x", stored)
    desk.away()
    await desk.put(0, b"x", spooled)
    assert [await order(f"nobody-{number}", "evil") for number in range(7)] == [True] * 5 + [False] * 2
    assert await order(stored, "evil"), "it has recorded it"
    assert await order(spooled, "evil")
    assert await order("of-another-processor", "victim")
    await desk.drain()
    desk.away()
    assert await order("nobody-7", "evil"), "the earlier ones are gone"


async def test_a_token_that_orders_seals_leaves_room_for_others(desk: Desk) -> None:
    """Orders are entries of the token that gave them."""
    desk.spool.room._max_entries = 200
    desk.away()

    async def fill() -> None:
        for number in range(200):
            await desk.desk.seal(SessionId(f"nobody-{number}"), 1, by="evil")

    assert (await _error(fill())).code == "spool-full"
    victim = SessionId("victim")
    done = await desk.recording.record(victim, ChunkIndex(0), b"x", "victim")
    assert done.durability == "spooled"
    desk.recording.require_room(victim, 1, "victim")
    with pytest.raises(DomainError):
        desk.recording.require_room(victim, 1, "evil")
    assert isinstance(await desk.desk.seal(victim, 1, by="victim"), Queued)


async def test_other_content_is_set_aside(desk: Desk, other: Parts) -> None:
    await other.recording.record(A, ChunkIndex(0), b"theirs")
    desk.away()
    await desk.put(0, b"ours")
    await desk.drain()
    assert (await other.recording.read(A, 0), desk.set_aside) == (b"theirs", 1)


async def test_what_storage_has_is_read_before_other_content_that_is_to_be_set_aside(
    desk: Desk, other: Parts, monkeypatch: pytest.MonkeyPatch
) -> None:
    await other.recording.record(A, ChunkIndex(0), b"theirs")
    desk.away()
    for index in (0, 1):
        await desk.put(index, b"ours")
    assert await desk.recording.read(A, 0) == b"ours"  # nobody knows better
    desk.back()
    assert [await desk.recording.read(A, index) for index in (0, 1)] == [b"theirs", b"ours"]
    storage = desk.recording._storage
    for error, code in ((AWAY, None), (DomainError("session-shredded", "gone"), "session-shredded")):

        async def refuse(*_: object, error: DomainError = error) -> bytes:
            raise error

        monkeypatch.setattr(storage, "envelope", refuse)
        if code is None:
            assert await desk.recording.read(A, 1) == b"ours"
        else:
            assert (await _error(desk.recording.read(A, 1))).code == code


async def test_a_session_that_was_sealed_meanwhile(desk: Desk, other: Parts, storage: StorageClient) -> None:
    """Storage keeps the chunks that it has. The processor quarantines the others, each with its key."""
    await other.recording.record(A, ChunkIndex(0), b"same")
    desk.away()
    await desk.put(0, b"same")
    await desk.put(1, b"late")
    await storage.seal(A, 1)
    await desk.drain()
    (kept,) = desk.spool.quarantine.entries.values()
    assert (kept.session_id, kept.index, kept.kind, kept.reason) == (A, 1, "envelope", "left-out")
    _, payload = await desk.spooling.quarantining.payload(kept.name)
    key = await desk.spooling.quarantining.key_of(kept.name)
    assert key is not None
    assert desk.opened(key, 1, payload) == b"late"
    assert (await _error(desk.put(2, b"x"))).code == "session-sealed"


async def test_a_session_that_was_shredded_meanwhile(desk: Desk, other: Parts, storage: StorageClient) -> None:
    await other.recording.record(A, ChunkIndex(0), b"x")
    desk.away()
    await desk.put(1, b"late")
    await storage.seal(A, 1)
    await storage.shred(A, "admin")
    (segment,) = desk.folder.glob("*.seg")
    seen = segment.open("rb")
    await desk.drain()
    assert (desk.set_aside, desk.spool.entries, list(desk.folder.glob("*.seg"))) == (0, 0, [])
    with seen:
        left = list(scan(seen.read()))
        assert left
        for one in left:  # it was overwritten before it was deleted
            assert isinstance(one, Erased)
            seen.seek(one.offset + HEADER_BYTES)
            assert not any(seen.read(one.header.content_bytes))


async def test_what_was_delivered_before_a_crash_is_delivered_again(
    desk: Desk, storage: StorageClient, wrapper: FileKeyWrapper, executor: ThreadPoolExecutor, tmp_path: Path
) -> None:
    """The whole segment comes back, of a session that was sealed, and of one that was shredded too since."""
    desk.away()
    names = [SessionId("sealed"), SessionId("shredded")]
    for name in names:
        await desk.put(0, b"x", name)
        await desk.desk.seal(name, 1)
    (segment,) = desk.folder.glob("*.seg")
    copy = segment.read_bytes()
    await desk.drain()
    await storage.shred(names[1], "admin")
    await desk.spool.close()
    segment.write_bytes(copy)
    again = desk_of(tmp_path, storage, wrapper, executor)
    assert again.spool.entries == 6
    await again.drain()
    assert (again.set_aside, list(tmp_path.glob("*.seg"))) == (0, [])
    await again.spool.close()


async def test_a_key_ring_that_takes_no_more_keys(desk: Desk, other: Parts, storage: StorageClient) -> None:
    """R7: an envelope under a key that storage has not could never be read there: it is encrypted under another."""
    await other.recording.record(A, ChunkIndex(0), b"same")
    for _ in range(MAX_KEYS - 1):
        await storage.add_key(A, other.rings._wrapper.wrap(A, Dek.generate()))
    desk.away()
    await desk.put(0, b"same")
    await desk.put(1, b"late")
    await desk.drain()
    assert desk.set_aside == 0
    assert [chunk.index for chunk in (await storage.chunks(A, 0, 10))[0]] == [0, 1]
    assert len((await storage.session(A))[1]) == MAX_KEYS
    assert await other.recording.read(A, 1) == b"late"
    assert not (await desk.put(1, b"late")).created


async def test_metadata_that_storage_does_not_take(desk: Desk, other: Parts) -> None:
    await other.rings.open(A, {"host": "theirs"})
    desk.away()
    await desk.rings.open(A, {"host": "ours"})
    await desk.put(0, b"kept all the same")
    await desk.drain()
    assert await other.recording.read(A, 0) == b"kept all the same"
    assert desk.set_aside == 1


async def test_storage_goes_away_between_an_opening_that_it_refuses_and_its_key(
    desk: Desk, other: Parts, storage: StorageClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The envelopes wait until their key is there, without which nobody could read them."""
    await other.rings.open(A, {"host": "theirs"})
    desk.away()
    await desk.rings.open(A, {"host": "ours"})
    await desk.put(0, b"kept all the same")
    adds = 0
    add_key = storage.add_key

    async def add(*key) -> None:
        nonlocal adds
        adds += 1
        if adds == 1:
            raise AWAY
        await add_key(*key)

    monkeypatch.setattr(storage, "add_key", add)
    desk.back()
    await desk.drainer.round()
    assert (adds, desk.watch.away, desk.spool.sessions[A].failures) == (1, True, 0)
    desk.back()
    await desk.drainer.round()
    assert adds == 2
    assert await other.recording.read(A, 0) == b"kept all the same"
    assert desk.set_aside == 1


async def test_metadata_beyond_the_bound_is_refused_at_once(desk: Desk) -> None:
    desk.away()
    assert (await _error(desk.rings.open(A, {"x": "y" * 70_000}))).code == "invalid-request"


async def test_an_order_without_a_count_is_kept_beside_one_whose_count_is_wrong(
    desk: Desk, storage: StorageClient
) -> None:
    """Chaos found it: a seal was answered 202 by another one's order, which was refused later."""
    desk.away()
    await desk.put(0, b"x")
    assert await desk.seal(500) == Queued(A, 500, 1)
    assert await desk.seal(None) == Queued(A, None, 1)
    await desk.drain()
    assert (await storage.session(A))[0]["status"] == "sealed"


async def test_orders_of_another_token_take_nobodys_place(desk: Desk) -> None:
    desk.away()
    await desk.put(0, b"x")
    for count in range(500, 500 + MAX_ORDERS):
        await desk.spooling.orders.keep(A, count, "hostile")
    assert (await _error(desk.spooling.orders.keep(A, 600, "hostile"))).code == "chunk-count-mismatch"
    assert await desk.spooling.orders.keep(A, 1, "recorder") == 1


async def test_orders_of_another_token_keep_no_chunk_out(desk: Desk, storage: StorageClient) -> None:
    """With storage away, a recorder stalled for as long as another one's wrong order waited."""
    desk.away()
    await desk.put(0, b"x", by="recorder")
    for count in (1, 500, None):
        await desk.spooling.orders.keep(A, count, "hostile")
    for index in (1, 2):
        assert (await desk.put(index, b"x", by="recorder")).durability == "spooled"
    assert await desk.spooling.orders.keep(A, 3, "recorder") == 3
    await desk.drain()
    view = (await storage.session(A))[0]
    assert (view["status"], view["chunk_count"]) == ("sealed", 3)


async def test_a_chunk_after_the_order_of_its_token_is_taken_if_the_order_has_a_place_for_it(desk: Desk) -> None:
    desk.away()
    await desk.put(0, b"x")
    await desk.spooling.orders.keep(A, 2)
    error = await _error(desk.put(2, b"x"))
    assert (error.code, error.retry_after_seconds) == ("storage-unavailable", 5)
    assert "chunk 2" in error.detail
    assert (await desk.put(0, b"x")).created is False
    assert (await desk.put(1, b"x")).durability == "spooled"


@pytest.mark.parametrize("kind", ["seal", "opening"])
async def test_a_turn_in_which_nothing_is_delivered_is_followed_by_a_pause(
    desk: Desk, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    """Its turns followed each other without end, at all of a processor's time."""
    desk.away()
    await desk.put(0, b"x")
    if kind == "seal":
        await desk.seal(1)
    turns = 0

    async def deliver(*_: Any) -> None:
        nonlocal turns
        turns += 1

    monkeypatch.setattr(desk.drainer._delivery, "deliver", deliver)
    async with desk.running():
        await asyncio.sleep(0.3)
    assert turns == 1


async def test_a_seal_that_is_refused_leaves_the_session_open(desk: Desk, storage: StorageClient) -> None:
    desk.away()
    await desk.put(0, b"x")
    await desk.put(2, b"x")
    assert await desk.seal(3) == Queued(A, 3, 2)
    await desk.drain()
    assert (await storage.session(A))[0]["status"] == "open"
    assert (await _error(desk.seal(3))).code == "chunks-missing"
    await desk.reporter.report()
    assert A not in desk.spooling.promises, "of a verdict nothing is left at storage"
    await desk.put(1, b"x")
    assert not isinstance(await desk.seal(3), Queued)


async def test_a_seal_of_a_session_that_there_is_not(desk: Desk) -> None:
    desk.away()
    assert await desk.seal(None) == Queued(A, None, 0)
    await desk.drain()
    assert (await _error(desk.seal(None))).code == "session-not-found"


async def test_a_seal_drains_its_session_first(desk: Desk) -> None:
    desk.away()
    for number in range(20):
        await desk.put(0, b"x", SessionId(f"other-{number}"))
    await desk.put(0, b"x")
    desk.back()
    answer = await desk.seal(1)
    assert isinstance(answer, dict)
    assert answer["manifest"]["chunk_count"] == 1


async def test_a_seal_of_the_last_session_in_the_spool_does_not_wait_for_another(desk: Desk) -> None:
    """The drainer slept when the spool was empty, and told nobody: the seal waited for 20 s."""
    desk.away()
    await desk.put(0, b"x")
    desk.back()
    async with asyncio.timeout(5):
        assert not isinstance(await desk.seal(1), Queued)


async def test_while_its_opening_waits_no_chunk_overtakes_it(desk: Desk) -> None:
    desk.away()
    await desk.put(0, b"x")
    desk.back()
    assert (await desk.put(1, b"y")).durability == "spooled", "storage has not the key yet"
    assert (await desk.put(0, b"z", SessionId("b"))).durability == "stored"
    await desk.drain()
    assert (await desk.put(2, b"z")).durability == "stored"


async def test_keys_that_left_the_cache_are_unwrapped_again(desk: Desk) -> None:
    desk.away()
    await desk.put(0, b"x")
    desk.rings.forget(A)
    await desk.put(1, b"y")
    assert desk.spool.sessions[A].openings[1:] == []
    desk.rings.forget(A)
    assert await desk.recording.read(A, 0) == b"x"
    await desk.drain()
    assert await desk.recording.read(A, 1) == b"y"


async def test_a_damaged_entry_costs_itself(desk: Desk, storage: StorageClient) -> None:
    desk.away()
    for index in range(3):
        await desk.put(index, bytes([index]) * 100)
    entry = desk.spool.sessions[A].chunks[1]
    path = desk.folder / f"{entry.place.segment:016d}.seg"
    data = bytearray(path.read_bytes())
    data[entry.place.offset + entry.place.entry_bytes - 1] ^= 1
    path.write_bytes(data)
    await desk.drain()
    assert desk.set_aside == 1
    assert [chunk.index for chunk in (await storage.chunks(A, 0, 10))[0]] == [0, 2]


async def test_a_damaged_entry_that_cannot_be_set_aside_does_not_hold_up_others(
    desk: Desk, storage: StorageClient
) -> None:
    desk.away()
    for index in range(3):
        await desk.put(index, bytes([index]) * 100)
    entry = desk.spool.sessions[A].chunks[1]
    path = desk.folder / f"{entry.place.segment:016d}.seg"
    data = bytearray(path.read_bytes())
    data[entry.place.offset + entry.place.entry_bytes - 1] ^= 1
    path.write_bytes(data)
    quarantine = desk.folder / "quarantine"
    quarantine.rmdir()
    quarantine.write_text("in its place")
    desk.back()
    await desk.drainer.round()
    assert [chunk.index for chunk in (await storage.chunks(A, 0, 10))[0]] == [0, 2]
    assert list(desk.spool.sessions[A].chunks) == [1]
    assert desk.spool.sessions[A].retry_at > time.monotonic(), "it is tried again after a pause"
    quarantine.unlink()
    await desk.drain()
    assert desk.set_aside == 1


async def test_a_damaged_entry_is_recorded_again_when_it_is_repeated(desk: Desk) -> None:
    desk.away()
    await desk.put(0, b"content")
    entry = desk.spool.sessions[A].chunks[0]
    path = desk.folder / f"{entry.place.segment:016d}.seg"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    assert (await desk.put(0, b"content")).created
    await desk.drain()
    assert await desk.recording.read(A, 0) == b"content"
    assert desk.set_aside == 1


async def test_the_same_chunk_twice_at_once(desk: Desk) -> None:
    desk.away()
    answers = await asyncio.gather(*(desk.put(0, b"same") for _ in range(4)))
    assert sorted(answer.created for answer in answers) == [False, False, False, True]
    assert len({answer.envelope_sha256 for answer in answers}) == 1


async def test_a_restart_in_an_outage(
    desk: Desk, storage: StorageClient, wrapper: FileKeyWrapper, executor: ThreadPoolExecutor
) -> None:
    desk.away()
    await desk.put(0, b"before")
    await desk.spool.close()
    again = desk_of(desk.folder, storage, wrapper, executor)
    again.away()
    assert not (await again.put(0, b"before")).created
    assert (await _error(again.put(0, b"other"))).code == "chunk-conflict"
    await again.put(1, b"after")
    view = await again.desk.view(A)
    assert (view["next_index"], view["missing"], view["chunk_count"]) == (2, [], 2)
    await again.drain()
    assert [await again.recording.read(A, index) for index in (0, 1)] == [b"before", b"after"]
    await again.spool.close()


async def test_a_storage_that_hangs_costs_the_first_chunk_its_patience(
    script: Script, scripted: StorageClient, wrapper: FileKeyWrapper, executor: ThreadPoolExecutor, tmp_path: Path
) -> None:
    async def hang(_request):
        await asyncio.sleep(3)
        raise AssertionError

    script.answers.append(hang)
    one = desk_of(tmp_path, scripted, wrapper, executor)
    loop = asyncio.get_running_loop()
    began = loop.time()
    assert (await one.put(0, b"x")).durability == "spooled"
    first, began = loop.time() - began, loop.time()
    assert (await one.put(1, b"y")).durability == "spooled"
    assert 1 <= first < 4
    assert loop.time() - began < 0.15
    await one.spool.close()


async def test_the_watch_finds_out_that_storage_is_back(desk: Desk) -> None:
    desk.away()
    task = asyncio.create_task(desk.watch.run())
    async with asyncio.timeout(5):
        await desk.watch.back.wait()
    assert not desk.watch.away
    assert not desk.watch.lost(DomainError("session-sealed", "no outage"))
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def test_a_storage_that_is_full_still_seals(desk: Desk) -> None:
    await desk.put(0, b"x")
    assert desk.watch.lost(DomainError("storage-full", "full", retry_after_seconds=30))
    assert (await desk.put(0, b"x", SessionId("b"))).durability == "spooled"
    assert (await desk.desk.view(A))["next_index"] == 1
    reporting = asyncio.create_task(desk.reporter.report())
    assert not isinstance(await desk.desk.seal(A, 1), Queued)
    await reporting
    assert await desk.desk.seal(SessionId("b"), 1) == Queued(SessionId("b"), 1, 1)


async def test_a_probe_that_breaks_does_not_end_the_watch() -> None:
    answers: list[Exception | None] = [RuntimeError("what"), None]

    async def reachable() -> str | None:
        answer = answers.pop(0)
        if answer is not None:
            raise answer
        return None

    watch = StorageWatch(reachable)
    task = asyncio.create_task(watch.run())
    watch.lost(AWAY)
    async with asyncio.timeout(5):
        await watch.back.wait()
    assert (answers, watch.reason) == ([], "STORAGE_URL cannot be asked (RuntimeError)")
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def test_whatever_breaks_while_it_drains_nothing_is_lost(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    desk.away()
    await desk.put(0, b"x")
    broken = 0

    def breaks(_opening: object) -> None:
        nonlocal broken
        broken += 1
        monkeypatch.undo()
        raise RuntimeError("not foreseen")

    monkeypatch.setattr("sessions.processor.opening_delivery.read_opening", breaks)
    await desk.drain()
    assert broken == 1
    assert await desk.recording.read(A, 0) == b"x"


async def test_a_key_that_is_delivered_while_its_chunk_is_written_stays_in_the_spool(desk: Desk) -> None:
    """Storage may lose it again, and the chunk may turn out to be a conflict: found by the model of replicas."""
    desk.away()
    await desk.rings.open(A, None)
    (opening,) = desk.spool.sessions[A].openings
    chunk = asyncio.create_task(desk.put(0, b"x"))
    while not desk.spool._arriving:
        await asyncio.sleep(0)
    await desk.spool.delivered([opening])
    assert (await chunk).durability == "spooled"
    assert desk.spool.sessions[A].openings == [opening]
    await desk.drain()
    assert (desk.spool.entries, await desk.recording.read(A, 0)) == (0, b"x")


async def test_a_key_that_was_delivered_before_its_chunk_came_is_kept_again(desk: Desk) -> None:
    desk.away()
    ring, _ = await desk.rings.open(A, None)
    keys = desk.spooling.keys

    async def delivered_meanwhile(name: SessionId) -> Any:
        desk.spooling.keys = keys
        found = await keys(name)
        await desk.spool.delivered(list(desk.spool.sessions[A].openings))
        return found

    desk.spooling.keys = delivered_meanwhile
    await desk.put(0, b"x")
    assert [key.dek_id for key in await keys(A)] == [ring.wrapped.dek_id]


async def test_what_is_left_of_a_session_goes_when_a_chunk_of_it_cannot_be_written(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    desk.away()
    await desk.rings.open(A, None)
    (opening,) = desk.spool.sessions[A].openings

    def full(_: object) -> None:
        raise OSError(28, "no space")

    monkeypatch.setattr(desk.spool._segments, "append", full)
    chunk = asyncio.create_task(desk.put(0, b"x"))
    while not desk.spool._arriving:
        await asyncio.sleep(0)
    await desk.spool.delivered([opening])
    assert (await _error(chunk)).code == "spool-full"
    assert (desk.spool.entries, desk.spool.sessions) == (0, {})
