"""SessionStore: one suite for the twin and for MongoDB in both topologies."""

import asyncio
from dataclasses import replace
from datetime import timedelta
from typing import cast

import pytest

from sessions.core.key_ring import MAX_KEYS
from sessions.core.types import Hash, SessionId
from sessions.storage.heads import Sessions, head_of
from sessions.storage.mongo import Database
from sessions.storage.mongo_due import MongoDue
from sessions.storage.mongo_sessions import MongoSessions
from sessions.storage.seal_summary import SealSummary
from sessions.storage.store import (
    Change,
    Seal,
    SealOrder,
    SessionFilter,
    SessionRecord,
    SessionState,
    SessionStatus,
    SessionStore,
    ShredReason,
    ShredStore,
    Tombstone,
)
from tests.unit.storage.chunks import EPOCH, TOMBSTONE, key, session_record

A = SessionId("a")
OPEN, SEALING, SEALED, SHREDDED = SessionStatus
SUMMARY = SealSummary(
    chunk_count=2**53 - 1,
    missing_chunks=2**40,
    plaintext_bytes=2**62,
    envelope_bytes=2**62 + 1,
    sealed_at="2026-01-31T13:00:00.123Z",
    root=Hash(bytes(range(32))),
)


async def test_create_gives_back_what_is_stored(session_store: SessionStore) -> None:
    record = session_record("a", keys=2, metadata=b'{"host":"x"}')
    assert await session_store.create(record) == (record, True)
    assert await session_store.get(A) == record


async def test_a_second_create_finds_the_first_and_changes_nothing(session_store: SessionStore) -> None:
    first = session_record("a")
    await session_store.create(first)
    other = session_record("a", minutes=7, keys=3, metadata=b'{"other":true}')
    assert await session_store.create(other) == (first, False)
    assert await session_store.get(A) == first


async def test_of_many_creates_at_once_one_wins_and_all_see_it(session_store: SessionStore) -> None:
    records = [session_record("a", minutes=minute) for minute in range(12)]
    found = await asyncio.gather(*map(session_store.create, records))
    assert [created for _, created in found].count(True) == 1
    assert len({record.opened_at for record, _ in found}) == 1


async def test_no_session(session_store: Sessions) -> None:
    assert await session_store.get(A) is None
    assert await session_store.states([A]) == {}
    assert await session_store.states([]) == {}
    assert await session_store.update(A, OPEN, Change(held=True)) is None
    assert await session_store.page(SessionFilter(), 10, None) == []


async def test_states_are_of_those_that_exist(session_store: SessionStore) -> None:
    names = [SessionId(name) for name in ("a", "a.", "aa", "b")]
    for keys, name in enumerate(names[:3]):
        await session_store.create(session_record(name, keys=keys))
    await session_store.update(names[1], OPEN, Change(status=SEALING))
    one, two = key(1).dek_id, key(2).dek_id
    assert await session_store.states(names) == {
        names[0]: SessionState(OPEN, frozenset()),
        names[1]: SessionState(SEALING, frozenset({one})),
        names[2]: SessionState(OPEN, frozenset({one, two})),
    }


@pytest.mark.parametrize("summary", [None, SUMMARY])
@pytest.mark.parametrize("chunk_count", [None, 0, 2**53 - 1])
async def test_every_field_of_a_change(
    session_store: Sessions, chunk_count: int | None, summary: SealSummary | None
) -> None:
    record = session_record("a")
    await session_store.create(record)
    order = SealOrder(chunk_count, "idle", EPOCH + timedelta(hours=1), floor=7, unheard=("desk-1",), as_it_is=True)
    seal = Seal(b"manifest", "attempt", summary)
    expected = record

    async def step(now: SessionStatus, change: Change, **fields: object) -> SessionRecord:
        updated = await session_store.update(A, now, change)
        assert updated == replace(expected, **fields)
        assert await session_store.get(A) == updated
        head = head_of(updated)
        assert await session_store.page(SessionFilter(), 9, None) == [head]
        assert await session_store.page(SessionFilter(prefix="a"), 9, None) == [head]
        assert await session_store.heads([A, SessionId("b")]) == {A: head}
        return updated

    expected = await step(OPEN, Change(add_key=key(2)), keys=(key(1), key(2)))
    expected = await step(OPEN, Change(status=SEALING, seal_order=order), status=SEALING, seal_order=order)
    expected = await step(SEALING, Change(status=SEALED, seal=seal), status=SEALED, seal=seal)
    expected = await step(SEALED, Change(held=True), held=True)
    expected = await step(SEALED, Change(held=False), held=False)
    shredded = Change(status=SHREDDED, tombstone=TOMBSTONE)
    await step(SEALED, shredded, status=SHREDDED, tombstone=TOMBSTONE, keys=())


