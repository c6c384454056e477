"""Batches in MongoDB: the collection `batches`, and what anchoring reads and writes in `sessions`.

A batch's document is `_id` (its number), `root`, `size`, `created_at`, `sessions` (ids), `leaves` (hashes, joined),
`placed`, `fence`, `anchor` {state, ...}, `transactions` [...], `submitted_at`, `gas_used`. A sealed session's has
`manifest` and, until it is placed, `unbatched: true`; then `batch` {sequence, root, size, index, path}.
"""

import asyncio
import hashlib
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import asdict
from datetime import UTC
from typing import Any, Final

from bson import Binary, CodecOptions
from pymongo import ReadPreference, UpdateOne, WriteConcern
from pymongo.asynchronous.database import AsyncDatabase
from pymongo.errors import DuplicateKeyError
from pymongo.read_concern import ReadConcern

from sessions.core.manifest import SESSION_LEAF_PREFIX
from sessions.core.merkle import leaf_hash
from sessions.core.receipt import Anchor, AnchorState, Batch
from sessions.core.tiles import split_hashes
from sessions.core.types import Hash, SessionId
from sessions.runtime.killpoints import reach
from sessions.storage.anchor import UNSETTLED, BatchRecord, Leaf, SignedTransaction, StaleLeaderError
from sessions.storage.batching import tree_with_paths
from sessions.storage.killpoints import Point

BATCHES: Final = "batches"
SESSIONS: Final = "sessions"
PLACE_BULK: Final = 250
"""How many sessions one bulk write places: few enough that encoding them (some 20 ms) does not hold up a chunk."""

_WITHOUT_MEMBERS: Final = {"sessions": 0, "leaves": 0}


async def ensure_indexes(database: AsyncDatabase[Any]) -> None:
    """Create the indexes that anchoring needs; does nothing where they are."""
    batches = database[BATCHES]
    await batches.create_index("root", unique=True, name="root")
    await batches.create_index([("anchor.state", 1), ("_id", 1)], name="state")
    height = [("anchor.state", 1), ("anchor.chain_id", 1), ("anchor.block_number", -1), ("_id", -1)]
    await batches.create_index(height, name="height")
    # Partial rather than sparse, so that it also gives the order; a placed session costs no entry.
    await database[SESSIONS].create_index(
        [("unbatched", 1), ("_id", 1)], partialFilterExpression={"unbatched": True}, name="unbatched"
    )


