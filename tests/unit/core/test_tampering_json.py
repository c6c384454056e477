"""Whatever is changed in a manifest, a receipt or a chunk proof is refused: every bit, each cut, each swap."""

import dataclasses
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sessions.core import manifest as manifests
from sessions.core import merkle, proof, receipt
from sessions.core.errors import FormatError, VerificationError
from tests import strategies
from tests.unit.core import tamper
from tests.unit.core.test_proof import STATED, proof_of
from tests.unit.core.test_receipt import ANCHOR, LEAVES, MANIFESTS, ROOT, receipt_of

REFUSALS = (FormatError, VerificationError)
WHITESPACE = b" \t\n\r"
OTHER_ROOT = merkle.root(LEAVES[::-1])
OTHER_ANCHOR = dataclasses.replace(
    ANCHOR, transaction=b"\x2e" * 32, block_number=1234568, block_hash=b"\xb8" * 32, block_timestamp=1769904072
)


@pytest.fixture(scope="module")
def chain():
    chain = tamper.Chain(ANCHOR.chain_id, ANCHOR.contract)
    for root, one in ((ROOT, ANCHOR), (OTHER_ROOT, OTHER_ANCHOR)):
        block = one.block_number, one.block_hash, one.block_timestamp
        chain.include(one.transaction, one.publisher, root, block)
    return chain


def check_manifest(data):
    manifest = manifests.from_bytes(data)
    merkle.verify_inclusion(manifest.leaf_hash(), 2, 5, merkle.inclusion_path(2, LEAVES), ROOT)


def check_receipt(data, chain):
    read = receipt.from_bytes(data)
    receipt.verify_batch(read)
    receipt.verify_anchor(read, chain.facts_for(read))
    return read


def check_proof(data):
    read = proof.from_bytes(data)
    read.verify_in(STATED)
    return read


def test_every_change_of_a_manifest_is_refused():
    data = MANIFESTS[2].to_bytes()
    check_manifest(data)
    changes = [*tamper.bit_flips(data), *tamper.truncations(data), *tamper.extensions(data)]
    changes += [*tamper.block_swaps(data, 64), MANIFESTS[3].to_bytes()]
    for changed in changes:
        with pytest.raises(REFUSALS):
            check_manifest(changed)


@given(strategies.manifests(), st.data())
def test_any_member_of_any_manifest_is_in_its_leaf(manifest, data):
    other = data.draw(strategies.manifests())
    for field in dataclasses.fields(manifest):
        changed = dataclasses.replace(manifest, **{field.name: getattr(other, field.name)})
        assert (changed.leaf_hash() == manifest.leaf_hash()) == (changed == manifest)


def text_of(value):
    return json.dumps(value.to_json()).encode()


@pytest.mark.parametrize("index", [0, 2, 4])
def test_every_change_of_a_receipt_is_refused(index, chain):
    """All but one: a path fits trees of several sizes, and says the same of the manifest in each."""
    true = receipt_of(index)
    data = text_of(true)
    assert check_receipt(data, chain) == true
    fits = []
    for changed in [*tamper.bit_flips(data), *tamper.truncations(data)]:
        try:
            read = check_receipt(changed, chain)
        except REFUSALS:
            continue
        fits.append(read.batch.size)
        assert dataclasses.replace(read, batch=true.batch) == true
        assert dataclasses.replace(read.batch, size=5) == true.batch
    assert fits == ([] if index == 4 else [7])


def test_every_change_of_a_chunk_proof_is_refused():
    for index in (0, 3, 8):
        data = text_of(proof_of(index))
        assert check_proof(data) == proof_of(index)
        for changed in [*tamper.bit_flips(data), *tamper.truncations(data)]:
            with pytest.raises(REFUSALS):
                check_proof(changed)


def test_nothing_but_white_space_may_surround_a_file(chain):
    for data, check in (
        (text_of(receipt_of(1)), lambda d: check_receipt(d, chain)),
        (text_of(proof_of(1)), check_proof),
    ):
        true = check(data)
        for changed in tamper.extensions(data):
            if len(changed) == len(data) + 1 and changed.strip(WHITESPACE) == data:
                assert check(changed) == true
            else:
                with pytest.raises(REFUSALS):
                    check(changed)


@given(st.data())
def test_any_edit_of_a_file_is_refused_or_says_the_same(chain, data):
    kind = data.draw(st.sampled_from(["receipt", "proof"]))
    true = receipt_of(1) if kind == "receipt" else proof_of(1)
    text = text_of(true)
    at = data.draw(st.integers(0, len(text)))
    end = data.draw(st.integers(at, min(len(text), at + 12)))
    new = data.draw(st.binary(max_size=4) | st.just(text[: end - at]) | st.just(text[end : end + 3]))
    changed = text[:at] + new + text[end:]
    try:
        read = check_receipt(changed, chain) if kind == "receipt" else check_proof(changed)
    except REFUSALS:
        return
    if kind == "receipt":
        read = dataclasses.replace(read, batch=dataclasses.replace(read.batch, size=5))
    assert read == true


@pytest.mark.parametrize("index", range(5))
def test_every_change_of_a_receipts_path_is_refused(index, chain):
    true = receipt_of(index)
    for changed in tamper.path_changes(true.batch.path, OTHER_ROOT):
        batch = dataclasses.replace(true.batch, path=tuple(changed))
        with pytest.raises(REFUSALS):
            check_receipt(text_of(dataclasses.replace(true, batch=batch)), chain)


def test_every_change_of_a_proofs_path_is_refused():
    for index in (0, 3, 8, 9):
        for changed in tamper.path_changes(proof_of(index).path, OTHER_ROOT):
            with pytest.raises(REFUSALS):
                check_proof(text_of(dataclasses.replace(proof_of(index), path=tuple(changed))))


def test_parts_of_receipts_cannot_be_swapped_between_sessions(chain):
    """Nor the anchor of one batch given to another."""
    for index in range(5):
        true = receipt_of(index)
        for other in set(range(5)) - {index}:
            for part in ("manifest", "batch"):
                swapped = dataclasses.replace(true, **{part: getattr(receipt_of(other), part)})
                with pytest.raises(VerificationError):
                    check_receipt(text_of(swapped), chain)
        for field in dataclasses.fields(ANCHOR):
            value = getattr(OTHER_ANCHOR, field.name)
            if value != getattr(ANCHOR, field.name):
                anchor = dataclasses.replace(ANCHOR, **{field.name: value})
                with pytest.raises(VerificationError):
                    check_receipt(text_of(dataclasses.replace(true, anchor=anchor)), chain)
        with pytest.raises(VerificationError):
            check_receipt(text_of(dataclasses.replace(true, anchor=OTHER_ANCHOR)), chain)


def test_parts_of_proofs_cannot_be_swapped_between_chunks():
    for one in range(10):
        for other in set(range(10)) - {one}:
            for field in dataclasses.fields(proof_of(one)):
                value = getattr(proof_of(other), field.name)
                if value != getattr(proof_of(one), field.name):
                    swapped = dataclasses.replace(proof_of(one), **{field.name: value})
                    with pytest.raises(VerificationError):
                        check_proof(text_of(swapped))


def test_a_contract_that_only_looks_like_ours_proves_nothing(chain):
    fake = dataclasses.replace(ANCHOR, contract=b"\x66" * 20)
    with pytest.raises(VerificationError, match="not that of LucidAnchors"):
        check_receipt(text_of(receipt_of(0, fake)), chain)
