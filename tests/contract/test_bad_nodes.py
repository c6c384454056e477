"""The anchorer behind nodes that lag, forget and contradict themselves: absence is no evidence, and money is not spent twice."""

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from eth_account.typed_transactions import TypedTransaction
from hexbytes import HexBytes

from scripts.devstack.anvil import Anvil
from sessions.core.receipt import AnchorState
from sessions.core.types import SessionId
from sessions.storage.anchor import BatchRecord, ChainUnavailableError
from sessions.storage.anchorer import Anchorer
from sessions.storage.contract.deploy import deploy
from sessions.storage.evm import GWEI, EvmChain
from sessions.storage.memory_anchoring import LeaseState, MemoryBatches, MemoryLease
from tests.contract.chains import AnvilRig, Instead, answers, proxied


class Desk:
    """An anchorer on a database in memory and a real node, perhaps by way of a bad one."""

    def __init__(self, rig: AnvilRig) -> None:
        self.rig, self.batches, self.lease = rig, MemoryBatches(), LeaseState()
        self.time = datetime.now(UTC)

    def anchorer(self, chain: EvmChain | None = None, **changes: Any) -> Anchorer:
        lease = MemoryLease(self.lease, "one", 30)
        chain = chain or self.rig.chain
        return Anchorer(batches=self.batches, lease=lease, chain=chain, now=lambda: self.time, **changes)

    async def anchor(self, name: str, blocks: int = 3) -> BatchRecord:
        self.batches.seal(SessionId(name), name.encode())
        await self.anchorer().tick()
        self.rig.mine(blocks)
        await self.anchorer().tick()
        return await self.last()

    async def last(self) -> BatchRecord:
        record = await self.batches.last()
        assert record is not None
        return record

    async def tick(self, chain: EvmChain, **changes: Any) -> str:
        """One round, whatever comes of it; the reason why it failed."""
        anchorer = self.anchorer(chain, **changes)
        try:
            await anchorer.tick()
        except ChainUnavailableError as error:
            return str(error)
        finally:
            self.reorganisations = anchorer.status.reorganisations
        return ""


@pytest.fixture
def desk(real: AnvilRig) -> Desk:
    return Desk(real)


class Lag:
    """What a backend that is at block `at` answers in place of the fresh one."""

    def __init__(self, rig: AnvilRig, at: int, *methods: str) -> None:
        self.rig, self.at, self.methods = rig, at, methods

    def route(self, method: str, parameters: list[Any]) -> str:
        if method in self.methods and parameters[-1] == "latest":
            parameters[-1] = hex(self.at)
        self.beyond = method in self.methods and self._number(parameters[-1]) > self.at
        return self.rig.node.url

    def _number(self, which: Any) -> int:
        if isinstance(which, dict):
            block = self.rig.node.call("eth_getBlockByHash", which["blockHash"], False)
            return int(block["number"], 16)
        return int(which, 16) if isinstance(which, str) and which.startswith("0x") and len(which) < 66 else 0

    def change(self, method: str, answer: Any) -> Any:
        if method not in self.methods:
            return answer
        result = answer.get("result")
        if isinstance(result, dict):
            number = result.get("blockNumber") or result.get("number")
            return answer | {"result": result if int(number, 16) <= self.at else None}
        if self.beyond:
            return {"jsonrpc": "2.0", "id": 1, "error": {"code": -32000, "message": "header not found"}}
        return answer

    @asynccontextmanager
    async def chain(self, **settings: Any) -> AsyncIterator[EvmChain]:
        async with proxied(self.rig.node.url, self.change, self.route) as url:
            chain = self.rig.another(rpc_urls=[url], **settings)
            yield chain
            await chain.close()


LAGS = {
    "receipts": ("eth_getTransactionReceipt",),
    "receipts and nonces": ("eth_getTransactionReceipt", "eth_getTransactionCount"),
    "receipts and calls": ("eth_getTransactionReceipt", "eth_call"),
    "receipts, nonces and calls": ("eth_getTransactionReceipt", "eth_getTransactionCount", "eth_call"),
    "all but the head": (
        "eth_getTransactionReceipt",
        "eth_getTransactionCount",
        "eth_call",
        "eth_getBlockByNumber",
        "eth_getBlockByHash",
    ),
}


