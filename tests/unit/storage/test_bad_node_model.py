"""Whatever nodes answer between an honest beginning and an honest end, anchoring pays once, and goes on.

`LUCID_BAD_NODE_EXAMPLES=5000 scripts/test tests/unit/storage/test_bad_node_model.py` tries more.
"""

import asyncio
import os
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

from hypothesis import HealthCheck, note, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from sessions.core.receipt import AnchorState
from sessions.core.types import SessionId
from sessions.storage import evm_look
from sessions.storage.anchor import AnchoringError, BatchRecord
from sessions.storage.anchorer import Anchorer
from sessions.storage.evm import EvmChain
from sessions.storage.memory_anchoring import LeaseState, MemoryBatches, MemoryLease
from tests.unit.storage.evm_simulator import CHAIN_ID, FINALITY, ODD, BadNode, Chain, Fault

EXAMPLES = int(os.environ.get("LUCID_BAD_NODE_EXAMPLES", "60"))
INTERVAL_SECONDS, BLOCK_SECONDS = 60, 12
METHODS = (
    "*",
    "eth_blockNumber",
    "eth_getBlockByNumber",
    "eth_getBlockByHash",
    "eth_getTransactionReceipt",
    "eth_getTransactionByHash",
    "eth_getTransactionCount",
    "eth_call",
    "eth_sendRawTransaction",
    "eth_maxPriorityFeePerGas",
    "eth_estimateGas",
    "eth_chainId",
)
WORDS = (
    "already known",
    "AlreadyKnown",
    "nonce too low",
    "OldNonce, Current nonce: 1",
    "existing tx with same hash",
    "transaction underpriced",
    "replacement transaction underpriced",
    "insufficient funds",
    "header not found",
    "unknown block",
    "slow down",
    "missing trie node",
    "pruned history unavailable",
    "",
)
CODES = (-32000, -32001, -32003, -32005, -32010, -32600, -32601, -32602, -32603, -39001, 4444, 0, 3)
FAULTS = st.one_of(
    st.builds(Fault, lag=st.integers(1, 12), fork=st.booleans(), every=st.integers(1, 3)),
    st.just(Fault(fork=True)),
    st.just(Fault(null=True)),
    st.builds(
        Fault, error=st.tuples(st.sampled_from(CODES), st.sampled_from(WORDS), st.sampled_from((200, 400, 429, 503)))
    ),
    st.builds(Fault, odd=st.sampled_from(sorted(ODD)), every=st.integers(1, 3)),
    st.builds(Fault, garbage=st.sampled_from((b"", b"<html>", b"{}", b"[]", b"null", b'{"result": {}}', b"[" * 5_000))),
    st.just(Fault(swallow=True)),
)


