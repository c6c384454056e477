import dataclasses
import json

import pytest
from hypothesis import given

from sessions.core.envelope import fingerprint
from sessions.core.errors import ProofFormatError, VerificationError
from sessions.core.merkle import inclusion_path, root
from sessions.core.proof import ChunkProof, from_bytes, from_json
from tests.strategies import chunk_proofs
from tests.unit.core.test_manifest import MANIFEST

SESSION = "session-1"
PRINTS = [fingerprint(SESSION, index, b"envelope %d" % index) for index in range(10)]
LEAVES = [one.leaf_hash for one in PRINTS]
ROOT = root(LEAVES)


def proof_of(index):
    return ChunkProof(
        session_id=SESSION,
        index=index,
        envelope_bytes=PRINTS[index].envelope_bytes,
        envelope_sha256=PRINTS[index].envelope_sha256,
        leaf_hash=LEAVES[index],
        tree_size=10,
        root=ROOT,
        path=tuple(inclusion_path(index, LEAVES)),
    )


STATED = dataclasses.replace(MANIFEST, root=ROOT)


@given(chunk_proofs)
def test_proof_to_json_and_back(proof):
    assert from_json(proof.to_json()) == proof
    text = json.dumps(proof.to_json())
    assert from_bytes(text) == from_bytes(text.encode()) == proof
    assert from_bytes(text).to_json() == json.loads(text)


def test_each_chunk_is_proven():
    for index in range(10):
        proof_of(index).verify()
        proof_of(index).verify_in(STATED)


def test_a_leaf_of_another_envelope_is_refused():
    with pytest.raises(VerificationError, match="leaf hash"):
        dataclasses.replace(proof_of(3), envelope_sha256=PRINTS[4].envelope_sha256).verify()


@pytest.mark.parametrize("change", [{"session_id": "session-2"}, {"chunk_count": 11}, {"root": bytes(32)}])
def test_a_proof_for_another_manifest_is_refused(change):
    with pytest.raises(VerificationError, match="another session or tree"):
        proof_of(3).verify_in(dataclasses.replace(STATED, **change))


def test_a_path_that_fits_another_size_is_refused_with_the_manifest():
    other = dataclasses.replace(proof_of(0), tree_size=9 + 3)
    other.verify()  # the path of leaf 0 is the same for 9 to 16 leaves, so it takes the manifest to see it
    with pytest.raises(VerificationError, match="another session or tree"):
        other.verify_in(STATED)


@pytest.mark.parametrize(
    ("member", "value"),
    [
        ("version", 0),
        ("session_id", ""),
        ("index", -1),
        ("envelope_bytes", None),
        ("envelope_sha256", "00"),
        ("leaf_hash", 0),
        ("tree_size", 0),
        ("root", ROOT.hex().upper()),
        ("path", [ROOT.hex()] * 65),
        ("more", 1),
    ],
)
def test_what_is_no_proof(member, value):
    with pytest.raises(ProofFormatError):
        from_json(proof_of(1).to_json() | {member: value})


def test_bytes_that_are_no_json_are_refused():
    with pytest.raises(ProofFormatError, match="the chunk proof is not JSON"):
        from_bytes(b"\xff")
