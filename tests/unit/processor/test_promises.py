"""Promises: what binds, what releases, and what a process that comes later knows of them."""

import json
import threading
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sessions.core.types import SessionId
from sessions.processor import promises as module
from sessions.processor.promises import Promise, Promises

A, B, C = (SessionId(name) for name in "abc")
ASK, NEWER = "0" * 16, "1" * 16


@pytest.fixture
def promises(tmp_path: Path) -> Promises:
    return Promises(tmp_path / "promises.json")


def _again(tmp_path: Path) -> Promises:
    one = Promises(tmp_path / "promises.json")
    one.load()
    return one


def _reported(promises: Promises, name: SessionId = A) -> Promise:
    return promises.page(0, 1000)[name]


def test_a_question_binds_until_there_is_none(promises: Promises) -> None:
    assert A not in promises
    promises.bind(A, ASK)
    assert (A in promises, len(promises)) == (True, 1)
    promises.settle(A, _reported(promises), ASK, 1e9)
    assert A in promises
    promises.settle(A, _reported(promises), NEWER, 1e9)
    assert _reported(promises) == Promise(NEWER)
    promises.settle(A, _reported(promises), None, 0.0)
    assert A not in promises


def test_a_request_of_our_own_binds_until_its_time_is_over(promises: Promises) -> None:
    """It was given up, and may yet place an order."""
    promises.hold(A, 60.0)
    promises.settle(A, _reported(promises), None, 59.9)
    assert A in promises
    promises.settle(A, _reported(promises), None, 60.0)
    assert A not in promises


def test_an_order_that_it_placed_after_all_binds_beyond_that_time(promises: Promises) -> None:
    promises.hold(A, 60.0)
    promises.settle(A, _reported(promises), ASK, 61.0)
    assert _reported(promises) == Promise(ASK, 60.0)
    promises.settle(A, _reported(promises), None, 59.0)
    assert A in promises, "the request may place another"
    promises.settle(A, _reported(promises), None, 61.0)
    assert A not in promises


def test_after_a_set_back_of_the_database_a_request_binds_for_as_long_as_any(promises: Promises) -> None:
    """Storage's uptime begins again, perhaps days before the time that the promise names."""
    promises.hold(A, 1_000_060.0)
    promises.settle(A, _reported(promises), None, 5.0)
    promises.settle(A, _reported(promises), None, 64.9)
    assert A in promises
    promises.settle(A, _reported(promises), None, 65.0)
    assert A not in promises


def test_a_later_request_binds_for_longer_and_none_for_shorter(promises: Promises) -> None:
    promises.hold(A, 60.0)
    promises.hold(A, 50.0)
    assert _reported(promises).until_seconds == 60.0
    promises.hold(A, 70.0)
    assert _reported(promises).until_seconds == 70.0
    promises.bind(A, ASK)
    assert _reported(promises) == Promise(ASK, 70.0)
    promises.end(A, promises.begin(A))
    assert _reported(promises) == Promise(ASK, 0.0), "its outcome is known; the question binds still"


def test_a_request_takes_back_no_promise_that_another_stands_by(promises: Promises) -> None:
    promises.hold(A, 60.0)
    first, second = promises.begin(A), promises.begin(A)
    promises.end(A, second)
    assert _reported(promises) == Promise(None, 60.0)
    promises.hold(A, 70.0)
    third = promises.begin(A)
    promises.end(A, first)
    assert _reported(promises) == Promise(None, 70.0)
    reported = _reported(promises)
    promises.end(A, third)
    assert _reported(promises) == Promise(None, 0.0)
    promises.settle(A, reported, None, 1e9)
    assert A in promises, "the answer is older than the order"


@pytest.mark.parametrize("over", ["lapsed", "sealed"])
def test_requests_are_counted_from_zero_once_there_is_no_promise_any_more(promises: Promises, over: str) -> None:
    promises.hold(A, 60.0)
    late, _ = promises.begin(A), promises.begin(A)
    if over == "sealed":
        promises.release(A)
    else:
        promises.settle(A, _reported(promises), None, 60.0)
    promises.end(A, promises.begin(A))
    assert (A in promises, promises._requests) == (False, {}), "what has no promise is not counted"
    promises.hold(A, 160.0)
    request = promises.begin(A)
    promises.end(A, late)
    assert _reported(promises) == Promise(None, 160.0), "the late one stood by another promise"
    promises.end(A, request)
    assert _reported(promises) == Promise(None, 0.0)


def test_a_request_that_nobody_heard_leaves_no_promise(promises: Promises) -> None:
    promises.hold(A, 60.0)
    promises.end(A, promises.begin(A), heard=False)
    assert A not in promises


@pytest.mark.parametrize("other", ["heard", "unknown", "asked", "earlier process"])
def test_a_request_that_nobody_heard_ends_no_promise_that_something_else_binds(
    promises: Promises, tmp_path: Path, other: str
) -> None:
    promises.hold(A, 60.0)
    if other == "heard":
        promises.end(A, promises.begin(A))
    elif other == "unknown":
        promises.begin(A)
    elif other == "asked":
        promises.bind(A, ASK)
    else:
        promises.end(A, promises.begin(A))
        promises.save()
        promises = _again(tmp_path)
    promises.hold(A, 70.0)
    promises.end(A, promises.begin(A), heard=False)
    assert A in promises


def test_requests_of_an_earlier_process_have_no_known_outcome(promises: Promises, tmp_path: Path) -> None:
    promises.hold(A, 60.0)
    promises.bind(B, ASK)
    promises.save()
    again = _again(tmp_path)
    for name in (A, B):
        again.end(name, again.begin(name))
    assert again.page(0, 9) == {A: Promise(None, 60.0), B: Promise(ASK, 0.0)}


