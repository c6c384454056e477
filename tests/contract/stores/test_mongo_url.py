"""Options of the database's URL that must not weaken a promise, on a replica set of which one member is behind."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

import pytest
from pymongo import MongoClient

from scripts.devstack.replica_set import ReplicaSet
from sessions.core.types import SessionId
from sessions.runtime.errors import DomainError
from sessions.storage import mongo, mongo_url
from sessions.storage.mongo import Database, connect, ensure_collections
from sessions.storage.mongo_chunks import MongoChunks
from tests.unit.storage.chunks import new_chunk

A = SessionId("a")
WEAK: Final = (
    "w=0",
    "w=1",
    "w=1&journal=false",
    "journal=false",
    "wtimeoutMS=1",
    "readConcernLevel=local",
    "readConcernLevel=available",
    "maxPoolSize=1",
    "minPoolSize=100",
    "timeoutMS=1",
    "timeoutMS=0",
    "socketTimeoutMS=1",
    "socketTimeoutMS=0",
    "connectTimeoutMS=1",
    "serverSelectionTimeoutMS=1",
    "waitQueueTimeoutMS=1",
    "retryWrites=false&retryReads=false",
    "compressors=zlib&zlibCompressionLevel=9",
    "serverMonitoringMode=poll",
    "w=0&readConcernLevel=local&readPreference=nearest&retryWrites=false&maxPoolSize=1&timeoutMS=1",
)


@asynccontextmanager
async def _connected(url: str) -> AsyncIterator[Database]:
    client, db = connect(url, "lucid")
    try:
        yield db
    finally:
        await client.close()


async def test_what_a_majority_does_not_have_is_not_acknowledged(
    members: ReplicaSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever the URL says of write concern and times; and what a majority has is read again under each of them."""
    async with _connected(members.url) as db:
        await ensure_collections(db)
    for number, options in enumerate(WEAK):
        async with _connected(f"{members.url}&{options}") as db:
            await MongoChunks(db).insert([new_chunk("a", number)])
            assert len(await MongoChunks(db).page(A, 0, 100)) == number + 1, options
    monkeypatch.setattr(mongo, "OVERRIDES", {**mongo_url.OVERRIDES, "timeoutMS": 700})
    members.replicate(on=False)
    try:
        for number, options in enumerate(WEAK, 100):
            async with _connected(f"{members.url}&{options}") as db:
                with pytest.raises(DomainError, match="the database did not do this now"):
                    await MongoChunks(db).insert([new_chunk("a", number)])
                assert len(await MongoChunks(db).page(A, 0, 1000)) == len(WEAK), options
    finally:
        members.replicate(on=True)


@pytest.mark.parametrize("preference", ["secondary", "secondaryPreferred", "nearest"])
async def test_reads_that_decide_are_never_stale(members: ReplicaSet, preference: str) -> None:
    """B32: a seal had 3 of 8 acknowledged chunks, since a member that was behind had only these."""
    client, db = connect(f"{members.url}&readPreference={preference}", "lucid")
    try:
        await ensure_collections(db)
        chunks = MongoChunks(db)
        await chunks.insert([new_chunk("a", index) for index in range(3)])
        behind = next(member for member in members.members if member is not members.primary())
        with MongoClient(behind.url, directConnection=True) as admin:
            admin.admin.command({"configureFailPoint": "stopReplProducer", "mode": "alwaysOn"})
            await chunks.insert([new_chunk("a", index) for index in range(3, 8)])
            counts = {len(await chunks.page(A, 0, 100)) for _ in range(20)}
            leaves = {len((await chunks.leaves(A, 0, 100)).indexes) for _ in range(20)}
            admin.admin.command({"configureFailPoint": "stopReplProducer", "mode": "off"})
        assert (counts, leaves) == ({8}, {8})
    finally:
        await client.close()
