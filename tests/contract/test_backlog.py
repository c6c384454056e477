"""The backlog of anchoring, on real MongoDB: through a batch's whole life."""

from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from pymongo import AsyncMongoClient
from pymongo.asynchronous.database import AsyncDatabase
from pymongo.monitoring import CommandListener, CommandStartedEvent

from scripts.devstack.mongod import Mongod
from sessions.core import merkle
from sessions.core.receipt import AnchorState
from sessions.runtime.errors import DomainError
from sessions.storage import mongo_backlog, mongo_batches
from sessions.storage.anchor import BatchRecord
from sessions.storage.backlog import Unanchored
from sessions.storage.mongo_backlog import MongoBacklog
from sessions.storage.mongo_batches import MongoBatches

NOW = datetime(2026, 5, 14, 12, tzinfo=UTC)


class Commands(CommandListener):
    """Counts the reads of sessions that ask for members of a batch."""

    def __init__(self) -> None:
        self.aggregates = 0

    def started(self, event: CommandStartedEvent) -> None:
        self.aggregates += event.command_name == "aggregate" and "$in" in str(event.command)

    def succeeded(self, event: object) -> None: ...

    def failed(self, event: object) -> None: ...


@pytest.fixture
def commands() -> Commands:
    return Commands()


@pytest.fixture
async def db(mongod_standalone: Mongod, database_name: str, commands: Commands) -> AsyncIterator[AsyncDatabase]:
    async with AsyncMongoClient(mongod_standalone.url, tz_aware=True, event_listeners=[commands]) as client:
        database = client[database_name]
        await mongo_batches.ensure_indexes(database)
        await mongo_backlog.ensure_indexes(database)
        await mongo_backlog.ensure_indexes(database)
        yield database


async def seal(db: AsyncDatabase, name: str, seconds_ago: int) -> None:
    sealed_at = NOW - timedelta(seconds=seconds_ago)
    order = {"sealed_at": sealed_at, "sealed_by": "recorder", "chunk_count": None, "id": name}
    await db["sessions"].insert_one(
        {"_id": name, "status": "sealed", "manifest": name.encode(), "unbatched": True, "seal_order": order}
    )


async def make_batch(db: AsyncDatabase, sequence: int) -> BatchRecord:
    batches = MongoBatches(db)
    leaves = await batches.unbatched(10)
    hashes = [leaf.leaf_hash for leaf in leaves]
    ids = tuple(leaf.session_id for leaf in leaves)
    record = BatchRecord(sequence=sequence, root=merkle.root(hashes), size=len(leaves), created_at=NOW, session_ids=ids)
    await batches.append(record, hashes, 1)
    await batches.place(sequence, 1)
    return record


async def test_a_session_counts_from_its_seal_until_it_is_in_a_block(db: AsyncDatabase, commands: Commands) -> None:
    backlog = MongoBacklog(db)
    assert await backlog.unanchored() == Unanchored(0, None)
    for name, seconds_ago in (("a", 10), ("b", 30), ("c", 20)):
        await seal(db, name, seconds_ago)
    assert await backlog.unanchored() == Unanchored(3, NOW - timedelta(seconds=30))
    record = await make_batch(db, 0)
    await seal(db, "d", 5)
    for state in (AnchorState.PENDING, AnchorState.SUBMITTED):
        if state is not record.anchor.state:
            before, record = record, replace(record, anchor=replace(record.anchor, state=state))
            await MongoBatches(db).update(record, before.anchor.state, 1)
        assert await backlog.unanchored() == Unanchored(4, NOW - timedelta(seconds=30))
    assert commands.aggregates == 1  # a batch's members are looked up once
    included = replace(record, anchor=replace(record.anchor, state=AnchorState.INCLUDED))
    await MongoBatches(db).update(included, AnchorState.SUBMITTED, 1)
    assert await backlog.unanchored() == Unanchored(1, NOW - timedelta(seconds=5))
    # Dropped by the chain, it waits again.
    await MongoBatches(db).update(record, AnchorState.INCLUDED, 1)
    assert (await backlog.unanchored()).sessions == 4
    assert (await MongoBacklog(db).unanchored()).oldest_sealed_at == NOW - timedelta(seconds=30)


async def test_what_waits_is_read_off_the_index(db: AsyncDatabase) -> None:
    await db["sessions"].insert_many({"_id": f"done-{number}", "status": "sealed"} for number in range(50))
    await seal(db, "a", 1)
    query = (
        db["sessions"].find({"unbatched": True}, sort=[("seal_order.sealed_at", 1)], hint="unbatched_since").limit(1)
    )
    plan = (await query.explain())["executionStats"]
    assert (plan["totalKeysExamined"], plan["totalDocsExamined"]) == (1, 1)


async def test_a_database_that_is_away() -> None:
    async with AsyncMongoClient("mongodb://127.0.0.1:1/", serverSelectionTimeoutMS=100) as client:
        with pytest.raises(DomainError) as away:
            await MongoBacklog(client["x"]).unanchored()
    assert away.value.code == "database-unavailable"
