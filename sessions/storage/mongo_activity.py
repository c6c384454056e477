"""When sessions were active, in MongoDB: by the server's clock, so that replicas need not agree on the time."""

from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any, Final

from sessions.core.types import SessionId
from sessions.storage.mongo import Database, translated
from sessions.storage.mongo_audit import RECORDINGS

_OPEN: Final[Mapping[str, Any]] = {"status": "open"}
_NOW: Final = [{"$set": {"active_at": "$$NOW"}}]


async def ensure_indexes(db: Database) -> None:
    """Create the index. Safe to repeat."""
    await db["sessions"].create_index([("active_at", 1)], partialFilterExpression=dict(_OPEN))


class MongoActivity:
    """`ActivityStore` on MongoDB."""

    def __init__(self, db: Database) -> None:
        self._db = db
        self._sessions = db["sessions"]

    async def touch(self, session_ids: Sequence[SessionId]) -> None:
        """See `ActivityStore`."""
        async with translated():
            await self._sessions.update_many({"_id": {"$in": list(session_ids)}, **_OPEN}, _NOW)

    async def idle(self, seconds: float, limit: int) -> list[SessionId]:
        """See `ActivityStore`."""
        async with translated():
            # A day of the audit trail never gets a note, and so is never idle: it is sealed when it is over.
            await self._sessions.update_many({**_OPEN, "active_at": None, **RECORDINGS}, _NOW)
            server_time = (await self._db.command("hello"))["localTime"]
            before = {"$lt": server_time - timedelta(seconds=seconds)}
            cursor = self._sessions.find(
                {**_OPEN, "active_at": before}, projection={"_id": 1}, sort=[("active_at", 1)], limit=limit
            )
            return [SessionId(document["_id"]) for document in await cursor.to_list()]
