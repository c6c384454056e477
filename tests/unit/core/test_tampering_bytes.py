"""Whatever is changed in an envelope or a path is refused. Small ones are changed in every bit."""

import hashlib

import pytest
import zstandard
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from hypothesis import given
from hypothesis import strategies as st

from sessions.core import merkle
from sessions.core.envelope import Codec, Header, fingerprint, missing_leaf_input, parse
from sessions.core.errors import EnvelopeFormatError, VerificationError
from tests import strategies
from tests.unit.core import tamper
from tests.unit.core.reference import Tree, leaf

KEY = AESGCM(bytes(range(32)))
DEK_ID = bytes(range(16))


class OtherPlaceError(Exception):
    """A good envelope, in another's place."""


REFUSALS = (EnvelopeFormatError, InvalidTag, OtherPlaceError)


def seal(plaintext, session="s-1", index=0, codec=Codec.STORED, nonce=b"nonce 123456"):
    coded = zstandard.compress(plaintext) if codec is Codec.ZSTD else plaintext
    header = Header(codec, DEK_ID, nonce, index, len(plaintext), session).to_bytes()
    return header + KEY.encrypt(nonce, coded, header)


def open_(data, session="s-1", index=0):
    envelope = parse(data)
    if (envelope.header.session_id, envelope.header.index, envelope.header.dek_id) != (session, index, DEK_ID):
        raise OtherPlaceError
    coded = KEY.decrypt(envelope.header.nonce, envelope.sealed, envelope.aad)
    if envelope.header.codec is Codec.STORED:
        return coded
    return zstandard.ZstdDecompressor().decompress(coded, max_output_size=envelope.header.plaintext_bytes)


PLAINTEXT = b"a piece of a recording" * 3
ENVELOPES = [seal(b""), seal(PLAINTEXT), seal(PLAINTEXT, codec=Codec.ZSTD)]


def changes(data):
    yield from tamper.bit_flips(data)
    yield from tamper.truncations(data)
    yield from tamper.extensions(data)
    yield from tamper.block_swaps(data, 16)
    yield data[::-1]


@pytest.mark.parametrize("data", ENVELOPES, ids=["empty", "stored", "zstd"])
def test_every_change_of_an_envelope_is_refused_and_changes_its_leaf(data):
    assert open_(data) in (b"", PLAINTEXT)
    true = fingerprint("s-1", 0, data)
    for changed in changes(data):
        if changed == data:
            continue  # the reverse of nothing but itself
        with pytest.raises(REFUSALS):
            open_(changed)
        false = fingerprint("s-1", 0, changed)
        assert false.leaf_hash != true.leaf_hash
        assert false.envelope_sha256 != true.envelope_sha256


