"""The anchorer on real parts: MongoDB of both kinds, and an EVM node that loses blocks."""

import hashlib
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime
from typing import Any

import pytest
from pymongo import AsyncMongoClient

from sessions.core.manifest import SESSION_LEAF_PREFIX
from sessions.core.merkle import leaf_hash, verify_inclusion
from sessions.core.receipt import AnchorState
from sessions.core.types import SessionId
from sessions.storage.anchor import ChainUnavailableError
from sessions.storage.anchorer import Anchorer
from sessions.storage.mongo import ensure_collections
from sessions.storage.mongo_batches import MongoBatches, ensure_indexes
from sessions.storage.mongo_lease import MongoLease
from sessions.storage.mongo_sessions import MongoSessions
from tests.contract.chains import AnvilRig

Database = Any
Start = Callable[..., Anchorer]


@pytest.fixture
async def database(mongodb_url: str, database_name: str) -> AsyncIterator[Database]:
    async with AsyncMongoClient(mongodb_url, tz_aware=True) as client:
        await ensure_collections(client[database_name])
        await ensure_indexes(client[database_name])
        yield client[database_name]


@pytest.fixture
def start(database: Database, real: AnvilRig) -> Start:
    def make(holder: str, chain: Any = None) -> Anchorer:
        lease = MongoLease(database, "anchorer", holder, 30)
        return Anchorer(batches=MongoBatches(database), lease=lease, chain=chain or real.chain)

    return make


async def seal(database: Database, *names: str) -> None:
    for name in names:
        await database["sessions"].insert_one(
            {
                "_id": name,
                "status": "sealed",
                "opened_at": datetime.now(UTC),
                "metadata": b"{}",
                "keys": [],
                "manifest": b"manifest of " + name.encode(),
                "tiles_attempt": "1",
                "unbatched": True,
            }
        )


async def check_receipt(database: Database, real: AnvilRig, name: str) -> None:
    """What a receipt will say, against the chain."""
    session = await MongoSessions(database).get(SessionId(name))
    place = session.placement.batch
    leaf = leaf_hash(SESSION_LEAF_PREFIX + hashlib.sha256(session.seal.manifest).digest())
    verify_inclusion(leaf, place.index, place.size, place.path, place.root)
    anchor = (await MongoBatches(database).get_by_sequence(session.placement.sequence)).anchor
    block = real.node.call("eth_getBlockByHash", "0x" + anchor.block_hash.hex(), False)
    assert anchor.state is AnchorState.CONFIRMED
    assert int(block["number"], 16) == anchor.block_number
    assert int(block["timestamp"], 16) == anchor.block_timestamp == real.anchored_at(place.root)
    assert "0x" + anchor.transaction.hex() in block["transactions"]


async def test_two_replicas_a_lost_block_and_a_chain_that_is_away(
    database: Database, real: AnvilRig, start: Start
) -> None:
    batches, names = MongoBatches(database), ["a", "b", "c"]
    await seal(database, *names)
    first, second = start("first"), start("second")
    await first.tick()
    await second.tick()
    assert not second.status.leader
    real.mine()
    await first.tick()
    assert (await batches.last()).anchor.state is AnchorState.INCLUDED

    real.reorganise(1)
    await first.tick()
    record = await batches.last()
    assert record.anchor.state is AnchorState.SUBMITTED
    assert len(record.transactions) == 1

    await MongoLease(database, "anchorer", "first", 30).release()  # and the first one dies
    real.mine()
    await second.tick()
    assert second.status.leader
    await seal(database, "d")
    nowhere = real.another(rpc_urls=["http://127.0.0.1:1"])
    with pytest.raises(ChainUnavailableError):
        await start("second", nowhere).tick()
    await nowhere.close()
    assert (await batches.last()).anchor.state is AnchorState.PENDING

    for _ in range(3):
        await second.tick()
        real.mine()
    await second.tick()
    assert list(await batches.unsettled()) == []
    assert [record.sequence for record in await batches.list(9)] == [1, 0]
    for name in [*names, "d"]:
        await check_receipt(database, real, name)


async def test_a_stuck_transaction_is_replaced_on_a_real_node(database: Database, real: AnvilRig) -> None:
    batches = MongoBatches(database)
    await seal(database, "a")
    lease = MongoLease(database, "anchorer", "one", 30)
    anchorer = Anchorer(batches=batches, lease=lease, chain=real.chain, replace_after_seconds=-1)
    await anchorer.tick()
    await anchorer.tick()
    old, new = (await batches.last()).transactions
    assert old.nonce == new.nonce
    real.mine(2)
    await anchorer.tick()
    assert (await batches.last()).anchor.transaction == new.hash
    await check_receipt(database, real, "a")
