"""Merkle trees, inclusion and consistency proofs of RFC 9162 section 2.1, over SHA-256.

Leaves are hashed with a 0x00 prefix and nodes with 0x01, so that neither can pose as the other; a tree splits at the
largest power of two below its size, so an odd node is never duplicated (CVE-2012-2459).

Proofs are built from ranges: `inclusion_ranges` names the subtrees whose hashes make the path, and whoever stores the
tree hashes just those ranges. `verify_*` are for the auditor; `sessions.core.tiles` builds large trees.
"""

import hashlib
from collections.abc import Iterable, Sequence

from sessions.core.errors import VerificationError
from sessions.core.types import Hash

EMPTY_ROOT = Hash(hashlib.sha256(b"").digest())


def leaf_hash(leaf_input: bytes) -> Hash:
    """Hash of a leaf: SHA-256(0x00 || input)."""
    return Hash(hashlib.sha256(b"\x00" + leaf_input).digest())


def node_hash(left: bytes, right: bytes) -> Hash:
    """Hash of an inner node: SHA-256(0x01 || left || right)."""
    return Hash(hashlib.sha256(b"\x01" + left + right).digest())


class Frontier:
    """The right edge of a growing tree: one hash for each one-bit of its size, so O(log n) memory.

    Appending leaf after leaf gives the same root as hashing the whole tree (RFC 9162 section 2.1.2).
    """

    __slots__ = ("_hashes", "size")

    def __init__(self) -> None:
        self.size = 0
        self._hashes: list[Hash] = []

    def append(self, leaf: bytes) -> None:
        """Add one leaf hash (or, if every append is one, the hash of a complete subtree of a fixed size)."""
        node, size = Hash(leaf), self.size
        while size & 1:
            node = node_hash(self._hashes.pop(), node)
            size >>= 1
        self._hashes.append(node)
        self.size += 1

    def root(self) -> Hash:
        """The root of the leaves so far; of none, SHA-256 of nothing."""
        if not self._hashes:
            return EMPTY_ROOT
        node = self._hashes[-1]
        for left in reversed(self._hashes[:-1]):
            node = node_hash(left, node)
        return node


def root(leaf_hashes: Iterable[bytes]) -> Hash:
    """The Merkle tree hash of leaf hashes, in order; all of them are held. `Frontier` holds a few.

    Level by level, an odd node going up as it is: that splits where the RFC does.
    """
    nodes: list[bytes] = list(leaf_hashes)
    if not nodes:
        return EMPTY_ROOT
    sha256 = hashlib.sha256
    while len(nodes) > 1:
        odd = nodes[-1:] if len(nodes) % 2 else []
        pairs = zip(nodes[::2], nodes[1::2], strict=False)
        nodes = [sha256(b"\x01" + left + right).digest() for left, right in pairs] + odd
    return Hash(nodes[0])


def _split(size: int) -> int:
    """The largest power of two below `size` (which is at least 2)."""
    return 1 << (size - 1).bit_length() - 1


def inclusion_ranges(index: int, size: int) -> list[tuple[int, int]]:
    """The leaf ranges [start, end) whose subtree roots are the inclusion path of a leaf, leaf to root.

    Raises:
        ValueError: there is no such leaf in a tree of that size.
    """
    if not 0 <= index < size:
        raise ValueError(f"there is no leaf {index} in a tree of {size}")
    ranges, start, end = [], 0, size
    while end - start > 1:
        middle = start + _split(end - start)
        if index < middle:
            ranges.append((middle, end))
            end = middle
        else:
            ranges.append((start, middle))
            start = middle
    return ranges[::-1]


def consistency_ranges(old_size: int, new_size: int) -> list[tuple[int, int]]:
    """The leaf ranges whose subtree roots prove that the tree of `old_size` begins that of `new_size`.

    Raises:
        ValueError: not 0 < old_size <= new_size.
    """
    if not 0 < old_size <= new_size:
        raise ValueError(f"a tree of {old_size} cannot begin a tree of {new_size}")
    ranges: list[tuple[int, int]] = []
    start, end, whole = 0, new_size, True
    while old_size != end:
        middle = start + _split(end - start)
        if old_size <= middle:
            ranges.append((middle, end))
            end = middle
        else:
            ranges.append((start, middle))
            start, whole = middle, False
    if not whole:  # of the tree from leaf 0 the verifier has the root already
        ranges.append((start, end))
    return ranges[::-1]


def inclusion_path(index: int, leaf_hashes: Sequence[bytes]) -> list[Hash]:
    """The inclusion path of one leaf of a tree that is at hand whole, leaf to root."""
    return [root(leaf_hashes[start:end]) for start, end in inclusion_ranges(index, len(leaf_hashes))]


def consistency_path(old_size: int, leaf_hashes: Sequence[bytes]) -> list[Hash]:
    """The consistency path from the first `old_size` leaves to all of them."""
    return [root(leaf_hashes[start:end]) for start, end in consistency_ranges(old_size, len(leaf_hashes))]


def root_from_path(leaf: bytes, index: int, size: int, path: Sequence[bytes]) -> Hash:
    """The root that an inclusion path leads to (RFC 9162 section 2.1.3.2).

    Raises:
        VerificationError: the path does not have the length that this place in a tree of this size has.
    """
    if not 0 <= index < size:
        raise VerificationError(f"there is no leaf {index} in a tree of {size}")
    fn, sn, node = index, size - 1, Hash(leaf)
    for sibling in path:
        if sn == 0:
            raise VerificationError("the inclusion path is too long")
        if fn & 1 or fn == sn:
            node = node_hash(sibling, node)
            while not fn & 1 and fn:
                fn, sn = fn >> 1, sn >> 1
        else:
            node = node_hash(node, sibling)
        fn, sn = fn >> 1, sn >> 1
    if sn:
        raise VerificationError("the inclusion path is too short")
    return node


def verify_inclusion(leaf: bytes, index: int, size: int, path: Sequence[bytes], expected_root: bytes) -> None:
    """Check that `leaf` is leaf number `index` of the tree of `size` leaves with that root.

    Raises:
        VerificationError: it is not proven.
    """
    if root_from_path(leaf, index, size, path) != expected_root:
        raise VerificationError("the inclusion path leads to another root")


def verify_consistency(old_size: int, new_size: int, old_root: bytes, new_root: bytes, path: Sequence[bytes]) -> None:
    """Check that the old tree is the beginning of the new one (RFC 9162 section 2.1.4.2).

    Raises:
        VerificationError: it is not proven.
    """
    if not 0 < old_size <= new_size:
        raise VerificationError(f"a tree of {old_size} cannot begin a tree of {new_size}")
    nodes = list(path)
    if old_size == new_size:
        if nodes or old_root != new_root:
            raise VerificationError("two trees of one size have one root and an empty path")
        return
    if old_size & (old_size - 1) == 0:
        nodes.insert(0, old_root)
    fn, sn = old_size - 1, new_size - 1
    while fn & 1:
        fn, sn = fn >> 1, sn >> 1
    if not nodes:
        raise VerificationError("the consistency path is too short")
    old = new = nodes[0]
    for node in nodes[1:]:
        if sn == 0:
            raise VerificationError("the consistency path is too long")
        if fn & 1 or fn == sn:
            old, new = node_hash(node, old), node_hash(node, new)
            while not fn & 1 and fn:
                fn, sn = fn >> 1, sn >> 1
        else:
            new = node_hash(new, node)
        fn, sn = fn >> 1, sn >> 1
    if sn:
        raise VerificationError("the consistency path is too short")
    if old != old_root or new != new_root:
        raise VerificationError("the consistency path leads to other roots")
