"""Tiles: how a large tree is kept so that one proof reads a few hundred hashes of it.

A tile of level L holds up to 256 hashes, side by side, of complete subtrees of 256^L leaves each; level 0 is the leaves
themselves. Only hashes of complete subtrees are kept, so a tile once full never changes, and the right edge of the
tree is hashed anew from at most one partly filled tile of each level. (Russ Cox, "Transparent Logs for Skeptical
Clients", 2019; C2SP tlog-tiles.)
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Final, TypeAlias

from sessions.core.merkle import EMPTY_ROOT, node_hash, root
from sessions.core.types import HASH_BYTES, Hash

TILE_WIDTH: Final = 256
_BITS: Final = 8

Place: TypeAlias = tuple[int, int]
"""Where a tile is: its level, and its number there."""


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


def needed(ranges: Iterable[tuple[int, int]]) -> set[Place]:
    """The tiles that `path` reads for these ranges: of each level two for one proof, however large the tree."""
    return {place for start, end in ranges for place, _, _ in _pieces(start, end)}


def path(ranges: Iterable[tuple[int, int]], tiles: Mapping[Place, bytes]) -> list[Hash]:
    """The roots of the ranges, out of their `needed` tiles, each its hashes joined.

    Args:
        ranges: Of leaves [start, end), as `inclusion_ranges` or `consistency_ranges` names them. Such a range starts at
            a multiple of the power of two that it is a part of, so it falls into whole tiles' entries from the left,
            and narrower ones towards the right edge.
        tiles: Fewer than 256 hashes are in those at the tree's right edge.
    """
    return [
        _joined([_subtree(tiles[place], offset, count) for place, offset, count in _pieces(start, end)])
        for start, end in ranges
    ]


def _pieces(start: int, end: int) -> Iterator[tuple[Place, int, int]]:
    """A range as complete subtrees, each so many entries of one tile from an offset on.

    They go from the largest to the smallest: the RFC's split, read as the binary digits of the size.
    """
    while start < end:
        width = 1 << (end - start).bit_length() - 1
        level = (width.bit_length() - 1) // _BITS
        unit = 1 << _BITS * level
        first = start // unit
        yield (level, first // TILE_WIDTH), first % TILE_WIDTH, width // unit
        start += width


def _subtree(tile: bytes, offset: int, count: int) -> Hash:
    return root(split_hashes(tile[offset * HASH_BYTES : (offset + count) * HASH_BYTES]))


def split_hashes(joined: bytes) -> list[Hash]:
    """The hashes of a tile."""
    return [Hash(joined[at : at + HASH_BYTES]) for at in range(0, len(joined), HASH_BYTES)]
