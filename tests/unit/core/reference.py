"""The formats and the trees once more, written from the standards alone: what the golden vectors are checked with.

Nothing here imports `sessions`. Trees follow the recursive definitions of RFC 9162 sections 2.1.1, 2.1.3.1 and 2.1.4.1
word by word; the code under test computes the same by other means.
"""

import hashlib
import hmac
import json
from functools import cache

from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM768PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM


def sha256(data):
    return hashlib.sha256(data).digest()


def leaf(data):
    return sha256(b"\x00" + data)


def node(left, right):
    return sha256(b"\x01" + left + right)


def u(value, size):
    return value.to_bytes(size, "big")


class Tree:
    """MTH, PATH and SUBPROOF over a list of leaf hashes D; ranges are remembered, so large trees stay cheap."""

    def __init__(self, leaf_hashes):
        self.leaves = leaf_hashes
        self._mth = cache(self._mth_of)

    @staticmethod
    def split(n):
        k = 1
        while k * 2 < n:
            k *= 2
        return k

    def _mth_of(self, a, b):
        if a == b:
            return sha256(b"")
        if b - a == 1:
            return self.leaves[a]
        k = self.split(b - a)
        return node(self._mth(a, a + k), self._mth(a + k, b))

    def root(self, size):
        return self._mth(0, size)

    def path(self, m, size, start=0):
        """PATH(m, D[start:start+size])."""
        if size == 1:
            return []
        k = self.split(size)
        if m < k:
            return [*self.path(m, k, start), self._mth(start + k, start + size)]
        return [*self.path(m - k, size - k, start + k), self._mth(start, start + k)]

    def proof(self, m, size):
        """PROOF(m, D[size])."""
        return self._subproof(m, size, 0, whole=True)

    def _subproof(self, m, size, start, *, whole):
        if m == size:
            return [] if whole else [self._mth(start, start + size)]
        k = self.split(size)
        if m <= k:
            return [*self._subproof(m, k, start, whole=whole), self._mth(start + k, start + size)]
        return [*self._subproof(m - k, size - k, start + k, whole=False), self._mth(start, start + k)]


def header(codec, dek_id, nonce, index, plaintext_bytes, session_id):  # noqa: PLR0917 - the format's fields, in its order
    name = session_id.encode()
    return b"".join(
        (b"LSE1", u(codec, 1), u(0, 3), dek_id, nonce, u(index, 8), u(plaintext_bytes, 8), u(len(name), 2), name)
    )


def chunk_leaf_input(session_id, index, envelope_bytes, envelope_sha256):
    name = session_id.encode()
    return b"lucid/chunk/v1\x00" + u(len(name), 2) + name + u(index, 8) + u(envelope_bytes, 8) + envelope_sha256


def missing_leaf_input(session_id, index):
    name = session_id.encode()
    return b"lucid/missing/v1\x00" + u(len(name), 2) + name + u(index, 8)


def batch_leaf_input(manifest_bytes):
    return b"lucid/session/v1\x00" + sha256(manifest_bytes)


def canonical(value):
    """RFC 8785, for what manifests hold: ASCII member names, ASCII text and integers."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True).encode("ascii")


def frames(payloads):
    return b"".join(u(len(payload), 4) + payload for payload in payloads)


def unwrap(kek, session, dek_id, wrapped):
    """A wrapped DEK, as FORMAT.md has it."""
    at = {1: 1, 2: 9}[wrapped[0]]
    return AESGCM(kek).decrypt(wrapped[at : at + 12], wrapped[at + 12 :], wrapped[:1] + session.encode() + dek_id)


def _extract(salt, data):
    return hmac.digest(salt or bytes(32), data, "sha256")


def _expand(secret, info, size):
    assert size <= 32
    return hmac.digest(secret, info + b"\1", "sha256")[:size]


def open_sealed(private, session, dek_id, sealed):
    """A sealed DEK by hand: X-Wing (draft-connolly-cfrg-xwing-kem), then RFC 9180's key schedule in base mode."""
    assert (sealed[0], len(sealed)) == (1, 1169)
    of_mlkem, of_x25519, ciphertext = sealed[1:1089], sealed[1089:1121], sealed[1121:]
    x25519 = X25519PrivateKey.from_private_bytes(private[64:])
    shared = hashlib.sha3_256(
        MLKEM768PrivateKey.from_seed_bytes(private[:64]).decapsulate(of_mlkem)
        + x25519.exchange(X25519PublicKey.from_public_bytes(of_x25519))
        + of_x25519
        + x25519.public_key().public_bytes_raw()
        + b"\\.//^\\"
    ).digest()
    labelled = b"HPKE-v1" + b"HPKE" + u(0x647A, 2) + u(1, 2) + u(2, 2)
    info = b"lucid/recovery/v1\0" + session.encode() + dek_id
    context = b"\0" + _extract(b"", labelled + b"psk_id_hash") + _extract(b"", labelled + b"info_hash" + info)
    secret = _extract(shared, labelled + b"secret")
    key = _expand(secret, u(32, 2) + labelled + b"key" + context, 32)
    nonce = _expand(secret, u(12, 2) + labelled + b"base_nonce" + context, 12)
    return AESGCM(key).decrypt(nonce, ciphertext, b"")
