"""From sealed sessions to a batch: the root, and every leaf's inclusion path, in one pass. Pure; run it in a thread."""

from collections.abc import Sequence

from sessions.core.merkle import node_hash
from sessions.core.types import Hash


def tree_with_paths(leaf_hashes: Sequence[bytes]) -> tuple[Hash, list[list[Hash]]]:
    """Root of a tree of at least one leaf, and the inclusion path of each leaf, leaf to root (RFC 9162 section 2.1).

    Each subtree is hashed once, where asking for path after path would hash most of the tree for each of them.
    """
    paths: list[list[Hash]] = [[] for _ in leaf_hashes]

    def fill(start: int, end: int) -> Hash:
        if end - start == 1:
            return Hash(bytes(leaf_hashes[start]))
        middle = start + (1 << (end - start - 1).bit_length() - 1)
        left, right = fill(start, middle), fill(middle, end)
        for path in paths[start:middle]:
            path.append(right)
        for path in paths[middle:end]:
            path.append(left)
        return node_hash(left, right)

    return fill(0, len(leaf_hashes)), paths
