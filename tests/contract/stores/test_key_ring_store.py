"""KeyRingStore: one suite for the twin and for MongoDB in both topologies."""

import asyncio
from dataclasses import dataclass, replace

import pytest
from bson import Binary

from sessions.core.key_ring import KeyRing, SealedDek, WrappedDek
from sessions.core.types import SessionId
from sessions.storage import mongo_key_rings
from sessions.storage.key_rings import Group, KeyRingStore, Kind, Replacement, Rings, Target
from sessions.storage.memory import MemorySessions
from sessions.storage.memory_key_rings import MemoryKeyRings
from sessions.storage.mongo import Database
from sessions.storage.mongo_key_rings import MongoKeyRings
from sessions.storage.mongo_sessions import MongoSessions
from sessions.storage.store import Change, SessionStatus, SessionStore
from tests.unit.storage.chunks import EPOCH, TOMBSTONE, session_record

OPEN, SEALING, SEALED, SHREDDED = SessionStatus
R1, R2 = "1" * 16, "2" * 16


@dataclass
class Kept:
    sessions: SessionStore
    rings: KeyRingStore

    async def session(self, name: str, *keys: WrappedDek) -> KeyRing:
        ring = KeyRing(SessionId(name), keys)
        await self.sessions.create(replace(session_record(name), keys=keys))
        return ring

    async def keys(self, name: str) -> tuple[WrappedDek, ...]:
        record = await self.sessions.get(SessionId(name))
        assert record is not None
        return record.keys


@pytest.fixture
async def kept(store_db: Database | None) -> Kept:
    if store_db is None:
        sessions = MemorySessions()
        return Kept(sessions, MemoryKeyRings(sessions))
    await mongo_key_rings.ensure_indexes(store_db)
    return Kept(MongoSessions(store_db), MongoKeyRings(store_db))


def key(kek: str, recipient: str | None = None, number: int = 1) -> WrappedDek:
    sealed = None if recipient is None else SealedDek(recipient, f"sealed to {recipient}".encode())
    return WrappedDek(number.to_bytes(16, "big"), kek, f"under {kek}".encode(), sealed)


def anew(ring: KeyRing, kek: str, recipient: str | None = None, place: int = 0) -> Replacement:
    old = ring.keys[place]
    return Replacement(ring.session_id, old.wrapped, replace(key(kek, recipient), dek_id=old.dek_id))


async def _shred(kept: Kept, name: str) -> None:
    session = SessionId(name)
    await kept.sessions.update(session, OPEN, Change(status=SHREDDED, tombstone=TOMBSTONE))


async def test_no_ring(kept: Kept) -> None:
    assert await kept.rings.groups(Kind.KEK) == []
    for group in (Group(Kind.KEK, "k"), Group(Kind.RECIPIENT, None), Group(Kind.RECIPIENT, R1)):
        assert await kept.rings.count(group) == 0
        assert await kept.rings.page(group, None, 5) == []
    assert await kept.rings.replace([]) == 0
    assert await kept.rings.replace([Replacement(SessionId("none"), b"x", key("k"))]) == 0


async def test_rings_are_in_the_groups_of_their_keys(kept: Kept) -> None:
    a = await kept.session("a", key("one", R1))
    b = await kept.session("b", key("one"), key("two", R1, 2))
    c = await kept.session("c", key("two"))
    await kept.session("gone", key("three", R2))
    await _shred(kept, "gone")
    groups = await kept.rings.groups(Kind.KEK)
    assert sorted(str(group.value) for group in groups) == ["one", "two"]
    assert Group(Kind.RECIPIENT, R1) in await kept.rings.groups(Kind.RECIPIENT)
    assert Group(Kind.RECIPIENT, None) in await kept.rings.groups(Kind.RECIPIENT)
    expected = {
        Group(Kind.KEK, "one"): [a, b],
        Group(Kind.KEK, "two"): [b, c],
        Group(Kind.KEK, "three"): [],
        Group(Kind.RECIPIENT, R1): [a, b],
        Group(Kind.RECIPIENT, R2): [],
        Group(Kind.RECIPIENT, None): [b, c],
    }
    for group, rings in expected.items():
        assert await kept.rings.page(group, None, 10) == rings
        assert await kept.rings.count(group) == len(rings)