class BadNodes(RuleBasedStateMachine):
    """One anchorer, one chain, two nodes of which each may be bad in its own way."""

    @initialize(confirmations=st.sampled_from([2, 3, 5, "finalized"]), nodes=st.integers(1, 2))
    def honest_beginning(self, confirmations: Any, nodes: int) -> None:
        self.confirmations = confirmations
        self.depth = FINALITY + 1 if confirmations == "finalized" else confirmations
        self.chain, self.batches, self.lease, self.names = Chain(), MemoryBatches(), LeaseState(), 0
        self.clock = patch.object(evm_look, "time", SimpleNamespace(time=lambda: float(self.chain.time)))
        self.clock.start()
        self.nodes = [BadNode(self.chain) for _ in range(nodes)]
        self.restart()
        self.chain.mine(8)
        self.seal()
        self.pass_seconds(INTERVAL_SECONDS)

    @rule()
    def restart(self) -> None:
        self.evm = EvmChain(
            rpc_urls=[f"http://node-{number}" for number in range(len(self.nodes))],
            chain_id=CHAIN_ID,
            contract=b"\xcc" * 20,
            key="0x" + "42" * 32,
            confirmations=self.confirmations,
        )
        for real, simulated in zip(self.evm._nodes._nodes, self.nodes, strict=True):
            real._post = simulated.post
        self.anchorer = Anchorer(
            batches=self.batches,
            lease=MemoryLease(self.lease, "one", 30, clock=lambda: self.chain.time),
            chain=self.evm,
            interval_seconds=INTERVAL_SECONDS,
            replace_after_seconds=INTERVAL_SECONDS,
            now=lambda: datetime.fromtimestamp(self.chain.time, UTC),
        )

    @rule()
    def seal(self) -> None:
        self.names += 1
        self.batches.seal(SessionId(f"s{self.names}"), b"%d" % self.names)

    @rule(method=st.sampled_from(METHODS), fault=FAULTS, which=st.integers(0, 1))
    def turn_bad(self, method: str, fault: Fault, which: int) -> None:
        self.nodes[which % len(self.nodes)].faults[method] = fault

    @rule(methods=st.sets(st.sampled_from(METHODS), min_size=2), fault=FAULTS)
    def turn_bad_in_several_ways(self, methods: set[str], fault: Fault) -> None:
        for node in self.nodes:
            node.faults |= dict.fromkeys(methods, fault)

    @rule(
        fresh=st.sets(st.sampled_from(METHODS[1:])), fault=st.builds(Fault, lag=st.integers(0, 12), fork=st.booleans())
    )
    def fall_apart(self, fresh: set[str], fault: Fault) -> None:
        """Behind the URL are a fresh backend, for some methods, and one that lags or is on the side branch."""
        for node in self.nodes:
            node.faults |= dict.fromkeys(set(METHODS[1:]) - fresh, fault)

    @rule(data=st.data(), fresh=st.sets(st.sampled_from(METHODS[2:]), max_size=4))
    def a_side_branch_alone_has_ours(self, data: Any, fresh: set[str]) -> None:
        """A backend on it answers for most methods, and one on the chain for the head."""
        self.seal()
        self.round()
        self.fork(data, newest=True)
        self.chain.forget()
        for node in self.nodes:
            node.faults = dict.fromkeys(set(METHODS[2:]) - fresh, Fault(fork=True))
        self.round()

    @rule(lag=st.integers(1, 12), fresh=st.sets(st.sampled_from(METHODS[2:]), max_size=3))
    def nonces_alone_are_fresh(self, lag: int, fresh: set[str]) -> None:
        self.seal()
        self.round()
        self.chain.mine(self.depth)
        late = set(METHODS[2:]) - fresh - {"eth_getTransactionCount", "eth_sendRawTransaction"}
        for node in self.nodes:
            node.faults = dict.fromkeys(late, Fault(lag=lag))
        self.round()

    @rule(how=st.sampled_from(["huge", "huger"]))
    def a_nonce_is_made_up(self, how: str) -> None:
        for node in self.nodes:
            node.faults = {"eth_getTransactionCount": Fault(odd=how)}
        self.seal()
        self.round()

    @rule(which=st.integers(0, 1))
    def turn_good(self, which: int) -> None:
        self.nodes[which % len(self.nodes)].faults.clear()

    @rule(seconds=st.sampled_from([1, BLOCK_SECONDS, 30, INTERVAL_SECONDS, 400]), newest=st.booleans())
    def pass_seconds(self, seconds: int, newest: bool = True) -> None:
        for _ in range(0, seconds, BLOCK_SECONDS):
            self.chain.time += min(seconds, BLOCK_SECONDS)
            self.chain.mine(newest=newest)
            self.round()

    @rule()
    def round(self) -> None:
        self.lease.expires_at = 0
        try:
            asyncio.run(self.anchorer.tick())
        except AnchoringError as error:
            note(f"{type(error).__name__}: {error}")

    @rule(data=st.data(), newest=st.booleans())
    def fork(self, data: Any, newest: bool) -> None:
        depth = st.integers(1, self.depth - 1)
        self.chain.branch(data.draw(depth), data.draw(depth), newest=newest)

    @rule(data=st.data(), newest=st.booleans())
    def reorganise(self, data: Any, newest: bool) -> None:
        """As deep as nothing is confirmed there."""
        self.chain.reorganise(data.draw(st.integers(1, self.depth - 1)), newest=newest)

    @rule()
    def pools_forget(self) -> None:
        self.chain.forget()

    @rule()
    def somebody_uses_the_key(self) -> None:
        self.chain.foreign()

    def records(self) -> list[BatchRecord]:
        return [one.record for one in self.batches._batches]

    @invariant()
    def nothing_is_falsely_confirmed(self) -> None:
        for record in self.records():
            if record.anchor.state is AnchorState.CONFIRMED:
                block = self.chain.tip.at(record.anchor.block_number)
                assert block is not None
                assert (block.hash, block.time) == (record.anchor.block_hash, record.anchor.block_timestamp)
                assert record.anchor.transaction in {tx.hash for tx in block.txs}

    @invariant()
    def nothing_is_paid_twice(self) -> None:
        for record in self.records():
            assert self.chain.paid(record.root) <= 1, record
            assert len({one.nonce for one in record.transactions}) <= 17

    @invariant()
    def what_is_stored_can_be_stored(self) -> None:
        for record in self.records():
            numbers = (record.anchor.block_number, record.anchor.block_timestamp, record.gas_used)
            assert all(number is None or 0 <= number < 2**63 for number in numbers)

    def teardown(self) -> None:
        if not hasattr(self, "evm"):
            return
        try:
            self.honest_end()
        finally:
            self.clock.stop()

    def honest_end(self) -> None:
        for node in self.nodes:
            node.faults.clear()
        self.seal()
        before = self._anchored()
        self.pass_seconds(3 * INTERVAL_SECONDS)
        assert self._anchored() > before, self._shown()
        self.pass_seconds((7 + len(self.records())) * INTERVAL_SECONDS)
        assert not [one for one in self.batches._manifests if self.batches.place_of(one) is None]
        assert {record.anchor.state for record in self.records()} == {AnchorState.CONFIRMED}
        self.nothing_is_falsely_confirmed()
        self.nothing_is_paid_twice()

    def _shown(self) -> list[tuple[str, list[int], bool]]:
        """State, nonces and whether it is paid, of each batch."""
        return [
            (one.anchor.state.value, [tx.nonce for tx in one.transactions], self.chain.paid(one.root) > 0)
            for one in self.records()
        ]

    def _anchored(self) -> int:
        return sum(self.chain.paid(record.root) for record in self.records())


TestBadNodes = BadNodes.TestCase
TestBadNodes.settings = settings(
    max_examples=EXAMPLES,
    stateful_step_count=30,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)
