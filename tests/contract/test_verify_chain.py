"""Verifying a receipt against a chain: one suite, on the twin in memory and on a real EVM node."""

import dataclasses
import json
import time
from collections.abc import Iterator
from typing import Protocol

import pytest

from scripts.devstack.anvil import Anvil
from sessions.client import rpc
from sessions.client.verifying import Outcome, Report, Request, verify
from sessions.core import anchor_contract, merkle
from sessions.core.manifest import Manifest, metadata_sha256
from sessions.core.receipt import Anchor, AnchorState, Batch, Receipt
from sessions.core.types import Hash, SessionId
from sessions.storage.contract import artefact
from tests.unit.client.chain import TwinChain
from tests.unit.client.fake import serve


class Chain(Protocol):
    url: str

    def publish(self, root: bytes, *, publisher: bytes = ..., succeeds: bool = True) -> Anchor: ...
    def mine(self, blocks: int) -> None: ...


class RealChain:
    """A node of its own, with the contract on it."""

    def __init__(self, node: Anvil) -> None:
        self.node, self.url = node, node.url
        self.publisher = bytes.fromhex(node.accounts[0][0][2:])
        self.contract = bytes.fromhex(self._send({"data": artefact()["bytecode"]})["contractAddress"][2:])

    def _send(self, transaction: dict[str, str]) -> dict:
        sender = {"from": "0x" + self.publisher.hex(), "gas": hex(1_000_000)}
        sent = self.node.call("eth_sendTransaction", {**sender, **transaction})
        deadline = time.monotonic() + 20
        while (receipt := self.node.call("eth_getTransactionReceipt", sent)) is None:
            assert time.monotonic() < deadline
            time.sleep(0.02)
        return receipt

    def publish(self, root: bytes, *, publisher: bytes = b"", succeeds: bool = True) -> Anchor:
        call = anchor_contract.encode_anchor_call(root)
        extra = {} if succeeds else {"value": "0x1"}  # the contract takes no money: it reverts
        receipt = self._send({"to": "0x" + self.contract.hex(), "data": "0x" + call.hex(), **extra})
        assert receipt["status"] == ("0x1" if succeeds else "0x0")
        block = self.node.call("eth_getBlockByNumber", receipt["blockNumber"], False)
        return Anchor(
            state=AnchorState.CONFIRMED,
            chain_id=self.node.chain_id,
            contract=self.contract,
            publisher=self.publisher,
            transaction=bytes.fromhex(receipt["transactionHash"][2:]),
            block_number=int(receipt["blockNumber"], 16),
            block_hash=bytes.fromhex(block["hash"][2:]),
            block_timestamp=int(block["timestamp"], 16),
        )

    def mine(self, blocks: int) -> None:
        self.node.call("anvil_mine", hex(blocks))


@pytest.fixture(scope="module", params=["twin", "anvil"])
def chain(request: pytest.FixtureRequest) -> Iterator[Chain]:
    if request.param == "anvil":
        yield RealChain(request.getfixturevalue("anvil"))
        return
    twin = TwinChain()

    async def endpoint(asked):
        return await twin(asked)

    with serve(endpoint) as url:
        twin.url = url
        yield twin


def make_receipt(name: str, anchor: Anchor | None = None) -> Receipt:
    manifest = Manifest(
        session_id=SessionId(name),
        chunk_count=0,
        missing=(),
        plaintext_bytes=0,
        envelope_bytes=0,
        root=merkle.EMPTY_ROOT,
        opened_at="2026-01-31T10:00:00.000Z",
        sealed_at="2026-01-31T11:00:00.000Z",
        sealed_by="recorder",
        metadata_sha256=metadata_sha256({}),
    )
    leaves = [Hash(b"\1" * 32), manifest.leaf_hash(), Hash(b"\2" * 32)]
    batch = Batch(root=merkle.root(leaves), size=3, index=1, path=tuple(merkle.inclusion_path(1, leaves)))
    return Receipt(manifest=manifest, batch=batch, anchor=anchor or Anchor())


def anchored(chain: Chain, name: str) -> Receipt:
    plain = make_receipt(name)
    assert plain.batch is not None
    return dataclasses.replace(plain, anchor=chain.publish(plain.batch.root))


def check(chain: Chain, receipt: Receipt, **options) -> Report:
    return verify(Request(json.dumps(receipt.to_json()).encode(), node_url=chain.url, **options))


def texts(report: Report, outcome: Outcome) -> str:
    return "\n".join(step.text for step in report.steps if step.outcome is outcome)


