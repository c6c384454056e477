"""ActivityStore: one suite for the twin and for MongoDB in both topologies."""

import pytest

from sessions.core.types import SessionId
from sessions.storage import mongo_activity, mongo_closing
from sessions.storage.activity import ActivityStore
from sessions.storage.memory import MemorySessions
from sessions.storage.memory_replicas import MemoryActivity, MemoryClosing
from sessions.storage.mongo import Database
from sessions.storage.mongo_activity import MongoActivity
from sessions.storage.mongo_closing import MongoClosing
from sessions.storage.mongo_sessions import MongoSessions
from sessions.storage.seal_orders import ClosingStore, WaitingOrder
from sessions.storage.store import Change, SealOrder, SessionStatus, SessionStore
from tests.unit.storage.chunks import EPOCH, session_record

A, B, C = (SessionId(name) for name in "abc")


class Kept:
    """The ports on one collection."""

    def __init__(self, sessions: SessionStore, activity: ActivityStore, orders: ClosingStore) -> None:
        self.sessions, self.activity, self.orders = sessions, activity, orders


@pytest.fixture
async def kept(store_db: Database | None) -> Kept:
    if store_db is None:
        sessions = MemorySessions()
        kept = Kept(sessions, MemoryActivity(sessions), MemoryClosing(sessions))
    else:
        await mongo_activity.ensure_indexes(store_db)
        await mongo_closing.ensure_indexes(store_db)
        kept = Kept(MongoSessions(store_db), MongoActivity(store_db), MongoClosing(store_db))
    for session in (A, B, C):
        await kept.sessions.create(session_record(session))
    return kept


async def test_who_was_never_noted_is_noted_by_the_first_look(kept: Kept) -> None:
    assert await kept.activity.idle(40, 100, 5) == []
    assert await kept.activity.idle(100, 160, 5) == []
    assert sorted(await kept.activity.idle(100.5, 160, 5)) == [A, B, C]


async def test_the_oldest_come_first_and_no_more_than_asked_for(kept: Kept) -> None:
    for seconds, session in enumerate((B, C, A), 10):
        await kept.activity.touch([session], seconds)
    assert await kept.activity.idle(13, 60, 5) == [B, C, A]
    assert await kept.activity.idle(13, 60, 2) == [B, C]
    await kept.activity.touch([B], 13)
    assert await kept.activity.idle(13.5, 60, 5) == [C, A, B]
    assert await kept.activity.idle(11, 60, 5) == []


async def test_a_note_never_becomes_older(kept: Kept) -> None:
    """R3: of two replicas the slower one notes last what came first."""
    await kept.activity.touch([A, B, C], 50)
    await kept.activity.touch([A], 40)
    assert await kept.activity.idle(50, 60, 5) == []


async def test_only_open_sessions(kept: Kept) -> None:
    order = Change(status=SessionStatus.SEALING, seal_order=SealOrder(None, "recorder", EPOCH))
    assert await kept.sessions.update(B, SessionStatus.OPEN, order)
    await kept.activity.touch([C, A, B, SessionId("unknown")], 10)
    assert sorted(await kept.activity.idle(11, 60, 5)) == [A, C]
    assert [await kept.activity.is_idle(session, 11) for session in (A, B, SessionId("unknown"))] == [
        True,
        False,
        False,
    ]
    assert await kept.sessions.get(SessionId("unknown")) is None


async def test_one_session_is_idle_by_its_note(kept: Kept) -> None:
    assert not await kept.activity.is_idle(A, 1e9), "one without a note is not known to be"
    await kept.activity.touch([A], 10)
    assert [await kept.activity.is_idle(A, before) for before in (9.0, 10.0, 10.5)] == [False, False, True]


async def test_a_session_that_an_idle_seal_waits_for_is_not_found_again(kept: Kept) -> None:
    await kept.activity.touch([A, B, C], 10)
    assert await kept.orders.order(A, WaitingOrder(None, "idle", 20))
    assert await kept.orders.order(B, WaitingOrder(None, "recorder", 20))
    assert sorted(await kept.activity.idle(11, 60, 5)) == [B, C]
    assert await kept.activity.is_idle(A, 11)


async def test_a_day_of_the_audit_trail_is_never_idle(kept: Kept) -> None:
    await kept.sessions.create(session_record("lucid-audit-2026-01-31", keys=0))
    assert await kept.activity.idle(60, 100, 5) == []
    assert sorted(await kept.activity.idle(101, 200, 5)) == [A, B, C]


async def test_idle_sessions_are_read_off_the_index(db: Database) -> None:
    await mongo_activity.ensure_indexes(db)
    await mongo_activity.ensure_indexes(db)
    shown = await db.command(
        {"explain": {"find": "sessions", "filter": {"status": "open", "active_seconds": {"$lt": 7.5}}}}
    )
    assert "IXSCAN" in str(shown["queryPlanner"]["winningPlan"])
    assert "active_seconds" in str(shown["queryPlanner"]["winningPlan"])
