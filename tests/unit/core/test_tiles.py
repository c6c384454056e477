import hashlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sessions.core import merkle
from sessions.core.merkle import consistency_ranges, inclusion_ranges
from sessions.core.tiles import TILE_WIDTH, TreeBuilder, needed, path, split_hashes
from tests.unit.core.reference import Tree

LARGEST = 2 * 65536 + 300
# Any 32 bytes do for a leaf hash.
LEAVES = [hashlib.sha256(number.to_bytes(4, "big")).digest() for number in range(LARGEST)]
TREE = Tree(LEAVES)
EDGES = [1, 2, 3, 7, 8, 9, 255, 256, 257, 511, 512, 513, 767, 65535, 65536, 65537, 65793, 131071, 131072, LARGEST]

_built: dict[int, "Tiled"] = {}


class Tiled:
    """The tiles of a tree, as a store would keep them."""

    def __init__(self, size):
        builder = TreeBuilder()
        self.tiles = {}
        for level, number, hashes in [*builder.extend(LEAVES[:size]), *builder.partial_tiles()]:
            assert (level, number) not in self.tiles
            self.tiles[level, number] = hashes
        assert builder.size == size
        self.root, self.size = builder.root(), size

    @classmethod
    def of(cls, size):
        if size not in _built:
            _built[size] = cls(size)
        return _built[size]

    def path(self, ranges):
        """Out of just those tiles that it says it needs."""
        return path(ranges, {place: self._tile(*place) for place in needed(ranges)})

    def _tile(self, level, number):
        if level:
            return self.tiles[level, number]
        return b"".join(LEAVES[number * TILE_WIDTH : min((number + 1) * TILE_WIDTH, self.size)])


@pytest.mark.parametrize("size", EDGES)
def test_the_root_is_the_rfcs(size):
    assert Tiled.of(size).root == TREE.root(size)


def test_an_empty_tree_has_no_tiles():
    tree = Tiled.of(0)
    assert tree.root == merkle.EMPTY_ROOT
    assert tree.tiles == {}


@pytest.mark.parametrize("size", EDGES)
def test_tiles_hold_the_roots_of_complete_subtrees(size):
    tiles = Tiled.of(size).tiles
    wanted = {(level, n // 256) for level in (1, 2) for n in range(size // 256**level)}
    assert set(tiles) == wanted
    for (level, number), joined in tiles.items():
        unit = 256**level
        first = number * TILE_WIDTH
        last = min(first + TILE_WIDTH, size // unit)
        assert split_hashes(joined) == [TREE._mth(n * unit, (n + 1) * unit) for n in range(first, last)]


@given(st.lists(st.integers(0, 600), max_size=5))
def test_it_does_not_matter_how_the_leaves_arrive(parts):
    builder, at, tiles = TreeBuilder(), 0, []
    for part in parts:
        tiles += builder.extend(LEAVES[at : at + part])
        at += part
    whole = TreeBuilder()
    assert tiles == list(whole.extend(LEAVES[:at]))
    assert list(builder.partial_tiles()) == list(whole.partial_tiles())
    assert builder.root() == TREE.root(at)


@pytest.mark.parametrize("size", EDGES)
def test_inclusion_paths_at_the_edges_are_the_rfcs(size):
    tree = Tiled.of(size)
    near = {0, 1, 254, 255, 256, 257, 511, 512, 65535, 65536, 65537, size // 2, size - 2, size - 1}
    for index in sorted(index for index in near if 0 <= index < size):
        found = tree.path(inclusion_ranges(index, size))
        assert found == TREE.path(index, size)
        merkle.verify_inclusion(LEAVES[index], index, size, found, tree.root)


@pytest.mark.parametrize("size", EDGES)
def test_consistency_paths_at_the_edges_are_the_rfcs(size):
    tree = Tiled.of(size)
    near = {1, 2, 255, 256, 257, 512, 65535, 65536, 65537, size // 2, size - 1, size}
    for old_size in sorted(old for old in near if 0 < old <= size):
        found = tree.path(consistency_ranges(old_size, size))
        assert found == TREE.proof(old_size, size)
        merkle.verify_consistency(old_size, size, TREE.root(old_size), tree.root, found)


@given(st.integers(1, 1200), st.data())
@settings(max_examples=200)
def test_paths_of_any_place_are_the_rfcs(size, data):
    tree = Tiled.of(size)
    index = data.draw(st.integers(0, size - 1))
    assert tree.path(inclusion_ranges(index, size)) == TREE.path(index, size)
    assert tree.path(consistency_ranges(index + 1, size)) == TREE.proof(index + 1, size)


@given(st.data())
@settings(max_examples=50)
def test_paths_of_any_place_in_a_large_tree_are_the_rfcs(data):
    tree = Tiled.of(LARGEST)
    index = data.draw(st.integers(0, LARGEST - 1))
    assert tree.path(inclusion_ranges(index, LARGEST)) == TREE.path(index, LARGEST)
    assert tree.path(consistency_ranges(index + 1, LARGEST)) == TREE.proof(index + 1, LARGEST)


def test_the_whole_tree_is_a_range_too():
    tree = Tiled.of(65793)
    assert tree.path([(0, 65793)]) == [tree.root]


@pytest.mark.parametrize("index", [0, 65535, 65536, LARGEST // 2, LARGEST - 1])
def test_one_proof_in_a_large_tree_needs_few_tiles(index):
    assert len(needed(inclusion_ranges(index, LARGEST))) <= 5
