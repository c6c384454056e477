"""Sessions in MongoDB."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

from bson import Binary, Int64
from pymongo import ReturnDocument
from pymongo.errors import DuplicateKeyError

from sessions.core.key_ring import MAX_KEYS
from sessions.core.receipt import Batch
from sessions.core.types import DekId, Hash, SessionId
from sessions.storage import mongo_lists
from sessions.storage.key_documents import key_document, key_of
from sessions.storage.mongo import Database, Document, translated
from sessions.storage.mongo_closing import closing_of, forget_none
from sessions.storage.mongo_lists import SUMMARY, MongoLists, order_in, summary_document, summary_in, tombstone_in
from sessions.storage.store import (
    Change,
    Placement,
    Retention,
    Seal,
    SealOrder,
    SessionRecord,
    SessionState,
    SessionStatus,
)

# Of sessions being shredded alone: the index is as small as they are few.
_SHREDDING: Final[Document] = {"shredding": True}


_NO_METADATA: Final = b"{}"
_STATE: Final = {"status": 1, "keys.dek_id": 1}


async def ensure_indexes(db: Database) -> None:
    """Create the indexes by which shredding is finished, and lists by id are read. Safe to repeat."""
    sessions = db["sessions"]
    await sessions.create_index([("shredding", 1), ("_id", 1)], partialFilterExpression=_SHREDDING)
    await mongo_lists.ensure_indexes(db)


def record_of(document: Document) -> SessionRecord:
    """A session as it is stored."""
    seal, batch = document.get("manifest"), document.get("batch")
    return SessionRecord(
        session_id=SessionId(document["_id"]),
        status=SessionStatus(document["status"]),
        opened_at=document["opened_at"],
        metadata=bytes(document["metadata"]),
        keys=tuple(map(key_of, document["keys"])),
        seal_order=order_in(document),
        seal=Seal(bytes(seal), document["tiles_attempt"], summary_in(document)) if seal is not None else None,
        placement=batch and _placement(batch),
        held=document.get("held", False),
        retention=Retention(document.get("retain_days"), document.get("delete_after_days")),
        tombstone=tombstone_in(document),
        # Version 0.1.0 did not tell "none yet" from an empty object; neither says anything that could be lost.
        metadata_given=document.get("metadata_given", bytes(document["metadata"]) != _NO_METADATA),
        closing=closing_of(document),
    )


def _terms(retention: Retention) -> Document:
    return {"retain_days": retention.retain_days, "delete_after_days": retention.delete_after_days}


def _placement(batch: Document) -> Placement:
    path = tuple(Hash(bytes(node)) for node in batch["path"])
    root = Hash(bytes(batch["root"]))
    return Placement(int(batch["sequence"]), Batch(root=root, size=batch["size"], index=batch["index"], path=path))


def _set(change: Change) -> Document:
    fields: dict[str, Any] = {}
    if change.status is not None:
        fields["status"] = change.status.value
    if change.seal_order is not None:
        order = change.seal_order
        count = None if order.chunk_count is None else Int64(order.chunk_count)
        fields["seal_order"] = {
            "chunk_count": count,
            "sealed_by": order.sealed_by,
            "sealed_at": order.sealed_at,
            "id": order.order_id,
            "floor": Int64(order.floor),
            "unheard": list(order.unheard),
            "as_it_is": order.as_it_is,
        }
    if change.seal is not None:
        # `unbatched` is what the anchorer looks for; it takes the mark away when it places the session in a batch.
        fields |= {
            "manifest": Binary(change.seal.manifest),
            "tiles_attempt": change.seal.tiles_attempt,
            "unbatched": True,
        }
        if change.seal.summary is not None:
            fields[SUMMARY] = summary_document(change.seal.summary)
    if change.metadata is not None:
        fields |= {"metadata": Binary(change.metadata), "metadata_given": True}
    if change.held is not None:
        fields["held"] = change.held
    if (tombstone := change.tombstone) is not None:
        fields |= {
            "keys": [],
            "shredded_at": tombstone.shredded_at,
            "shred_reason": tombstone.reason.value,
            "shredded_by": tombstone.by,
            **_SHREDDING,
        }
    elif change.retention is not None:
        fields |= _terms(change.retention)
    return fields


def _state(document: Document) -> SessionState:
    keys = document.get("keys", ())
    return SessionState(SessionStatus(document["status"]), frozenset(DekId(bytes(key["dek_id"])) for key in keys))


class MongoSessions(MongoLists):
    """`SessionStore`, `SessionLists` and `ShredStore` on MongoDB."""

    async def create(self, record: SessionRecord) -> tuple[SessionRecord, bool]:
        """See `SessionStore`."""
        document = {
            "_id": record.session_id,
            "status": record.status.value,
            "opened_at": record.opened_at,
            "metadata": Binary(record.metadata),
            "metadata_given": record.metadata_given,
            "keys": [key_document(key) for key in record.keys],
            **{name: days for name, days in _terms(record.retention).items() if days is not None},
        }
        async with translated():
            try:
                await self._sessions.insert_one(document)
            except DuplicateKeyError:
                existing = await self._sessions.find_one({"_id": record.session_id})
                assert existing is not None  # sessions are never deleted
                return record_of(existing), False
        return record, True

    async def get(self, session_id: SessionId) -> SessionRecord | None:
        """See `SessionStore`."""
        async with translated():
            document = await self._sessions.find_one({"_id": session_id})
        return None if document is None else record_of(document)

    async def states(self, session_ids: Sequence[SessionId]) -> Mapping[SessionId, SessionState]:
        """See `SessionStore`."""
        async with translated():
            cursor = self._sessions.find({"_id": {"$in": list(session_ids)}}, projection=_STATE)
            return {SessionId(found["_id"]): _state(found) for found in await cursor.to_list()}

    async def update(
        self,
        session_id: SessionId,
        expected: SessionStatus,
        change: Change,
        order: SealOrder | None = None,
        ask_id: str | None = None,
    ) -> SessionRecord | None:
        """See `SessionStore`."""
        update: Document = {"$set": _set(change)} if _set(change) else {}
        if change.seal is not None:
            update["$unset"] = {"closing": ""}
        if change.refuse is not None:
            update["$pull"] = {"closing.orders": {"id": change.refuse}}
        condition: Document = {"_id": session_id, "status": expected.value}
        if order is not None:
            condition["seal_order.id"] = order.order_id
        if ask_id is not None:
            condition["closing.ask"] = ask_id
        if change.metadata is not None:
            condition |= {"metadata_given": {"$ne": True}, "metadata": Binary(_NO_METADATA)}
        if change.tombstone is not None:  # a hold that was acknowledged a moment ago stands
            condition |= {"held": {"$ne": True}, **(_terms(change.retention) if change.retention else {})}
        if change.add_key is not None:
            condition["keys.dek_id"] = {"$ne": Binary(change.add_key.dek_id)}
            condition[f"keys.{MAX_KEYS - 1}"] = {"$exists": False}
            update["$push"] = {"keys": key_document(change.add_key)}
        async with translated():
            document = await self._sessions.find_one_and_update(condition, update, return_document=ReturnDocument.AFTER)
            if document is not None and change.refuse is not None:
                await forget_none(self._sessions, session_id)
        return None if document is None else record_of(document)

    async def unfinished(self, limit: int) -> list[SessionId]:
        """See `ShredStore`."""
        async with translated():
            cursor = self._sessions.find(_SHREDDING, projection={"_id": 1}, sort=[("_id", 1)], limit=limit)
            return [SessionId(document["_id"]) for document in await cursor.to_list()]

    async def finished(self, session_id: SessionId) -> None:
        """See `ShredStore`."""
        async with translated():
            await self._sessions.update_one({"_id": session_id, "status": "shredded"}, {"$unset": {"shredding": ""}})

    async def unfinish(self, session_id: SessionId) -> None:
        """See `ShredStore`."""
        async with translated():
            await self._sessions.update_one({"_id": session_id, "status": "shredded"}, {"$set": _SHREDDING})
