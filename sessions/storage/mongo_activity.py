"""When sessions were active, in MongoDB: in seconds of storage's uptime, so that no step of a clock makes one idle."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

from sessions.core.types import SessionId
from sessions.storage.mongo import Database, translated
from sessions.storage.mongo_audit import RECORDINGS

_OPEN: Final[Mapping[str, Any]] = {"status": "open"}
_ACTIVE: Final = "active_seconds"


async def ensure_indexes(db: Database) -> None:
    """Create the index. Safe to repeat."""
    await db["sessions"].create_index([(_ACTIVE, 1)], partialFilterExpression=dict(_OPEN))


class MongoActivity:
    """`ActivityStore` on MongoDB."""

    def __init__(self, db: Database) -> None:
        self._sessions = db["sessions"]

    async def touch(self, session_ids: Sequence[SessionId], now_seconds: float) -> None:
        """See `ActivityStore`."""
        async with translated():
            await self._sessions.update_many(
                {"_id": {"$in": list(session_ids)}, **_OPEN}, {"$max": {_ACTIVE: now_seconds}}
            )

    async def idle(self, before_seconds: float, now_seconds: float, limit: int) -> list[SessionId]:
        """See `ActivityStore`."""
        async with translated():
            # A day of the audit trail never gets a note, and so is never idle: it is sealed when it is over.
            await self._sessions.update_many({**_OPEN, _ACTIVE: None, **RECORDINGS}, {"$set": {_ACTIVE: now_seconds}})
            wanted = {**_OPEN, _ACTIVE: {"$lt": before_seconds}, "closing.orders.sealed_by": {"$ne": "idle"}}
            cursor = self._sessions.find(wanted, projection={"_id": 1}, sort=[(_ACTIVE, 1)], limit=limit)
            return [SessionId(document["_id"]) for document in await cursor.to_list()]

    async def is_idle(self, session_id: SessionId, before_seconds: float) -> bool:
        """See `ActivityStore`."""
        wanted = {"_id": session_id, **_OPEN, _ACTIVE: {"$lt": before_seconds}}
        async with translated():
            return await self._sessions.find_one(wanted, projection={"_id": 1}) is not None
