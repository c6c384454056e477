"""A session's status as the spool knows it."""

import random

import pytest

from sessions.core.types import SessionId
from sessions.processor import spool_status
from sessions.processor.spool_format import Kind
from sessions.processor.spool_index import Entry, SpoolIndex
from sessions.processor.spool_segments import Place
from sessions.processor.spool_shares import Shares
from sessions.processor.spool_status import MAX_GAPS, status_of


async def _status(indexes: list[int]) -> tuple[int, list[list[int]], bool]:
    index = SpoolIndex(Shares())
    session = index.session(SessionId("a"))
    for one in indexes:
        index.add(Entry(Kind.ENVELOPE, session, one, Place(1, 0, 100), 1))
    status = await status_of(session, "then")
    assert status["chunk_count"] == status["plaintext_bytes"] == len(indexes)
    return status["next_index"], status["missing"], status["missing_truncated"]


@pytest.mark.parametrize("at_once", [1, 3, 8192])
async def test_what_is_missing_of_a_session_whatever_the_order(at_once: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spool_status, "_SORT_AT_ONCE", at_once)
    indexes = [2, 3, 4, 7, 9, 10]
    random.Random(1).shuffle(indexes)
    assert await _status(indexes) == (11, [[0, 1], [5, 6], [8, 8]], False)
    assert await _status([0, 1]) == (2, [], False)
    assert await _status([]) == (0, [], False)


@pytest.mark.parametrize("more", [0, 1])
async def test_no_more_gaps_than_are_listed(more: int) -> None:
    count = MAX_GAPS + more
    gaps = [[2 * number, 2 * number] for number in range(MAX_GAPS)]
    assert await _status([2 * number + 1 for number in range(count)]) == (2 * count, gaps, more > 0)
