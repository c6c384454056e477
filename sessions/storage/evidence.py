"""What session-storage shows of a session: chunk records, envelopes, proofs and receipts."""

import asyncio
import itertools
from collections.abc import Mapping

from sessions.core import tiles
from sessions.core.envelope import missing_leaf_input
from sessions.core.merkle import inclusion_ranges, leaf_hash
from sessions.core.proof import ChunkProof
from sessions.core.tiles import TILE_WIDTH, Place
from sessions.core.types import Hash, SessionId
from sessions.runtime.errors import DomainError
from sessions.storage import problems
from sessions.storage.chunk_records import ChunkRecord
from sessions.storage.heads import covered, sealed_summary
from sessions.storage.ledger import Ledger
from sessions.storage.reads import Hold, unbounded
from sessions.storage.sealed_answer import receipt_json
from sessions.storage.store import BodyReader, ChunkReader, SessionRecord, TileStore


class Evidence:
    """Reads what is stored, and proves it."""

    def __init__(self, ledger: Ledger, chunks: ChunkReader, bodies: BodyReader, tile_store: TileStore) -> None:
        self._ledger = ledger
        self._chunks = chunks
        self._bodies = bodies
        self._tiles = tile_store

    async def chunks(self, session_id: SessionId, start: int, limit: int) -> tuple[list[ChunkRecord], int | None]:
        """Records from `start` on, and where the next page starts (None at the end).

        Raises:
            DomainError: `session-not-found`.
        """
        record = await self._ledger.get(session_id)
        found = await self._chunks.page(session_id, start, limit)
        next_start = found[-1].index + 1 if len(found) == limit else None
        return await _shown(record, found), next_start

    async def envelope(self, session_id: SessionId, index: int, hold: Hold = unbounded) -> bytes:
        """An envelope's bytes, reserved by `hold` before they are read.

        Raises:
            DomainError: `session-not-found`, `session-shredded`, `chunk-not-found`, `envelope-corrupt`.
        """
        record = await self._ledger.readable(session_id)
        chunk = await self._chunk(record, index)
        await hold(chunk.fingerprint.envelope_bytes)
        body = await self._bodies.read(session_id, chunk)
        if body is None:
            raise _missing(session_id, index)
        return body

    async def envelopes(
        self, session_id: SessionId, start: int, limit: int, max_bytes: int, hold: Hold = unbounded
    ) -> list[bytes]:
        """Return envelopes of the chunks from `start` on, in order: at most `limit` and `max_bytes`, but always one.

        `hold` reserves their bytes before they are read. They end before one whose body is missing, so that what comes
        before it can be read.

        Raises:
            DomainError: `session-not-found`, `session-shredded`, `chunk-not-found` when there is none at `start`,
                `envelope-corrupt`.
        """
        record = await self._ledger.readable(session_id)
        stored = await _shown(record, await self._chunks.page(session_id, start, limit))
        if not stored or stored[0].index != start:
            raise problems.chunk_not_found(session_id, start)
        sums = list(itertools.accumulate(chunk.fingerprint.envelope_bytes for chunk in stored))
        count = max(1, sum(size <= max_bytes for size in sums))
        await hold(sums[count - 1])
        bodies = await self._bodies.read_many(session_id, stored[:count])
        found = [body for body in itertools.takewhile(lambda body: body is not None, bodies) if body is not None]
        if not found:
            raise _missing(session_id, start)
        return found

    async def proof(self, session_id: SessionId, index: int, hold: Hold = unbounded) -> ChunkProof:
        """The proof that a chunk is in its sealed session; it reads a few hundred hashes, however long the session.

        `hold` reserves memory by the manifest's size before it is read.

        Raises:
            DomainError: `session-not-found`, `session-open`, `chunk-not-found`, `envelope-corrupt`.
        """
        record = await self._ledger.sealed(session_id, hold)
        summary = await sealed_summary(record)
        if not all(await covered(record, [index])):
            raise problems.chunk_not_found(session_id, index)
        ranges = inclusion_ranges(index, summary.chunk_count)
        found, held = await asyncio.gather(
            self._chunks.page(session_id, index, 1), self._read(record, summary.chunk_count, tiles.needed(ranges))
        )
        if not found or found[0].index != index:
            raise _no_record(session_id, index)
        chunk = found[0]
        return ChunkProof(
            session_id=session_id,
            index=index,
            envelope_bytes=chunk.fingerprint.envelope_bytes,
            envelope_sha256=chunk.fingerprint.envelope_sha256,
            leaf_hash=chunk.fingerprint.leaf_hash,
            tree_size=summary.chunk_count,
            root=summary.root,
            path=tuple(tiles.path(ranges, held)),
        )

    async def receipt(self, session_id: SessionId, hold: Hold = unbounded) -> bytes:
        """Return the receipt of a sealed session as JSON; `hold` reserves memory by the manifest's size.

        Raises:
            DomainError: `session-not-found`, `session-open`.
        """
        record = await self._ledger.sealed(session_id, hold)
        return receipt_json(record, await self._ledger.anchor_of(record))

    async def manifest(self, session_id: SessionId, hold: Hold = unbounded) -> bytes:
        """Return the canonical manifest; `hold` reserves memory by its size.

        Raises:
            DomainError: `session-not-found`, `session-open`.
        """
        record = await self._ledger.sealed(session_id, hold)
        assert record.seal is not None  # it is sealed
        return record.seal.manifest

    async def _chunk(self, record: SessionRecord, index: int) -> ChunkRecord:
        found = await _shown(record, await self._chunks.page(record.session_id, index, 1))
        if not found or found[0].index != index:
            raise problems.chunk_not_found(record.session_id, index)
        return found[0]

    async def _read(self, record: SessionRecord, chunk_count: int, places: set[Place]) -> Mapping[Place, bytes]:
        """Tiles: level 0 from the records, the rest as the seal stored them."""
        seal = record.seal
        assert seal is not None
        edge, above = [place for place in places if place[0] == 0], {place for place in places if place[0]}
        leaves = [self._leaves(record, chunk_count, number) for _, number in edge]
        stored, joined = await asyncio.gather(
            self._tiles.get(record.session_id, seal.tiles_attempt, above), asyncio.gather(*leaves)
        )
        missing = above - stored.keys()
        if missing:
            level, number = min(missing)
            detail = f"tile {level}/{number} of session {record.session_id} is missing in the database"
            raise DomainError("envelope-corrupt", detail)
        return {**stored, **dict(zip(edge, joined, strict=True))}

    async def _leaves(self, record: SessionRecord, chunk_count: int, tile: int) -> bytes:
        session_id = record.session_id
        start, end = tile * TILE_WIDTH, min((tile + 1) * TILE_WIDTH, chunk_count)
        found = await self._chunks.leaves(session_id, start, TILE_WIDTH)
        stored = dict(zip(found.indexes, found.hashes, strict=True))
        leaves: list[Hash] = []
        for index, is_covered in zip(range(start, end), await covered(record, range(start, end)), strict=True):
            if not is_covered:
                leaves.append(leaf_hash(missing_leaf_input(session_id, index)))
            elif index in stored:
                leaves.append(stored[index])
            else:
                raise _no_record(session_id, index)
        return b"".join(leaves)


async def _shown(record: SessionRecord, found: list[ChunkRecord]) -> list[ChunkRecord]:
    """Records that count: once a session is sealed, those that the seal covers."""
    if record.seal is None:
        return found
    return list(itertools.compress(found, await covered(record, [chunk.index for chunk in found])))


def _no_record(session_id: SessionId, index: int) -> DomainError:
    detail = f"the record of chunk {index} of session {session_id} is missing in the database"
    return DomainError("envelope-corrupt", detail, session_id=session_id, index=index)


def _missing(session_id: SessionId, index: int) -> DomainError:
    detail = f"the body of chunk {index} of session {session_id} is missing or cut short in the database"
    return DomainError("envelope-corrupt", detail, session_id=session_id, index=index)