@pytest.mark.parametrize("change", ["hold", "bind", "hold again", "release and hold"])
def test_a_promise_that_was_changed_since_a_report_is_not_released_by_its_answer(
    promises: Promises, change: str
) -> None:
    """The answer is older than the change: it says nothing of the order that was placed meanwhile."""
    promises.hold(A, 60.0)
    reported = _reported(promises)
    if change == "bind":
        promises.bind(A, ASK)
    elif change == "release and hold":
        promises.release(A)
        promises.hold(A, 60.0)
    else:
        promises.hold(A, 60.0 if change == "hold again" else 10.0)
    promises.settle(A, reported, None, 1e9)
    assert A in promises
    promises.settle(A, reported, NEWER, 1e9)
    assert _reported(promises).ask_id != NEWER
    promises.settle(A, _reported(promises), None, 1e9)
    assert A not in promises


def test_the_answer_about_a_promise_that_is_gone_brings_none(promises: Promises) -> None:
    promises.bind(A, ASK)
    reported = _reported(promises)
    promises.release(A)
    promises.release(A)
    promises.settle(A, reported, NEWER, 0.0)
    assert A not in promises


def test_promises_outlive_the_process(promises: Promises, tmp_path: Path) -> None:
    promises.bind(A, ASK)
    promises.hold(B, 60.0)
    promises.bind(C, ASK)
    promises.hold(C, 70.0)
    assert not list(tmp_path.iterdir())
    promises.save()
    again = _again(tmp_path)
    assert again.page(0, 9) == {A: Promise(ASK), B: Promise(None, 60.0), C: Promise(ASK, 70.0)}
    again.release(A)
    again.save()
    assert A not in _again(tmp_path)


def test_one_of_our_own_requests_binds_the_next_process_until_it_has_heard_of_it(
    promises: Promises, tmp_path: Path
) -> None:
    """R1: the process was killed while storage kept the order, which says that this spool holds nothing."""
    promises.hold(A, 60.0)
    promises.save()
    again = _again(tmp_path)
    again.settle(A, _reported(again), None, 10.0)
    assert A in again
    again.settle(A, _reported(again), ASK, 61.0)
    assert A in again
    again.settle(A, _reported(again), None, 61.0)
    assert A not in again


def test_what_did_not_change_is_not_written_again(promises: Promises, monkeypatch: pytest.MonkeyPatch) -> None:
    written: list[bytes] = []
    monkeypatch.setattr(module, "write_durably", lambda _path, data: written.append(data))
    promises.save()
    promises.bind(A, ASK)
    for _ in range(3):
        promises.save()
    promises.bind(A, ASK)
    promises.save()
    assert len(written) == 1
    promises.release(A)
    promises.save()
    assert [json.loads(data) for data in written] == [{"a": [ASK, 0.0]}, {}]


def test_what_could_not_be_written_is_written_the_next_time(
    promises: Promises, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(28, "No space left on device")

    promises.bind(A, ASK)
    with monkeypatch.context() as patch:
        patch.setattr(module, "write_durably", refuse)
        with pytest.raises(OSError, match="No space"):
            promises.save()
    promises.save()
    assert A in _again(tmp_path)


def test_without_a_file_they_end_with_the_process() -> None:
    promises = Promises(None)
    promises.load()
    promises.bind(A, ASK)
    promises.save()
    assert A in promises


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b'{"a": null}',
        b'{"a": "0000000000000000"}',
        b'{"a": []}',
        b'{"a": [null]}',
        b'{"a": [null, "soon"]}',
        b'{"a": [null, null]}',
        b'{"-": [null, 0]}',
        b'{"a": [null, 0, 0]}',
        b"\xff",
    ],
)
def test_a_damaged_file_is_an_error_and_no_empty_list(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "promises.json").write_bytes(content)
    with pytest.raises(ValueError):
        _again(tmp_path)


def test_there_are_so_many_and_no_more(promises: Promises, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_PROMISES", 2)
    promises.bind(A, ASK)
    assert not promises.full
    promises.bind(B, ASK)
    assert promises.full


@given(count=st.integers(0, 40), limit=st.integers(1, 15))
def test_in_turns_all_are_reported(count: int, limit: int) -> None:
    """Beyond what one report takes, the others would bind for good."""
    promises = Promises(None)
    names = [SessionId(f"s{number}") for number in range(count)]
    for name in names:
        promises.bind(name, ASK)
    seen: set[SessionId] = set()
    for turn in range(-(-count // limit) or 1):
        page = promises.page(turn, limit)
        assert len(page) <= limit
        seen |= page.keys()
    assert seen == set(names)


def test_they_change_while_another_thread_writes_them(promises: Promises, tmp_path: Path) -> None:
    """The event loop goes on while the file is written."""
    for number in range(2000):
        promises.bind(SessionId(f"s{number}"), ASK)
    errors: list[Exception] = []
    ended = threading.Event()

    def save() -> None:
        try:
            while not ended.is_set():
                promises.save()
        except Exception as error:  # noqa: BLE001 - looked at below
            errors.append(error)

    thread = threading.Thread(target=save)
    thread.start()
    for number in range(30_000):
        name = SessionId(f"t{number % 50}")
        if name in promises:
            promises.release(name)
        else:
            promises.hold(name, float(number))
    ended.set()
    thread.join()
    assert errors == []
    promises.save()
    assert len(_again(tmp_path)) == len(promises)
