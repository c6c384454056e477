"""Tiles of sealed sessions' trees in MongoDB."""

from collections.abc import Collection, Mapping, Sequence

from bson import Binary, Int64

from sessions.core.tiles import Place
from sessions.core.types import SessionId
from sessions.storage.mongo import Database, Document, translated
from sessions.storage.mongo_chunks import insert_new, of_session


def _tile_id(session_id: SessionId, attempt: str, place: Place) -> Document:
    level, number = place
    return {"s": session_id, "a": attempt, "l": level, "n": Int64(number)}


class MongoTiles:
    """`TileStore` on MongoDB."""

    def __init__(self, db: Database) -> None:
        self._tiles = db["tiles"]

    async def put(self, session_id: SessionId, attempt: str, tiles: Sequence[tuple[int, int, bytes]]) -> None:
        """See `TileStore`."""
        documents = [
            {"_id": _tile_id(session_id, attempt, (level, number)), "hashes": Binary(hashes)}
            for level, number, hashes in tiles
        ]
        async with translated():
            await insert_new(self._tiles, documents)

    async def get(self, session_id: SessionId, attempt: str, places: Collection[Place]) -> Mapping[Place, bytes]:
        """See `TileStore`."""
        if not places:
            return {}
        keys = [_tile_id(session_id, attempt, place) for place in places]
        async with translated():
            found = await self._tiles.find({"_id": {"$in": keys}, **of_session(session_id)}).to_list()
        return {(int(one["_id"]["l"]), int(one["_id"]["n"])): bytes(one["hashes"]) for one in found}

    async def drop(self, session_id: SessionId, attempt: str) -> None:
        """See `TileStore`."""
        first, behind = {"s": session_id, "a": attempt}, {"s": session_id, "a": attempt + "\0"}
        async with translated():
            await self._tiles.delete_many({"_id": {"$gte": first, "$lt": behind}, **of_session(session_id)})
