"""Chunks in MongoDB: collection `chunks` holds a small record each, `bodies` the envelopes, in parts of about 1 MiB.

A body is keyed by session, index and the envelope's hash, so two writers of one index never mix their parts; the
record, unique on (session, index), decides who was first, and is written after its body: where both are in one journal
the body lasts when the record does, else it is journaled before.
"""

import asyncio
from collections.abc import Iterator, Sequence
from typing import Any, Final, cast

from bson import Int64, MaxKey
from pymongo.errors import BulkWriteError
from pymongo.write_concern import WriteConcern

from sessions.core.envelope import Fingerprint
from sessions.core.types import Hash, SessionId
from sessions.runtime.errors import DomainError
from sessions.runtime.killpoints import reach
from sessions.storage import mongo_leaves
from sessions.storage.chunk_records import ChunkRecord, InsertOutcome, Leaves, NewChunk
from sessions.storage.killpoints import Point
from sessions.storage.mongo import DUPLICATE_KEY, Database, Document, translated
from sessions.storage.mongo_journal import Journal

BODY_PART_BYTES: Final = 1024 * 1024 + 64 * 1024
"""Headroom over 1 MiB, so that an incompressible chunk of 1 MiB stays one document."""
_INSERT_BYTES: Final = 4 * 1024 * 1024
"""Most bytes handed to the driver at once: it encodes on the event loop."""
_BODY_KEY_BYTES: Final = 16
_ASCENDING: Final = (("_id", 1),)


def _chunk_id(session_id: SessionId, index: int) -> Document:
    return {"s": session_id, "i": Int64(index)}


def _body_id(session_id: SessionId, index: int, envelope_sha256: bytes, part: Any) -> Document:
    return {**_chunk_id(session_id, index), "e": envelope_sha256[:_BODY_KEY_BYTES], "p": part}


def of_session(session_id: SessionId) -> Document:
    """Beside a range of `_id`: tells the router of a sharded cluster, which does not read it off a range, the shard."""
    return {"_id.s": session_id}


def _record(document: Document) -> ChunkRecord:
    return ChunkRecord(
        index=int(document["_id"]["i"]),
        plaintext_bytes=int(document["plaintext_bytes"]),
        fingerprint=Fingerprint(
            int(document["envelope_bytes"]), Hash(document["envelope_sha256"]), Hash(document["leaf_hash"])
        ),
    )


def _from(session_id: SessionId, start: int) -> Document:
    return {
        "_id": {"$gte": _chunk_id(session_id, start), "$lt": {"s": session_id, "i": MaxKey()}},
        **of_session(session_id),
    }


def _joined(chunk: ChunkRecord, parts: list[bytes]) -> bytes | None:
    size = chunk.fingerprint.envelope_bytes
    body = parts[0] if len(parts) == 1 else b"".join(parts)
    return body if len(body) == size and len(parts) == _part_count(size) else None


