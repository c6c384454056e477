"""Storage's uptime in MongoDB: one document of the collection `uptime`."""

from secrets import token_hex
from typing import Final

from bson import Int64
from pymongo import ReturnDocument

from sessions.storage.mongo import Database, Document, translated
from sessions.storage.uptime import Uptime

UPTIME: Final = "uptime"
_ID: Final[Document] = {"_id": "storage"}


def _uptime(document: Document) -> Uptime:
    return Uptime(float(document["seconds"]), int(document["beats"]), document["generation"])


class MongoUptime:
    """`UptimeStore` on MongoDB."""

    def __init__(self, db: Database) -> None:
        self._uptime = db[UPTIME]

    async def read(self) -> Uptime:
        """See `UptimeStore`."""
        async with translated():
            found = await self._uptime.find_one(_ID)
            if found is None:
                begin = {"seconds": 0.0, "beats": Int64(0), "generation": token_hex(8)}
                found = await self._uptime.find_one_and_update(
                    _ID, {"$setOnInsert": begin}, upsert=True, return_document=ReturnDocument.AFTER
                )
        assert found is not None  # upserted
        return _uptime(found)

    async def beat(self, seen: Uptime, seconds: float) -> Uptime | None:
        """See `UptimeStore`."""
        return await self._change(seen, {"$inc": {"beats": Int64(1), "seconds": seconds}})

    async def renew(self, seen: Uptime) -> Uptime:
        """See `UptimeStore`."""
        changed = await self._change(seen, {"$set": {"generation": token_hex(8)}, "$inc": {"beats": Int64(1)}})
        return changed or await self.read()

    async def _change(self, seen: Uptime, update: Document) -> Uptime | None:
        as_seen = {**_ID, "beats": Int64(seen.beats), "generation": seen.generation}
        async with translated():
            found = await self._uptime.find_one_and_update(as_seen, update, return_document=ReturnDocument.AFTER)
        return None if found is None else _uptime(found)
