"""The anchorer on real parts: MongoDB of both kinds, and an EVM node that loses blocks."""

import asyncio
import hashlib
from collections.abc import AsyncIterator, Callable, Iterator
from datetime import UTC, datetime
from typing import Any

import pytest
from pymongo import AsyncMongoClient

from scripts.devstack.anvil import Anvil
from sessions.core.manifest import SESSION_LEAF_PREFIX
from sessions.core.merkle import leaf_hash, verify_inclusion
from sessions.core.receipt import AnchorState
from sessions.core.types import SessionId
from sessions.storage.anchor import ChainUnavailableError, HistoryLostError, StaleLeaderError
from sessions.storage.anchorer import Anchorer
from sessions.storage.contract.deploy import deploy
from sessions.storage.mongo import ensure_collections
from sessions.storage.mongo_batches import MongoBatches, ensure_indexes
from sessions.storage.mongo_lease import MongoLease
from sessions.storage.mongo_sessions import MongoSessions
from tests.contract.chains import AnvilRig, answers, proxied

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


async def test_a_leader_that_slept_while_it_signed_sends_nothing(
    database: Database, real: AnvilRig, start: Start
) -> None:
    """Its lease has run out, and another replica has signed and sent."""
    batches, asleep, woken = MongoBatches(database), asyncio.Event(), asyncio.Event()
    await seal(database, "a")

    async def sleep(method: str, answer: Any) -> Any:
        if method == "eth_estimateGas":
            asleep.set()
            await woken.wait()
        return answer

    async with proxied(real.node.url, sleep) as url:
        chain = real.another(rpc_urls=[url])
        first = Anchorer(batches=batches, lease=MongoLease(database, "anchorer", "first", 0.3), chain=chain)
        signing = asyncio.create_task(first.tick())
        await asleep.wait()
        await asyncio.sleep(0.4)
        second = start("second")
        await second.tick()
        woken.set()
        with pytest.raises(StaleLeaderError):
            await signing
        await chain.close()
    assert int(real.node.call("txpool_status")["pending"], 16) == 1
    await confirm(second, real, batches)
    assert len((await batches.last()).transactions) == 1
    await check_receipt(database, real, "a")


async def test_a_leader_that_slept_while_it_made_a_batch(database: Database, real: AnvilRig, start: Start) -> None:
    """R8: it had read {a, b}; by now {a, b, c} are in a batch, and no session is in two."""
    batches, asleep, woken = MongoBatches(database), asyncio.Event(), asyncio.Event()
    await seal(database, "a", "b")

    class Slow(MongoBatches):
        async def unbatched(self, limit: int) -> Any:
            found = await super().unbatched(limit)
            asleep.set()
            await woken.wait()
            return found

    lease = MongoLease(database, "anchorer", "first", 0.3)
    making = asyncio.create_task(Anchorer(batches=Slow(database), lease=lease, chain=real.chain).tick())
    await asleep.wait()
    await asyncio.sleep(0.4)
    await seal(database, "c")
    second = start("second")
    await second.tick()
    woken.set()
    with pytest.raises(StaleLeaderError):
        await making
    await confirm(second, real, batches)
    assert [record.size for record in await batches.list(9)] == [3]
    for name in "abc":
        await check_receipt(database, real, name)


async def confirm(anchorer: Anchorer, real: AnvilRig, batches: MongoBatches) -> None:
    """Until all is confirmed."""
    for _ in range(6):
        if not await batches.unsettled():
            return
        real.mine(2)
        await anchorer.tick()
    raise AssertionError([record.anchor for record in await batches.unsettled()])


async def test_a_transaction_that_the_node_dropped_is_sent_again(
    database: Database, real: AnvilRig, start: Start
) -> None:
    batches, anchorer = MongoBatches(database), start("one")
    await seal(database, "a")
    await anchorer.tick()
    real.node.call("anvil_dropAllTransactions")
    real.mine(2)
    await anchorer.tick()
    assert (await batches.last()).anchor.state is AnchorState.SUBMITTED
    await confirm(anchorer, real, batches)
    assert len((await batches.last()).transactions) == 1
    await check_receipt(database, real, "a")


async def test_a_nonce_that_somebody_else_used(database: Database, real: AnvilRig, start: Start) -> None:
    batches, anchorer = MongoBatches(database), start("one")
    await seal(database, "a")
    await anchorer.tick()
    real.use_nonce()
    await anchorer.tick()
    await confirm(anchorer, real, batches)
    lost, taken = (await batches.last()).transactions
    assert taken.nonce == lost.nonce + 1
    await check_receipt(database, real, "a")


async def test_an_account_that_is_empty_is_tried_again(database: Database, real: AnvilRig, start: Start) -> None:
    batches, anchorer = MongoBatches(database), start("one")
    await seal(database, "a")
    real.node.call("anvil_setBalance", real.publisher, "0x0")
    for _ in range(2):
        with pytest.raises(ChainUnavailableError, match=r"(?i)insufficient funds"):
            await anchorer.tick()
    await anchorer._probe()
    assert anchorer.status.balance_wei == 0
    real.node.call("anvil_setBalance", real.publisher, hex(10**18))
    await anchorer.tick()
    await confirm(anchorer, real, batches)
    assert len((await batches.last()).transactions) == 1
    await check_receipt(database, real, "a")


