"""Rotation on session-storage over HTTP: what is outdated is wrapped anew, and nothing else; races lose nothing."""

import asyncio
import os
from dataclasses import replace

import pytest

from sessions.core.audit import is_reserved
from sessions.core.key_ring import SealedDek, WrappedDek
from sessions.core.types import SessionId
from sessions.processor import recovery
from sessions.processor.key_rings import KeyRings
from sessions.processor.keys import Dek, FileKeyWrapper
from sessions.processor.recovery import Recipient, RecoverableWrapper, RecoveryKey
from sessions.processor.rotation import Rotation, Step
from sessions.processor.storage_client import StorageClient
from sessions.runtime.errors import DomainError
from sessions.storage.store import SessionRecord
from tests.altering import altered_end
from tests.unit.processor.servers import Script
from tests.unit.storage.chunks import House

A = SessionId("a")
OLD, NEW = os.urandom(32), os.urandom(32)
PRIVATE, PUBLIC = recovery.generate()
OTHER_PRIVATE, OTHER_PUBLIC = recovery.generate()
before = FileKeyWrapper({"old": OLD})
during = FileKeyWrapper({"new": NEW, "old": OLD})
after = FileKeyWrapper({"new": NEW})


def _rotation(storage: StorageClient, keks: FileKeyWrapper = during, public: str | None = None) -> Rotation:
    if public is None:
        return Rotation(keks, keks.kek_ids, None, storage)
    recipient = Recipient(public)
    return Rotation(RecoverableWrapper(keks, recipient), keks.kek_ids, recipient.recipient_id, storage)


async def _open(storage: StorageClient, wrapper: FileKeyWrapper, *names: str) -> dict[str, Dek]:
    rings = KeyRings(wrapper, storage, 1000)
    return {name: (await rings.open(SessionId(name), None))[0].active for name in names}


async def _whole(rotation: Rotation, limit: int = 100) -> list[Step]:
    steps = [await rotation.step(None, limit)]
    while steps[-1].next_cursor is not None:
        steps.append(await rotation.step(steps[-1].next_cursor, limit))
    return steps


async def _read(storage: StorageClient, wrapper: FileKeyWrapper, names) -> dict[str, Dek]:
    rings = KeyRings(wrapper, storage, 1000)
    return {name: (await rings.for_opening(SessionId(name))).active for name in names}


@pytest.mark.parametrize("limit", [1, 2, 5, 100])
async def test_all_rings_come_under_the_active_kek(storage: StorageClient, house: House, limit: int) -> None:
    names = [f"s{number}" for number in range(7)]
    deks = await _open(storage, before, *names)
    deks |= await _open(storage, during, "fresh")
    fresh = house.sessions.records[SessionId("fresh")].keys
    rotation = _rotation(storage)
    steps = await _whole(rotation, limit)
    assert sum(step.rewrapped for step in steps) == sum(step.rings for step in steps) == 7
    assert max(step.rings for step in steps) <= limit
    assert [(step.overtaken, list(step.failed)) for step in steps] == [(0, [])] * len(steps)
    assert house.sessions.records[SessionId("fresh")].keys == fresh
    for wrapper in (during, after):
        assert await _read(storage, wrapper, deks) == deks
    assert [step.rings for step in await _whole(rotation, limit)] == [0]


async def test_a_step_without_a_cursor_goes_on_with_what_is_left(storage: StorageClient) -> None:
    deks = await _open(storage, before, "a", "b", "c")
    for left in (2, 1, 0):
        assert (await _rotation(storage).step(None, 1)).rewrapped == 1
        (old,) = [entry for entry in (await _rotation(storage).status())["keks"] if entry["kek_id"] == "old"]
        assert old["rings"] == left
    assert await _read(storage, after, deks) == deks


async def test_processors_that_rotate_at_once_lose_nothing(storage: StorageClient) -> None:
    names = [f"s{number}" for number in range(30)]
    deks = await _open(storage, before, *names)
    walks = await asyncio.gather(*(_whole(_rotation(storage), 7) for _ in range(4)))
    assert sum(step.rewrapped for walk in walks for step in walk) == 30
    assert await _read(storage, after, deks) == deks


async def test_rotating_back_and_forth_loses_nothing(storage: StorageClient) -> None:
    """Two processors that do not agree on the active KEK, as during a restart of one after the other."""
    names = [f"s{number}" for number in range(10)]
    deks = await _open(storage, before, *names)
    back = FileKeyWrapper({"old": OLD, "new": NEW})
    await asyncio.gather(*(_whole(_rotation(storage, keks), 3) for keks in (during, back, during, back)))
    assert await _read(storage, during, deks) == deks


async def test_a_session_shredded_within_a_step_stays_shredded(storage: StorageClient, house: House) -> None:
    await _open(storage, before, "a", "b")
    await house.ledger.seal(A, None, "recorder")

    class _Between(StorageClient):
        async def replace_keys(self, replacements) -> int:
            await house.shred(A)
            return await storage.replace_keys(replacements)

        async def outdated_rings(self, *arguments):
            return await storage.outdated_rings(*arguments)

    async with _Between("http://127.0.0.1:1", "t", 1) as between:
        step = await _rotation(between).step(None, 10)
    assert (step.rings, step.rewrapped, step.overtaken) == (2, 1, 1)
    assert house.sessions.records[A].keys == ()


