"""ActivityStore: one suite for the twin and for MongoDB in both topologies."""

import asyncio

import pytest

from sessions.core.types import SessionId
from sessions.storage import mongo_activity
from sessions.storage.activity import ActivityStore
from sessions.storage.memory import MemoryActivity, MemorySessions
from sessions.storage.mongo import Database
from sessions.storage.mongo_activity import MongoActivity
from sessions.storage.mongo_sessions import MongoSessions
from sessions.storage.store import Change, SealOrder, SessionStatus, SessionStore
from tests.unit.storage.chunks import EPOCH, session_record

A, B, C = (SessionId(name) for name in "abc")


class Kept:
    """Both ports on one collection."""

    def __init__(self, sessions: SessionStore, activity: ActivityStore) -> None:
        self.sessions, self.activity = sessions, activity


@pytest.fixture
async def kept(store_db: Database | None) -> Kept:
    if store_db is None:
        sessions = MemorySessions()
        kept = Kept(sessions, MemoryActivity(sessions))
    else:
        await mongo_activity.ensure_indexes(store_db)
        kept = Kept(MongoSessions(store_db), MongoActivity(store_db))
    for session in (A, B, C):
        await kept.sessions.create(session_record(session))
    return kept


async def test_who_was_never_noted_is_noted_by_the_first_look(kept: Kept) -> None:
    assert await kept.activity.idle(60, 5) == []
    await asyncio.sleep(0.03)
    assert sorted(await kept.activity.idle(0.01, 5)) == [A, B, C]


async def test_the_oldest_come_first_and_no_more_than_asked_for(kept: Kept) -> None:
    for session in (B, C, A):
        await kept.activity.touch([session])
        await asyncio.sleep(0.02)
    assert await kept.activity.idle(0.001, 5) == [B, C, A]
    assert await kept.activity.idle(0.001, 2) == [B, C]
    await kept.activity.touch([B])
    await asyncio.sleep(0.02)
    assert await kept.activity.idle(0.001, 5) == [C, A, B]
    assert await kept.activity.idle(60, 5) == []


async def test_only_open_sessions(kept: Kept) -> None:
    order = Change(status=SessionStatus.SEALING, seal_order=SealOrder(None, "recorder", EPOCH))
    assert await kept.sessions.update(B, SessionStatus.OPEN, order)
    await kept.activity.touch([C, A, B, SessionId("unknown")])
    await asyncio.sleep(0.02)
    assert sorted(await kept.activity.idle(0.001, 5)) == [A, C]
    assert await kept.sessions.get(SessionId("unknown")) is None


async def test_a_day_of_the_audit_trail_is_never_idle(kept: Kept) -> None:
    await kept.sessions.create(session_record("lucid-audit-2026-01-31", keys=0))
    assert await kept.activity.idle(60, 5) == []
    await asyncio.sleep(0.03)
    assert sorted(await kept.activity.idle(0.01, 5)) == [A, B, C]


async def test_idle_sessions_are_read_off_the_index(db: Database) -> None:
    await mongo_activity.ensure_indexes(db)
    await mongo_activity.ensure_indexes(db)
    shown = await db.command(
        {"explain": {"find": "sessions", "filter": {"status": "open", "active_at": {"$lt": EPOCH}}}}
    )
    assert "IXSCAN" in str(shown["queryPlanner"]["winningPlan"])
    assert "active_at" in str(shown["queryPlanner"]["winningPlan"])
