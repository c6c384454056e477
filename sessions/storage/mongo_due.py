"""Sessions that are due to be deleted, in MongoDB: read off an index, however many there are that are not."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final

from sessions.storage.heads import SessionHead
from sessions.storage.mongo import Database, translated
from sessions.storage.mongo_lists import HEAD, head_in
from sessions.storage.store import Cursor

_SEALED: Final[Mapping[str, Any]] = {"status": "sealed"}
_SEALED_AT: Final = "seal_order.sealed_at"
_INDEX: Final = [("status", 1), ("delete_after_days", 1), (_SEALED_AT, 1), ("_id", 1)]


async def ensure_indexes(db: Database) -> None:
    """Create the index. Safe to repeat."""
    await db["sessions"].create_index(_INDEX)


class MongoDue:
    """`DueStore` on MongoDB."""

    def __init__(self, db: Database) -> None:
        self._sessions = db["sessions"]

    async def terms(self) -> list[int]:
        """See `DueStore`."""
        async with translated():
            values = await self._sessions.distinct("delete_after_days", dict(_SEALED))
        return sorted(int(value) for value in values if value is not None)

    async def due(
        self, delete_after_days: int | None, sealed_until: datetime, after: Cursor | None, limit: int
    ) -> list[SessionHead]:
        """See `DueStore`."""
        wanted: dict[str, Any] = {**_SEALED, "delete_after_days": delete_after_days, _SEALED_AT: {"$lte": sealed_until}}
        if after is not None:
            sealed_at, session_id = after
            wanted[_SEALED_AT]["$gte"] = sealed_at
            wanted["$or"] = [{_SEALED_AT: {"$gt": sealed_at}}, {"_id": {"$gt": session_id}}]
        async with translated():
            cursor = self._sessions.find(wanted, HEAD, sort=[(_SEALED_AT, 1), ("_id", 1)], limit=limit, hint=_INDEX)
            return [head_in(document) async for document in cursor]