async def test_what_does_not_unwrap_is_told_and_passed_over(storage: StorageClient, house: House) -> None:
    deks = await _open(storage, before, "a", "b", "c")
    record = house.sessions.records[A]
    house.sessions.records[A] = replace(record, keys=(replace(record.keys[0], wrapped=b"corrupt"),))
    await _open(storage, FileKeyWrapper({"unknown": os.urandom(32)}), "d")
    for limit in (1, 10):
        steps = await _whole(_rotation(storage), limit)
        failed = [failure for step in steps for failure in step.failed]
        assert [(one["session_id"], one["kek_id"]) for one in failed] == [("a", "old"), ("d", "unknown")]
        assert "corrupt key ring" in failed[0]["detail"]
        assert "'unknown', which is not in KEK_FILE" in failed[1]["detail"]
    assert await _read(storage, after, ("b", "c")) == {name: deks[name] for name in ("b", "c")}
    status = await _rotation(storage).status()
    assert [tuple(entry.values()) for entry in status["keks"]] == [
        ("new", True, 2),
        ("old", True, 1),
        ("unknown", False, 1),
    ]


async def test_every_key_of_a_ring_that_has_grown(storage: StorageClient, house: House) -> None:
    await _open(storage, before, "a")
    later = before.wrap(A, Dek.generate())
    newest = during.wrap(A, Dek.generate())
    await house.ledger.add_key(A, later)
    await house.ledger.add_key(A, newest)
    step = await _rotation(storage).step(None, 10)
    assert (step.rings, step.rewrapped) == (1, 2)
    first, second, third = house.sessions.records[A].keys
    assert [key.kek_id for key in (first, second, third)] == ["new"] * 3
    assert (second.dek_id, third) == (later.dek_id, newest)


async def test_more_keys_than_one_request_replaces(storage: StorageClient, house: House) -> None:
    for name in ("a", "b", "c"):
        await _open(storage, before, name)
        for _ in range(63):
            await house.ledger.add_key(SessionId(name), before.wrap(SessionId(name), Dek.generate()))
    assert (await _rotation(storage, public=PUBLIC).step(None, 10)).rewrapped == 192
    assert {key.kek_id for record in house.sessions.records.values() for key in record.keys} == {"new"}


def _recordings(house: House) -> list[tuple[SessionId, SessionRecord]]:
    return [(name, record) for name, record in house.sessions.records.items() if not is_reserved(name)]


async def test_keys_that_are_not_sealed_to_the_recipient_become_so(storage: StorageClient, house: House) -> None:
    deks = await _open(storage, during, "a", "b")
    deks |= await _open(storage, before, "c")
    rotation = _rotation(storage, public=PUBLIC)
    status = await rotation.status()
    assert (status["recipient"], status["unsealed"]) == (Recipient(PUBLIC).recipient_id, ["a", "b", "c"])
    assert sum(step.rewrapped for step in await _whole(rotation, 1)) == 3
    assert (await rotation.status())["unsealed"] == []
    private = RecoveryKey(PRIVATE)
    for name, record in _recordings(house):
        assert private.open(name, record.keys[0]) == deks[name]

    moved = _rotation(storage, public=OTHER_PUBLIC)
    assert sum(step.rewrapped for step in await _whole(moved, 2)) == 3
    assert (await moved.status())["recipients"] == [{"recipient": Recipient(OTHER_PUBLIC).recipient_id, "rings": 3}]
    other = RecoveryKey(OTHER_PRIVATE)
    for name, record in _recordings(house):
        assert other.open(name, record.keys[0]) == deks[name]

    # A processor that has no recipient leaves what is there.
    assert [step.rings for step in await _whole(_rotation(storage))] == [0]
    back = FileKeyWrapper({"old": OLD, "new": NEW})
    await _whole(_rotation(storage, back))
    for name, record in _recordings(house):
        assert other.open(name, record.keys[0]) == deks[name]


async def test_storage_that_is_away(script: Script, scripted: StorageClient) -> None:
    script.problem(503, "database-unavailable", retry_after=1)
    for work in (_rotation(scripted).step(None, 1), _rotation(scripted).status()):
        with pytest.raises(DomainError) as caught:
            await work
        assert caught.value.code == "database-unavailable"


def test_the_private_half_opens_what_the_public_half_sealed() -> None:
    wrapper, private = RecoverableWrapper(before, Recipient(PUBLIC)), RecoveryKey(PRIVATE)
    dek = Dek.generate()
    wrapped = wrapper.wrap(A, dek)
    assert wrapper.unwrap(A, wrapped) == before.unwrap(A, wrapped) == private.open(A, wrapped) == dek
    assert wrapped.recovery is not None
    assert wrapped.recovery.recipient == private.recipient_id == Recipient(PUBLIC).recipient_id
    assert len(wrapped.recovery.sealed) == 1169
    assert dek.key not in wrapped.recovery.sealed

    def refused(key: RecoveryKey, session: SessionId, one: WrappedDek) -> DomainError:
        with pytest.raises(DomainError) as caught:
            key.open(session, one)
        assert caught.value.code == "key-unavailable"
        return caught.value

    assert refused(private, SessionId("b"), wrapped).members["reason"] == "ring-corrupt"
    assert refused(private, A, replace(wrapped, dek_id=os.urandom(16))).members["reason"] == "ring-corrupt"
    assert refused(private, A, replace(wrapped, recovery=None)).members["reason"] == "not-sealed"
    other = RecoveryKey(OTHER_PRIVATE)
    differs = refused(other, A, wrapped)
    assert differs.members["reason"] == "recipient-differs"
    assert private.recipient_id in differs.detail
    assert other.recipient_id in differs.detail
    sealed = wrapped.recovery.sealed
    for changed in (b"", sealed[:-1], b"\2" + sealed[1:], altered_end(sealed), bytes(1169)):
        one = replace(wrapped, recovery=SealedDek(private.recipient_id, changed))
        assert refused(private, A, one).members["reason"] == "ring-corrupt"
    for secret in (repr(private), repr(Recipient(PUBLIC)), repr(wrapped)):
        assert PRIVATE.partition(":")[2][:40] not in secret
        assert "sealed=" not in secret
