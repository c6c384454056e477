"""The tree of a batch, against the plain functions of the core."""

import hashlib

import pytest

from sessions.core import merkle
from sessions.storage.batching import tree_with_paths


@pytest.mark.parametrize("size", [*range(1, 34), 100, 255, 256, 257])
def test_root_and_paths_are_those_of_rfc_9162(size: int) -> None:
    leaves = [hashlib.sha256(b"%d" % index).digest() for index in range(size)]
    root, paths = tree_with_paths(leaves)
    assert root == merkle.root(leaves)
    assert paths == [merkle.inclusion_path(index, leaves) for index in range(size)]
