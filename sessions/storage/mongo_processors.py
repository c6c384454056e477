"""Processors in MongoDB: a document each in the collection `processors`."""

from dataclasses import asdict
from typing import Final

from sessions.storage.mongo import Database, Document, translated
from sessions.storage.processors import Holdings, ProcessorRecord

PROCESSORS: Final = "processors"


class MongoProcessors:
    """`ProcessorStore` on MongoDB."""

    def __init__(self, db: Database) -> None:
        self._processors = db[PROCESSORS]

    async def report(self, name: str, holdings: Holdings, uptime_seconds: float) -> None:
        """See `ProcessorStore`."""
        fields: Document = {**asdict(holdings), "reported_seconds": uptime_seconds, "reported_at": "$$NOW"}
        async with translated():
            await self._processors.update_one({"_id": name}, [{"$set": fields}], upsert=True)

    async def all(self) -> list[ProcessorRecord]:
        """See `ProcessorStore`."""
        async with translated():
            return [_record(document) for document in await self._processors.find().sort("_id", 1).to_list()]

    async def forget(self, name: str) -> bool:
        """See `ProcessorStore`."""
        async with translated():
            return bool((await self._processors.delete_one({"_id": name})).deleted_count)


def _record(document: Document) -> ProcessorRecord:
    return ProcessorRecord(
        name=document["_id"],
        holdings=Holdings(**{name: int(document.get(name, 0)) for name in Holdings.__dataclass_fields__}),
        reported_seconds=float(document["reported_seconds"]),
        reported_at=document["reported_at"],
    )