def test_an_anchored_receipt_is_proven(chain: Chain) -> None:
    receipt = anchored(chain, "good")
    report = check(chain, receipt, publisher=receipt.anchor.publisher, contract=receipt.anchor.contract)
    assert report.verdict == "proven"
    assert f"block {receipt.anchor.block_number}" in texts(report, Outcome.PROVEN)
    assert "the publisher is the one that you expect" in texts(report, Outcome.PROVEN)
    assert "is not final" in texts(report, Outcome.NOTE)


def test_without_an_expected_publisher_it_says_so(chain: Chain) -> None:
    receipt = anchored(chain, "whose")
    report = check(chain, receipt)
    assert report.verdict == "proven"
    assert receipt.anchor.publisher is not None
    assert f"published by 0x{receipt.anchor.publisher.hex()}: whether that is" in texts(report, Outcome.NOTE)


def test_a_block_deep_enough_is_final(chain: Chain) -> None:
    receipt = anchored(chain, "deep")
    chain.mine(80)
    assert "the block is final" in texts(check(chain, receipt), Outcome.PROVEN)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"chain_id": 1}, "the chain"),
        ({"publisher": b"\x99" * 20}, "no anchor of this batch root by this publisher"),
        ({"contract": b"\x99" * 20}, "code is not that of LucidAnchors"),
        ({"block_number": 1}, "block number"),
        ({"block_hash": b"\x99" * 32}, "block hash"),
        ({"block_timestamp": 5}, "block time"),
        ({"publisher": None}, "lacks its contract, publisher or transaction"),
        ({"transaction": None}, "lacks its contract, publisher or transaction"),
        ({"block_hash": None}, "block hash"),
    ],
)
def test_each_word_of_the_anchor_counts(chain: Chain, change, words) -> None:
    receipt = anchored(chain, "word")
    report = check(chain, dataclasses.replace(receipt, anchor=dataclasses.replace(receipt.anchor, **change)))
    assert report.verdict == "failed"
    assert words in texts(report, Outcome.FAILED)


def test_a_transaction_that_the_node_does_not_know_is_left_open(chain: Chain) -> None:
    """B46: nodes forget transactions, and the contract's word is the answer."""
    receipt = anchored(chain, "unknown")
    report = check(
        chain, dataclasses.replace(receipt, anchor=dataclasses.replace(receipt.anchor, transaction=b"\x99" * 32))
    )
    assert (report.verdict, report.anchor_proven) == ("proven in part", False)
    assert "the transaction was not checked there: name another node" in texts(report, Outcome.NOT_CHECKED)
    assert "all of the above existed before" in texts(report, Outcome.PROVEN)


def test_another_batch_under_a_true_anchor(chain: Chain) -> None:
    receipt = dataclasses.replace(make_receipt("forged"), anchor=anchored(chain, "true").anchor)
    report = check(chain, receipt)
    assert "no anchor of this batch root" in texts(report, Outcome.FAILED)


def test_a_transaction_of_another_batch(chain: Chain) -> None:
    first, second = anchored(chain, "first"), anchored(chain, "second")
    report = check(chain, dataclasses.replace(first, anchor=second.anchor))
    assert "transaction's root" in texts(report, Outcome.FAILED)


def test_a_transaction_that_failed(chain: Chain) -> None:
    plain = make_receipt("reverted")
    assert plain.batch is not None
    failed = chain.publish(plain.batch.root, succeeds=False)
    assert check(chain, dataclasses.replace(plain, anchor=failed)).failed
    chain.publish(plain.batch.root)
    report = check(chain, dataclasses.replace(plain, anchor=failed))
    assert "block number" in texts(report, Outcome.FAILED)


def test_a_repeated_anchor_still_proves_the_first_time(chain: Chain) -> None:
    first = anchored(chain, "twice")
    chain.mine(1)
    second = anchored(chain, "twice")
    assert second.anchor.block_number != first.anchor.block_number
    for receipt in (first, second):
        assert check(chain, receipt).verdict == "proven"


def test_what_is_gathered(chain: Chain) -> None:
    receipt = anchored(chain, "facts")
    assert receipt.batch is not None
    with rpc.JsonRpc(chain.url) as node:
        facts = rpc.gather(node, receipt.anchor, receipt.batch.root)
        assert facts.contract_is_genuine
        assert facts.anchored_at == facts.block_timestamp == receipt.anchor.block_timestamp
        with pytest.raises(ValueError, match="names no contract"):
            rpc.gather(node, Anchor(), receipt.batch.root)