@pytest.mark.parametrize("lag", LAGS)
@pytest.mark.parametrize("confirmations", [2, "finalized", 500])
async def test_lagging_backends_take_no_anchor_back(desk: Desk, lag: str, confirmations: Any) -> None:
    """B37: a confirmed anchor became `submitted` while receipts came from a backend that was 40 blocks behind."""
    before = int(desk.rig.node.call("eth_blockNumber"), 16)
    state = AnchorState.INCLUDED if confirmations == 500 else AnchorState.CONFIRMED
    desk.rig.chain = desk.rig.another(confirmations=confirmations)
    record = await desk.anchor("a")
    assert record.anchor.state is state
    desk.rig.mine(40)
    async with Lag(desk.rig, before, *LAGS[lag]).chain(confirmations=confirmations) as chain:
        for _ in range(3):
            desk.time += timedelta(seconds=400)
            await desk.tick(chain)
            assert await desk.last() == record
            assert desk.reorganisations == 0
    assert await desk.tick(desk.rig.chain) == ""
    assert await desk.last() == record
    await desk.rig.chain.close()


async def test_another_block_at_that_height_takes_it_back(desk: Desk) -> None:
    record = await desk.anchor("a")
    assert record.anchor.state is AnchorState.CONFIRMED
    desk.rig.reorganise(3)
    await desk.tick(desk.rig.chain)
    back = await desk.last()
    assert (back.anchor.state, desk.reorganisations) == (AnchorState.SUBMITTED, 1)
    assert back.transactions == record.transactions
    desk.rig.mine(3)
    await desk.tick(desk.rig.chain)
    assert (await desk.last()).anchor.state is AnchorState.CONFIRMED


STORED = {
    "decimal read as hex": lambda anchor: replace(anchor, block_number=int(str(anchor.block_number), 16)),
    "centuries away": lambda anchor: replace(anchor, block_number=536_870_912),
    "centuries away, other block": lambda anchor: replace(anchor, block_number=2**40, block_hash=b"\7" * 32),
    "in the future, too": lambda anchor: replace(
        anchor, block_number=2**40, block_hash=b"\7" * 32, block_timestamp=2**40
    ),
    "before all": lambda anchor: replace(anchor, block_number=1, block_hash=b"\7" * 32),
}


@pytest.mark.parametrize("lie", STORED)
@pytest.mark.parametrize("state", [AnchorState.INCLUDED, AnchorState.CONFIRMED])
@pytest.mark.parametrize("sent", [True, False], ids=["sent", "held back"])
async def test_a_false_block_that_is_stored_shuts_out_no_honest_node(
    desk: Desk, lie: str, state: AnchorState, sent: bool
) -> None:
    """B39: `blockNumber` 1326 was stored as 4902, and no honest node was believed from then on."""
    desk.rig.mine(5)
    if sent:
        await desk.anchor("a")
    else:  # the liar swallowed it
        desk.batches.seal(SessionId("a"), b"a")
        async with proxied(desk.rig.node.url, answers("eth_sendRawTransaction", "0x" + "00" * 32)) as url:
            chain = desk.rig.another(rpc_urls=[url])
            await desk.tick(chain)
            await chain.close()
    batch = desk.batches._batches[-1]
    head = desk.rig.node.call("eth_getBlockByNumber", "latest", False)
    block = {
        "block_number": batch.record.anchor.block_number or int(head["number"], 16),
        "block_hash": batch.record.anchor.block_hash or bytes.fromhex(head["hash"][2:]),
        "block_timestamp": batch.record.anchor.block_timestamp or int(head["timestamp"], 16),
    }
    anchor = STORED[lie](replace(batch.record.anchor, state=state, **block))
    batch.record = replace(batch.record, anchor=anchor)
    desk.batches.seal(SessionId("b"), b"b")
    for _ in range(9):
        await desk.tick(desk.rig.chain)
        desk.rig.mine(10)  # as far as the least of the false numbers, since times may stand still
    await desk.tick(desk.rig.chain)
    first, second = reversed(await desk.batches.list(9))
    for record in (first, second):
        assert record.anchor.state is AnchorState.CONFIRMED
        receipt = desk.rig.node.call("eth_getTransactionReceipt", "0x" + record.anchor.transaction.hex())
        assert int(receipt["blockNumber"], 16) == record.anchor.block_number
        hashes = ["0x" + one.hash.hex() for one in record.transactions]
        assert sum(desk.rig.node.call("eth_getTransactionReceipt", one) is not None for one in hashes) == 1


