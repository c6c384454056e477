"""How far each session was acknowledged."""

import pytest

from sessions.core.types import SessionId
from sessions.processor import acknowledged as module
from sessions.processor.acknowledged import Acknowledged

A, B, C = (SessionId(name) for name in "abc")


def test_the_floor_is_beyond_the_highest_index_in_any_order() -> None:
    one = Acknowledged()
    assert one.floor(A) == 0
    for index in (3, 0, 7, 5):
        one.note(A, index)
    assert (one.floor(A), one.floor(B)) == (8, 0)


def test_a_session_is_forgotten() -> None:
    one = Acknowledged()
    one.note(A, 3)
    one.forget(A)
    one.forget(B)
    assert one.floor(A) == 0


def test_of_many_sessions_the_last_used_are_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_SESSIONS", 2)
    one = Acknowledged()
    for session, index in ((A, 5), (B, 6), (A, 1), (C, 0)):
        one.note(session, index)
    assert [one.floor(session) for session in (A, B, C)] == [6, 0, 1]