async def test_an_update_needs_the_expected_state(session_store: SessionStore) -> None:
    record = session_record("a")
    await session_store.create(record)
    for expected in (SEALING, SEALED, SHREDDED):
        assert await session_store.update(A, expected, Change(held=True)) is None
    assert await session_store.get(A) == record


async def test_a_session_under_hold_gets_no_tombstone(session_store: SessionStore) -> None:
    await session_store.create(replace(session_record("a"), status=SEALED))
    await session_store.update(A, SEALED, Change(held=True))
    shredded = Change(status=SHREDDED, tombstone=TOMBSTONE)
    assert await session_store.update(A, SEALED, shredded) is None
    await session_store.update(A, SEALED, Change(held=False))
    assert await session_store.update(A, SEALED, shredded) is not None


async def test_a_ring_takes_at_most_so_many_keys(session_store: SessionStore) -> None:
    await session_store.create(session_record("a", keys=MAX_KEYS - 1))
    added = await asyncio.gather(
        *(session_store.update(A, OPEN, Change(add_key=key(MAX_KEYS + number))) for number in range(4))
    )
    assert [record is not None for record in added].count(True) == 1
    record = await session_store.get(A)
    assert record is not None
    assert len(record.keys) == MAX_KEYS


async def test_shredded_sessions_are_unfinished_until_it_is_said(session_store: SessionStore) -> None:
    shreds = cast("ShredStore", session_store)
    names = [SessionId(name) for name in ("c", "a", "b", "open")]
    for name in names:
        await session_store.create(session_record(name))
    assert await shreds.unfinished(9) == []
    for name in names[:3]:
        await session_store.update(name, OPEN, Change(status=SHREDDED, tombstone=TOMBSTONE))
    assert await shreds.unfinished(9) == ["a", "b", "c"]
    assert await shreds.unfinished(2) == ["a", "b"]
    await shreds.finished(SessionId("a"))
    await shreds.finished(SessionId("a"))
    await shreds.finished(SessionId("none"))
    assert await shreds.unfinished(2) == ["b", "c"]
    for name in ("a", "none", "open"):
        await shreds.unfinish(SessionId(name))
    assert await shreds.unfinished(9) == ["a", "b", "c"]
    record = await session_store.get(SessionId("a"))
    assert record is not None
    assert (record.status, record.tombstone) == (SHREDDED, TOMBSTONE)


async def test_a_tombstone_of_an_earlier_version(db: Database) -> None:
    await MongoSessions(db).create(session_record("a"))
    await db["sessions"].update_one({"_id": "a"}, {"$set": {"status": "shredded", "shredded_at": EPOCH}})
    record = await MongoSessions(db).get(A)
    assert record is not None
    assert record.tombstone == Tombstone(EPOCH, ShredReason.REQUESTED, "unknown")


async def test_an_update_may_need_a_seal_order(session_store: SessionStore) -> None:
    await session_store.create(session_record("a"))
    first, second = (SealOrder(None, "recorder", EPOCH) for _ in range(2))
    assert await session_store.update(A, OPEN, Change(held=True), first) is None
    begun = await session_store.update(A, OPEN, Change(status=SEALING, seal_order=first))
    assert begun is not None
    assert begun.seal_order == first
    assert await session_store.update(A, SEALING, Change(status=OPEN), second) is None
    assert await session_store.update(A, OPEN, Change(status=SEALING), first) is None
    assert await session_store.get(A) == begun
    assert await session_store.update(A, SEALING, Change(status=OPEN), first) is not None
    assert await session_store.update(A, OPEN, Change(status=SEALING, seal_order=second)) is not None
    assert await session_store.update(A, SEALING, Change(status=SEALED, seal=Seal(b"", "x")), first) is None