class MongoBatches:
    """Implements `SessionPool`, `BatchLog` and `BatchReader` of `sessions.storage.anchor`."""

    def __init__(self, database: AsyncDatabase[Any]) -> None:
        """Work on `batches` and `sessions` of a database."""
        options: dict[str, Any] = {
            "codec_options": CodecOptions(tz_aware=True, tzinfo=UTC),
            "write_concern": WriteConcern("majority", j=True),
            "read_concern": ReadConcern("majority"),
            "read_preference": ReadPreference.PRIMARY,
        }
        self._batches = database.get_collection(BATCHES, **options)
        self._sessions = database.get_collection(SESSIONS, **options)

    async def unbatched(self, limit: int) -> Sequence[Leaf]:
        """At most `limit` sealed sessions that are in no batch, by session id. Manifests are hashed as they come in."""
        found = self._sessions.find({"unbatched": True}, {"manifest": 1}).sort("_id", 1).limit(limit)
        leaves = []
        async for session in found:
            digest = hashlib.sha256(session["manifest"]).digest()
            leaves.append(Leaf(SessionId(session["_id"]), leaf_hash(SESSION_LEAF_PREFIX + digest)))
        return leaves

    async def place(self, sequence: int, token: int) -> None:
        """Write into each member session of a batch where it stands, and mark the batch as placed.

        Safe to repeat, and safe for a stale leader: the places follow from the batch alone, and a session that has
        one keeps it.

        Raises:
            StaleLeaderError: `token` is not the newest that wrote to this batch.
        """
        batch = await self._batches.find_one({"_id": sequence}, {"sessions": 1, "leaves": 1})
        if batch is None:
            raise StaleLeaderError(f"there is no batch {sequence}")
        root, paths = await asyncio.to_thread(tree_with_paths, split_hashes(batch["leaves"]))
        names = batch["sessions"]
        for start in range(0, len(names), PLACE_BULK):
            updates = [
                _place_update(
                    names[index], sequence, Batch(root=root, size=len(names), index=index, path=tuple(paths[index]))
                )
                for index in range(start, min(start + PLACE_BULK, len(names)))
            ]
            await self._sessions.bulk_write(updates, ordered=False)
            reach(Point.BATCH_SESSIONS_PLACED)
        await self._conditional(sequence, {}, token, {"placed": True})

    async def last(self) -> BatchRecord | None:
        """The newest batch, without session ids."""
        newest = await self.list(1)
        return newest[0] if newest else None

    async def unsettled(self) -> Sequence[BatchRecord]:
        """All batches that are not confirmed, oldest first, without session ids."""
        states = [state.value for state in UNSETTLED]
        return [record async for record in self._find({"anchor.state": {"$in": states}}, 1, 0)]

    async def highest_confirmed(self, chain_id: int, below: BatchRecord | None = None) -> BatchRecord | None:
        """Of the batches that are confirmed on a chain the one in the highest block, without session ids.

        With `below`, the one that comes next after that one; of several in one block the newest comes first.
        """
        wanted: dict[str, Any] = {"anchor.state": AnchorState.CONFIRMED.value, "anchor.chain_id": chain_id}
        if below is not None:
            block = below.anchor.block_number
            wanted["$or"] = [
                {"anchor.block_number": {"$lt": block}},
                {"anchor.block_number": block, "_id": {"$lt": below.sequence}},
            ]
        order = [("anchor.block_number", -1), ("_id", -1)]
        document = await self._batches.find_one(wanted, _WITHOUT_MEMBERS, sort=order)
        return _record(document) if document else None

    async def append(self, record: BatchRecord, leaf_hashes: Sequence[bytes], token: int) -> None:
        """Store a new batch whose leaves are the record's sessions in order: the commit point of batching.

        First the batch before it gets this leader's number, which shuts older leaders out. A crash between the two
        writes leaves only that number, and a leader that sleeps there finds its batch's number taken.

        Raises:
            StaleLeaderError: a batch of that number exists, or the batch before it is not placed or was written by a
                newer leader.
        """
        if record.sequence:
            await self._conditional(record.sequence - 1, {"placed": True}, token, {})
        document = {
            "_id": record.sequence,
            "root": Binary(record.root),
            "size": record.size,
            "created_at": record.created_at,
            "sessions": list(record.session_ids),
            "leaves": Binary(b"".join(leaf_hashes)),
            "placed": record.placed,
            "fence": token,
            **_changing(record),
        }
        try:
            await self._batches.insert_one(document)
        except DuplicateKeyError as error:
            raise StaleLeaderError(f"there is a batch {record.sequence} already") from error

    async def update(self, record: BatchRecord, expected: AnchorState, token: int) -> None:
        """Replace state, anchor, transactions and gas of a batch.

        Raises:
            StaleLeaderError: it is not in the state `expected`, it has a transaction that the record lacks, or a newer
                leader wrote to it.
        """
        hashes = [Binary(transaction.hash) for transaction in record.transactions]
        known = {"$slice": [{"$literal": hashes}, {"$size": "$transactions"}]} if hashes else []
        # A transaction that an older leader stored a moment ago may be out already: it must not be forgotten.
        wanted = {"anchor.state": expected.value, "$expr": {"$eq": ["$transactions.hash", known]}}
        await self._conditional(record.sequence, wanted, token, _changing(record))

    async def _conditional(
        self, sequence: int, expected: Mapping[str, Any], token: int, values: dict[str, Any]
    ) -> None:
        wanted = {"_id": sequence, "fence": {"$lte": token}, **expected}
        result = await self._batches.update_one(wanted, {"$set": {**values, "fence": token}})
        if not result.matched_count:
            raise StaleLeaderError(f"batch {sequence} was changed by another leader")

    async def get(self, root: bytes, max_sessions: int = 1000) -> BatchRecord | None:
        """The batch with that root, with its first `max_sessions` session ids."""
        projection = {"leaves": 0, "sessions": {"$slice": max_sessions}}
        document = await self._batches.find_one({"root": Binary(root)}, projection)
        return _record(document) if document else None

    async def get_by_sequence(self, sequence: int) -> BatchRecord | None:
        """The batch of that number, without session ids."""
        document = await self._batches.find_one({"_id": sequence}, _WITHOUT_MEMBERS)
        return _record(document) if document else None

    async def list(self, limit: int, before_sequence: int | None = None) -> Sequence[BatchRecord]:
        """At most `limit` batches, newest first, without session ids."""
        wanted = {} if before_sequence is None else {"_id": {"$lt": before_sequence}}
        return [record async for record in self._find(wanted, -1, limit)]

    async def _find(self, wanted: dict[str, Any], direction: int, limit: int) -> AsyncIterator[BatchRecord]:
        async for document in self._batches.find(wanted, _WITHOUT_MEMBERS).sort("_id", direction).limit(limit):
            yield _record(document)


def _place_update(name: str, sequence: int, place: Batch) -> UpdateOne:
    fields = {
        "sequence": sequence,
        "root": Binary(place.root),
        "size": place.size,
        "index": place.index,
        "path": [Binary(node) for node in place.path],
    }
    return UpdateOne(
        {"_id": name, "batch": {"$exists": False}}, {"$set": {"batch": fields}, "$unset": {"unbatched": ""}}
    )


def _changing(record: BatchRecord) -> dict[str, Any]:
    """The fields that a batch's life changes; bytes become BSON binaries by themselves."""
    return {
        "anchor": {**asdict(record.anchor), "state": record.anchor.state.value},
        "transactions": [asdict(transaction) for transaction in record.transactions],
        "submitted_at": record.submitted_at,
        "gas_used": record.gas_used,
    }


def _record(document: Mapping[str, Any]) -> BatchRecord:
    anchor = {**document["anchor"], "state": AnchorState(document["anchor"]["state"])}
    return BatchRecord(
        sequence=document["_id"],
        root=Hash(bytes(document["root"])),
        size=document["size"],
        created_at=document["created_at"],
        session_ids=tuple(map(SessionId, document.get("sessions", ()))),
        placed=document["placed"],
        anchor=Anchor(**anchor),
        transactions=tuple(SignedTransaction(**transaction) for transaction in document["transactions"]),
        submitted_at=document["submitted_at"],
        gas_used=document["gas_used"],
    )
