"""ClosingStore: one suite for the twin and for MongoDB in both topologies."""

import asyncio
from dataclasses import replace
from typing import Any

import pytest

from sessions.core.manifest import SealedBy
from sessions.core.types import SessionId
from sessions.storage import mongo_closing
from sessions.storage.memory import MemorySessions
from sessions.storage.memory_replicas import MemoryClosing
from sessions.storage.mongo import Database
from sessions.storage.mongo_closing import MongoClosing
from sessions.storage.mongo_sessions import MongoSessions
from sessions.storage.seal_orders import MAX_ORDERS, Ask, Closing, ClosingStore, Confirmation, WaitingOrder
from sessions.storage.store import Change, Seal, SealOrder, SessionStatus, SessionStore
from tests.unit.storage.chunks import EPOCH, session_record

A, B, C, NONE = (SessionId(name) for name in ("a", "b", "c", "none"))
OPEN, SEALING, SEALED, _ = SessionStatus
FIRST = Confirmation("first", 3, 100.0)


async def _names(orders: ClosingStore, after: SessionId | None, limit: int) -> list[str]:
    return [name for name, _ in await orders.waiting(after, limit)]


class Kept:
    """Both ports on one collection; A, B and C are open."""

    def __init__(self, sessions: SessionStore, orders: ClosingStore) -> None:
        self.sessions, self.orders = sessions, orders

    async def closing(self, session: SessionId = A) -> Closing | None:
        record = await self.sessions.get(session)
        assert record is not None
        return record.closing

    async def ask(self, session: SessionId = A) -> Ask:
        closing = await self.closing(session)
        assert closing is not None
        return Ask(session, closing.ask_id)

    async def order(self, session: SessionId, order: WaitingOrder, first: Confirmation) -> bool:
        """Order, and confirm for the processor that brings the order."""
        done = await self.orders.order(session, order, first.floor)
        return done and await self.orders.confirm(await self.ask(session), first)

    async def begin(self, session: SessionId, *, ask_id: str | None = None) -> SealOrder | None:
        order = SealOrder(None, "recorder", EPOCH)
        change = Change(status=SEALING, seal_order=order)
        begun = await self.sessions.update(session, OPEN, change, ask_id=ask_id)
        return None if begun is None else order


@pytest.fixture
async def kept(store_db: Database | None) -> Kept:
    memory = MemorySessions()
    one = (
        Kept(memory, MemoryClosing(memory))
        if store_db is None
        else Kept(MongoSessions(store_db), MongoClosing(store_db))
    )
    for session in (A, B, C):
        await one.sessions.create(session_record(session))
    return one


def _order(count: int | None = None, by: SealedBy = "recorder", until: float | None = None) -> WaitingOrder:
    return WaitingOrder(count, by, 12.5, until)


@pytest.mark.parametrize("first", [None, FIRST])
@pytest.mark.parametrize("count", [None, 0, 2**53 - 1])
async def test_an_order_is_kept_as_it_was_given(kept: Kept, count: int | None, first: Confirmation | None) -> None:
    before = await kept.sessions.get(A)
    order = _order(count, until=99.5)
    assert await (kept.order(A, order, first) if first else kept.orders.order(A, order))
    closing = await kept.closing()
    assert closing is not None
    clear, floor = (frozenset({"first"}), 3) if first else (frozenset(), 0)
    assert closing == Closing(closing.ask_id, (order,), clear, floor)
    after = await kept.sessions.get(A)
    assert before is not None
    assert after == replace(before, closing=closing)


async def test_only_an_open_session_takes_orders(kept: Kept) -> None:
    assert not await kept.order(NONE, _order(), FIRST)
    assert await kept.sessions.get(NONE) is None
    assert await kept.begin(A)
    assert not await kept.order(A, _order(), FIRST)
    assert await kept.closing() is None