async def test_of_two_updates_from_one_state_one_wins(session_store: SessionStore) -> None:
    await session_store.create(session_record("a"))
    change = Change(status=SEALING)
    updated = await asyncio.gather(*(session_store.update(A, OPEN, change) for _ in range(8)))
    assert sum(record is not None for record in updated) == 1


async def test_a_key_is_added_once(session_store: SessionStore) -> None:
    await session_store.create(session_record("a"))
    assert await session_store.update(A, OPEN, Change(add_key=key(1))) is None
    added = await asyncio.gather(*(session_store.update(A, OPEN, Change(add_key=key(2))) for _ in range(4)))
    assert sum(record is not None for record in added) == 1
    found = await session_store.get(A)
    assert found is not None
    assert found.keys == (key(1), key(2))


async def test_keys_keep_their_order(session_store: SessionStore) -> None:
    await session_store.create(session_record("a"))
    for number in (9, 3, 5):
        await session_store.update(A, OPEN, Change(add_key=key(number)))
    found = await session_store.get(A)
    assert found is not None
    assert found.keys == (key(1), key(9), key(3), key(5))


async def _names(store: Sessions, which: SessionFilter, limit: int = 100) -> list[str]:
    return [record.session_id for record in await store.page(which, limit, None)]


async def test_pages_are_newest_first_and_by_id_within_one_time(session_store: Sessions) -> None:
    for name, minute in (("b", 0), ("a", 0), ("a.", 0), ("z", -1), ("c", 1), ("aa", 0)):
        await session_store.create(session_record(name, minutes=minute))
    assert await _names(session_store, SessionFilter()) == ["c", "b", "aa", "a.", "a", "z"]


