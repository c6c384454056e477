"""What MongoDB holds besides the stores' contracts: collections, validators, durability, and its errors as ours."""

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime

import pymongo
import pytest
from bson import Binary, Int64
from pymongo.errors import OperationFailure, ServerSelectionTimeoutError, WriteError
from pymongo.read_concern import ReadConcern

from sessions.core.receipt import Batch
from sessions.core.types import SessionId
from sessions.runtime.errors import DomainError
from sessions.runtime.tasks import end_all
from sessions.storage import mongo, mongo_url
from sessions.storage.chunk_records import ChunkRecord
from sessions.storage.disk import free_bytes
from sessions.storage.mongo import Database, Readiness, connect, ensure_collections
from sessions.storage.mongo_chunks import BODY_PART_BYTES, MongoChunks
from sessions.storage.mongo_sessions import MongoSessions
from sessions.storage.store import Placement, SessionFilter
from tests.unit.storage.chunks import driver_may_drop_sockets, new_chunk, session_record

A = SessionId("a")
NOBODY = "mongodb://127.0.0.1:1/"


async def test_collections_validators_and_indexes_exist_however_often_they_are_ensured(db: Database) -> None:
    await asyncio.gather(ensure_collections(db), ensure_collections(db))
    found = {info["name"]: info["options"] async for info in await db.list_collections()}
    assert {"sessions", "chunks", "bodies", "tiles"} <= found.keys()
    for name in ("sessions", "chunks", "bodies", "tiles"):
        assert found[name]["validator"]["$jsonSchema"]["bsonType"] == "object"
        assert found[name].get("validationAction", "error") == "error"
    indexes = await db["sessions"].index_information()
    keys = [index["key"] for index in indexes.values()]
    assert [("opened_at", -1), ("_id", -1)] in keys
    assert [("status", 1), ("opened_at", -1), ("_id", -1)] in keys


async def test_bodies_are_not_compressed_again(db: Database) -> None:
    statistics = await db.command("collStats", "bodies")
    assert "block_compressor=none" in statistics["wiredTiger"]["creationString"].replace("block_compressor=,", "none")


async def test_writes_are_journaled_by_a_majority_and_read_from_it(db: Database) -> None:
    for name in ("sessions", "chunks", "bodies", "tiles"):
        assert db[name].write_concern.document == {"w": "majority", "j": True}
        assert db[name].read_concern == ReadConcern("majority")


_WHEN = datetime(2026, 1, 1, tzinfo=UTC)
_MALFORMED = {
    "status": ("sessions", {"_id": "a", "status": "ajar", "opened_at": _WHEN, "metadata": b"{}", "keys": []}),
    "no keys": ("sessions", {"_id": "a", "status": "open", "opened_at": _WHEN, "metadata": b"{}"}),
    "time": ("sessions", {"_id": "a", "status": "open", "opened_at": "now", "metadata": b"{}", "keys": []}),
    "index": (
        "chunks",
        {
            "_id": {"s": "a", "i": Int64(-1)},
            "plaintext_bytes": 1,
            "envelope_bytes": 1,
            "envelope_sha256": b"",
            "leaf_hash": b"",
        },
    ),
    "no body": ("bodies", {"_id": {"s": "a", "i": Int64(1), "e": b"", "p": 0}}),
    "text": ("tiles", {"_id": {"s": "a", "a": "1", "l": 1, "n": 0}, "hashes": "text"}),
}


@pytest.mark.parametrize("case", _MALFORMED)
async def test_a_malformed_document_is_refused(db: Database, case: str) -> None:
    collection, document = _MALFORMED[case]
    with pytest.raises(WriteError) as caught:
        await db[collection].insert_one(dict(document))
    assert caught.value.code == 121


async def test_the_losers_parts_are_gone(db: Database) -> None:
    chunks = MongoChunks(db)
    contenders = [new_chunk("a", 0, os.urandom(BODY_PART_BYTES)) for _ in range(6)]
    await asyncio.gather(*(chunks.insert([chunk]) for chunk in contenders))
    parts = [document["_id"] async for document in db["bodies"].find({}, projection={"_id": 1})]
    assert len(parts) == 2
    assert len({part["e"] for part in parts}) == 1


