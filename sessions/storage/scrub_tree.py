"""A sealed session's chunk records against its tiles and its manifest."""

import asyncio
from collections.abc import Mapping, Sequence

from sessions.core.envelope import missing_leaf_input
from sessions.core.merkle import leaf_hash, root
from sessions.core.tiles import TILE_WIDTH, split_hashes
from sessions.core.types import Hash
from sessions.storage.chunk_records import ChunkRecord
from sessions.storage.scrub_session import Subject
from sessions.storage.scrub_store import Finding, Kind, Part
from sessions.storage.sealing import covers
from sessions.storage.store import ChunkReader, TileStore


class TreeCheck:
    """Hashes the tree anew: each tile of leaves on its way, and the rest of the tree at the session's end."""

    def __init__(self, chunks: ChunkReader, tiles: TileStore) -> None:
        self._chunks = chunks
        self._tiles = tiles

    async def tile(self, subject: Subject, first: int, end: int, records: Mapping[int, ChunkRecord]) -> list[Finding]:
        """The records of one tile of leaves: that all are there, and that their root is the one that was sealed."""
        manifest = subject.manifest
        assert manifest is not None  # it has leaves
        gone = [index for index in range(first, end) if covers(manifest, index) and index not in records]
        if gone:
            detail = "the chunk's record is not there"
            return [Finding(Kind.MISSING, Part.RECORD, subject.session_id, index, detail) for index in gone]
        if end - first < TILE_WIDTH:
            return []  # at the tree's right edge no tile holds them: the whole tree tells
        tile = await self._stored(subject, 1, first // TILE_WIDTH // TILE_WIDTH)
        place = first // TILE_WIDTH % TILE_WIDTH
        if len(tile) <= place:
            return []  # told at the session's end
        if await asyncio.to_thread(self._root, subject, first, end, records) == tile[place]:
            return []
        detail = f"chunks {first} to {end - 1}: the records are not those that were sealed"
        return [Finding(Kind.ALTERED, Part.TREE, subject.session_id, first, detail)]

    async def whole(self, subject: Subject) -> list[Finding]:
        """The tiles against each other, and the root against the manifest's."""
        manifest = subject.manifest
        if manifest is None:
            return []
        full = manifest.chunk_count // TILE_WIDTH
        nodes = await self._level(subject, 1, full)
        if len(nodes) != full:
            return [self._found(subject, Kind.MISSING, "tiles of level 1 are not there")]
        findings: list[Finding] = []
        level, below = 1, nodes
        while len(below) >= TILE_WIDTH:
            above = await asyncio.to_thread(_parents, below)
            level += 1
            stored = await self._level(subject, level, len(above))
            if len(stored) != len(above):
                findings.append(self._found(subject, Kind.MISSING, f"tiles of level {level} are not there"))
            elif stored != above:
                findings.append(
                    self._found(subject, Kind.ALTERED, f"tiles of level {level} are not those of level {level - 1}")
                )
            below = above
        edge = full * TILE_WIDTH
        if edge < manifest.chunk_count:
            page = await self._chunks.page(subject.session_id, edge, TILE_WIDTH)
            records = {one.index: one for one in page}
            end = manifest.chunk_count
            if any(covers(manifest, index) and index not in records for index in range(edge, end)):
                return findings  # told with its tile
            nodes = [*nodes, await asyncio.to_thread(self._root, subject, edge, end, records)]
        if await asyncio.to_thread(root, nodes) != manifest.root:
            findings.append(self._found(subject, Kind.ALTERED, "the tree's root is not that of the manifest"))
        return findings

    @staticmethod
    def _found(subject: Subject, kind: Kind, detail: str) -> Finding:
        return Finding(kind, Part.TREE, subject.session_id, None, detail)

    @staticmethod
    def _root(subject: Subject, first: int, end: int, records: Mapping[int, ChunkRecord]) -> Hash:
        name = subject.session_id
        manifest = subject.manifest
        assert manifest is not None
        return root(
            records[index].fingerprint.leaf_hash
            if covers(manifest, index)
            else leaf_hash(missing_leaf_input(name, index))
            for index in range(first, end)
        )

    async def _stored(self, subject: Subject, level: int, number: int) -> list[Hash]:
        record = subject.record
        assert record is not None
        assert record.seal is not None  # it has a manifest
        place = (level, number)
        found = await self._tiles.get(subject.session_id, record.seal.tiles_attempt, [place])
        return split_hashes(found.get(place, b""))

    async def _level(self, subject: Subject, level: int, count: int) -> list[Hash]:
        hashes: list[Hash] = []
        for number in range(-(-count // TILE_WIDTH)):
            hashes += await self._stored(subject, level, number)
        return hashes


def _parents(hashes: Sequence[Hash]) -> list[Hash]:
    whole = len(hashes) // TILE_WIDTH
    return [root(hashes[at * TILE_WIDTH : (at + 1) * TILE_WIDTH]) for at in range(whole)]