@pytest.mark.parametrize("limit", [1, 2, 3, 7])
@pytest.mark.parametrize("group", [Group(Kind.KEK, "k"), Group(Kind.RECIPIENT, None)])
async def test_pages_are_by_session_without_gap_or_repeat(kept: Kept, limit: int, group: Group) -> None:
    names = ["a", "a.", "aa", "B", "b", "s-1", "s-10"]
    for name in names:
        await kept.session(name, key("k"))
        await kept.session(f"other-{name}", key("other", R1))
        await kept.session(f"gone-{name}", key("k"))
        await _shred(kept, f"gone-{name}")
    seen: list[str] = []
    after = None
    while page := await kept.rings.page(group, after, limit):
        assert len(page) <= limit
        seen += [ring.session_id for ring in page]
        after = page[-1].session_id
    assert seen == sorted(names)


@pytest.mark.parametrize("status", [OPEN, SEALING, SEALED])
async def test_a_key_is_replaced_whatever_the_session_does(kept: Kept, status: SessionStatus) -> None:
    ring = await kept.session("a", key("old"), key("old", R1, 2), key("old", None, 3))
    await kept.sessions.update(SessionId("a"), OPEN, Change(status=status))
    assert await kept.rings.replace([anew(ring, "new", R2, 1)]) == 1
    first, second, third = await kept.keys("a")
    assert (first, third) == (ring.keys[0], ring.keys[2])
    assert second == WrappedDek(ring.keys[1].dek_id, "new", b"under new", SealedDek(R2, f"sealed to {R2}".encode()))
    record = await kept.sessions.get(SessionId("a"))
    assert record is not None
    assert (record.status, record.metadata, record.opened_at) == (status, b"{}", EPOCH)


async def test_a_key_without_a_recovery_part_keeps_the_one_that_is_there(kept: Kept) -> None:
    ring = await kept.session("a", key("old", R1))
    assert await kept.rings.replace([anew(ring, "new")]) == 1
    (replaced,) = await kept.keys("a")
    assert (replaced.kek_id, replaced.recovery) == ("new", ring.keys[0].recovery)


async def test_what_is_not_as_expected_stays(kept: Kept) -> None:
    ring = await kept.session("a", key("old"), key("other", None, 2))
    wrong_bytes = replace(anew(ring, "new"), expected=b"something else")
    wrong_key = Replacement(SessionId("a"), ring.keys[0].wrapped, replace(key("new"), dek_id=ring.keys[1].dek_id))
    unknown_key = Replacement(SessionId("a"), ring.keys[0].wrapped, key("new", None, 9))
    assert await kept.rings.replace([wrong_bytes, wrong_key, unknown_key]) == 0
    assert await kept.keys("a") == ring.keys
    assert await kept.rings.replace([wrong_bytes, anew(ring, "new"), wrong_key]) == 1


async def test_of_many_who_replace_one_key_one_does(kept: Kept) -> None:
    ring = await kept.session("a", key("old"))
    works = [kept.rings.replace([anew(ring, f"new-{number}")]) for number in range(8)]
    assert sorted(await asyncio.gather(*works)) == [0] * 7 + [1]
    assert await kept.rings.replace([anew(ring, "late")]) == 0
    (key_now,) = await kept.keys("a")
    assert key_now.kek_id.startswith("new-")


async def test_a_shredded_session_gets_no_key_back(kept: Kept) -> None:
    ring = await kept.session("a", key("old"))
    await asyncio.gather(_shred(kept, "a"), *(kept.rings.replace([anew(ring, "new")]) for _ in range(4)))
    assert await kept.keys("a") == ()
    assert await kept.rings.replace([anew(ring, "new")]) == 0
    assert await kept.keys("a") == ()


