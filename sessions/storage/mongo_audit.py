"""The audit trail in MongoDB: the collection `audit_events`, which is only read and inserted into.

An event is `{_id: {s: session of the day, i: index}, event: canonical bytes}`. `provision/database.py` makes the user
of session-storage one that can do no more than that here; so nothing here updates, deletes, or makes an index, which
could let documents expire.
"""

from collections.abc import Sequence
from typing import Any, Final

from bson import Binary, Int64, MaxKey
from pymongo.errors import BulkWriteError, CollectionInvalid, OperationFailure

from sessions.core.audit import DAY_SESSION_PATTERN, day_of
from sessions.core.types import SessionId
from sessions.storage.audit_store import StoredEvent
from sessions.storage.mongo import COLLECTION_EXISTS, DUPLICATE_KEY, Database, Document, translated

AUDIT_EVENTS: Final = "audit_events"
VALIDATOR: Final[Document] = {
    "$jsonSchema": {
        "bsonType": "object",
        "required": ["_id", "event"],
        "properties": {
            "_id": {
                "bsonType": "object",
                "required": ["s", "i"],
                "properties": {"s": {"bsonType": "string"}, "i": {"bsonType": "long", "minimum": 0}},
            },
            "event": {"bsonType": "binData"},
        },
    }
}
# Read off the index of `_id`: it is anchored, and begins with plain text.
_DAYS: Final[Document] = {"$regex": DAY_SESSION_PATTERN}
RECORDINGS: Final[Document] = {"_id": {"$not": {"$regex": DAY_SESSION_PATTERN}}}
"""All other sessions."""


async def ensure_collection(db: Database) -> None:
    """Create the collection; one that is there stays as it is. Safe to repeat."""
    try:
        await db.create_collection(AUDIT_EVENTS, validator=VALIDATOR, check_exists=False)
    except (CollectionInvalid, OperationFailure) as error:
        if getattr(error, "code", COLLECTION_EXISTS) != COLLECTION_EXISTS:
            raise


class MongoEvents:
    """`EventStore` on MongoDB."""

    def __init__(self, db: Database) -> None:
        self._events = db[AUDIT_EVENTS]
        self._sessions = db["sessions"]

    async def append(self, session_id: SessionId, start: int, events: Sequence[bytes]) -> int:
        """See `EventStore`."""
        documents = [
            {"_id": {"s": session_id, "i": Int64(start + place)}, "event": Binary(data)}
            for place, data in enumerate(events)
        ]
        async with translated():
            try:
                # In order: it stops at the first index that is taken, and leaves no gap.
                await self._events.insert_many(documents, ordered=True)
            except BulkWriteError as error:
                details: Any = error.details or {}
                errors: list[Document] = details.get("writeErrors", [])
                if details.get("writeConcernErrors") or any(entry["code"] != DUPLICATE_KEY for entry in errors):
                    raise
                return int(details["nInserted"])
        return len(documents)

    async def last(self, session_id: SessionId) -> StoredEvent | None:
        """See `EventStore`."""
        async with translated():
            document = await self._events.find_one(_within(session_id, 0), sort=[("_id", -1)])
        return None if document is None else _stored(document)

    async def page(self, session_id: SessionId, start: int, limit: int) -> list[StoredEvent]:
        """See `EventStore`."""
        async with translated():
            cursor = self._events.find(_within(session_id, start), sort=[("_id", 1)], limit=limit, batch_size=limit)
            return [_stored(document) for document in await cursor.to_list()]

    async def unsealed(self, limit: int) -> list[SessionId]:
        """See `EventStore`."""
        # One document a day: few enough to look through by their ids.
        return await self._names({"_id": _DAYS, "status": {"$in": ["open", "sealing"]}}, 1, limit)

    async def days(self, limit: int, before: SessionId | None) -> list[SessionId]:
        """See `EventStore`."""
        return await self._names({"_id": _DAYS if before is None else {**_DAYS, "$lt": before}}, -1, limit)

    async def _names(self, wanted: Document, direction: int, limit: int) -> list[SessionId]:
        names: list[SessionId] = []
        found = self._sessions.find(wanted, {"_id": 1}, sort=[("_id", direction)], batch_size=limit)
        async with translated(), found as cursor:
            async for document in cursor:
                if day_of(document["_id"]) is not None:  # the pattern does not know how long a month is
                    names.append(SessionId(document["_id"]))
                if len(names) == limit:
                    break
        return names


def _within(session_id: SessionId, start: int) -> Document:
    return {"_id": {"$gte": {"s": session_id, "i": Int64(start)}, "$lt": {"s": session_id, "i": MaxKey()}}}


def _stored(document: Document) -> StoredEvent:
    return StoredEvent(int(document["_id"]["i"]), bytes(document["event"]))