@pytest.mark.parametrize("limit", [1, 2, 3, 6, 7])
async def test_a_cursor_walks_all_pages_without_gap_or_repeat(session_store: Sessions, limit: int) -> None:
    for number in range(6):
        await session_store.create(session_record(f"s{number}", minutes=number // 3))
    seen: list[str] = []
    after = None
    while page := await session_store.page(SessionFilter(), limit, after):
        assert len(page) <= limit
        seen += [record.session_id for record in page]
        after = page[-1].opened_at, page[-1].session_id
    assert seen == ["s5", "s4", "s3", "s2", "s1", "s0"]


async def test_summaries_are_kept_of_sealed_sessions_that_have_none(session_store: Sessions) -> None:
    manifests = {SessionId(name): f"manifest of {name}".encode() for name in "ab"}
    other = replace(SUMMARY, missing_chunks=0)
    for name in ("a", "b", "c"):
        await session_store.create(session_record(name))
    for name, summary in (("a", None), ("b", other)):
        seal = Seal(manifests[SessionId(name)], "x", summary)
        await session_store.update(SessionId(name), OPEN, Change(status=SEALED, seal=seal))
    names = [SessionId(name) for name in "abcd"]
    assert await session_store.manifests(names) == manifests
    heads = await session_store.heads(names)
    assert [heads[name].manifest_bytes for name in names[:3]] == [len(b"manifest of a"), len(b"manifest of b"), 0]
    assert [heads[name].unread_bytes for name in names[:3]] == [len(b"manifest of a"), 0, 0]
    await session_store.keep_summaries(dict.fromkeys(names, SUMMARY))
    await session_store.keep_summaries({})
    kept = await session_store.heads(names)
    assert [kept[name].summary for name in names[:3]] == [SUMMARY, other, None]
    assert [kept[name].unread_bytes for name in names[:3]] == [0, 0, 0]
    assert [await session_store.get(name) is None for name in names] == [False, False, False, True]


async def test_lists_read_neither_metadata_nor_keys_nor_manifests(db: Database) -> None:
    """R6: a list of 1,000 sessions was as large as all that recorders had said of them.

    Nor do they read the names of processors that a seal did not hear from, up to 35 KB.
    """
    store = MongoSessions(db)
    for number in range(20):
        name = SessionId(f"s{number:02d}")
        await store.create(session_record(name, minutes=number, keys=60, metadata=b"x" * 60_000))
        order = SealOrder(None, "idle", EPOCH, unheard=tuple(f"{n:03}" + "x" * 125 for n in range(256)))
        await store.update(name, OPEN, Change(seal_order=order))
        sealed = Change(status=SEALED, held=True, seal=Seal(b"m" * 60_000, "x", SUMMARY))
        await store.update(name, OPEN, sealed)
    await db.command("profile", 2)
    lists = [SessionFilter(), SessionFilter(status=SEALED), SessionFilter(prefix="s"), SessionFilter(held=True)]
    found = [await store.page(which, 20, None) for which in lists]
    found.append(list((await store.heads([SessionId(f"s{number:02d}") for number in range(20)])).values()))
    found.append(await MongoDue(db).due(None, EPOCH, None, 20))
    await db.command("profile", 0)
    told = await db["system.profile"].find({"op": "query", "ns": f"{db.name}.sessions"}).to_list()
    await db.drop_collection("system.profile")
    assert [len(page) for page in found[:5]] == [20] * 5
    assert len(told) == len(found)
    assert max(one["responseLength"] for one in told) < 20 * 500


async def test_filters(session_store: Sessions) -> None:
    for number in range(4):
        await session_store.create(session_record(f"s{number}", minutes=number))
    await session_store.update(SessionId("s1"), OPEN, Change(status=SEALING))
    one, three = EPOCH + timedelta(minutes=1), EPOCH + timedelta(minutes=3)
    assert await _names(session_store, SessionFilter(status=SEALING)) == ["s1"]
    assert await _names(session_store, SessionFilter(status=SHREDDED)) == []
    assert await _names(session_store, SessionFilter(opened_after=one)) == ["s3", "s2", "s1"]
    assert await _names(session_store, SessionFilter(opened_before=three)) == ["s2", "s1", "s0"]
    assert await _names(session_store, SessionFilter(opened_after=one, opened_before=three)) == ["s2", "s1"]
    assert await _names(session_store, SessionFilter(status=OPEN, opened_after=one, opened_before=three)) == ["s2"]
    after = three, SessionId("s3")
    behind = await session_store.page(SessionFilter(status=OPEN, opened_after=one), 10, after)
    assert [record.session_id for record in behind] == ["s2"]


async def test_lists_by_id(session_store: Sessions) -> None:
    for minute, name in enumerate(("b", "a-2", "a-10", "a", "a.z", "A", "lucid-audit-2026-01-31", "ab")):
        await session_store.create(session_record(name, minutes=minute))
    await session_store.update(SessionId("a-2"), OPEN, Change(status=SEALING))
    for name, status in (("a-2", SEALING), ("b", OPEN)):
        await session_store.update(SessionId(name), status, Change(held=True))
    assert await _names(session_store, SessionFilter(prefix="a")) == ["a", "a-10", "a-2", "a.z", "ab"]
    assert await _names(session_store, SessionFilter(prefix="a-")) == ["a-10", "a-2"]
    assert await _names(session_store, SessionFilter(prefix="a-", status=OPEN)) == ["a-10"]
    assert await _names(session_store, SessionFilter(prefix="lucid-audit")) == []
    assert await _names(session_store, SessionFilter(held=True)) == ["a-2", "b"]
    assert await _names(session_store, SessionFilter(held=True, prefix="b")) == ["b"]
    assert await _names(session_store, SessionFilter(held=True, status=SEALING)) == ["a-2"]
    assert await _names(session_store, SessionFilter(prefix="a"), limit=2) == ["a", "a-10"]
    behind = await session_store.page(SessionFilter(prefix="a"), 2, (EPOCH, SessionId("a-10")))
    assert [record.session_id for record in behind] == ["a-2", "a.z"]
    await session_store.update(SessionId("b"), OPEN, Change(held=False))
    assert await _names(session_store, SessionFilter(held=True)) == ["a-2"]


@pytest.mark.parametrize(
    "which", [SessionFilter(prefix="s1"), SessionFilter(prefix="s1", status=OPEN), SessionFilter(held=True)]
)
async def test_lists_by_id_read_no_more_than_they_give(db: Database, which: SessionFilter) -> None:
    store = MongoSessions(db)
    for number in range(30):
        await store.create(session_record(f"s{number:02d}"))
    await store.update(SessionId("s15"), OPEN, Change(held=True))
    await db.command("profile", 2)
    found = await store.page(which, 5, None)
    await db.command("profile", 0)
    told = await db["system.profile"].find({"op": "query", "ns": f"{db.name}.sessions"}).to_list()
    await db.drop_collection("system.profile")
    assert [one["docsExamined"] for one in told] == [len(found)]
