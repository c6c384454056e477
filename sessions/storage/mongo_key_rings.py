"""Key rings in MongoDB: found by the KEK and the recovery recipient of their keys, and replaced key by key."""

from collections.abc import Sequence
from typing import Any, Final

from bson import Binary
from pymongo import UpdateOne

from sessions.core.key_ring import KeyRing
from sessions.core.types import SessionId
from sessions.storage.key_documents import key_of, sealed_document
from sessions.storage.key_rings import Group, Kind, Replacement
from sessions.storage.mongo import Database, Document, translated

_FIELDS: Final = {Kind.KEK: "keys.kek_id", Kind.RECIPIENT: "keys.recovery.recipient"}
# Ordered by session within a KEK or recipient, so that a page is read straight off the index. The state is in it so
# that shredded sessions, which have no keys, are passed over among those whose keys are sealed to nobody.
_INDEXES: Final = {kind: [(name, 1), ("_id", 1), ("status", 1)] for kind, name in _FIELDS.items()}


async def ensure_indexes(db: Database) -> None:
    """Create the indexes. Safe to repeat."""
    for index in _INDEXES.values():
        await db["sessions"].create_index(index)


def _in(group: Group) -> Document:
    if group.value is not None:
        return {_FIELDS[group.kind]: group.value}
    # Within an element: a ring without any key is not one with a key that is sealed to nobody.
    return {"keys": {"$elemMatch": {"recovery.recipient": None}}, "status": {"$ne": "shredded"}}


class MongoKeyRings:
    """`KeyRingStore` on MongoDB."""

    def __init__(self, db: Database) -> None:
        self._sessions = db["sessions"]

    async def groups(self, kind: Kind) -> list[Group]:
        """See `KeyRingStore`."""
        async with translated():  # reads one entry of the index for each value
            values = await self._sessions.distinct(_FIELDS[kind])
        found = [Group(kind, value) for value in values if value is not None]
        return found if kind is Kind.KEK else [*found, Group(kind, None)]

    async def count(self, group: Group) -> int:
        """See `KeyRingStore`."""
        async with translated():
            return await self._sessions.count_documents(_in(group), hint=_INDEXES[group.kind])

    async def page(self, group: Group, after: SessionId | None, limit: int) -> list[KeyRing]:
        """See `KeyRingStore`."""
        wanted = _in(group) | ({} if after is None else {"_id": {"$gt": after}})
        async with translated():
            cursor = self._sessions.find(
                wanted, projection={"keys": 1}, sort=[("_id", 1)], limit=limit, hint=_INDEXES[group.kind]
            )
            documents = await cursor.to_list()
        return [KeyRing(SessionId(one["_id"]), tuple(map(key_of, one["keys"]))) for one in documents]

    async def replace(self, replacements: Sequence[Replacement]) -> int:
        """See `KeyRingStore`."""
        if not replacements:
            return 0
        async with translated():
            done = await self._sessions.bulk_write([_update(one) for one in replacements], ordered=False)
        return done.matched_count


def _update(one: Replacement) -> UpdateOne:
    # One document, one condition: of two who replace the same key one finds it, and in a shredded session none does.
    condition = {"dek_id": Binary(one.key.dek_id), "wrapped": Binary(one.expected)}
    fields: dict[str, Any] = {"keys.$.kek_id": one.key.kek_id, "keys.$.wrapped": Binary(one.key.wrapped)}
    if one.key.recovery is not None:
        fields["keys.$.recovery"] = sealed_document(one.key.recovery)
    return UpdateOne({"_id": one.session_id, "keys": {"$elemMatch": condition}}, {"$set": fields})
