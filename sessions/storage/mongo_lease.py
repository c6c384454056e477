"""The lease in MongoDB: one document, changed by one atomic update, timed by the server's clock."""

from datetime import UTC, datetime
from typing import Any, Final

from prometheus_client import Gauge
from pymongo import ReadPreference, ReturnDocument, WriteConcern
from pymongo.asynchronous.database import AsyncDatabase
from pymongo.read_concern import ReadConcern

LEASES: Final = "leases"
HELD = Gauge("lucid_lease_held", "1 while this replica holds a lease; nobody else does its work then.", ("lease",))
_LONG_AGO: Final = datetime(1970, 1, 1, tzinfo=UTC)


class MongoLease:
    """Implements `sessions.storage.anchor.Lease`."""

    def __init__(self, database: AsyncDatabase[Any], name: str, holder: str, ttl_seconds: float) -> None:
        """Stand for the lease `name` as `holder`, which no other process may be called.

        Args:
            database: Where the collection `leases` is.
            name: Of the lease, such as `anchorer`.
            holder: Of this process alone; with a random part, so that a restarted process is another holder.
            ttl_seconds: How long the lease is held after each `acquire`, in seconds.
        """
        self._leases = database.get_collection(
            LEASES,
            write_concern=WriteConcern("majority", j=True),
            read_concern=ReadConcern("majority"),
            read_preference=ReadPreference.PRIMARY,
        )
        self._name, self._holder = name, holder
        self._held = HELD.labels(name)
        self._ttl_milliseconds = round(ttl_seconds * 1000)

    async def acquire(self) -> int | None:
        """Take or prolong the lease; the fencing number, or None while another holds it."""
        mine = {"$eq": ["$holder", self._holder]}
        free = {"$lte": [{"$ifNull": ["$expires_at", _LONG_AGO]}, "$$NOW"]}
        ends = {"$add": ["$$NOW", self._ttl_milliseconds]}
        # $$NOW is the server's clock, and all of one $set sees the document as it was: nothing can come in between.
        take = {
            "$set": {
                "token": {
                    "$cond": [
                        {"$and": [free, {"$not": [mine]}]},
                        {"$add": [{"$ifNull": ["$token", 0]}, 1]},
                        "$token",
                    ]
                },
                "holder": {"$cond": [{"$or": [mine, free]}, self._holder, "$holder"]},
                "expires_at": {"$cond": [{"$or": [mine, free]}, ends, "$expires_at"]},
            }
        }
        lease = await self._leases.find_one_and_update(
            {"_id": self._name}, [take], upsert=True, return_document=ReturnDocument.AFTER
        )
        token = int(lease["token"]) if lease is not None and lease["holder"] == self._holder else None
        self._held.set(token is not None)
        return token

    async def release(self) -> None:
        """Let go of the lease if it is held here; the next holder gets a higher number, even if it is the same."""
        self._held.set(0)
        mine = {"_id": self._name, "holder": self._holder}
        await self._leases.update_one(mine, {"$set": {"expires_at": _LONG_AGO, "holder": ""}})
