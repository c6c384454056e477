"""The cache of keys, on session-storage over HTTP."""

import asyncio
import base64
import os

import pytest

from sessions.core.types import DekId, SessionId
from sessions.processor import key_rings
from sessions.processor.key_rings import KeyRings
from sessions.processor.keys import Dek, FileKeyWrapper
from sessions.processor.rotation import Rotation
from sessions.processor.storage_client import StorageClient
from sessions.runtime.errors import DomainError
from tests.unit.processor.servers import Script
from tests.unit.storage.chunks import House

A = SessionId("a")


class _Counting:
    """Passes calls on, and notes them."""

    def __init__(self, storage: StorageClient) -> None:
        self._storage = storage
        self.calls: list[tuple[str, str]] = []

    def __getattr__(self, name: str):
        method = getattr(self._storage, name)

        async def call(session: str, *arguments):
            self.calls.append((name, session))
            return await method(session, *arguments)

        return call


@pytest.fixture
def counting(storage: StorageClient) -> _Counting:
    return _Counting(storage)


async def _code(work) -> str:
    with pytest.raises(DomainError) as caught:
        await work
    return caught.value.code


async def test_many_who_ask_at_once_ask_storage_once(counting: _Counting, wrapper: FileKeyWrapper) -> None:
    rings = KeyRings(wrapper, counting, 10)
    found = await asyncio.gather(*(rings.for_sealing(A) for _ in range(20)))
    assert counting.calls == [("open", A)]
    assert len({ring.active.dek_id for ring in found}) == 1
    assert await rings.for_opening(A) is found[0]
    fresh = KeyRings(wrapper, counting, 10)
    rings_again = await asyncio.gather(*(fresh.for_opening(A) for _ in range(20)))
    assert counting.calls == [("open", A), ("session", A)]
    assert rings_again[0].active == found[0].active


async def test_two_processors_of_one_session_use_one_key(counting: _Counting, wrapper: FileKeyWrapper) -> None:
    one, two = KeyRings(wrapper, counting, 10), KeyRings(wrapper, counting, 10)
    (first, created), (second, created_too) = await asyncio.gather(one.open(A, {"x": 1}), two.open(A, {"x": 1}))
    assert first.active == second.active
    assert sorted((created, created_too)) == [False, True]


async def test_who_seals_a_new_session_does_not_get_the_404_of_who_reads_it(counting, wrapper) -> None:
    rings = KeyRings(wrapper, counting, 10)
    read, sealed = await asyncio.gather(rings.for_opening(A), rings.for_sealing(A), return_exceptions=True)
    assert sealed.active
    assert isinstance(read, DomainError) is (read is not sealed and not hasattr(read, "keys"))


async def test_a_failure_is_not_kept(script: Script, scripted: StorageClient, wrapper: FileKeyWrapper) -> None:
    rings = KeyRings(wrapper, scripted, 10)
    script.problem(503, "database-unavailable")
    results = await asyncio.gather(*(rings.for_sealing(A) for _ in range(3)), return_exceptions=True)
    assert [result.code for result in results] == ["database-unavailable"] * 3
    assert len(script.requests) == 1
    script.answers.clear()
    key = wrapper.wrap(A, Dek.generate())
    encoded = {
        name: base64.b64encode(value).decode() for name, value in (("dek_id", key.dek_id), ("wrapped", key.wrapped))
    }
    script.json({"keys": [{**encoded, "kek_id": key.kek_id}]})
    assert (await rings.for_sealing(A)).active.dek_id == key.dek_id


async def test_one_who_gives_up_waiting_does_not_stop_the_others(counting: _Counting, wrapper: FileKeyWrapper) -> None:
    rings = KeyRings(wrapper, counting, 10)
    first, second = (asyncio.create_task(rings.for_sealing(A)) for _ in range(2))
    await asyncio.sleep(0)
    first.cancel()
    assert (await second).active
    assert first.cancelled()
    assert len(counting.calls) == 1


async def test_the_cache_is_bounded_and_keeps_what_was_used_last(counting, wrapper: FileKeyWrapper) -> None:
    rings = KeyRings(wrapper, counting, 2)
    for name in ("a", "b", "a", "c"):
        await rings.for_sealing(SessionId(name))
    counting.calls.clear()
    for name in ("a", "c", "b"):
        await rings.for_sealing(SessionId(name))
    assert counting.calls == [("open", "b")]


