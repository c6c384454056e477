import pytest
from hypothesis import given
from hypothesis import strategies as st

from sessions.core import merkle
from sessions.core.errors import VerificationError
from tests.unit.core.reference import Tree, leaf

LEAVES = [leaf(bytes([number])) for number in range(80)]
TREE = Tree(LEAVES)
sizes = st.integers(1, len(LEAVES))


def test_roots_of_every_size_are_the_rfcs():
    assert merkle.root([]) == merkle.EMPTY_ROOT == TREE.root(0)
    for size in range(1, len(LEAVES) + 1):
        assert merkle.root(LEAVES[:size]) == TREE.root(size)


def test_an_odd_node_is_not_duplicated():
    assert merkle.root(LEAVES[:3]) != merkle.root([*LEAVES[:3], LEAVES[2]])


def test_a_node_cannot_pose_as_a_leaf():
    assert merkle.leaf_hash(LEAVES[0] + LEAVES[1]) != merkle.node_hash(LEAVES[0], LEAVES[1])


@given(sizes, st.data())
def test_inclusion_paths_are_the_rfcs_and_verify(size, data):
    index = data.draw(st.integers(0, size - 1))
    path = merkle.inclusion_path(index, LEAVES[:size])
    assert path == TREE.path(index, size)
    assert merkle.root_from_path(LEAVES[index], index, size, path) == TREE.root(size)
    merkle.verify_inclusion(LEAVES[index], index, size, path, TREE.root(size))


def test_consistency_paths_of_every_pair_are_the_rfcs_and_verify():
    for size in range(1, 40):
        for old_size in range(1, size + 1):
            path = merkle.consistency_path(old_size, LEAVES[:size])
            assert path == TREE.proof(old_size, size)
            merkle.verify_consistency(old_size, size, TREE.root(old_size), TREE.root(size), path)


@pytest.mark.parametrize(("index", "size"), [(0, 0), (-1, 4), (4, 4)])
def test_a_leaf_outside_of_the_tree_has_no_path(index, size):
    with pytest.raises(ValueError, match="there is no leaf"):
        merkle.inclusion_ranges(index, size)
    with pytest.raises(VerificationError, match="there is no leaf"):
        merkle.root_from_path(LEAVES[0], index, size, [])


@pytest.mark.parametrize(("old_size", "size"), [(0, 4), (-1, 4), (5, 4)])
def test_sizes_that_cannot_be_consistent(old_size, size):
    with pytest.raises(ValueError, match="cannot begin"):
        merkle.consistency_ranges(old_size, size)
    with pytest.raises(VerificationError, match="cannot begin"):
        merkle.verify_consistency(old_size, size, LEAVES[0], LEAVES[0], [])


def test_the_length_of_an_inclusion_path_is_fixed():
    path = TREE.path(5, 8)
    with pytest.raises(VerificationError, match="too short"):
        merkle.verify_inclusion(LEAVES[5], 5, 8, path[:-1], TREE.root(8))
    with pytest.raises(VerificationError, match="too long"):
        merkle.verify_inclusion(LEAVES[5], 5, 8, [*path, path[0]], TREE.root(8))


def test_a_tree_is_consistent_with_itself_by_an_empty_path_only():
    merkle.verify_consistency(4, 4, TREE.root(4), TREE.root(4), [])
    with pytest.raises(VerificationError, match="one root and an empty path"):
        merkle.verify_consistency(4, 4, TREE.root(4), TREE.root(4), [LEAVES[0]])
    with pytest.raises(VerificationError, match="one root and an empty path"):
        merkle.verify_consistency(4, 4, TREE.root(4), TREE.root(5), [])


def test_consistency_refuses_wrong_lengths_and_roots():
    path = TREE.proof(6, 8)
    with pytest.raises(VerificationError, match="too short"):
        merkle.verify_consistency(6, 8, TREE.root(6), TREE.root(8), [])
    with pytest.raises(VerificationError, match="too short"):
        merkle.verify_consistency(6, 8, TREE.root(6), TREE.root(8), path[:-1])
    with pytest.raises(VerificationError, match="too long"):
        merkle.verify_consistency(6, 8, TREE.root(6), TREE.root(8), [*path, path[0]])
    for old, new in ((5, 8), (6, 7)):
        with pytest.raises(VerificationError, match="other roots"):
            merkle.verify_consistency(6, 8, TREE.root(old), TREE.root(new), path)


def test_an_old_tree_that_was_rewritten_is_not_consistent():
    other = [leaf(b"other"), *LEAVES[1:8]]
    for old_size in range(1, 8):
        path = merkle.consistency_path(old_size, other)
        with pytest.raises(VerificationError):
            merkle.verify_consistency(old_size, 8, TREE.root(old_size), merkle.root(other), path)