async def test_the_same_is_ordered_once_and_asks_nobody_again(kept: Kept) -> None:
    assert await kept.order(A, _order(3), FIRST)
    closing = await kept.closing()
    for again in (_order(3), _order(3, until=5.0)):
        assert await kept.orders.order(A, again), "the one that is there serves"
    assert await kept.closing() == closing
    for other in (_order(4), _order(3, "idle"), _order(None), _order(None)):
        assert await kept.orders.order(A, other)
    closing = await kept.closing()
    assert closing is not None
    assert [order.chunk_count for order in closing.orders] == [3, 4, 3, None]
    assert await kept.orders.order(A, _order(3), 9)
    closing = await kept.closing()
    assert closing is not None
    assert (len(closing.orders), closing.floor) == (4, 9)


async def test_an_order_that_is_promised_lapses_no_more(kept: Kept) -> None:
    order, other = _order(3, until=5.0), _order(4, until=5.0)
    for one in (order, other):
        assert await kept.orders.order(A, one)
    before = await kept.closing()
    assert before is not None
    assert await kept.orders.keep(A, order.order_id)
    stays = replace(order, until_seconds=None)
    assert await kept.closing() == replace(before, orders=(stays, other))
    assert await kept.orders.keep(A, order.order_id)
    for session, order_id in ((A, "none"), (B, order.order_id), (NONE, order.order_id)):
        assert not await kept.orders.keep(session, order_id)
    for one in (order, other):
        await kept.orders.withdraw(A, one.order_id, kept=False)
    assert await kept.closing() == replace(before, orders=(stays,)), "a request that gives up takes no promised order"
    await kept.orders.withdraw(A, order.order_id)
    assert await _nobody_is_asked(kept)


async def test_an_order_of_a_session_that_is_being_sealed_is_promised_no_more(kept: Kept) -> None:
    order = _order(3, until=5.0)
    assert await kept.orders.order(A, order)
    assert await kept.begin(A)
    assert not await kept.orders.keep(A, order.order_id)


async def test_further_orders_take_back_no_confirmation_and_the_floor_only_rises(kept: Kept) -> None:
    """A client that orders again and again would delay the seal for ever if each order asked anew."""
    first = _order(1)
    await kept.order(A, first, Confirmation("first", 7))
    asked = await kept.ask()
    assert await kept.orders.confirm(asked, Confirmation("second", 5))
    further = _order(2)
    assert await kept.order(A, further, Confirmation("third", 2))
    assert await kept.orders.order(A, _order(4, until=5.0))
    assert await kept.orders.confirm(asked, Confirmation("second", 9))
    assert await kept.orders.confirm(asked, Confirmation("second", 8)), "repeated it changes nothing"
    closing = await kept.closing()
    assert closing is not None
    assert (closing.ask_id, closing.clear, closing.floor) == (asked.ask_id, {"first", "second", "third"}, 9)


async def test_an_order_after_the_last_was_withdrawn_asks_anew(kept: Kept) -> None:
    """The processors may have been released from their promises in between."""
    first = _order(1)
    await kept.order(A, first, Confirmation("first", 7))
    asked = await kept.ask()
    await kept.orders.withdraw(A, first.order_id)
    await kept.order(A, _order(2), Confirmation("third", 2))
    assert not await kept.orders.confirm(asked, Confirmation("second", 100)), "an answer to an older question"
    closing = await kept.closing()
    assert closing is not None
    assert closing.ask_id != asked.ask_id
    assert (closing.clear, closing.floor) == ({"third"}, 2)


async def test_a_confirmation_needs_a_question_about_an_open_session(kept: Kept) -> None:
    for session in (A, NONE):
        assert not await kept.orders.confirm(Ask(session, "0" * 16), Confirmation("p", 5))
    assert await kept.closing() is None
    await kept.orders.order(A, _order())
    assert not await kept.orders.confirm(Ask(A, "0" * 16), Confirmation("p", 5))
    ask = await kept.ask()
    assert await kept.begin(A)
    assert not await kept.orders.confirm(ask, Confirmation("p", 5))
    closing = await kept.closing()
    assert closing is not None
    assert (closing.clear, closing.floor) == (frozenset(), 0)


