"""A body is not waited for where its record waits for both: it lasts all the same, whenever MongoDB dies."""

import asyncio
import contextlib
import os
import signal
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from bson import Binary, Int64
from pymongo import AsyncMongoClient
from pymongo.errors import PyMongoError

from scripts.devstack.mongod import Mongod
from scripts.devstack.process import wait_until
from scripts.devstack.replica_set import ReplicaSet
from sessions.core.types import SessionId
from sessions.storage.chunk_records import ChunkRecord, InsertOutcome, NewChunk
from sessions.storage.mongo import Database, connect, ensure_collections
from sessions.storage.mongo_chunks import MongoChunks
from sessions.storage.mongo_journal import Elections, Journal
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


async def test_one_journal_is_likely_on_either_kind_of_server(db: Database) -> None:
    await db.command("ping")
    with Journal(db.client).watch() as order:
        assert order.likely
        await db["bodies"].insert_one({"_id": {"s": "a", "i": Int64(0), "e": Binary(b"e"), "p": 0}, "data": b""})
        await db["sessions"].delete_many({"_id": "nobody"})
    assert order.kept


async def test_of_a_client_that_tells_nothing_none_is(mongodb_url: str) -> None:
    async with AsyncMongoClient[dict[str, Any]](mongodb_url) as client:
        await client.admin.command("ping")
        with Journal(client).watch() as order:
            assert not order.likely
            await client.admin.command("ping")
        assert not order.kept


async def test_answers_that_name_no_election_are_in_no_known_order(mongod_replset: Mongod) -> None:
    """So a router of a sharded cluster answers, should one come to stand there."""
    client, _ = connect(mongod_replset.url, "lucid")
    async with client:
        await client.admin.command("ping")
        with Journal(client).watch() as order:
            assert order.likely
            await client.admin.command("buildInfo")
        assert not order.kept


@pytest.mark.parametrize(
    ("url", "noted"),
    [
        ("mongodb://a,b/?replicaSet=r", True),
        ("mongodb://u:p%40ss@a:1/x?w=1&REPLICASET=r", True),
        ("mongodb://a/", False),
        ("mongodb://a/replicaSet?appname=replicaSet", False),
    ],
)
async def test_elections_are_noted_where_there_are_any(url: str, noted: bool) -> None:
    """They cost a little with each command."""
    client, _ = connect(url, "lucid")
    async with client:
        assert any(isinstance(one, Elections) for one in client.options.event_listeners) == noted


async def test_what_is_acknowledged_has_its_body_after_a_crash(mortal: Mongod, db_mortal: Database) -> None:
    chunks = MongoChunks(db_mortal)
    for index in range(3):
        chunk = new_chunk("a", index, os.urandom(500))
        assert (await chunks.insert([chunk]))[0][0] is InsertOutcome.STORED
        _die_and_return(mortal)
        await _reach(db_mortal)
        assert await _body(chunks, chunk) == chunk.envelope


class _Then:
    """A collection to whose server something happens right after it took something."""

    def __init__(self, collection: Any, happens: Callable[[], Awaitable[None]]) -> None:
        self._collection, self._happens = collection, happens
        self.tried = self.times = 0

    async def insert_many(self, documents: list[Any], *, ordered: bool) -> None:
        self.tried += 1
        await self._collection.insert_many(documents, ordered=ordered)
        self.times += 1
        await self._happens()


async def test_mongodb_dies_between_body_and_record(
    mortal: Mongod, db_mortal: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And nobody notices: the record goes over another connection."""
    chunks, chunk = MongoChunks(db_mortal), new_chunk("a", 0, os.urandom(500))

    async def dies() -> None:
        _die_and_return(mortal)
        await _reach(db_mortal)

    then = _Then(chunks._unwaited, dies)
    monkeypatch.setattr(chunks, "_unwaited", then)
    assert (await chunks.insert([chunk]))[0][0] is InsertOutcome.STORED
    assert then.times == 1
    assert await _body(chunks, chunk) == chunk.envelope


async def test_another_becomes_primary_between_body_and_record(
    members: ReplicaSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that the body had not come to: then the one that had it takes it back."""
    client, db = connect(members.url, "lucid")
    async with client:
        await ensure_collections(db)
        chunks, chunk = MongoChunks(db), new_chunk("a", 0, os.urandom(500))
        assert (await chunks.insert([new_chunk("a", 1)]))[0][0] is InsertOutcome.STORED
        first = members.primary()
        assert first is not None

        async def falls() -> None:
            await asyncio.to_thread(first.stop, signal.SIGKILL)
            members.replicate(on=True)
            assert await asyncio.to_thread(wait_until, lambda: members.primary() not in (None, first), 30)

        then = _Then(chunks._unwaited, falls)
        monkeypatch.setattr(chunks, "_unwaited", then)
        members.replicate(on=False)
        assert (await chunks.insert([chunk]))[0][0] is InsertOutcome.STORED
        assert then.times == 1
        assert await _body(chunks, chunk) == chunk.envelope
        await asyncio.to_thread(first.start)
        assert await _body(chunks, chunk) == chunk.envelope


async def test_a_primary_is_elected_again_between_body_and_record(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may have had to take the body back meanwhile."""
    server = Mongod(tmp_path / "mongo", "replset")
    server.start()
    client, db = connect(server.url, "lucid")
    try:
        await ensure_collections(db)
        chunks = MongoChunks(db)

        async def elected_again() -> None:
            with contextlib.suppress(PyMongoError):
                await client.admin.command("replSetStepDown", 1, secondaryCatchUpPeriodSecs=0, force=True)
            await _reach(db)

        async def nothing() -> None:
            pass

        unwaited, waited = _Then(chunks._unwaited, elected_again), _Then(chunks._bodies, nothing)
        monkeypatch.setattr(chunks, "_bodies", waited)
        assert (await chunks.insert([new_chunk("a", 0)]))[0][0] is InsertOutcome.STORED
        assert waited.tried == 0
        monkeypatch.setattr(chunks, "_unwaited", unwaited)
        assert (await chunks.insert([new_chunk("a", 1)]))[0][0] is InsertOutcome.STORED
        assert (unwaited.times, waited.tried) == (1, 1)
    finally:
        await client.close()
        server.stop()