@pytest.mark.parametrize("part", [0, 1, 2])
async def test_a_body_that_lacks_a_part_is_not_given(db: Database, part: int) -> None:
    chunks, chunk = MongoChunks(db), new_chunk("a", 0, os.urandom(2 * BODY_PART_BYTES))
    await chunks.insert([chunk])
    await db["bodies"].delete_one({"_id.p": part})
    assert await chunks.read(A, ChunkRecord(0, chunk.plaintext_bytes, chunk.fingerprint)) is None


async def test_a_body_that_was_cut_is_not_given(db: Database) -> None:
    chunks, chunk = MongoChunks(db), new_chunk("a", 0)
    await chunks.insert([chunk])
    await db["bodies"].update_one({"_id.s": "a"}, {"$set": {"data": Binary(b"short")}})
    assert await chunks.read(A, ChunkRecord(0, chunk.plaintext_bytes, chunk.fingerprint)) is None


async def test_a_body_without_its_record_is_taken_up_by_a_repeat(db: Database) -> None:
    """What a crash between the two writes leaves behind."""
    chunks, chunk = MongoChunks(db), new_chunk("a", 0, os.urandom(2 * BODY_PART_BYTES))
    await chunks.insert([chunk])
    await db["chunks"].delete_many({})
    await db["bodies"].delete_one({"_id.p": 1})
    assert (await chunks.insert([chunk]))[0][0] == "stored"
    assert await chunks.read(A, ChunkRecord(0, chunk.plaintext_bytes, chunk.fingerprint)) == chunk.envelope


async def test_a_record_that_vanishes_while_it_is_settled_is_a_repeat(db: Database, monkeypatch) -> None:
    chunks = MongoChunks(db)
    await chunks.insert([new_chunk("a", 0)])

    async def nothing(_: object) -> None:
        return None

    monkeypatch.setattr(chunks, "_chunks", _Without(chunks._chunks, nothing))
    with pytest.raises(DomainError) as caught:
        await chunks.insert([new_chunk("a", 0, b"other")])
    assert (caught.value.code, caught.value.retry_after_seconds) == ("database-unavailable", 1)


class _Without:
    """A collection whose `find_one` finds what it is told."""

    def __init__(self, collection: object, find_one: object) -> None:
        self._collection, self.find_one = collection, find_one

    def __getattr__(self, name: str) -> object:
        return getattr(self._collection, name)


async def test_any_other_refusal_of_a_write_is_not_taken_for_a_duplicate(db: Database) -> None:
    chunks, chunk = MongoChunks(db), new_chunk("a", 0)
    await db.command("collMod", "chunks", validator={"$jsonSchema": {"required": ["never"]}})
    try:
        with pytest.raises(DomainError) as caught:
            await chunks.insert([chunk])
    finally:
        await ensure_collections(db)
    assert caught.value.code == "database-unavailable"
    assert await chunks.page(A, 0, 1) == []
    assert (await chunks.insert([chunk]))[0][0] == "stored"


async def test_other_failures_to_create_a_collection_are_told(db: Database, monkeypatch) -> None:
    monkeypatch.setattr(mongo, "_SCHEMAS", {"wrong": {"bsonType": "no such type"}})
    with pytest.raises(OperationFailure):
        await ensure_collections(db)


async def test_a_url_of_something_else() -> None:
    with pytest.raises(ValueError, match="Invalid URI scheme"):
        connect("http://127.0.0.1/", "x")


@asynccontextmanager
async def _away() -> AsyncIterator[Database]:
    async with driver_may_drop_sockets():
        client, db = connect(NOBODY, "away")
        try:
            yield db
        finally:
            await client.close()


async def test_a_server_that_is_away_is_database_unavailable_everywhere(monkeypatch) -> None:
    monkeypatch.setattr(mongo, "SELECT_SERVER_MS", 50)
    monkeypatch.setattr(mongo, "OVERRIDES", {**mongo_url.OVERRIDES, "serverSelectionTimeoutMS": 50, "timeoutMS": 100})
    async with _away() as db:
        sessions, chunks = MongoSessions(db), MongoChunks(db)
        for work in (
            lambda: sessions.create(session_record("a")),
            lambda: sessions.get(A),
            lambda: sessions.states([A]),
            lambda: sessions.page(SessionFilter(), 1, None),
            lambda: chunks.insert([new_chunk("a", 0)]),
            lambda: chunks.page(A, 0, 1),
            lambda: chunks.drop(A),
        ):
            with pytest.raises(DomainError) as caught:
                await work()
            assert (caught.value.code, caught.value.retry_after_seconds) == ("database-unavailable", 1)
            assert "127.0.0.1" not in caught.value.detail