async def test_a_ring_that_has_grown_is_fetched_again(counting, house: House, wrapper: FileKeyWrapper) -> None:
    rings = KeyRings(wrapper, counting, 10)
    ring = await rings.for_sealing(A)
    later = Dek.generate()
    wrapped = wrapper.wrap(A, later)
    await house.ledger.add_key(A, wrapped)
    assert await rings.key(A, ring.active.dek_id) == ring.active
    assert await rings.key(A, later.dek_id) == later
    assert counting.calls == [("open", A), ("session", A)]
    assert (await rings.for_sealing(A)).active == ring.active  # the first still seals


async def test_a_key_that_is_in_no_ring(counting: _Counting, wrapper: FileKeyWrapper) -> None:
    rings = KeyRings(wrapper, counting, 10)
    await rings.for_sealing(A)
    assert await _code(rings.key(A, DekId(os.urandom(16)))) == "key-unavailable"
    assert counting.calls == [("open", A), ("session", A)]


async def test_a_shredded_session_has_no_keys(counting, house: House, wrapper: FileKeyWrapper) -> None:
    rings = KeyRings(wrapper, counting, 10)
    ring = await rings.for_sealing(A)
    await house.ledger.seal(A, None, "recorder")
    await house.shred(A)
    rings.forget(A)
    rings.forget(A)
    assert await _code(rings.for_opening(A)) == "session-shredded"
    assert await _code(rings.key(A, ring.active.dek_id)) == "session-shredded"
    assert await _code(rings.for_sealing(A)) == "session-shredded"


async def test_another_kek_file(counting: _Counting, wrapper: FileKeyWrapper) -> None:
    await KeyRings(wrapper, counting, 10).for_sealing(A)
    other = KeyRings(FileKeyWrapper({"other": os.urandom(32)}), counting, 10)
    assert await _code(other.for_opening(A)) == "key-unavailable"
    assert await _code(other.for_sealing(A)) == "key-unavailable"


class _Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


async def test_keys_are_forgotten_when_they_are_old(counting: _Counting, wrapper: FileKeyWrapper) -> None:
    clock = _Clock()
    rings = KeyRings(wrapper, counting, 10, 60, clock)
    first = await rings.for_sealing(A)
    clock.now += 59
    assert await rings.for_sealing(A) is first
    clock.now += 1  # the age counts from the fetch, not from the last use
    assert (await rings.for_opening(A)).active == first.active
    assert counting.calls == [("open", A), ("session", A)]


async def test_old_keys_go_without_anybody_asking(counting: _Counting, wrapper: FileKeyWrapper, monkeypatch) -> None:
    clock = _Clock()
    rings = KeyRings(wrapper, counting, 10, 60, clock)
    await rings.for_sealing(A)
    clock.now += 30
    await rings.for_sealing(SessionId("b"))
    monkeypatch.setattr(key_rings, "_SWEEP_SECONDS", 0.005)
    sweeping = asyncio.create_task(rings.keep_short())
    clock.now += 30
    async with asyncio.timeout(10):
        while A in rings._rings:
            await asyncio.sleep(0.005)
    assert list(rings._rings) == ["b"]
    sweeping.cancel()


async def test_a_fetch_under_way_brings_no_shredded_key_back(counting: _Counting, house: House, wrapper) -> None:
    """Storage had answered already when the session was shredded."""
    rings = KeyRings(wrapper, counting, 10)
    await rings.for_sealing(A)
    rings.forget(A)
    answered, go_on = asyncio.Event(), asyncio.Event()
    fetch = counting._storage.session

    async def slow(session: SessionId):
        found = await fetch(session)
        answered.set()
        await go_on.wait()
        return found

    counting._storage.session = slow
    reading = asyncio.create_task(rings.for_opening(A))
    await answered.wait()
    await house.ledger.seal(A, None, "recorder")
    await house.shred(A)
    rings.forget(A)
    go_on.set()
    assert (await reading).active
    assert A not in rings._rings
    counting._storage.session = fetch
    assert await _code(rings.for_opening(A)) == "session-shredded"


async def test_a_rotated_ring_works_from_the_cache_and_anew(counting: _Counting, house: House) -> None:
    old, new = os.urandom(32), os.urandom(32)
    cached = KeyRings(FileKeyWrapper({"old": old}), counting, 10)
    ring = await cached.for_sealing(A)
    wrapper = FileKeyWrapper({"new": new, "old": old})
    assert (await Rotation(wrapper, wrapper.kek_ids, None, counting._storage).step(None, 10)).rewrapped == 1
    counting.calls.clear()
    assert await cached.for_sealing(A) is ring
    assert await cached.key(A, ring.active.dek_id) == ring.active
    assert counting.calls == []
    assert await KeyRings(FileKeyWrapper({"new": new}), counting, 10).key(A, ring.active.dek_id) == ring.active
