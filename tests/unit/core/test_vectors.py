"""Each golden vector, checked twice: against `reference`, which imports nothing of ours, and against the code."""

import base64
import json
from pathlib import Path

import pytest
import zstandard
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from sessions.core import envelope, frames, key_ring, manifest, merkle, proof, receipt
from sessions.processor.keys import FileKeyWrapper
from sessions.processor.recovery import Recipient, RecoveryKey
from tests.unit.core import reference

FOLDER = Path(__file__).parents[2] / "vectors"


def load(name):
    return json.loads((FOLDER / f"{name}.json").read_text())


def unhex(items):
    return [bytes.fromhex(item) for item in items]


TREES = load("rfc9162_trees")
LEAF_HASHES = unhex(TREES["leaf_hashes"])
ROOTS = unhex(TREES["roots"])


def test_rfc_leaf_hashes():
    inputs = unhex(TREES["leaves"])
    assert [reference.leaf(data) for data in inputs] == LEAF_HASHES
    assert [merkle.leaf_hash(data) for data in inputs] == LEAF_HASHES


def test_rfc_roots_of_sizes_0_to_8():
    assert ROOTS[8].hex() == "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328"
    tree = reference.Tree(LEAF_HASHES)
    assert [tree.root(size) for size in range(9)] == ROOTS
    assert [merkle.root(LEAF_HASHES[:size]) for size in range(9)] == ROOTS


@pytest.mark.parametrize("vector", TREES["inclusion"], ids=lambda v: f"{v['index']}of{v['size']}")
def test_rfc_inclusion(vector):
    index, size, path = vector["index"], vector["size"], unhex(vector["path"])
    assert reference.Tree(LEAF_HASHES).path(index, size) == path
    assert merkle.inclusion_path(index, LEAF_HASHES[:size]) == path
    merkle.verify_inclusion(LEAF_HASHES[index], index, size, path, ROOTS[size])


@pytest.mark.parametrize("vector", TREES["consistency"], ids=lambda v: f"{v['old_size']}to{v['size']}")
def test_rfc_consistency(vector):
    old_size, size, path = vector["old_size"], vector["size"], unhex(vector["path"])
    assert reference.Tree(LEAF_HASHES).proof(old_size, size) == path
    assert merkle.consistency_path(old_size, LEAF_HASHES[:size]) == path
    merkle.verify_consistency(old_size, size, ROOTS[old_size], ROOTS[size], path)


@pytest.mark.parametrize("vector", load("envelopes"), ids=lambda v: f"{v['session_id'][:12]}-{v['index']}")
def test_envelopes(vector):
    numbers = vector["codec"], vector["index"], vector["plaintext_bytes"]
    codec, index, size = numbers
    session = vector["session_id"]
    names = "key", "dek_id", "nonce", "coded", "header", "envelope", "envelope_sha256", "leaf_input", "leaf_hash"
    key, dek_id, nonce, coded, header, data, digest, leaf_input, leaf_hash = unhex(vector[name] for name in names)

    assert reference.header(codec, dek_id, nonce, index, size, session) == header
    assert header + AESGCM(key).encrypt(nonce, coded, header) == data
    assert reference.sha256(data) == digest
    assert reference.chunk_leaf_input(session, index, len(data), digest) == leaf_input
    assert reference.leaf(leaf_input) == leaf_hash
    plaintext = zstandard.ZstdDecompressor().decompress(coded) if codec else coded
    assert plaintext == bytes.fromhex(vector["plaintext"])
    assert len(plaintext) == size

    parsed = envelope.parse(data)
    assert parsed.aad == header == parsed.header.to_bytes()
    assert AESGCM(key).decrypt(parsed.header.nonce, parsed.sealed, parsed.aad) == coded
    assert (parsed.header.codec, parsed.header.index, parsed.header.plaintext_bytes) == numbers
    assert (parsed.header.dek_id, parsed.header.session_id) == (dek_id, session)
    assert envelope.chunk_leaf_input(session, index, len(data), digest) == leaf_input
    assert envelope.fingerprint(session, index, data) == envelope.Fingerprint(len(data), digest, leaf_hash)


