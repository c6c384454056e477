"""The stores that a contract is held against: the twin in memory, and MongoDB in both topologies."""

import uuid
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from pymongo import MongoClient

from scripts.devstack.replica_set import ReplicaSet
from sessions.storage import mongo_audit, mongo_closing, mongo_due, mongo_sessions
from sessions.storage.heads import Sessions
from sessions.storage.memory import MemoryChunks, MemorySessions, MemoryTiles
from sessions.storage.mongo import Database, connect, ensure_collections
from sessions.storage.mongo_chunks import MongoChunks
from sessions.storage.mongo_sessions import MongoSessions
from sessions.storage.mongo_tiles import MongoTiles
from sessions.storage.store import BodyStore, ChunkStore, TileStore

MEMORY = "memory"


@dataclass
class ChunksAndBodies:
    chunks: ChunkStore
    bodies: BodyStore


async def _prepared(url: str) -> AsyncIterator[Database]:
    client, db = connect(url, f"lucid_contract_{uuid.uuid4().hex[:12]}")
    try:
        await ensure_collections(db)
        await mongo_audit.ensure_collection(db)
        await mongo_sessions.ensure_indexes(db)
        await mongo_closing.ensure_indexes(db)
        await mongo_due.ensure_indexes(db)
        yield db
    finally:
        await client.close()
    # Its client has not been run since the last test that used it, and may think by now that the server is gone.
    with MongoClient[dict[str, Any]](url) as fresh:
        fresh.drop_database(db.name)


async def _empty(db: Database) -> None:
    for name in ("sessions", "chunks", "bodies", "tiles", "audit_events", "processors", "uptime"):
        await db[name].delete_many({})


@pytest.fixture(scope="session")
async def db_standalone(mongod_standalone) -> AsyncIterator[Database]:
    async for db in _prepared(mongod_standalone.url):
        yield db


@pytest.fixture(scope="session")
async def db_replset(mongod_replset) -> AsyncIterator[Database]:
    async for db in _prepared(mongod_replset.url):
        yield db


@pytest.fixture(scope="session", params=["standalone", "replset"])
def prepared_db(request: pytest.FixtureRequest) -> Database:
    return request.getfixturevalue(f"db_{request.param}")


@pytest.fixture
async def db(prepared_db: Database) -> Database:
    """A prepared database without documents, in each topology."""
    await _empty(prepared_db)
    return prepared_db


@pytest.fixture(scope="session", params=[MEMORY, "standalone", "replset"])
def prepared_store(request: pytest.FixtureRequest) -> Database | None:
    return None if request.param == MEMORY else request.getfixturevalue(f"db_{request.param}")


@pytest.fixture
async def store_db(prepared_store: Database | None) -> Database | None:
    """None for the twin in memory."""
    if prepared_store is not None:
        await _empty(prepared_store)
    return prepared_store


@pytest.fixture
def session_store(store_db: Database | None) -> Sessions:
    return MemorySessions() if store_db is None else MongoSessions(store_db)


@pytest.fixture
def stores(store_db: Database | None) -> ChunksAndBodies:
    both = MemoryChunks() if store_db is None else MongoChunks(store_db)
    return ChunksAndBodies(both, both)


@pytest.fixture
def tile_store(store_db: Database | None) -> TileStore:
    return MemoryTiles() if store_db is None else MongoTiles(store_db)


@pytest.fixture
def members(tmp_path: Path) -> Iterator[ReplicaSet]:
    """A replica set of three, of its own."""
    several = ReplicaSet(tmp_path)
    several.start()
    try:
        yield several
    finally:
        several.stop()
