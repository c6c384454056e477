"""The model of replicas on real parts: storage over HTTP and on MongoDB, some hundred steps in random orders."""

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import run_state_machine_as_test

from sessions.storage import mongo_closing, mongo_sessions
from sessions.storage.memory_anchoring import MemoryBatches
from sessions.storage.mongo import Database, connect, ensure_collections
from sessions.storage.mongo_activity import MongoActivity
from sessions.storage.mongo_chunks import MongoChunks
from sessions.storage.mongo_closing import MongoClosing
from sessions.storage.mongo_processors import MongoProcessors
from sessions.storage.mongo_sessions import MongoSessions
from sessions.storage.mongo_tiles import MongoTiles
from sessions.storage.mongo_uptime import MongoUptime
from tests.unit.processor.replicas import StorageSide, Stores
from tests.unit.processor.replicas_machine import ReplicasMachine

EXAMPLES = int(os.environ.get("LUCID_REPLICAS_ON_MONGODB_EXAMPLES", "12"))
STEPS = 25
COLLECTIONS = ("sessions", "chunks", "bodies", "tiles", "processors", "uptime")


class MongoStores(Stores):
    """All in one database."""

    def __init__(self, db: Database) -> None:
        super().__init__(
            sessions=MongoSessions(db),
            chunks=MongoChunks(db),
            tiles=MongoTiles(db),
            batches=MemoryBatches(),
            uptime=MongoUptime(db),
            activity=MongoActivity(db),
            processors=MongoProcessors(db),
            orders=MongoClosing(db),
        )
        self._db = db

    async def dump(self) -> Any:
        return {name: await self._db[name].find().to_list() for name in COLLECTIONS}

    async def load(self, dumped: Any) -> None:
        for name, documents in dumped.items():
            await self._db[name].delete_many({})
            if documents:
                await self._db[name].insert_many(documents)


class OnMongoDB(ReplicasMachine):
    """Storage as it is, and time as it passes."""

    patience = 10.0
    url: str
    database: str

    def loop(self) -> asyncio.AbstractEventLoop:
        return asyncio.new_event_loop()

    async def stores(self) -> Stores:
        client, db = connect(self.url, self.database)
        self.stack.push_async_callback(client.close)
        await ensure_collections(db)
        await mongo_sessions.ensure_indexes(db)
        await mongo_closing.ensure_indexes(db)
        for name in COLLECTIONS:
            await db[name].delete_many({})
        return MongoStores(db)

    @asynccontextmanager
    async def served(self, side: StorageSide) -> AsyncIterator[Any]:
        async with side.served() as carry:
            yield carry


def test_nothing_acknowledged_is_lost(mongod_replset: Any, database_name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(OnMongoDB, "url", mongod_replset.url, raising=False)
    monkeypatch.setattr(OnMongoDB, "database", database_name, raising=False)
    run_state_machine_as_test(
        OnMongoDB,
        settings=settings(
            max_examples=EXAMPLES,
            stateful_step_count=STEPS,
            deadline=None,
            database=None,
            phases=[Phase.generate],  # what fails once need not fail again
            suppress_health_check=list(HealthCheck),
        ),
    )