async def test_a_node_that_is_behind_gives_a_nonce_that_is_used(
    database: Database, real: AnvilRig, start: Start
) -> None:
    """It is the older batch's, which stays where it is; the younger one gets another."""
    batches, anchorer = MongoBatches(database), start("one")
    await seal(database, "a")
    await anchorer.tick()
    await confirm(anchorer, real, batches)
    used = (await batches.last()).transactions[0].nonce
    await seal(database, "b")
    async with proxied(real.node.url, answers("eth_getTransactionCount", hex(used))) as url:
        behind = real.another(rpc_urls=[url])
        await start("one", behind).tick()
        await behind.close()
    assert (await batches.last()).transactions[0].nonce == used
    await anchorer.tick()
    await confirm(anchorer, real, batches)
    assert [item.nonce for item in (await batches.last()).transactions] == [used, used + 1]
    for name in "ab":
        await check_receipt(database, real, name)


async def test_a_node_that_was_put_back_to_an_older_state(database: Database, real: AnvilRig, start: Start) -> None:
    """What was confirmed in the blocks that it lost goes out again, and is not called confirmed any more."""
    batches, anchorer = MongoBatches(database), start("one")
    await seal(database, "a")
    await anchorer.tick()
    await confirm(anchorer, real, batches)
    before = real.node.call("evm_snapshot")
    for name in "bc":
        await seal(database, name)
        await anchorer.tick()
        await confirm(anchorer, real, batches)
    real.node.call("evm_revert", before)
    with pytest.raises(ChainUnavailableError, match="no other block"):  # so far it may be behind
        await anchorer.tick()
    real.mine(9)
    await anchorer.tick()
    states = [record.anchor.state for record in await batches.list(9)]
    assert states == [AnchorState.SUBMITTED, AnchorState.SUBMITTED, AnchorState.CONFIRMED]
    await anchorer.tick()
    await confirm(anchorer, real, batches)
    assert [len(record.transactions) for record in await batches.list(9)] == [1, 1, 1]
    for name in "abc":
        await check_receipt(database, real, name)


async def test_a_reorganisation_below_what_was_confirmed_and_the_nonce_is_gone(
    database: Database, real: AnvilRig, start: Start
) -> None:
    batches, anchorer = MongoBatches(database), start("one")
    await seal(database, "a")
    real.mine(3)
    await anchorer.tick()
    await confirm(anchorer, real, batches)
    real.reorganise(3)
    real.use_nonce()
    real.mine()
    for _ in range(2):
        await anchorer.tick()
    (record,) = await batches.list(9)
    assert (record.anchor.state, len(record.transactions)) == (AnchorState.SUBMITTED, 2)
    await confirm(anchorer, real, batches)
    await check_receipt(database, real, "a")


@pytest.fixture(scope="module")
def pruning(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Anvil]:
    """A node that forgets the transactions of all blocks but the newest two."""
    node = Anvil(tmp_path_factory.mktemp("pruning") / "chain", 0, extra=("--transaction-block-keeper", "2"))
    node.start()
    try:
        yield node
    finally:
        node.stop()


async def test_a_node_that_forgets_old_transactions(database: Database, pruning: Anvil, start: Start) -> None:
    """Nothing is signed a second time for what the contract has, and nothing is said that is not known."""
    rig = AnvilRig(pruning, deploy(pruning.url, pruning.accounts[5][1]).address)
    batches, anchorer = MongoBatches(database), start("one", rig.chain)
    pruning.call("evm_setAutomine", False)
    try:
        await seal(database, "a")
        await anchorer.tick()
        rig.mine()
        await anchorer.tick()
        rig.mine(5)
        with pytest.raises(HistoryLostError):
            await anchorer.tick()
        record = await batches.last()
        assert rig.anchored_at(record.root) == record.anchor.block_timestamp
        assert (record.anchor.state, len(record.transactions)) == (AnchorState.INCLUDED, 1)
        assert anchorer.status.reorganisations == 0
    finally:
        pruning.call("evm_setAutomine", True)
        await rig.chain.close()


async def test_what_was_confirmed_stays_so_when_its_transaction_is_forgotten(
    database: Database, pruning: Anvil, start: Start
) -> None:
    rig = AnvilRig(pruning, deploy(pruning.url, pruning.accounts[5][1]).address)
    batches, anchorer = MongoBatches(database), start("one", rig.chain)
    await seal(database, "a")
    await anchorer.tick()
    rig.mine()
    await anchorer.tick()
    rig.mine(5)
    await anchorer.tick()
    assert [record.anchor.state for record in await batches.list(9)] == [AnchorState.CONFIRMED]
    await rig.chain.close()
