"""The formats and the trees once more, written from the standards alone: what the golden vectors are checked with.

Nothing here imports `sessions`. Trees follow the recursive definitions of RFC 9162 sections 2.1.1, 2.1.3.1 and 2.1.4.1
word by word; the code under test computes the same by other means.
"""

import hashlib
import json
from functools import cache


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
