"""Options of the database's URL that must not weaken a promise, on a replica set of which one member is behind."""

import pytest
from pymongo import MongoClient

from scripts.devstack.replica_set import ReplicaSet
from sessions.core.types import SessionId
from sessions.storage.mongo import connect, ensure_collections
from sessions.storage.mongo_chunks import MongoChunks
from tests.unit.storage.chunks import new_chunk

A = SessionId("a")


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
