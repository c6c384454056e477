"""Tiles: how a large tree is kept so that one proof reads a few hundred hashes of it.

A tile of level L holds up to 256 hashes, side by side, of complete subtrees of 256^L leaves each; level 0 is the leaves
themselves. Only hashes of complete subtrees are kept, so a tile once full never changes, and the right edge of the
tree is hashed anew from at most one partly filled tile of each level. (Russ Cox, "Transparent Logs for Skeptical
Clients", 2019; C2SP tlog-tiles.)
"""

from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from itertools import islice
from typing import Final

from sessions.core.merkle import EMPTY_ROOT, consistency_ranges, inclusion_ranges, node_hash, root
from sessions.core.types import HASH_BYTES, Hash

TILE_WIDTH: Final = 256
_BITS: Final = 8

FetchTile = Callable[[int, int], Awaitable[bytes]]
"""`fetch(level, number)` gives the hashes of a tile, joined; fewer than 256 of them at the tree's right edge."""


class TreeBuilder:
    """Takes leaf hashes in order; gives the root, and the tiles of level 1 and up as they fill. Memory is O(log n)."""

    def __init__(self) -> None:
        self.size = 0
        """How many leaves the tree has."""
        self._open: list[list[bytes]] = [[]]

    def extend(self, leaf_hashes: Iterable[bytes]) -> Iterator[tuple[int, int, bytes]]:
        """Add leaves; yields each tile (level, number, joined hashes) that they fill. Exhaust it."""
        leaves, tile = iter(leaf_hashes), self._open[0]
        while more := list(islice(leaves, TILE_WIDTH - len(tile))):
            tile += more
            self.size += len(more)
            if len(tile) == TILE_WIDTH:
                yield from self._full(0)

    def _full(self, level: int) -> Iterator[tuple[int, int, bytes]]:
        tile = self._open[level]
        if level:
            yield level, (self.size >> _BITS * (level + 1)) - 1, b"".join(tile)
        if level + 1 == len(self._open):
            self._open.append([])
        self._open[level + 1].append(root(tile))
        tile.clear()
        if len(self._open[level + 1]) == TILE_WIDTH:
            yield from self._full(level + 1)

    def partial_tiles(self) -> Iterator[tuple[int, int, bytes]]:
        """The tiles of level 1 and up that the tree's end leaves partly filled."""
        for level, tile in enumerate(self._open):
            if level and tile:
                yield level, self.size >> _BITS * (level + 1), b"".join(tile)

    def root(self) -> Hash:
        """The root of all leaves so far."""
        subtrees = [root(part) for tile in reversed(self._open) for part in _complete(tile)]
        return _joined(subtrees) if subtrees else EMPTY_ROOT


def _complete(nodes: Sequence[bytes]) -> Iterator[Sequence[bytes]]:
    """Nodes in parts whose lengths are powers of two, from the largest down: the RFC's split."""
    at = 0
    while at < len(nodes):
        width = 1 << (len(nodes) - at).bit_length() - 1
        yield nodes[at : at + width]
        at += width


def _joined(subtrees: Sequence[Hash]) -> Hash:
    """The root of complete subtrees, from the largest (on the left) to the smallest."""
    node = subtrees[-1]
    for left in reversed(subtrees[:-1]):
        node = node_hash(left, node)
    return node


async def range_root(start: int, end: int, fetch: FetchTile) -> Hash:
    """Root of the leaves [start, end), a range that `inclusion_ranges` or `consistency_ranges` named.

    Such a range starts at a multiple of the power of two that it is a part of, so it falls into whole tiles' entries
    from the left, and narrower ones towards the right edge.
    """
    # From the largest complete subtrees to the smallest: the RFC's split, read as the binary digits of the size.
    subtrees: list[Hash] = []
    at = start
    while at < end:
        width = 1 << (end - at).bit_length() - 1
        subtrees.append(await _subtree(at, width, fetch))
        at += width
    return _joined(subtrees)


async def _subtree(start: int, width: int, fetch: FetchTile) -> Hash:
    """Root of a complete, aligned subtree of `width` (a power of two) leaves, from one tile."""
    level = (width.bit_length() - 1) // _BITS
    unit = 1 << _BITS * level
    first, count = start // unit, width // unit
    tile = await fetch(level, first // TILE_WIDTH)
    offset = first % TILE_WIDTH
    return root(split_hashes(tile[offset * HASH_BYTES : (offset + count) * HASH_BYTES]))


def split_hashes(joined: bytes) -> list[Hash]:
    """The hashes of a tile."""
    return [Hash(joined[at : at + HASH_BYTES]) for at in range(0, len(joined), HASH_BYTES)]


async def inclusion_path(index: int, size: int, fetch: FetchTile) -> list[Hash]:
    """The inclusion path of a leaf, leaf to root, from tiles."""
    return [await range_root(start, end, fetch) for start, end in inclusion_ranges(index, size)]


async def consistency_path(old_size: int, size: int, fetch: FetchTile) -> list[Hash]:
    """The consistency path from the first `old_size` leaves to the whole tree, from tiles."""
    return [await range_root(start, end, fetch) for start, end in consistency_ranges(old_size, size)]
