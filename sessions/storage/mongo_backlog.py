"""The backlog of anchoring in MongoDB: read off an index, but for the few batches that wait for their block."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final

from sessions.core.receipt import AnchorState
from sessions.storage.backlog import Unanchored
from sessions.storage.mongo import Database, translated

_SEALED_AT: Final = "seal_order.sealed_at"
_UNBATCHED: Final[Mapping[str, Any]] = {"unbatched": True}
_WAITING: Final = {"anchor.state": {"$in": [AnchorState.PENDING.value, AnchorState.SUBMITTED.value]}}


async def ensure_indexes(db: Database) -> None:
    """Create the index, which holds none but the sessions that wait for a batch. Safe to repeat."""
    await db["sessions"].create_index(
        [("unbatched", 1), (_SEALED_AT, 1)], partialFilterExpression=dict(_UNBATCHED), name="unbatched_since"
    )


class MongoBacklog:
    """Measures the backlog of a database."""

    def __init__(self, db: Database) -> None:
        self._sessions, self._batches = db["sessions"], db["batches"]
        self._oldest_of_batch: dict[int, datetime | None] = {}

    async def unanchored(self) -> Unanchored:
        """What is sealed and in no block.

        A session that is being placed counts twice, once as of its batch.

        Raises:
            DomainError: `database-unavailable`.
        """
        async with translated():
            count = await self._sessions.count_documents(dict(_UNBATCHED), hint="unbatched_since")
            first = await self._sessions.find_one(
                dict(_UNBATCHED), {_SEALED_AT: 1}, sort=[(_SEALED_AT, 1)], hint="unbatched_since"
            )
            found = [first["seal_order"]["sealed_at"]] if first is not None else []
            waiting = await self._batches.find(_WAITING, {"size": 1}).to_list()
            oldest = {batch["_id"]: await self._oldest(batch["_id"]) for batch in waiting}
        self._oldest_of_batch = oldest
        times = [*found, *(time for time in oldest.values() if time is not None)]
        return Unanchored(count + sum(batch["size"] for batch in waiting), min(times, default=None))

    async def _oldest(self, sequence: int) -> datetime | None:
        """When the first session of a batch was sealed: looked up once, for neither batches nor seals change."""
        if sequence in self._oldest_of_batch:
            return self._oldest_of_batch[sequence]
        batch = await self._batches.find_one({"_id": sequence}, {"sessions": 1})
        members = {"_id": {"$in": [] if batch is None else batch["sessions"]}}
        grouped = await self._sessions.aggregate(
            [{"$match": members}, {"$group": {"_id": None, "oldest": {"$min": f"${_SEALED_AT}"}}}]
        )
        for row in await grouped.to_list():
            oldest: datetime | None = row["oldest"]
            return oldest
        return None