@given(strategies.session_ids, strategies.chunk_indexes, st.binary(max_size=2000), st.sampled_from(Codec), st.data())
def test_any_bit_of_any_envelope(session, index, plaintext, codec, data):
    envelope = seal(plaintext, session, index, codec)
    assert open_(envelope, session, index) == plaintext
    bit = data.draw(st.integers(0, 8 * len(envelope) - 1))
    changed = bytearray(envelope)
    changed[bit // 8] ^= 1 << bit % 8
    with pytest.raises(REFUSALS):
        open_(changed, session, index)
    assert fingerprint(session, index, changed).leaf_hash != fingerprint(session, index, envelope).leaf_hash


def test_an_envelope_cannot_take_the_place_of_another():
    places = [(session, index) for session in ("s-1", "s-2") for index in range(4)]
    data = {place: seal(PLAINTEXT, *place) for place in places}
    leaves = {place: fingerprint(*place, data[place]).leaf_hash for place in places}
    for place in places:
        for other in places:
            if place != other:
                with pytest.raises(OtherPlaceError):
                    open_(data[other], *place)
                assert fingerprint(*place, data[other]).leaf_hash not in leaves.values()


def test_a_header_moved_onto_another_ciphertext_is_refused():
    one, other = seal(b"x" * 20, index=0), seal(b"y" * 20, index=1, nonce=b"another nonc")
    size = len(parse(one).aad)
    with pytest.raises(InvalidTag):
        open_(one[:size] + other[size:])


@given(st.permutations(range(6)))
def test_the_order_of_chunks_is_in_the_root(order):
    hashes = [fingerprint("s-1", index, b"same bytes").leaf_hash for index in range(6)]
    moved = [hashes[index] for index in order]
    assert (merkle.root(moved) == merkle.root(hashes)) == (moved == hashes)


def test_a_missing_chunk_is_no_chunk():
    missing = leaf(missing_leaf_input("s-1", 0))
    assert missing != fingerprint("s-1", 0, b"").leaf_hash
    assert missing != leaf(missing_leaf_input("s-1", 1))
    assert missing != leaf(missing_leaf_input("s-2", 0))


LEAVES = [hashlib.sha256(b"leaf %d" % number).digest() for number in range(21)]
FOREIGN = hashlib.sha256(b"of another session's tree").digest()
TREE = Tree(LEAVES)


@pytest.mark.parametrize("size", [1, 2, 3, 4, 5, 7, 8, 13, 21])
def test_every_change_of_an_inclusion_path_is_refused(size):
    root = TREE.root(size)
    for index in range(size):
        path = TREE.path(index, size)
        for changed in tamper.path_changes(path, FOREIGN):
            with pytest.raises(VerificationError):
                merkle.verify_inclusion(LEAVES[index], index, size, changed, root)
        for leaf_hash in [*tamper.bit_flips(LEAVES[index]), FOREIGN, LEAVES[index - 1] if size > 1 else FOREIGN]:
            with pytest.raises(VerificationError):
                merkle.verify_inclusion(leaf_hash, index, size, path, root)
        for other in {*range(-1, size + 1)} - {index}:
            with pytest.raises(VerificationError):
                merkle.verify_inclusion(LEAVES[index], other, size, path, root)
    for changed in tamper.bit_flips(root):
        with pytest.raises(VerificationError):
            merkle.verify_inclusion(LEAVES[0], 0, size, TREE.path(0, size), changed)


@pytest.mark.parametrize(
    ("old_size", "size"), [(1, 2), (1, 8), (2, 5), (3, 7), (4, 8), (6, 8), (5, 21), (16, 21), (7, 7)]
)
def test_every_change_of_a_consistency_path_is_refused(old_size, size):
    old, new, path = TREE.root(old_size), TREE.root(size), TREE.proof(old_size, size)
    merkle.verify_consistency(old_size, size, old, new, path)
    for changed in tamper.path_changes(path, FOREIGN):
        with pytest.raises(VerificationError):
            merkle.verify_consistency(old_size, size, old, new, changed)
    for changed in [*tamper.bit_flips(old), FOREIGN]:
        with pytest.raises(VerificationError):
            merkle.verify_consistency(old_size, size, changed, new, path)
    for changed in [*tamper.bit_flips(new), FOREIGN]:
        with pytest.raises(VerificationError):
            merkle.verify_consistency(old_size, size, old, changed, path)


@given(st.integers(1, 21), st.data())
def test_any_bit_of_any_path(size, data):
    index = data.draw(st.integers(0, size - 1))
    for path, verify in (
        (TREE.path(index, size), lambda p: merkle.verify_inclusion(LEAVES[index], index, size, p, TREE.root(size))),
        (
            TREE.proof(index + 1, size),
            lambda p: merkle.verify_consistency(index + 1, size, TREE.root(index + 1), TREE.root(size), p),
        ),
    ):
        verify(path)
        if path:
            at, bit = data.draw(st.integers(0, len(path) - 1)), data.draw(st.integers(0, 255))
            path[at] = (int.from_bytes(path[at], "big") ^ 1 << bit).to_bytes(32, "big")
            with pytest.raises(VerificationError):
                verify(path)
