"""The scan of a seal: records in order of index become a tree, with a leaf for each missing chunk."""

from collections.abc import Iterator, Sequence
from typing import Final

from sessions.core.envelope import missing_leaf_input
from sessions.core.manifest import MAX_MISSING_RANGES
from sessions.core.merkle import leaf_hash
from sessions.core.tiles import TreeBuilder
from sessions.core.types import SessionId
from sessions.storage import problems
from sessions.storage.chunk_records import Leaves
from sessions.storage.progress import MAX_REPORTED_GAPS

MAX_MISSING_CHUNKS: Final = 2**24
"""A seal with gaps hashes a leaf for each missing chunk: one stray index must not make that endless."""


def runs(indexes: Sequence[int]) -> Iterator[tuple[int, int]]:
    """Where ascending indexes follow one another: positions [begin, end) of each run of them."""
    begin, count = 0, len(indexes)
    while begin < count:
        end = begin + 1
        if indexes[-1] - indexes[begin] == count - 1 - begin:
            end = count  # all that are left, as in nearly every recording
        while end < count and indexes[end] == indexes[end - 1] + 1:
            end += 1
        yield begin, end
        begin = end


class Scan:
    """Takes records in index order; gives the tree, the totals and the gaps."""

    def __init__(self, session_id: SessionId) -> None:
        self.tree = TreeBuilder()
        self.gaps: list[tuple[int, int]] = []
        self.missing_chunks = 0
        self.plaintext_bytes = 0
        self.envelope_bytes = 0
        self._session_id = session_id
        self._next = 0

    def add(self, page: Leaves, *, allow_missing: bool) -> list[tuple[int, int, bytes]]:
        """Hash a page of leaves, with missing ones for gaps; gives the tiles that it fills."""
        tiles: list[tuple[int, int, bytes]] = []
        for begin, end in runs(page.indexes):
            if (index := page.indexes[begin]) > self._next:
                tiles += self.gap(index, allow_missing=allow_missing)
            self._next = page.indexes[end - 1] + 1
            tiles += self.tree.extend(page.hashes[begin:end])
        self.plaintext_bytes += page.plaintext_bytes
        self.envelope_bytes += page.envelope_bytes
        return tiles

    def gap(self, end: int, *, allow_missing: bool) -> list[tuple[int, int, bytes]]:
        """Note that all from the current end up to `end` is missing."""
        start, self._next = self._next, end
        self.gaps.append((start, end - 1))
        self.missing_chunks += end - start
        if not allow_missing:
            return []
        if self.missing_chunks > MAX_MISSING_CHUNKS or len(self.gaps) > MAX_MISSING_RANGES:
            raise problems.chunks_missing(self._session_id, [list(gap) for gap in self.gaps[:MAX_REPORTED_GAPS]])
        leaves = (leaf_hash(missing_leaf_input(self._session_id, index)) for index in range(start, end))
        return list(self.tree.extend(leaves))
