"""What a scrub reads and remembers, in MongoDB."""

from collections.abc import AsyncIterator, Sequence
from datetime import datetime
from typing import Any, Final

from bson import Binary, Int64, MaxKey
from pymongo import UpdateOne

from sessions.core.types import SessionId
from sessions.storage.mongo import Database, Document, translated
from sessions.storage.mongo_audit import AUDIT_EVENTS
from sessions.storage.mongo_chunks import of_session
from sessions.storage.scrub_store import BodyKey, Finding, KeptFinding, Kind, Part, Position

_BACKGROUND: Final = "background"
_PARTS_AT_ONCE: Final = 4


def _within(session_id: SessionId, start: int, end: Any) -> Document:
    first, behind = {"s": session_id, "i": Int64(start)}, {"s": session_id, "i": end}
    return {"_id": {"$gte": first, "$lt": behind}}


class MongoBodyScan:
    """`BodyScan` on MongoDB; what it looks for it reads off the indexes of `_id`."""

    def __init__(self, db: Database) -> None:
        self._sessions = db["sessions"]
        self._chunks = db["chunks"]
        self._bodies = db["bodies"]
        self._events = db[AUDIT_EVENTS]

    async def next_session(self, after: SessionId | None) -> SessionId | None:
        """See `BodyScan`."""
        first: Document = {} if after is None else {"_id": {"$gt": after}}
        behind: Document = {} if after is None else {"_id": {"$gt": {"s": after, "i": MaxKey()}}}
        names: list[str] = []
        async with translated():
            parts = (self._chunks, self._bodies, self._events)
            for collection, wanted in ((self._sessions, first), *((part, behind) for part in parts)):
                document = await collection.find_one(wanted, {"_id": 1}, sort=[("_id", 1)])
                if document is not None:
                    names.append(document["_id"] if collection is self._sessions else document["_id"]["s"])
        return SessionId(min(names)) if names else None

    async def next_index(self, session_id: SessionId, start: int) -> int | None:
        """See `BodyScan`."""
        indexes: list[int] = []
        async with translated():
            for collection in (self._chunks, self._bodies, self._events):
                wanted = _within(session_id, start, MaxKey())
                if (document := await collection.find_one(wanted, {"_id": 1}, sort=[("_id", 1)])) is not None:
                    indexes.append(int(document["_id"]["i"]))
        return min(indexes, default=None)

    async def keys(self, session_id: SessionId, start: int, end: int) -> set[BodyKey]:
        """See `BodyScan`."""
        async with translated():
            found = self._bodies.find(_within(session_id, start, Int64(end)), {"_id": 1})
            return {BodyKey(int(one["_id"]["i"]), bytes(one["_id"]["e"])) async for one in found}

    async def parts(self, session_id: SessionId, key: BodyKey) -> AsyncIterator[bytes]:
        """See `BodyScan`."""
        place = {"s": session_id, "i": Int64(key.index), "e": Binary(key.digest)}
        wanted = {"_id": {"$gte": {**place, "p": 0}, "$lt": {**place, "p": MaxKey()}}, **of_session(session_id)}
        found = self._bodies.find(wanted, sort=[("_id", 1)], batch_size=_PARTS_AT_ONCE)
        async with translated(), found as cursor:
            async for document in cursor:
                yield bytes(document["data"])


class MongoFindings:
    """`FindingStore` on MongoDB."""

    def __init__(self, db: Database) -> None:
        self._findings = db["findings"]
        self._scrubs = db["scrubs"]

    async def keep(self, findings: Sequence[Finding], now: datetime) -> None:
        """See `FindingStore`."""
        writes = [
            UpdateOne(
                {"_id": finding.name},
                {
                    "$set": {
                        "kind": finding.kind.value,
                        "part": finding.part.value,
                        "session_id": finding.session_id,
                        "index": None if finding.index is None else Int64(finding.index),
                        "detail": finding.detail,
                        "last_seen": now,
                    },
                    "$setOnInsert": {"first_seen": now},
                },
                upsert=True,
            )
            for finding in findings
        ]
        async with translated():
            await self._findings.bulk_write(writes, ordered=False)

    async def page(self, limit: int, after: str | None, only: SessionId | None = None) -> list[KeptFinding]:
        """See `FindingStore`."""
        wanted: Document = {} if after is None else {"_id": {"$gt": after}}
        if only is not None:  # a session's findings are a range of names: "0" comes right behind "/"
            wanted = {"$and": [wanted, {"_id": {"$gte": f"{only}/", "$lt": f"{only}0"}}]}
        async with translated():
            cursor = self._findings.find(wanted, sort=[("_id", 1)], limit=limit)
            return [_kept(document) for document in await cursor.to_list()]

    async def position(self) -> Position | None:
        """See `FindingStore`."""
        async with translated():
            document = await self._scrubs.find_one({"_id": _BACKGROUND})
        if document is None or document["session_id"] is None:
            return None
        return Position(SessionId(document["session_id"]), int(document["start"]))

    async def move(self, position: Position | None) -> None:
        """See `FindingStore`."""
        fields: Document = {"session_id": None, "start": 0}
        if position is not None:
            fields = {"session_id": position.session_id, "start": Int64(position.start)}
        async with translated():
            await self._scrubs.update_one({"_id": _BACKGROUND}, {"$set": fields}, upsert=True)


def _kept(document: Document) -> KeptFinding:
    index = document["index"]
    finding = Finding(
        kind=Kind(document["kind"]),
        part=Part(document["part"]),
        session_id=SessionId(document["session_id"]),
        index=None if index is None else int(index),
        detail=document["detail"],
    )
    return KeptFinding(finding, document["first_seen"], document["last_seen"])
