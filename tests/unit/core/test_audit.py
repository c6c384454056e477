"""Audit events: one spelling for each, nothing that a caller could write freely, and the sessions that days are."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sessions.core.audit import (
    MAX_EVENT_BYTES,
    RESERVED_PREFIX,
    Action,
    AuditEvent,
    Outcome,
    day_of,
    from_bytes,
    from_json,
    is_reserved,
    session_of,
)
from sessions.core.errors import AuditFormatError
from sessions.core.types import SessionId
from tests import strategies
from tests.unit.core import reference

_names = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", fullmatch=True)
_codes = st.from_regex(r"[a-z][a-z0-9-]{0,63}", fullmatch=True)
EVENTS = st.builds(
    AuditEvent,
    time=st.just("2026-01-31T23:59:59.999Z"),
    service=_names,
    principal=st.none() | _names,
    action=st.sampled_from(Action),
    session_id=st.none() | strategies.session_ids.map(SessionId),
    outcome=st.sampled_from(Outcome),
    code=st.none() | _codes,
    request_id=st.none() | _names,
    count=st.integers(1, 2**53 - 1),
)
EVENT = {
    "version": 1,
    "time": "2026-01-31T23:59:59.999Z",
    "service": "session-storage",
    "principal": "admin-1",
    "action": "session.shred",
    "session_id": "desk-17",
    "outcome": "refused",
    "code": "session-held",
    "request_id": "r-1",
    "count": 1,
}


@given(EVENTS)
def test_an_event_comes_back_as_it_went(event: AuditEvent) -> None:
    data = event.to_bytes()
    assert from_bytes(data) == event
    assert data == reference.canonical(event.to_json())


def test_the_longest_event_is_within_the_limit() -> None:
    event = AuditEvent(
        time="2026-01-31T23:59:59.999Z",
        service="s" * 64,
        principal="p" * 64,
        action=max(Action, key=len),
        session_id=SessionId("i" * 128),
        outcome=max(Outcome, key=len),
        code="c" * 64,
        request_id="r" * 64,
        count=2**53 - 1,
    )
    assert from_bytes(event.to_bytes()) == event
    assert len(event.to_bytes()) < MAX_EVENT_BYTES


@pytest.mark.parametrize(
    "change",
    [
        {"version": 2},
        {"time": "2026-02-30T00:00:00.000Z"},
        {"time": "2026-01-31T23:59:59Z"},
        {"service": ""},
        {"service": "a b"},
        {"principal": "x\n"},
        {"principal": "\x1b[31m"},
        {"principal": "p" * 65},
        {"action": "session.steal"},
        {"session_id": "-a"},
        {"session_id": "i" * 129},
        {"outcome": "maybe"},
        {"outcome": None},
        {"code": "Not A Code"},
        {"code": "held\n"},
        {"request_id": "é"},
        {"request_id": ""},
        {"count": 0},
        {"count": 1.0},
        {"count": True},
        {"more": 1},
    ],
)
def test_what_is_no_event(change: dict) -> None:
    assert from_json(EVENT).action is Action.SESSION_SHRED
    with pytest.raises(AuditFormatError):
        from_json(EVENT | change)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"[]",
        b"{}",
        json.dumps(EVENT).encode(),
        reference.canonical(EVENT) + b"\n",
        reference.canonical(EVENT).replace(b'"count":1', b'"count":1,"count":1'),
        b"\xff",
        b"x" * (MAX_EVENT_BYTES + 1),
    ],
)
def test_bytes_that_are_no_event(data: bytes) -> None:
    assert from_bytes(reference.canonical(EVENT)).to_json() == EVENT
    with pytest.raises(AuditFormatError):
        from_bytes(data)


@pytest.mark.parametrize("day", ["2026-01-31", "2024-02-29", "1000-01-01", "9999-12-31"])
def test_a_day_is_a_session(day: str) -> None:
    name = session_of(day)
    assert (name, day_of(name), is_reserved(name)) == (RESERVED_PREFIX + day, day, True)


@pytest.mark.parametrize(
    "day",
    [
        "",
        "2026-02-29",
        "2026-1-1",
        "2026-13-01",
        "2026-00-10",
        "2026-01-00",
        "0000-01-01",
        "2026-01-31\n",
        "٢٠٢٦-01-31",
    ],
)
def test_what_is_no_day(day: str) -> None:
    with pytest.raises(AuditFormatError, match="is no day"):
        session_of(day)
    assert day_of(RESERVED_PREFIX + day) is None


@pytest.mark.parametrize("name", ["a", "lucid-audit", "2026-01-31", "Lucid-audit-2026-01-31"])
def test_other_sessions_are_no_days(name: str) -> None:
    assert (day_of(name), is_reserved(name)) == (None, False)