async def test_a_question_that_is_asked_again_is_confirmed_by_nobody(kept: Kept) -> None:
    assert await kept.order(A, WaitingOrder(1, "recorder", 1.0), FIRST)
    asked, before = await kept.ask(), await kept.closing()
    await kept.orders.ask_again(Ask(A, "0" * 16))
    await kept.orders.ask_again(Ask(NONE, asked.ask_id))
    assert await kept.closing() == before
    await kept.orders.ask_again(asked)
    closing = await kept.closing()
    assert before is not None
    assert closing is not None
    assert closing == replace(before, ask_id=closing.ask_id, clear=frozenset())
    assert closing.ask_id != asked.ask_id
    assert not await kept.orders.confirm(asked, Confirmation("other"))
    assert await kept.orders.confirm(await kept.ask(), Confirmation("other"))


async def test_of_confirmations_at_once_all_count(kept: Kept) -> None:
    await kept.orders.order(A, _order())
    ask = await kept.ask()
    names = [f"p{number}" for number in range(12)]
    done = await asyncio.gather(
        *(kept.orders.confirm(ask, Confirmation(name, number)) for number, name in enumerate(names))
    )
    closing = await kept.closing()
    assert closing is not None
    assert (all(done), closing.clear, closing.floor) == (True, set(names), 11)


async def test_of_orders_at_once_each_is_kept_and_the_same_once(kept: Kept) -> None:
    done = await asyncio.gather(*(kept.orders.order(A, _order(number % 4)) for number in range(16)))
    closing = await kept.closing()
    assert closing is not None
    assert (all(done), sorted(order.chunk_count or 0 for order in closing.orders)) == (True, [0, 1, 2, 3])


@pytest.mark.parametrize("until", [None, 5.0])
async def test_so_many_orders_and_no_more(kept: Kept, until: float | None) -> None:
    assert MAX_ORDERS == 8
    done = await asyncio.gather(*(kept.orders.order(A, _order(number, until=until)) for number in range(12)))
    closing = await kept.closing()
    assert closing is not None
    assert (sum(done), len(closing.orders)) == (MAX_ORDERS, MAX_ORDERS)
    assert not await kept.order(A, _order(None, "idle"), FIRST)
    assert await kept.closing() == closing, "and nobody was asked again"
    assert await kept.orders.order(A, closing.orders[3]), "one that is there is no further one"
    await kept.orders.withdraw(A, closing.orders[3].order_id)
    assert await kept.orders.order(A, _order(None, "idle"))
    assert await kept.orders.order(B, _order())


async def _nobody_is_asked(kept: Kept, session: SessionId = A) -> bool:
    asks = [ask.session_id for ask in await kept.orders.unanswered("p", None, 10)]
    return not (
        session in asks
        or await kept.orders.asked([session])
        or session in await _names(kept.orders, None, 10)
        or await kept.closing(session) is not None
    )


async def test_an_order_that_is_withdrawn_leaves_the_others_and_the_last_one_nothing(kept: Kept) -> None:
    first, second = _order(1), _order(2)
    for order in (first, second):
        await kept.order(A, order, FIRST)
    closing = await kept.closing()
    assert closing is not None
    for order_id in (first.order_id, first.order_id, "none"):
        await kept.orders.withdraw(A, order_id)
    assert await kept.closing() == replace(closing, orders=(second,))
    await kept.orders.withdraw(A, second.order_id)
    assert await _nobody_is_asked(kept)
    await kept.orders.withdraw(A, second.order_id)
    await kept.orders.withdraw(NONE, second.order_id)
    assert await kept.orders.order(A, second)


async def test_a_refused_order_leaves_the_others_and_the_last_one_nothing(kept: Kept) -> None:
    """A processor keeps its promise for as long as it is asked: a question that nobody needs would bind it for good."""
    first, second = _order(1), _order(2)
    for order in (first, second):
        await kept.order(A, order, FIRST)
    for order, left in ((first, (second,)), (second, ())):
        begun = await kept.begin(A, ask_id=(await kept.ask()).ask_id)
        assert begun is not None
        assert await _names(kept.orders, None, 10) == [A]
        reopen = Change(status=OPEN, refuse=order.order_id)
        reopened = await kept.sessions.update(A, SEALING, reopen, begun)
        assert reopened is not None
        closing = await kept.closing()
        assert (closing.orders if closing is not None else ()) == left
    assert await _nobody_is_asked(kept)
    assert await kept.order(A, first, FIRST)


