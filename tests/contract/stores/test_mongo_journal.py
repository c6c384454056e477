"""A body is not waited for where its record waits for both: it lasts all the same, whenever MongoDB dies."""

import asyncio
import contextlib
import os
import signal
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
from pymongo import AsyncMongoClient
from pymongo.errors import PyMongoError

from scripts.devstack.mongod import Mongod
from sessions.core.types import SessionId
from sessions.storage.mongo import Database, connect, ensure_collections
from sessions.storage.mongo_chunks import MongoChunks
from sessions.storage.mongo_journal import Journal
from sessions.storage.store import ChunkRecord, InsertOutcome, NewChunk
from tests.unit.storage.chunks import new_chunk

A = SessionId("a")


@pytest.fixture
def mortal(tmp_path: Path) -> Iterator[Mongod]:
    """A MongoDB of its own."""
    server = Mongod(tmp_path / "mongo")
    server.start()
    try:
        yield server
    finally:
        server.stop()


@pytest.fixture
async def db_mortal(mortal: Mongod) -> AsyncIterator[Database]:
    client, db = connect(mortal.url, "lucid")
    try:
        await ensure_collections(db)
        yield db
    finally:
        await client.close()


def _die_and_return(server: Mongod) -> None:
    server.stop(signal.SIGKILL)
    server.start()


async def _reach(db: Database) -> None:
    """The driver has noticed what became of its server."""
    async with asyncio.timeout(20):
        while True:
            with contextlib.suppress(PyMongoError):
                await db.command("ping")
                return


async def _body(chunks: MongoChunks, chunk: NewChunk) -> bytes | None:
    return await chunks.read(A, ChunkRecord(chunk.index, chunk.plaintext_bytes, chunk.fingerprint))


async def test_one_journal_is_a_standalone_servers(db: Database, request: pytest.FixtureRequest) -> None:
    await db.command("ping")
    mark = Journal(db.client).mark()
    assert (mark is None) == ("replset" in request.node.name)


async def test_without_a_count_of_connections_none_is_taken_for_one_journal(mongod_standalone: Mongod) -> None:
    async with AsyncMongoClient[dict[str, Any]](mongod_standalone.url) as client:
        await client.admin.command("ping")
        assert Journal(client).mark() is None


async def test_what_is_acknowledged_has_its_body_after_a_crash(mortal: Mongod, db_mortal: Database) -> None:
    chunks = MongoChunks(db_mortal)
    for index in range(3):
        chunk = new_chunk("a", index, os.urandom(500))
        assert (await chunks.insert([chunk]))[0][0] is InsertOutcome.STORED
        _die_and_return(mortal)
        await _reach(db_mortal)
        assert await _body(chunks, chunk) == chunk.envelope


class _Dies:
    """A collection whose server dies, and is there again, right after it took something."""

    def __init__(self, collection: Any, server: Mongod) -> None:
        self._collection, self._server = collection, server
        self.died = 0

    async def insert_many(self, documents: list[Any], *, ordered: bool) -> None:
        await self._collection.insert_many(documents, ordered=ordered)
        self.died += 1
        _die_and_return(self._server)
        await _reach(self._collection.database)


async def test_mongodb_dies_between_body_and_record(
    mortal: Mongod, db_mortal: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And nobody notices: the record goes over another connection."""
    chunks, chunk = MongoChunks(db_mortal), new_chunk("a", 0, os.urandom(500))
    dies = _Dies(chunks._unwaited, mortal)
    monkeypatch.setattr(chunks, "_unwaited", dies)
    assert (await chunks.insert([chunk]))[0][0] is InsertOutcome.STORED
    assert dies.died == 1
    assert await _body(chunks, chunk) == chunk.envelope
