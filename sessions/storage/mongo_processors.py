"""Processors in MongoDB: a document each in the collection `processors`.

Of a name, `run` is the process that reports, and `past_runs` are those that it replaced, the newest last.
"""

from dataclasses import asdict
from typing import Final

from pymongo import ReturnDocument
from pymongo.errors import DuplicateKeyError

from sessions.storage.mongo import Database, Document, translated
from sessions.storage.processors import MAX_RUNS, Holdings, ProcessorRecord, Stored

PROCESSORS: Final = "processors"


class MongoProcessors:
    """`ProcessorStore` on MongoDB."""

    def __init__(self, db: Database) -> None:
        self._processors = db[PROCESSORS]

    async def report(self, name: str, holdings: Holdings, uptime_seconds: float, run: str | None = None) -> Stored:
        """See `ProcessorStore`."""
        fields: Document = {**asdict(holdings), "reported_seconds": uptime_seconds, "reported_at": "$$NOW"}
        wanted: Document = {"_id": name}
        if run is not None:
            past: Document = {"$ifNull": ["$past_runs", []]}
            further = {"$slice": [{"$concatArrays": [past, ["$run"]]}, -MAX_RUNS]}
            is_new = {"$ne": [{"$ifNull": ["$run", run]}, run]}
            fields |= {"run": run, "past_runs": {"$cond": [is_new, further, past]}}
            wanted["past_runs"] = {"$ne": run}
        async with translated():
            try:
                found = await self._processors.find_one_and_update(
                    wanted, [{"$set": fields}], {"met": 1}, upsert=True, return_document=ReturnDocument.AFTER
                )
            except DuplicateKeyError:  # it is there, and not as wanted
                if run is None or await self._processors.find_one({"_id": name, "past_runs": run}) is None:
                    return await self.report(name, holdings, uptime_seconds, run)  # it was inserted just now
                return Stored.REPLACED
        return Stored.KNOWN if found is not None and found.get("met") else Stored.NEW

    async def meet(self, name: str) -> None:
        """See `ProcessorStore`."""
        async with translated():
            await self._processors.update_one({"_id": name}, {"$set": {"met": True}})

    async def all(self) -> list[ProcessorRecord]:
        """See `ProcessorStore`."""
        async with translated():
            return [_record(document) for document in await self._processors.find().sort("_id", 1).to_list()]

    async def forget(self, name: str, run: str | None = None) -> bool:
        """See `ProcessorStore`."""
        which = {"_id": name} if run is None else {"_id": name, "run": run}
        async with translated():
            return bool((await self._processors.delete_one(which)).deleted_count)


def _record(document: Document) -> ProcessorRecord:
    return ProcessorRecord(
        name=document["_id"],
        holdings=Holdings(**{name: int(document.get(name, 0)) for name in Holdings.__dataclass_fields__}),
        reported_seconds=float(document["reported_seconds"]),
        reported_at=document["reported_at"],
    )