async def test_no_key_is_lost_when_one_is_added_meanwhile(kept: Kept) -> None:
    ring = await kept.session("a", key("old"))
    added = key("old", None, 2)
    session = SessionId("a")
    await asyncio.gather(
        kept.sessions.update(session, OPEN, Change(add_key=added)), kept.rings.replace([anew(ring, "new")])
    )
    first, second = await kept.keys("a")
    assert (first.kek_id, second) == ("new", added)


@pytest.mark.parametrize("limit", [1, 2, 3, 100])
async def test_a_walk_finds_all_that_is_outdated(kept: Kept, limit: int) -> None:
    rings = Rings(kept.rings)
    for name, keys in {
        "a": (key("new", R1),),
        "b": (key("old", R1),),
        "c": (key("older"),),
        "d": (key("new"),),
        "e": (key("new", R2),),
        "f": (key("new", R1), key("old", R1, 2)),
        "g": (key("new", R1),),
    }.items():
        await kept.session(name, *keys)

    async def walk(target: Target) -> list[str]:
        found, start = [], None
        while True:
            page = await rings.outdated(target, start, limit)
            assert len(page.rings) <= limit
            found += [ring.session_id for ring in page.rings]
            start = page.following
            if start is None:
                return found

    assert await walk(Target("new", None)) == ["b", "f", "c"]
    assert await walk(Target("new", R1)) == ["b", "f", "c", "d", "e"]
    counts = await rings.counts()
    assert [(group.value, count) for group, count in counts.groups if group.kind is Kind.KEK] == [
        ("new", 5),
        ("old", 2),
        ("older", 1),
    ]
    assert counts.unsealed == ["c", "d"]

    start = None
    while True:
        page = await rings.outdated(Target("new", R1), start, limit)
        for ring in page.rings:
            for place in range(len(ring.keys)):
                await rings.replace([anew(ring, "new", R1, place)])
        start = page.following
        if start is None:
            break
    assert await walk(Target("new", R1)) == []
    assert (await rings.counts()).groups == [(Group(Kind.KEK, "new"), 7), (Group(Kind.RECIPIENT, R1), 7)]


async def test_pages_are_read_off_an_index(db: Database) -> None:
    """However many rings are as they should be, nobody looks at them."""
    await mongo_key_rings.ensure_indexes(db)

    def document(number: int, kek: str, recipient: str | None) -> dict:
        one = {"dek_id": Binary(bytes(16)), "kek_id": kek, "wrapped": Binary(b"w")}
        if recipient:
            one["recovery"] = {"recipient": recipient, "sealed": Binary(b"s")}
        status = "shredded" if not kek else "open"
        keys = [one] if kek else []
        base = {"status": status, "opened_at": EPOCH, "metadata": Binary(b"{}")}
        return {"_id": f"s{number:05}", "keys": keys, **base}

    count = 3000
    await db["sessions"].insert_many(
        [document(n, "old", None) if n % 100 == 0 else document(n, "" if n % 2 else "new", R1) for n in range(count)]
    )
    store = MongoKeyRings(db)
    await db.command("profile", 2)
    try:
        old = await store.page(Group(Kind.KEK, "old"), SessionId("s00500"), 10)
        unsealed = await store.page(Group(Kind.RECIPIENT, None), None, 10)
        assert await store.count(Group(Kind.KEK, "old")) == 30
        assert {group.value for group in await store.groups(Kind.KEK)} == {"old", "new"}
    finally:
        await db.command("profile", 0)
    assert [ring.session_id for ring in old] == [f"s{n:05}" for n in range(600, 1600, 100)]
    assert [ring.session_id for ring in unsealed] == [f"s{n:05}" for n in range(0, 1000, 100)]
    seen = [one async for one in db["system.profile"].find({"ns": f"{db.name}.sessions"}).sort("ts", 1)]
    await db["system.profile"].drop()
    assert [one["docsExamined"] for one in seen] == [10, 10, 0, 0]
    assert [one["keysExamined"] < 40 for one in seen] == [True, False, True, True]
    assert seen[1]["keysExamined"] < 2 * 10 * 100
