"""Lists of sessions in MongoDB: of each document the few fields that a list shows."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

from bson import Binary, Int64
from pymongo import UpdateOne

from sessions.core.types import Hash, SessionId
from sessions.storage.heads import SessionHead
from sessions.storage.mongo import NEWEST, Database, Document, translated
from sessions.storage.mongo_audit import RECORDINGS
from sessions.storage.seal_summary import SealSummary
from sessions.storage.store import Cursor, Retention, SealOrder, SessionFilter, SessionStatus, ShredReason, Tombstone

# Of sessions under legal hold alone: the index is as small as they are few.
_HELD: Final[Document] = {"held": True}
_BY_STATUS_AND_ID: Final = (("status", 1), ("_id", 1))
_HELD_BY_ID: Final = (("held", 1), ("_id", 1))
SUMMARY: Final = "seal_summary"
_MANIFEST_BYTES: Final = "manifest_bytes"
HEAD: Final[Mapping[str, Any]] = {
    **dict.fromkeys(
        (
            "status",
            "opened_at",
            # Without `unheard`: 256 names have 35 KB.
            *(f"seal_order.{name}" for name in ("chunk_count", "sealed_by", "sealed_at", "id", "floor", "as_it_is")),
            SUMMARY,
            "batch.sequence",
            "held",
            "retain_days",
            "delete_after_days",
            "shredded_at",
            "shred_reason",
            "shredded_by",
        ),
        1,
    ),
    _MANIFEST_BYTES: {"$binarySize": "$manifest"},
}
"""The projection that gives the head of a session."""


async def ensure_indexes(db: Database) -> None:
    """Create the indexes by which lists by id are read. Safe to repeat."""
    await db["sessions"].create_index(list(_HELD_BY_ID), partialFilterExpression=_HELD)
    await db["sessions"].create_index(list(_BY_STATUS_AND_ID))


def summary_document(summary: SealSummary) -> Document:
    """Return a summary as it is stored."""
    return {
        "chunk_count": Int64(summary.chunk_count),
        "missing_chunks": Int64(summary.missing_chunks),
        "plaintext_bytes": Int64(summary.plaintext_bytes),
        "envelope_bytes": Int64(summary.envelope_bytes),
        "sealed_at": summary.sealed_at,
        "root": Binary(summary.root),
    }


def summary_in(document: Document) -> SealSummary | None:
    """Return the summary in a session's document; None if version 0.1.0 sealed the session."""
    stored = document.get(SUMMARY)
    if stored is None:
        return None
    numbers = ("chunk_count", "missing_chunks", "plaintext_bytes", "envelope_bytes")
    return SealSummary(
        **{name: int(stored[name]) for name in numbers}, sealed_at=stored["sealed_at"], root=Hash(bytes(stored["root"]))
    )


def order_in(document: Document) -> SealOrder | None:
    """Return the order to seal in a session's document."""
    order = document.get("seal_order")
    return order and SealOrder(
        order["chunk_count"],
        order["sealed_by"],
        order["sealed_at"],
        order["id"],
        order.get("floor", 0),
        tuple(order.get("unheard", ())),
        order.get("as_it_is", False),
    )


def tombstone_in(document: Document) -> Tombstone | None:
    """Return the tombstone in a session's document."""
    if (at := document.get("shredded_at")) is None:
        return None
    # Tombstones were without these once.
    reason = ShredReason(document.get("shred_reason", ShredReason.REQUESTED.value))
    return Tombstone(at, reason, document.get("shredded_by", "unknown"))


def head_in(document: Document) -> SessionHead:
    """Return a session's head from a document of the projection `HEAD`."""
    batch = document.get("batch")
    return SessionHead(
        session_id=SessionId(document["_id"]),
        status=SessionStatus(document["status"]),
        opened_at=document["opened_at"],
        seal_order=order_in(document),
        summary=summary_in(document),
        batch=None if batch is None else int(batch["sequence"]),
        held=document.get("held", False),
        retention=Retention(document.get("retain_days"), document.get("delete_after_days")),
        tombstone=tombstone_in(document),
        manifest_bytes=document.get(_MANIFEST_BYTES) or 0,
    )


class MongoLists:
    """`SessionLists` on MongoDB."""

    def __init__(self, db: Database) -> None:
        self._sessions = db["sessions"]

    async def page(self, which: SessionFilter, limit: int, after: Cursor | None) -> list[SessionHead]:
        """See `SessionLists`."""
        parts, order, index = (_by_id if which.by_id else _newest)(which, after)
        if which.status is not None:
            parts.append({"status": which.status.value})
        async with translated():
            # With the hint, for what is asked of `_id` could make it sort all sessions.
            cursor = self._sessions.find({"$and": parts}, HEAD, sort=order, limit=limit, hint=index)
            return [head_in(document) async for document in cursor]

    async def heads(self, session_ids: Sequence[SessionId]) -> Mapping[SessionId, SessionHead]:
        """See `SessionLists`."""
        async with translated():
            cursor = self._sessions.find({"_id": {"$in": list(session_ids)}}, HEAD)
            return {SessionId(document["_id"]): head_in(document) async for document in cursor}

    async def manifests(self, session_ids: Sequence[SessionId]) -> Mapping[SessionId, bytes]:
        """See `SessionLists`."""
        wanted = {"_id": {"$in": list(session_ids)}, "manifest": {"$exists": True}}
        async with translated():
            cursor = self._sessions.find(wanted, {"manifest": 1})
            return {SessionId(document["_id"]): bytes(document["manifest"]) async for document in cursor}

    async def keep_summaries(self, summaries: Mapping[SessionId, SealSummary]) -> None:
        """See `SessionLists`."""
        writes = [
            UpdateOne(
                {"_id": name, "manifest": {"$exists": True}, SUMMARY: None},
                {"$set": {SUMMARY: summary_document(summary)}},
            )
            for name, summary in summaries.items()
        ]
        if writes:
            async with translated():
                await self._sessions.bulk_write(writes, ordered=False)


_Query = tuple[list[Document], list[tuple[str, int]], list[tuple[str, int]]]
"""Conditions, order, and the index that has this order."""


def _newest(which: SessionFilter, after: Cursor | None) -> _Query:
    parts: list[Document] = [RECORDINGS]
    if which.opened_after is not None:
        parts.append({"opened_at": {"$gte": which.opened_after}})
    if which.opened_before is not None:
        parts.append({"opened_at": {"$lt": which.opened_before}})
    if after is not None:
        opened_at, session_id = after
        parts.append({"$or": [{"opened_at": {"$lt": opened_at}}, {"opened_at": opened_at, "_id": {"$lt": session_id}}]})
    return parts, list(NEWEST), list(NEWEST) if which.status is None else [("status", 1), *NEWEST]


def _by_id(which: SessionFilter, after: Cursor | None) -> _Query:
    parts: list[Document] = [RECORDINGS]
    index: list[tuple[str, int]] = [("_id", 1)] if which.status is None else list(_BY_STATUS_AND_ID)
    if which.held:
        parts.append(_HELD)
        index = list(_HELD_BY_ID)
    if which.prefix is not None:  # no character of an id comes behind "~"
        parts.append({"_id": {"$gte": which.prefix, "$lt": which.prefix + "~"}})
    if after is not None:
        parts.append({"_id": {"$gt": after[1]}})
    return parts, [("_id", 1)], index
