"""Sessions in turn, by bytes."""

from hypothesis import given
from hypothesis import strategies as st

from sessions.core.types import SessionId
from sessions.processor.fair_queue import FairQueue

A, B, C = (SessionId(name) for name in "abc")


def _filled(*items: tuple[SessionId, int]) -> FairQueue[tuple[SessionId, int]]:
    queue: FairQueue[tuple[SessionId, int]] = FairQueue()
    for number, (session, size) in enumerate(items):
        queue.put(session, size, (session, number))
    return queue


def test_each_has_its_share() -> None:
    queue = _filled(*[(A, 10)] * 5, (B, 10), (C, 25), (C, 1))
    taken, whose = queue.take(100, 10, 20)
    assert taken == [(A, 0), (A, 1), (B, 5), (C, 6)]
    assert whose == {A, B, C}
    assert queue.take(100, 10, 20)[0] == [(A, 2), (A, 3), (C, 7)]


def test_who_had_no_turn_is_first_in_the_next() -> None:
    queue = _filled((A, 10), (A, 10), (B, 10), (C, 10))
    assert queue.take(20, 10, 10)[0] == [(A, 0), (B, 2)]
    assert queue.take(20, 10, 10)[0] == [(C, 3), (A, 1)]
    assert len(queue) == 0


def test_the_busy_wait() -> None:
    queue = _filled((A, 1), (B, 1))
    assert queue.take(10, 10, 10, {A}) == ([(B, 1)], {B})
    assert queue.take(10, 10, 10, {A}) == ([], set())
    assert (queue.items, queue.size_bytes) == (1, 1)
    assert queue.clear() == [(A, 0)]
    assert (queue.items, queue.size_bytes) == (0, 0)


def test_one_that_is_larger_than_everything_goes_alone() -> None:
    queue = _filled((A, 1000), (B, 1))
    assert queue.take(100, 10, 10)[0] == [(A, 0)]
    assert queue.take(100, 10, 10)[0] == [(B, 1)]


@given(
    st.lists(st.tuples(st.sampled_from([A, B, C]), st.integers(0, 50)), max_size=30),
    st.integers(1, 100),
    st.integers(1, 5),
    st.integers(1, 100),
)
def test_all_come_out_once_and_each_session_in_order(
    items: list[tuple[SessionId, int]], max_bytes: int, max_items: int, share: int
) -> None:
    queue, out = _filled(*items), []
    while len(queue):
        left = [size for number, (_, size) in enumerate(items) if (items[number][0], number) not in out]
        assert (queue.items, queue.size_bytes) == (len(left), sum(left))
        taken, _ = queue.take(max_bytes, max_items, share)
        assert 0 < len(taken) <= max_items
        assert sum(items[number][1] for _, number in taken[1:]) <= max_bytes + 50
        out += taken
    for session in (A, B, C):
        assert [one for one in out if one[0] == session] == [(s, n) for n, (s, _) in enumerate(items) if s == session]
    assert len(out) == len(items)
