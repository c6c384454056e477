"""Seal orders that wait, in MongoDB: the member `closing` of a session's document.

`closing` is {ask, orders: [{chunk_count, sealed_by, placed, until, id}], clear: [names], floor}.
"""

from collections.abc import Mapping, Sequence
from secrets import token_hex
from typing import Final

from bson import Int64
from pymongo.asynchronous.collection import AsyncCollection

from sessions.core.types import SessionId
from sessions.storage.mongo import Database, Document, translated
from sessions.storage.seal_orders import MAX_ORDERS, Ask, Closing, Confirmation, WaitingOrder

_INDEXED: Final[Document] = {"closing.ask": {"$exists": True}}
_WAITING: Final[Document] = {**_INDEXED, "closing.orders.0": {"$exists": True}}
"""Sessions with an order. A crash between the removal of the last one and of `closing` leaves a list without any."""
_OPEN: Final[Document] = {"status": "open"}


async def ensure_indexes(db: Database) -> None:
    """Create the index. Safe to repeat."""
    await db["sessions"].create_index(
        [("_id", 1), ("closing.ask", 1)], partialFilterExpression=_INDEXED, name="closing"
    )


async def forget_none(sessions: AsyncCollection[Document], session_id: SessionId) -> None:
    """Remove the question about a session that has no order any more: processors would keep their promises for it."""
    await sessions.update_one({"_id": session_id, "closing.orders": []}, {"$unset": {"closing": ""}})


def closing_of(document: Document) -> Closing | None:
    """Read the orders of a session's document; None when it has none."""
    closing = document.get("closing")
    if not closing or not closing["orders"]:
        return None
    orders = [
        WaitingOrder(order["chunk_count"], order["sealed_by"], order["placed"], order["until"], order["id"])
        for order in closing["orders"]
    ]
    return Closing(closing["ask"], tuple(orders), frozenset(closing["clear"]), int(closing["floor"]))


class MongoClosing:
    """`ClosingStore` on MongoDB."""

    def __init__(self, db: Database) -> None:
        self._sessions = db["sessions"]

    async def order(self, session_id: SessionId, order: WaitingOrder, floor: int = 0) -> bool:
        """See `ClosingStore`."""
        count = None if order.chunk_count is None else Int64(order.chunk_count)
        document = {
            "chunk_count": count,
            "sealed_by": order.sealed_by,
            "placed": order.placed_seconds,
            "until": order.until_seconds,
            "id": order.order_id,
        }
        orders: Document = {"$ifNull": ["$closing.orders", []]}
        is_first = {"$eq": [orders, []]}
        said = [count, order.sealed_by]
        have = {"$map": {"input": orders, "in": ["$$this.chunk_count", "$$this.sealed_by"]}}
        change = {
            "ask": {"$cond": [is_first, token_hex(8), "$closing.ask"]},
            "orders": {"$cond": [{"$in": [said, have]}, orders, {"$concatArrays": [orders, [document]]}]},
            "clear": {"$cond": [is_first, [], "$closing.clear"]},
            "floor": {"$max": [{"$cond": [is_first, 0, "$closing.floor"]}, Int64(floor)]},
        }
        same = {"closing.orders": {"$elemMatch": {"chunk_count": count, "sealed_by": order.sealed_by}}}
        room = {f"closing.orders.{MAX_ORDERS - 1}": {"$exists": False}}
        wanted: Document = {"_id": session_id, **_OPEN, "$or": [room, same]}
        async with translated():
            done = await self._sessions.update_one(wanted, [{"$set": {"closing": change}}])
        return bool(done.matched_count)

    async def keep(self, session_id: SessionId, order_id: str) -> bool:
        """See `ClosingStore`."""
        wanted = {"_id": session_id, **_OPEN, "closing.orders.id": order_id}
        change = {"$set": {"closing.orders.$.until": None}}
        async with translated():
            return bool((await self._sessions.update_one(wanted, change)).matched_count)

    async def confirm(self, ask: Ask, confirmation: Confirmation) -> bool:
        """See `ClosingStore`."""
        wanted = {"_id": ask.session_id, "closing.ask": ask.ask_id, **_OPEN}
        change = {
            "$addToSet": {"closing.clear": confirmation.processor},
            "$max": {"closing.floor": Int64(confirmation.floor)},
        }
        async with translated():
            return bool((await self._sessions.update_one(wanted, change)).matched_count)

    async def ask_again(self, ask: Ask) -> None:
        """See `ClosingStore`."""
        change = {"$set": {"closing.ask": token_hex(8), "closing.clear": []}}
        async with translated():
            await self._sessions.update_one({"_id": ask.session_id, "closing.ask": ask.ask_id}, change)

    async def withdraw(self, session_id: SessionId, order_id: str, *, kept: bool = True) -> None:
        """See `ClosingStore`."""
        which: Document = {"id": order_id} if kept else {"id": order_id, "until": {"$ne": None}}
        async with translated():
            await self._sessions.update_one({"_id": session_id}, {"$pull": {"closing.orders": which}})
            await forget_none(self._sessions, session_id)

    async def unanswered(self, processor: str, after: SessionId | None, limit: int) -> list[Ask]:
        """See `ClosingStore`."""
        wanted: Document = {**_WAITING, "closing.clear": {"$ne": processor}}
        if after is not None:
            wanted["_id"] = {"$gt": after}
        async with translated():
            cursor = self._sessions.find(
                wanted, projection={"closing.ask": 1}, sort=[("_id", 1)], limit=limit, hint="closing"
            )
            return [Ask(SessionId(one["_id"]), one["closing"]["ask"]) for one in await cursor.to_list()]

    async def asked(self, session_ids: Sequence[SessionId]) -> Mapping[SessionId, str]:
        """See `ClosingStore`."""
        async with translated():
            cursor = self._sessions.find({"_id": {"$in": list(session_ids)}, **_WAITING}, projection={"closing.ask": 1})
            return {SessionId(one["_id"]): one["closing"]["ask"] for one in await cursor.to_list()}

    async def waiting(self, after: SessionId | None, limit: int) -> list[tuple[SessionId, Closing]]:
        """See `ClosingStore`."""
        wanted: Document = dict(_WAITING)
        if after is not None:
            wanted["_id"] = {"$gt": after}
        async with translated():
            cursor = self._sessions.find(
                wanted, projection={"closing": 1}, sort=[("_id", 1)], limit=limit, hint="closing"
            )
            found = [(SessionId(one["_id"]), closing_of(one)) for one in await cursor.to_list()]
        return [(name, closing) for name, closing in found if closing is not None]
