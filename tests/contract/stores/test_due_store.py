"""DueStore: one suite for the twin and for MongoDB in both topologies."""

from dataclasses import replace
from datetime import timedelta

import pytest

from sessions.core.types import SessionId
from sessions.storage import mongo_due
from sessions.storage.heads import head_of
from sessions.storage.memory import MemorySessions
from sessions.storage.mongo import Database
from sessions.storage.mongo_due import MongoDue
from sessions.storage.mongo_sessions import MongoSessions
from sessions.storage.retention import DueStore
from sessions.storage.store import Change, Retention, Seal, SealOrder, SessionStatus, SessionStore
from tests.unit.storage.chunks import EPOCH, TOMBSTONE, session_record

OPEN, SEALING, SEALED, SHREDDED = SessionStatus


class Kept:
    """Both ports on one collection."""

    def __init__(self, sessions: SessionStore, due: DueStore) -> None:
        self.sessions, self.due = sessions, due

    async def sealed(self, name: str, minutes: int, delete_after_days: int | None = None) -> None:
        session = SessionId(name)
        await self.sessions.create(
            replace(session_record(name), retention=Retention(delete_after_days=delete_after_days))
        )
        order = SealOrder(None, "recorder", EPOCH + timedelta(minutes=minutes))
        await self.sessions.update(session, OPEN, Change(status=SEALING, seal_order=order))
        await self.sessions.update(session, SEALING, Change(status=SEALED, seal=Seal(b"", "x")))


@pytest.fixture
async def kept(store_db: Database | None) -> Kept:
    if store_db is None:
        sessions = MemorySessions()
        return Kept(sessions, sessions)
    await mongo_due.ensure_indexes(store_db)
    return Kept(MongoSessions(store_db), MongoDue(store_db))


async def test_nothing_is_due(kept: Kept) -> None:
    await kept.sessions.create(session_record("open"))
    assert await kept.due.terms() == []
    assert await kept.due.due(None, EPOCH, None, 5) == []


async def test_sealed_sessions_are_found_by_their_terms_and_the_time_of_their_seal(kept: Kept) -> None:
    await kept.sealed("b", 1)
    await kept.sealed("a", 1)
    await kept.sealed("later", 3)
    await kept.sealed("first", 0)
    await kept.sealed("own", 0, 7)
    await kept.sealed("never", 0, 0)
    await kept.sealed("gone", 0, 9)
    await kept.sessions.update(SessionId("gone"), SEALED, Change(status=SHREDDED, tombstone=TOMBSTONE))
    assert await kept.due.terms() == [0, 7]
    until = EPOCH + timedelta(minutes=1)
    assert [one.session_id for one in await kept.due.due(None, until, None, 9)] == ["first", "a", "b"]
    assert [one.session_id for one in await kept.due.due(7, until, None, 9)] == ["own"]
    assert await kept.due.due(9, until, None, 9) == []
    (found,) = await kept.due.due(7, until, None, 1)
    record = await kept.sessions.get(SessionId("own"))
    assert record is not None
    assert found == head_of(record)


@pytest.mark.parametrize("limit", [1, 2, 3, 7])
async def test_pages_come_without_gap_or_repeat(kept: Kept, limit: int) -> None:
    names = ["a", "a.", "aa", "b", "c", "d"]
    for number, name in enumerate(names):
        await kept.sealed(name, number // 4)
    seen: list[str] = []
    after = None
    while page := await kept.due.due(None, EPOCH + timedelta(days=1), after, limit):
        assert len(page) <= limit
        seen += [one.session_id for one in page]
        assert page[-1].seal_order is not None
        after = page[-1].seal_order.sealed_at, page[-1].session_id
    assert seen == names


async def test_terms_are_changed_and_taken_away(kept: Kept) -> None:
    await kept.sealed("a", 0)
    for retention in (Retention(30, 400), Retention(None, 0), Retention(5, None), Retention()):
        updated = await kept.sessions.update(SessionId("a"), SEALED, Change(retention=retention))
        assert updated is not None
        assert updated.retention == retention
        own = retention.delete_after_days
        assert await kept.due.terms() == ([] if own is None else [own])
        assert await kept.due.due(own, EPOCH, None, 5) == [head_of(updated)]


async def test_no_tombstone_under_other_terms_than_expected(kept: Kept) -> None:
    await kept.sealed("a", 0)
    longer = Retention(900, None)
    await kept.sessions.update(SessionId("a"), SEALED, Change(retention=longer))
    for expected, done in ((Retention(), False), (Retention(899), False), (longer, True)):
        change = Change(status=SHREDDED, tombstone=TOMBSTONE, retention=expected)
        assert (await kept.sessions.update(SessionId("a"), SEALED, change) is not None) is done
    record = await kept.sessions.get(SessionId("a"))
    assert record is not None
    assert (record.retention, record.tombstone) == (longer, TOMBSTONE)


async def test_what_is_due_is_read_off_an_index(db: Database) -> None:
    await mongo_due.ensure_indexes(db)
    base = {"opened_at": EPOCH, "metadata": b"{}", "keys": []}
    await db["sessions"].insert_many(
        [
            {
                "_id": f"s{number:05}",
                "status": "open" if number % 2 else "sealed",
                "seal_order": {
                    "chunk_count": None,
                    "sealed_by": "idle",
                    "sealed_at": EPOCH + timedelta(minutes=number),
                    "id": "x",
                },
                **({"delete_after_days": 7} if number % 3 == 0 else {}),
                **base,
            }
            for number in range(3000)
        ]
    )
    due = MongoDue(db)
    await db.command("profile", 2)
    try:
        page = await due.due(
            None, EPOCH + timedelta(days=2), (EPOCH + timedelta(minutes=1000), SessionId("s01000")), 10
        )
        assert await due.terms() == [7]
    finally:
        await db.command("profile", 0)
    assert [one.session_id for one in page[:3]] == ["s01004", "s01006", "s01010"]
    seen = [one async for one in db["system.profile"].find({"ns": f"{db.name}.sessions"}).sort("ts", 1)]
    await db["system.profile"].drop()
    assert [one["docsExamined"] for one in seen] == [11, 0]  # the cursor's own session is read once more
    assert [one["keysExamined"] < 20 for one in seen] == [True, True]