async def test_readiness_of_a_server_that_is_away(monkeypatch) -> None:
    monkeypatch.setattr(mongo, "SELECT_SERVER_MS", 50)
    monkeypatch.setattr(mongo, "OVERRIDES", {**mongo_url.OVERRIDES, "serverSelectionTimeoutMS": 50, "timeoutMS": 100})
    monkeypatch.setattr(mongo, "_RETRY_SECONDS", 0.01)
    async with _away() as db:
        readiness = Readiness(db)
        assert await readiness.ping() == "not reached yet"
        with pytest.raises(DomainError) as caught:
            readiness.require()
        assert (caught.value.code, caught.value.retry_after_seconds) == ("database-unavailable", 2)
        establishing = asyncio.create_task(readiness.establish())
        async with asyncio.timeout(10):
            while readiness.reason == "not reached yet":
                await asyncio.sleep(0.01)
        assert not readiness.ready
        assert "ServerSelectionTimeoutError" in str(await readiness.ping())
        await end_all([establishing])
        readiness.established.set()
        assert str(await readiness.ping()).startswith("ServerSelectionTimeoutError")


async def test_no_number_of_health_checks_wedges_the_driver(monkeypatch) -> None:
    """The driver waits in steps of 0.5 s. A call cancelled at the end of a step left its lock locked, and all calls hung."""
    async with _away() as db:
        readiness = Readiness(db)
        readiness.established.set()
        for seconds in (0.5008, 0.501, 0.5015, 0.502):
            monkeypatch.setattr(mongo, "_RETRY_SECONDS", seconds / 2)
            await asyncio.gather(*(readiness.ping() for _ in range(8)))
            with pytest.raises(ServerSelectionTimeoutError), pymongo.timeout(1.2):
                async with asyncio.timeout(10):
                    await asyncio.gather(*(db.command("ping") for _ in range(4)))


async def test_a_driver_whose_lock_was_left_locked_keeps_no_service_from_ending(monkeypatch) -> None:
    monkeypatch.setattr(mongo, "_CLOSE_SECONDS", 0.05)
    async with _away() as db:
        lock = db.client._topology._lock
        async with lock:
            async with asyncio.timeout(5):
                await mongo.close(db.client)


async def test_readiness_prepares_until_all_succeeds(db: Database, monkeypatch) -> None:
    monkeypatch.setattr(mongo, "_RETRY_SECONDS", 0.01)
    attempts = 0

    async def prepare(_: Database) -> None:
        nonlocal attempts
        attempts += 1
        if attempts < 3:
            raise OperationFailure("not yet")

    readiness = Readiness(db, prepare)
    await readiness.establish()
    assert attempts == 3
    monkeypatch.setattr(mongo, "_RETRY_SECONDS", 1.0)
    assert await readiness.ping() is None
    readiness.require()


async def test_a_session_knows_its_place_in_a_batch(db: Database) -> None:
    sessions = MongoSessions(db)
    await sessions.create(session_record("a"))
    batch = {"sequence": Int64(4), "root": Binary(b"r" * 32), "size": 2, "index": 1, "path": [Binary(b"p" * 32)]}
    await db["sessions"].update_one({"_id": "a"}, {"$set": {"batch": batch}})
    found = await sessions.get(A)
    assert found is not None
    assert found.placement == Placement(4, Batch(root=b"r" * 32, size=2, index=1, path=(b"p" * 32,)))


async def test_the_server_tells_how_much_room_its_disk_has(db: Database) -> None:
    free = await free_bytes(db)
    assert free is not None
    assert 0 < free < 2**60


async def test_room_that_cannot_be_asked_for_is_an_error_of_ours() -> None:
    async with driver_may_drop_sockets():
        client, db = connect(NOBODY + "?serverSelectionTimeoutMS=50", "x")
        with pytest.raises(DomainError) as refused:
            await free_bytes(db)
        await client.close()
    assert refused.value.code == "database-unavailable"