@pytest.mark.parametrize("vector", load("missing_leaves"), ids=lambda v: str(v["index"]))
def test_missing_leaves(vector):
    place = vector["session_id"], vector["index"]
    assert reference.missing_leaf_input(*place).hex() == vector["leaf_input"]
    assert reference.leaf(reference.missing_leaf_input(*place)).hex() == vector["leaf_hash"]
    assert envelope.missing_leaf_input(*place).hex() == vector["leaf_input"]
    assert merkle.leaf_hash(envelope.missing_leaf_input(*place)).hex() == vector["leaf_hash"]


@pytest.mark.parametrize("vector", load("frames"), ids=lambda v: str(len(v["payloads"])))
def test_frames(vector):
    payloads, data = unhex(vector["payloads"]), bytes.fromhex(vector["frames"])
    assert reference.frames(payloads) == data
    assert frames.join(payloads) == data
    assert list(frames.split(data)) == payloads


@pytest.mark.parametrize("vector", load("metadata"), ids=lambda v: v["sha256"][:8])
def test_metadata(vector):
    text = json.dumps(vector["metadata"], sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    assert text.encode().hex() == vector["canonical"]
    assert reference.sha256(text.encode()).hex() == vector["sha256"]
    assert manifest.metadata_sha256(vector["metadata"]).hex() == vector["sha256"]


@pytest.mark.parametrize("vector", load("manifests"), ids=lambda v: v["manifest"]["session_id"])
def test_manifests(vector):
    canonical = reference.canonical(vector["manifest"])
    assert canonical.decode() == vector["canonical"]
    assert reference.sha256(canonical).hex() == vector["sha256"]
    assert reference.batch_leaf_input(canonical).hex() == vector["batch_leaf_input"]
    assert reference.leaf(reference.batch_leaf_input(canonical)).hex() == vector["batch_leaf_hash"]

    read = manifest.from_bytes(canonical)
    assert read == manifest.from_json(vector["manifest"])
    assert read.to_bytes() == canonical
    assert read.sha256().hex() == vector["sha256"]
    assert read.leaf_hash().hex() == vector["batch_leaf_hash"]


def test_receipts():
    leaves = unhex(vector["batch_leaf_hash"] for vector in load("manifests"))
    tree = reference.Tree(leaves)
    *anchored, pending = load("receipts")
    for index, value in enumerate(anchored):
        assert value["batch"] == {
            "root": tree.root(len(leaves)).hex(),
            "size": len(leaves),
            "index": index,
            "path": [node.hex() for node in tree.path(index, len(leaves))],
        }
        read = receipt.from_json(value)
        assert read.to_json() == value
        assert receipt.verify_batch(read) == read.batch
    assert pending["batch"] is None
    assert receipt.from_json(pending).to_json() == pending


def test_chunk_proofs():
    vectors = load("chunk_proofs")
    leaves = []
    for value in vectors:
        digest = bytes.fromhex(value["envelope_sha256"])
        given = value["session_id"], value["index"], value["envelope_bytes"], digest
        leaves.append(reference.leaf(reference.chunk_leaf_input(*given)))
        assert leaves[-1].hex() == value["leaf_hash"]
    tree, size = reference.Tree(leaves), len(leaves)
    for index, value in enumerate(vectors):
        assert (value["index"], value["tree_size"], value["root"]) == (index, size, tree.root(size).hex())
        assert value["path"] == [node.hex() for node in tree.path(index, size)]
        read = proof.from_json(value)
        assert read.to_json() == value
        read.verify()


def test_key_rings():
    vector = load("key_rings")
    ring = key_ring.from_json(vector["ring"])
    assert key_ring.to_json(ring) == vector["ring"]
    deks, keks = unhex(vector["deks"]), {name: bytes.fromhex(kek) for name, kek in vector["keks"].items()}
    line = vector["private_key"]
    private = base64.b64decode(line.partition(":")[2], validate=True)
    wrapper, recovery_key = FileKeyWrapper(keks), RecoveryKey(line)
    assert Recipient(vector["public_key"]).recipient_id == recovery_key.recipient_id
    assert [key.wrapped[0] for key in ring.keys] == [1, 2]
    for key, dek in zip(ring.keys, deks, strict=True):
        assert reference.unwrap(keks[key.kek_id], ring.session_id, key.dek_id, key.wrapped) == dek
        assert wrapper.unwrap(ring.session_id, key).key == dek
        if key.recovery is not None:
            assert reference.open_sealed(private, ring.session_id, key.dek_id, key.recovery.sealed) == dek
            assert recovery_key.open(ring.session_id, key).key == dek
    assert [key.recovery is None for key in ring.keys] == [True, False]