def _part_count(envelope_bytes: int) -> int:
    return -(-envelope_bytes // BODY_PART_BYTES)


class MongoChunks:
    """`ChunkStore` and `BodyStore` on MongoDB."""

    def __init__(self, db: Database) -> None:
        self._chunks = db["chunks"]
        self._bodies = db["bodies"]
        self._unwaited = self._bodies.with_options(write_concern=WriteConcern(w=1))
        self._journal = Journal(db.client)

    async def insert(self, chunks: Sequence[NewChunk]) -> list[tuple[InsertOutcome, Hash]]:
        """See `ChunkStore`."""
        async with translated():
            with self._journal.watch() as order:
                await _insert_bodies(self._unwaited if order.likely else self._bodies, chunks)
                taken = await insert_new(self._chunks, [self._document(chunk) for chunk in chunks])
            reach(Point.CHUNK_RECORDS_STORED)
            if order.likely and not order.kept:
                # The server that had the bodies may have died in between, or be primary no more: and they with it.
                await _insert_bodies(self._bodies, chunks)
            return [
                (InsertOutcome.STORED, chunk.fingerprint.envelope_sha256)
                if position not in taken
                else await self._settle(chunk)
                for position, chunk in enumerate(chunks)
            ]

    async def _settle(self, chunk: NewChunk) -> tuple[InsertOutcome, Hash]:
        """Its index is taken: by these very bytes, or by others."""
        document = await self._chunks.find_one({"_id": _chunk_id(chunk.session_id, chunk.index)})
        if document is None:  # not yet with a majority, or removed just now: a repeat will tell
            raise DomainError(
                "database-unavailable",
                "the chunk is being written elsewhere; repeat the request",
                retry_after_seconds=1,
            )
        stored = Hash(document["envelope_sha256"])
        if stored == chunk.fingerprint.envelope_sha256:
            return InsertOutcome.EXISTS, stored
        reach(Point.CHUNK_CONFLICT_FOUND)
        await self._delete_body(chunk.session_id, chunk.index, chunk.fingerprint)
        return InsertOutcome.CONFLICT, stored

    async def page(self, session_id: SessionId, start: int, limit: int) -> list[ChunkRecord]:
        """See `ChunkStore`."""
        async with translated():
            cursor = self._chunks.find(_from(session_id, start), sort=_ASCENDING, limit=limit, batch_size=limit)
            return [_record(document) for document in await cursor.to_list()]

    async def leaves(self, session_id: SessionId, start: int, limit: int) -> Leaves:
        """See `ChunkStore`."""
        async with translated():
            # Raw, because to make a document of each is what takes time: that is done in a thread.
            cursor = self._chunks.find_raw_batches(
                _from(session_id, start), mongo_leaves.PROJECTION, sort=_ASCENDING, limit=limit, batch_size=limit
            )
            batches = cast("list[bytes]", [batch async for batch in cursor])
        return await asyncio.to_thread(mongo_leaves.leaves, session_id, batches)

    async def remove(self, session_id: SessionId, chunk: ChunkRecord) -> None:
        """See `ChunkStore`."""
        async with translated():
            await self._chunks.delete_one(
                {
                    "_id": _chunk_id(session_id, chunk.index),
                    "envelope_sha256": chunk.fingerprint.envelope_sha256,
                }
            )
            reach(Point.CHUNK_RECORD_REMOVED)
            await self._delete_body(session_id, chunk.index, chunk.fingerprint)

    async def remove_body(self, session_id: SessionId, chunk: ChunkRecord) -> None:
        """See `ChunkStore`."""
        async with translated():
            await self._delete_body(session_id, chunk.index, chunk.fingerprint)

    async def read(self, session_id: SessionId, chunk: ChunkRecord) -> bytes | None:
        """See `BodyStore`."""
        async with translated():
            wanted = _body_range(session_id, chunk.index, chunk.fingerprint.envelope_sha256)
            cursor = self._bodies.find(wanted, sort=[("_id", 1)])
            parts = [bytes(document["data"]) for document in await cursor.to_list()]
        return _joined(chunk, parts)

    async def read_many(self, session_id: SessionId, chunks: Sequence[ChunkRecord]) -> list[bytes | None]:
        """See `BodyStore`."""
        if not chunks:
            return []
        parts: dict[tuple[int, bytes], list[bytes]] = {}
        async with translated():
            wanted = {
                "$gte": _chunk_id(session_id, chunks[0].index),
                "$lt": _chunk_id(session_id, chunks[-1].index + 1),
            }
            cursor = self._bodies.find({"_id": wanted, **of_session(session_id)}, sort=[("_id", 1)])
            for document in await cursor.to_list():
                key = document["_id"]
                parts.setdefault((int(key["i"]), bytes(key["e"])), []).append(bytes(document["data"]))
        return [
            _joined(chunk, parts.get((chunk.index, chunk.fingerprint.envelope_sha256[:_BODY_KEY_BYTES]), []))
            for chunk in chunks
        ]

    async def drop(self, session_id: SessionId) -> None:
        """See `BodyStore`."""
        async with translated():
            await self._bodies.delete_many(
                {"_id": {"$gte": {"s": session_id}, "$lt": {"s": session_id, "i": MaxKey()}}, **of_session(session_id)}
            )

    async def _delete_body(self, session_id: SessionId, index: int, fingerprint: Fingerprint) -> None:
        await self._bodies.delete_many(_body_range(session_id, index, fingerprint.envelope_sha256))

    @staticmethod
    def _document(chunk: NewChunk) -> Document:
        return {
            "_id": _chunk_id(chunk.session_id, chunk.index),
            "plaintext_bytes": Int64(chunk.plaintext_bytes),
            "envelope_bytes": Int64(chunk.fingerprint.envelope_bytes),
            "envelope_sha256": chunk.fingerprint.envelope_sha256,
            "leaf_hash": chunk.fingerprint.leaf_hash,
        }


def _body_range(session_id: SessionId, index: int, digest: bytes) -> Document:
    return {
        "_id": {
            "$gte": _body_id(session_id, index, digest, 0),
            "$lt": _body_id(session_id, index, digest, MaxKey()),
        },
        **of_session(session_id),
    }


def _groups(chunks: Sequence[NewChunk]) -> Iterator[list[Document]]:
    """The parts of all bodies, in groups of bounded size."""
    group: list[Document] = []
    size = 0
    for chunk in chunks:
        view = memoryview(chunk.envelope)
        for part in range(_part_count(len(view))):
            data = view[part * BODY_PART_BYTES : (part + 1) * BODY_PART_BYTES]
            if group and size + len(data) > _INSERT_BYTES:
                yield group
                group, size = [], 0
            digest = chunk.fingerprint.envelope_sha256
            group.append({"_id": _body_id(chunk.session_id, chunk.index, digest, part), "data": bytes(data)})
            size += len(data)
    if group:
        yield group


async def _insert_bodies(bodies: Any, chunks: Sequence[NewChunk]) -> None:
    for group in _groups(chunks):
        await insert_new(bodies, group)
        reach(Point.CHUNK_BODIES_STORED)


async def insert_new(collection: Any, documents: list[Document]) -> set[int]:
    """Insert documents (or none), unordered; gives the positions of those whose `_id` was taken."""
    if not documents:
        return set()
    try:
        await collection.insert_many(documents, ordered=False)
    except BulkWriteError as error:
        details: Any = error.details or {}
        errors: list[Document] = details.get("writeErrors", [])
        if details.get("writeConcernErrors") or any(entry["code"] != DUPLICATE_KEY for entry in errors):
            raise
        # A document that is taken may have been written a moment ago and not be journaled yet; this very command,
        # when it asks for a journaled acknowledgement, has waited for the journal all the same. When it does not (of a
        # body whose record comes after it in the same journal), the record's command will.
        return {int(entry["index"]) for entry in errors}
    return set()
