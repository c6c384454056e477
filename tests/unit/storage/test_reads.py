"""The bound on the memory of answers."""

import asyncio
from typing import Any

import pytest
from starlette.requests import Request

from sessions.runtime.audit import PRINCIPAL
from sessions.runtime.errors import DomainError
from sessions.runtime.middleware import WHEN_ANSWERED
from sessions.storage.reads import ENVELOPE_COPIES, ITEM_BYTES, SESSION_BYTES, Pool, Reads, unbounded

MIB = 1024 * 1024


def request(principal: str = "audit-1", query: str = "") -> Request:
    scope: dict[str, Any] = {
        "type": "http",
        "query_string": query.encode(),
        "headers": [],
        PRINCIPAL: principal,
        WHEN_ANSWERED: [],
    }
    return Request(scope)


def answer(one: Request) -> None:
    for act in one.scope[WHEN_ANSWERED]:
        act()


async def test_bytes_are_held_until_the_answer_is_sent() -> None:
    reads, one = Reads(16 * MIB), request()
    await reads.session(one)
    assert (reads.lists.used_bytes, reads.content.used_bytes) == (SESSION_BYTES, 0)
    answer(one)
    assert reads.lists.used_bytes == 0
    await reads.envelopes(one)(1000)
    assert reads.content.used_bytes == ENVELOPE_COPIES * 1000
    await unbounded(2**60)


@pytest.mark.parametrize(
    ("query", "items"),
    [
        ("", 100),
        ("limit=7", 7),
        ("limit=1000", 1000),
        ("limit=1001", 1000),
        ("limit=" + "9" * 5000, 1000),
        ("limit=1&limit=1000", 1000),
        ("limit=", 1000),
        ("limit=-1", 1000),
        ("limit=x", 1000),
        ("limit=%C2%B2", 1000),
        ("limit=%2B1000", 1000),
        ("limit=1000.0", 1000),
        ("limit=1_000", 1000),
        ("limit=%201000", 1000),
    ],
)
async def test_a_list_is_paid_for_by_its_limit(query: str, items: int) -> None:
    """Pydantic reads more spellings of a number than digits, so each of these pays for the most."""
    reads = Reads(64 * MIB)
    await reads.items()(request(query=query))
    assert reads.lists.used_bytes == items * ITEM_BYTES


async def test_without_a_limit_a_list_is_paid_for_by_its_routes_own() -> None:
    reads = Reads(64 * MIB)
    await reads.items(7, default_limit=1000)(request())
    assert reads.lists.used_bytes == 1000 * 7


async def test_one_token_holds_at_most_half_and_others_go_on() -> None:
    pool = Pool(8, wait_seconds=0.05)
    slow = [request("slow") for _ in range(3)]
    for one in slow[:2]:
        await pool.hold(2, one.scope)
    with pytest.raises(DomainError) as caught:
        await pool.hold(2, slow[2].scope)
    assert (caught.value.code, caught.value.retry_after_seconds) == ("overloaded", 1)
    await pool.hold(4, request("other").scope)
    assert pool.used_bytes == 8
    answer(slow[0])
    with pytest.raises(DomainError):  # of its half there is room, of all there is too little
        await pool.hold(4, request("third").scope)
    await pool.hold(2, request("third").scope)
    assert pool.used_bytes == 8


async def test_what_is_refused_or_given_up_holds_nothing() -> None:
    pool = Pool(8, wait_seconds=30)
    holders = [request(name) for name in "ab"]
    for one in holders:
        await pool.hold(4, one.scope)
    waiting = asyncio.create_task(pool.hold(1, request("c").scope))
    await asyncio.sleep(0.01)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    for one in holders:
        answer(one)
    assert pool.used_bytes == 0
    await pool.hold(4, request("c").scope)


async def test_what_is_larger_than_all_waits_for_a_half() -> None:
    pool, one = Pool(8, wait_seconds=0.05), request()
    await pool.hold(1000, one.scope)
    assert pool.used_bytes == 4
    answer(one)
    assert pool.used_bytes == 0


async def test_lists_and_envelopes_do_not_wait_for_each_other() -> None:
    reads = Reads(4 * MIB)
    await reads.envelopes(request())(2**40)
    await asyncio.wait_for(reads.items()(request(query="limit=1")), 1)