async def test_a_seal_that_is_refused_takes_no_order_that_waits(kept: Kept) -> None:
    """A kept order is never lost to another that never waited."""
    await kept.order(A, _order(1), FIRST)
    closing = await kept.closing()
    begun = await kept.begin(A)
    assert begun is not None
    assert await kept.sessions.update(A, SEALING, Change(status=OPEN, refuse=begun.order_id), begun)
    assert await kept.closing() == closing


async def test_a_list_without_orders_that_a_crash_left_asks_nobody(db: Database) -> None:
    kept = Kept(MongoSessions(db), MongoClosing(db))
    await kept.sessions.create(session_record(A))
    order = _order()
    await kept.order(A, order, FIRST)
    await db["sessions"].update_one({"_id": A}, {"$set": {"closing.orders": []}})
    assert await _nobody_is_asked(kept)
    assert await kept.orders.order(A, order)
    assert await _names(kept.orders, None, 10) == [A]


async def test_the_seal_ends_all_orders(kept: Kept) -> None:
    await kept.orders.order(A, _order(1))
    await kept.orders.order(A, _order(2))
    begun = await kept.begin(A)
    assert await kept.sessions.update(A, SEALING, Change(status=SEALED, seal=Seal(b"m", "x")), begun)
    assert await _nobody_is_asked(kept)


async def test_an_update_may_need_the_newest_question(kept: Kept) -> None:
    assert await kept.begin(A, ask_id="0" * 16) is None
    await kept.orders.order(A, _order(1))
    earlier = await kept.ask()
    await kept.orders.ask_again(earlier)
    assert await kept.begin(A, ask_id=earlier.ask_id) is None
    assert await kept.begin(A, ask_id=(await kept.ask()).ask_id) is not None


async def test_questions_come_in_pages_until_they_are_decided(kept: Kept) -> None:
    for session in (C, A, B):
        await kept.order(session, _order(), FIRST)
    asks = [await kept.ask(session) for session in (A, B, C)]
    assert await kept.orders.unanswered("p", None, 10) == asks
    assert await kept.orders.unanswered("p", None, 2) == asks[:2]
    assert await kept.orders.unanswered("p", A, 1) == asks[1:2]
    assert await kept.orders.unanswered("p", C, 1) == []
    assert await kept.orders.unanswered("first", None, 10) == []
    await kept.orders.confirm(asks[1], Confirmation("p"))
    assert await kept.orders.unanswered("p", None, 10) == [asks[0], asks[2]]
    assert await kept.begin(C)
    assert await kept.orders.unanswered("p", None, 10) == [asks[0], asks[2]], "what is spooled now, C's seal has not"
    assert await kept.orders.asked([A, B, C, NONE]) == {ask.session_id: ask.ask_id for ask in asks}
    assert await kept.orders.asked([]) == {}
    assert await _names(kept.orders, None, 10) == [A, B, C]
    assert await _names(kept.orders, None, 2) == [A, B]
    assert await _names(kept.orders, B, 2) == [C]


async def test_waiting_sessions_and_questions_are_read_off_the_index(db: Database) -> None:
    await mongo_closing.ensure_indexes(db)
    await mongo_closing.ensure_indexes(db)
    sessions, orders = MongoSessions(db), MongoClosing(db)
    for number in range(30):
        await sessions.create(session_record(f"s{number:02d}"))
    await orders.order(SessionId("s07"), _order())
    await db.command("profile", 2)
    try:
        assert [ask.session_id for ask in await orders.unanswered("p", None, 9)] == ["s07"]
        assert await _names(orders, None, 9) == ["s07"]
    finally:
        await db.command("profile", 0)
    shown: list[dict[str, Any]] = await db["system.profile"].find({"command.find": "sessions"}).to_list()
    await db.drop_collection("system.profile")
    assert [one["docsExamined"] for one in shown] == [1, 1]