async def test_a_block_of_which_the_node_says_it_holds_no_such_transaction_is_none(desk: Desk) -> None:
    """A node that lies names a true block."""
    block = desk.rig.node.call("eth_getBlockByNumber", "latest", False)
    found = {"blockNumber": block["number"], "blockHash": block["hash"], "status": "0x1", "gasUsed": "0xb000"}
    desk.batches.seal(SessionId("a"), b"a")
    async with proxied(desk.rig.node.url, answers("eth_getTransactionReceipt", found)) as url:
        chain = desk.rig.another(rpc_urls=[url])
        await desk.tick(chain)
        assert "contradicts" in await desk.tick(chain)
        await chain.close()
    assert (await desk.last()).anchor.state is AnchorState.SUBMITTED


@pytest.fixture(scope="module")
def other_anvil(tmp_path_factory: pytest.TempPathFactory, own_anvil: tuple[Anvil, bytes]) -> Iterator[Anvil]:
    """A backend on a fork: the same contract at the same address, other blocks."""
    node = Anvil(tmp_path_factory.mktemp("fork") / "chain", block_seconds=0)
    node.start()
    try:
        assert deploy(node.url, node.accounts[5][1]).address == own_anvil[1]
        node.call("evm_setAutomine", False)
        yield node
    finally:
        node.stop()


async def test_a_receipt_of_a_fork_is_not_confirmed_by_the_head_of_the_chain(desk: Desk, other_anvil: Anvil) -> None:
    """Receipts and blocks come from a backend on a fork, the head from one that is far ahead on the chain."""
    desk.batches.seal(SessionId("a"), b"a")
    await desk.anchorer().tick()
    (signed,) = (await desk.last()).transactions
    desk.rig.node.call("anvil_dropAllTransactions")
    other_anvil.call("eth_sendRawTransaction", "0x" + signed.raw.hex())
    other_anvil.call("anvil_mine", "0x1")
    receipt = other_anvil.call("eth_getTransactionReceipt", "0x" + signed.hash.hex())
    assert receipt["status"] == "0x1"
    desk.rig.mine(20)
    fork = ("eth_getTransactionReceipt", "eth_getBlockByHash")

    def route(method: str, _parameters: list[Any]) -> str:
        return other_anvil.url if method in fork else desk.rig.node.url

    async with proxied(desk.rig.node.url, lambda _, answer: answer, route) as url:
        chain = desk.rig.another(rpc_urls=[url])
        assert await desk.tick(chain)
        assert (await desk.last()).anchor.state is not AnchorState.CONFIRMED
        await chain.close()
    await desk.tick(desk.rig.chain)
    desk.rig.mine(3)
    await desk.tick(desk.rig.chain)
    assert (await desk.last()).anchor.state is AnchorState.CONFIRMED
    assert len((await desk.last()).transactions) == 1


async def test_nothing_is_signed_anew_while_the_old_transaction_may_be_in_a_block(desk: Desk) -> None:
    """The nonces come from a fresh backend, what else is asked from one that is behind."""
    desk.batches.seal(SessionId("a"), b"a")
    before = int(desk.rig.node.call("eth_blockNumber"), 16)
    await desk.anchorer().tick()
    desk.rig.mine(10)
    for methods in (("eth_getTransactionReceipt", "eth_call"), ("eth_getTransactionReceipt",)):
        async with Lag(desk.rig, before, *methods).chain() as chain:
            for _ in range(3):
                desk.time += timedelta(seconds=400)
                await desk.tick(chain)
                assert len((await desk.last()).transactions) == 1
    await desk.tick(desk.rig.chain)
    record = await desk.last()
    assert (record.anchor.state, len(record.transactions)) == (AnchorState.CONFIRMED, 1)


