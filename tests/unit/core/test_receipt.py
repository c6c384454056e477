import dataclasses
import json

import pytest
from hypothesis import given

from sessions.core.errors import ReceiptFormatError, VerificationError
from sessions.core.merkle import inclusion_path, root
from sessions.core.receipt import (
    Anchor,
    AnchorState,
    Batch,
    ChainFacts,
    Receipt,
    from_bytes,
    from_json,
    verify_anchor,
    verify_batch,
)
from tests.strategies import receipts
from tests.unit.core.test_manifest import MANIFEST

MANIFESTS = [dataclasses.replace(MANIFEST, session_id=f"session-{number}") for number in range(5)]
LEAVES = [manifest.leaf_hash() for manifest in MANIFESTS]
ROOT = root(LEAVES)
ANCHOR = Anchor(
    state=AnchorState.CONFIRMED,
    chain_id=31337,
    contract=b"\x5f" * 20,
    publisher=b"\x9c" * 20,
    transaction=b"\x1d" * 32,
    block_number=1234567,
    block_hash=b"\xb7" * 32,
    block_timestamp=1769904060,
)
FACTS = ChainFacts(
    chain_id=31337,
    contract_is_genuine=True,
    anchored_at=1769904060,
    transaction_block=1234567,
    transaction_contract=ANCHOR.contract,
    transaction_publisher=ANCHOR.publisher,
    transaction_root=ROOT,
    block_hash=ANCHOR.block_hash,
    block_timestamp=1769904060,
)


def receipt_of(index, anchor=ANCHOR):
    batch = Batch(root=ROOT, size=5, index=index, path=tuple(inclusion_path(index, LEAVES)))
    return Receipt(manifest=MANIFESTS[index], batch=batch, anchor=anchor)


@given(receipts)
def test_receipt_to_json_and_back(receipt):
    assert from_json(receipt.to_json()) == receipt
    text = json.dumps(receipt.to_json())
    assert from_bytes(text) == from_bytes(text.encode()) == receipt
    assert from_bytes(text).to_json() == json.loads(text)


@pytest.mark.parametrize("index", range(5))
@pytest.mark.parametrize("state", [AnchorState.INCLUDED, AnchorState.CONFIRMED])
def test_a_receipt_is_proven_by_the_chain(index, state):
    receipt = receipt_of(index, dataclasses.replace(ANCHOR, state=state))
    assert verify_batch(receipt) == receipt.batch
    assert verify_anchor(receipt, FACTS) == FACTS.anchored_at


def test_a_root_that_was_anchored_again_counts_from_the_first_time():
    assert verify_anchor(receipt_of(0), dataclasses.replace(FACTS, anchored_at=1769900000)) == 1769900000


def test_a_session_in_no_batch_yet():
    receipt = Receipt(manifest=MANIFEST, batch=None, anchor=Anchor())
    assert receipt.to_json()["anchor"] == dict.fromkeys(ANCHOR.to_json()) | {"state": "pending"}
    with pytest.raises(VerificationError, match="in no batch yet"):
        verify_batch(receipt)
    with pytest.raises(VerificationError, match="in no batch yet"):
        verify_anchor(receipt, FACTS)


def test_another_manifest_is_refused():
    receipt = dataclasses.replace(receipt_of(2), manifest=MANIFESTS[3])
    with pytest.raises(VerificationError, match="another root"):
        verify_batch(receipt)


@pytest.mark.parametrize("state", [AnchorState.PENDING, AnchorState.SUBMITTED])
def test_an_anchor_that_is_in_no_block_yet(state):
    with pytest.raises(VerificationError, match=f"only {state.value}"):
        verify_anchor(receipt_of(0, dataclasses.replace(ANCHOR, state=state)), FACTS)


@pytest.mark.parametrize(
    ("fact", "value", "message"),
    [
        ("chain_id", 1, "the chain id on the chain is not"),
        ("contract_is_genuine", False, "not that of LucidAnchors"),
        ("anchored_at", 0, "has no anchor"),
        ("transaction_contract", bytes(20), "transaction's contract"),
        ("transaction_publisher", bytes(20), "transaction's publisher"),
        ("transaction_root", bytes(32), "transaction's root"),
        ("transaction_block", 1, "block number"),
        ("block_hash", bytes(32), "block hash"),
        ("block_timestamp", 1, "block time"),
    ],
)
def test_a_chain_that_says_otherwise(fact, value, message):
    with pytest.raises(VerificationError, match=message):
        verify_anchor(receipt_of(0), dataclasses.replace(FACTS, **{fact: value}))


@pytest.mark.parametrize("fact", ["transaction_contract", "transaction_publisher", "transaction_root"])
@pytest.mark.parametrize("anchor", [ANCHOR, dataclasses.replace(ANCHOR, contract=None, publisher=None)])
def test_two_unknowns_are_not_equal(fact, anchor):
    with pytest.raises(VerificationError):
        verify_anchor(receipt_of(0, anchor), dataclasses.replace(FACTS, **{fact: None}))


GONE = {
    "transaction": {"transaction_contract": None, "transaction_publisher": None, "transaction_root": None},
    "outcome": {"transaction_block": None},
    "block": {"block_hash": None, "block_timestamp": None},
}


@pytest.mark.parametrize("unknown", [("transaction",), ("outcome",), ("block",), ("transaction", "outcome", "block")])
def test_what_a_node_no_longer_knows_contradicts_nothing(unknown):
    """B46: a node that prunes history made a true receipt fail."""
    gone = {name: value for part in unknown for name, value in GONE[part].items()}
    facts = dataclasses.replace(FACTS, unknown=frozenset(unknown), **gone)
    assert verify_anchor(receipt_of(0), facts) == FACTS.anchored_at
    with pytest.raises(VerificationError, match="has no anchor"):
        verify_anchor(receipt_of(0), dataclasses.replace(facts, anchored_at=0))
    for part, names in GONE.items():
        for name in names if part not in unknown else ():
            with pytest.raises(VerificationError, match="is not that of the receipt"):
                verify_anchor(receipt_of(0), dataclasses.replace(facts, **{name: None}))


@pytest.mark.parametrize("part", ["batch", "anchor"])
@pytest.mark.parametrize("value", [[], "x", {}, {"state": "pending"}])
def test_parts_that_are_none(part, value):
    with pytest.raises(ReceiptFormatError, match=f"receipt's {part}"):
        from_json(receipt_of(0).to_json() | {part: value})


@pytest.mark.parametrize(
    ("part", "member", "value"),
    [
        ("batch", "root", "00"),
        ("batch", "size", 0),
        ("batch", "index", -1),
        ("batch", "path", None),
        ("anchor", "state", "final"),
        ("anchor", "chain_id", "1"),
        ("anchor", "contract", "5f" * 20),
        ("anchor", "publisher", "0x" + "5F" * 20),
        ("anchor", "transaction", "0x00"),
        ("anchor", "block_number", -1),
        ("anchor", "block_hash", 0),
        ("anchor", "block_timestamp", 1.5),
        ("manifest", "root", "00"),
        ("manifest", "session_id", "/"),
    ],
)
def test_what_is_no_receipt(part, member, value):
    receipt = receipt_of(0).to_json()
    receipt[part][member] = value
    with pytest.raises(ReceiptFormatError):
        from_json(receipt)


def test_other_versions_and_other_bytes_are_refused():
    with pytest.raises(ReceiptFormatError, match="version"):
        from_json(receipt_of(0).to_json() | {"version": 2})
    with pytest.raises(ReceiptFormatError, match="the receipt is not JSON"):
        from_bytes(json.dumps(receipt_of(0).to_json())[:-1])
