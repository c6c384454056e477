"""The order of turns: a session goes to the end after its turn, and one that failed pauses."""

import math
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from sessions.core.types import SessionId
from sessions.processor.drain_order import DrainOrder
from sessions.processor.spool import Spool
from sessions.processor.spool_format import Kind
from sessions.processor.spool_index import SpooledSession
from sessions.processor.spool_room import SpoolRoom
from tests.unit.processor.spools import MIB, segments_in

A, B, C = (SessionId(name) for name in "abc")


@pytest.fixture
async def spool(tmp_path: Path) -> AsyncIterator[Spool]:
    one = Spool(segments_in(tmp_path, MIB), SpoolRoom(8 * MIB, 0))
    one.open()
    yield one
    await one.close()


@pytest.fixture
def order(spool: Spool) -> DrainOrder:
    return DrainOrder(spool)


async def _chunks(spool: Spool, *names: SessionId) -> None:
    for name in names:
        await spool.append(Kind.ENVELOPE, name, b"x", 0)


def _name(session: SpooledSession | None) -> SessionId | None:
    return None if session is None else session.session_id


async def test_after_its_turn_a_session_is_the_last(spool: Spool, order: DrainOrder) -> None:
    await _chunks(spool, A, B)
    order.admit(0)
    turns = []
    for turn in range(5):
        name = _name(order.next_holding())
        assert name is not None
        turns.append(name)
        assert order.has_turn(name)
        if turn == 1:
            await _chunks(spool, C)
            order.admit(0)
        order.ended(name, 0)
    assert turns == [A, B, A, C, B]


async def test_one_that_has_its_turn_is_not_given_another(spool: Spool, order: DrainOrder) -> None:
    await _chunks(spool, A)
    order.admit(0)
    assert order.next_holding() is not None
    await spool.delivered(list(spool.sessions[A].waiting()))
    await _chunks(spool, A)
    order.admit(0)
    assert (order.next_holding(), bool(order)) == (None, False)
    order.ended(A, 0)
    assert _name(order.next_holding()) == A


async def test_one_that_failed_pauses_and_others_do_not(spool: Spool, order: DrainOrder) -> None:
    await _chunks(spool, A, B)
    order.admit(0)
    session = order.next_holding()
    assert session is not None
    session.retry_at = 5.0
    order.ended(A, 4.0)
    assert order.pauses(A)
    order.admit(4.9)
    assert [_name(order.next_holding()) for _ in range(2)] == [B, None]
    order.admit(5.0)
    assert (order.pauses(A), _name(order.next_holding())) == (False, A)


async def test_one_that_is_new_under_the_name_of_one_that_paused_does_not_pause(
    spool: Spool, order: DrainOrder
) -> None:
    await _chunks(spool, A)
    order.admit(0)
    session = order.next_holding()
    assert session is not None
    session.retry_at = 5.0
    order.ended(A, 0)
    await spool.delivered(list(session.waiting()))
    await _chunks(spool, A)
    order.admit(1)
    assert (order.pauses(A), _name(order.next_holding())) == (False, A)
    order.ended(A, 1)
    order.admit(9)
    assert [_name(order.next_holding()) for _ in range(2)] == [A, None], "the pause that was has no effect"


async def test_orders_have_a_line_of_their_own(spool: Spool, order: DrainOrder) -> None:
    for name in (A, B):
        await spool.append(Kind.SEAL, name, b"{}")
    await _chunks(spool, C)
    order.admit(0)
    assert (_name(order.next_holding()), order.next_holding()) == (C, None)
    await _chunks(spool, A)
    order.admit(0)
    assert _name(order.next_ordering()) == B
    assert [_name(order.next_holding()) for _ in range(2)] == [A, None], "it holds a chunk by now"
    await spool.delivered(list(spool.sessions[A].chunks.values()))
    order.ended(A, 0)
    assert (order.next_holding(), _name(order.next_ordering())) == (None, A)


async def test_one_whose_chunks_were_taken_out_while_it_waited(spool: Spool, order: DrainOrder) -> None:
    await _chunks(spool, A, B)
    await spool.append(Kind.SEAL, B, b"{}")
    order.admit(0)
    await spool.delivered([*spool.sessions[A].chunks.values(), *spool.sessions[B].chunks.values()])
    assert (order.next_holding(), _name(order.next_ordering())) == (None, B)
    order.ended(A, 0)
    assert not order


async def test_what_was_taken_first_has_no_second_turn(spool: Spool, order: DrainOrder) -> None:
    await _chunks(spool, A, B)
    order.admit(math.inf)
    order.take(spool.sessions[B])
    assert [_name(order.next_holding()) for _ in range(2)] == [A, None]


async def test_sessions_of_an_earlier_process(spool: Spool, tmp_path: Path) -> None:
    await _chunks(spool, A, B)
    await spool.close()
    again = Spool(segments_in(tmp_path, MIB), SpoolRoom(8 * MIB, 0))
    again.open()
    order = DrainOrder(again)
    order.admit(0)
    assert {_name(order.next_holding()) for _ in range(3)} == {None}
    await again.close()