async def test_a_nonce_of_somebody_else_counts_when_its_block_is_confirmed(desk: Desk) -> None:
    desk.batches.seal(SessionId("a"), b"a")
    await desk.anchorer().tick()
    desk.rig.use_nonce()
    await desk.tick(desk.rig.chain)
    assert len((await desk.last()).transactions) == 1, "its block may still be reorganised away"
    desk.rig.mine()
    await desk.tick(desk.rig.chain)
    assert [one.nonce for one in (await desk.last()).transactions] == [0, 1]
    desk.rig.mine(3)
    await desk.tick(desk.rig.chain)
    assert (await desk.last()).anchor.state is AnchorState.CONFIRMED


def least(tip_gwei: int, words: str) -> tuple[Instead, list[int]]:
    """A node that takes no transaction with a lower tip, and says so in its own words."""

    offers: list[int] = []

    def ask(body: dict[str, Any]) -> dict[str, Any] | None:
        if body["method"] != "eth_sendRawTransaction":
            return None
        fields = TypedTransaction.from_bytes(HexBytes(body["params"][0])).as_dict()
        offers.append(fields["maxPriorityFeePerGas"])
        assert fields["maxPriorityFeePerGas"] <= fields["maxFeePerGas"] <= 200 * GWEI
        if fields["maxPriorityFeePerGas"] >= tip_gwei * GWEI:
            return None
        return {"jsonrpc": "2.0", "id": 1, "error": {"code": -32000, "message": words}}

    return ask, offers


UNDERPRICED = [
    "transaction underpriced: tip needed 25000000000, tip permitted 1000000000",  # geth, bor
    "replacement transaction underpriced",
    "FeeTooLow, MaxFeePerGas too low. MaxFeePerGas: 1, BaseFee: 2",  # Nethermind
    "Gas price below configured minimum gas price",  # Besu
    "Priority fee per gas below configured minimum value",
    "max fee per gas less than block base fee",  # anvil, geth
    "fee too low",  # Erigon
    "UNDERPRICED",
]


@pytest.mark.parametrize("words", UNDERPRICED)
async def test_what_is_refused_as_underpriced_is_raised_at_once(desk: Desk, words: str) -> None:
    """B42: it was raised by an eighth each five minutes, and took 2.3 hours to 25 gwei."""
    desk.batches.seal(SessionId("a"), b"a")
    refuse, offers = least(25, words)
    async with proxied(desk.rig.node.url, lambda _, answer: answer, instead=refuse) as url:
        chain = desk.rig.another(rpc_urls=[url])
        assert await desk.tick(chain) == ""
        record = await desk.last()
        assert 25 * GWEI <= record.transactions[-1].priority_fee_wei <= 50 * GWEI
        assert len({one.nonce for one in record.transactions}) == 1
        assert len(record.transactions) == len(offers) < 8
        desk.rig.mine(3)
        await desk.tick(chain)
        await chain.close()
    assert (await desk.last()).anchor.transaction == record.transactions[-1].hash


async def test_an_offer_ends_at_the_cap(desk: Desk) -> None:
    desk.batches.seal(SessionId("a"), b"a")
    refuse, offers = least(10_000, "transaction underpriced")
    async with proxied(desk.rig.node.url, lambda _, answer: answer, instead=refuse) as url:
        chain = desk.rig.another(rpc_urls=[url])
        for _ in range(5):
            assert "underpriced" in await desk.tick(chain)
            desk.time += timedelta(seconds=400)
        await chain.close()
    assert max(offers) == 200 * GWEI
    assert len((await desk.last()).transactions) < 12
    desk.rig.mine()
    await desk.tick(desk.rig.chain)
    desk.rig.mine(3)
    await desk.tick(desk.rig.chain)
    assert (await desk.last()).anchor.state is AnchorState.CONFIRMED


async def test_where_one_node_takes_it_nothing_is_raised(desk: Desk) -> None:
    desk.batches.seal(SessionId("a"), b"a")
    refuse, _ = least(25, "transaction underpriced")
    async with proxied(desk.rig.node.url, lambda _, answer: answer, instead=refuse) as url:
        chain = desk.rig.another(rpc_urls=[url, desk.rig.node.url])
        assert await desk.tick(chain) == ""
        await chain.close()
    assert len((await desk.last()).transactions) == 1
