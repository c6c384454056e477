"""The conformance table: each rule of RFC 9110 and RFC 9112, at both services, directly and through HAProxy."""

import json
import re
from email.utils import format_datetime, parsedate_to_datetime
from typing import Final

import pytest

from tests.conformance import rows_connections, rows_fields, rows_framing, rows_meaning, rows_requests
from tests.conformance.conftest import Door, Doors
from tests.conformance.row import SERVICES, Row, Service
from tests.conformance.wire import Answer, converse

TABLE: Final = (
    *rows_requests.ROWS,
    *rows_fields.ROWS,
    *rows_framing.ROWS,
    *rows_connections.ROWS,
    *rows_meaning.ROWS,
)
_ID: Final = "x-request-id"
_ONCE: Final = ("date", "content-type", "content-length", "connection", "allow", "retry-after", _ID)
DIRECTLY: Final = [
    pytest.param(row, service, id=f"{row}, {service}")
    for row in TABLE
    for service in SERVICES
    if row.only in (None, service)
]
PROXIED: Final = [case for case in DIRECTLY if isinstance(case.values[0], Row) and case.values[0].proxied != "-"]


def check_answer(answer: Answer, *, head: bool) -> None:
    """Check what RFC 9110 and RFC 9457 ask of every answer of ours."""
    if answer.status < 200:
        assert answer.fields == ()
        return
    for name in _ONCE:
        answer.one(name)
    date = answer.one("date")
    assert date == format_datetime(parsedate_to_datetime(date), usegmt=True), "RFC 9110 section 6.6.1"
    assert answer.one(_ID)
    if answer.content or (head and answer.status not in (204, 304)):
        assert answer.one("content-type"), "RFC 9110 section 8.3"
    needed = {401: "www-authenticate", 405: "allow", 429: "retry-after", 503: "retry-after", 416: "content-range"}
    if answer.status in needed:
        assert answer.one(needed[answer.status])
    if answer.status >= 400:
        check_problem(answer, head=head)


def check_problem(answer: Answer, *, head: bool) -> None:
    """Check what RFC 9457 asks of a refusal, ours or HAProxy's."""
    assert answer.one("content-type") == "application/problem+json"
    if not head:
        problem = json.loads(answer.content)
        assert set(problem) >= {"type", "title", "status", "detail", "code", "request_id"}
        assert problem["type"] == f"urn:lucid-sessions:problem:{problem['code']}"
        assert (problem["status"], problem["request_id"]) == (answer.status, answer.one(_ID))


def _check(row: Row, service: Service, door: Door, doors: Doors) -> None:
    words = doors.words(service)
    sent = [words.fill(segment) for segment in row.segments]
    wanted = row.proxied or row.got if door == "haproxy" else row.got
    count = max(len(re.findall(r"\b[2-5]", way)) for way in re.sub(r"\([^ ]*\)", "2", wanted).split("|"))
    answers = converse(
        doors.addresses[service, door],
        sent,
        count,
        head=row.head,
        half=row.half,
        probed=door == "direct" or not row.early,
        may_close=door == "haproxy",
    )
    statuses = " ".join(str(answer.status) for answer in answers)
    assert re.fullmatch(wanted, statuses), f"{statuses or 'nothing'}: {answers[-1:]}"
    for answer in answers:
        if door == "direct" or answer.all("date"):
            check_answer(answer, head=row.head)
        elif answer.status >= 500:  # HAProxy's own
            check_problem(answer, head=row.head)
    if row.has and answers[-1:] and re.fullmatch(row.got, statuses):
        assert re.search(row.has, answers[-1].head), answers[-1].head
    if row.content is not None:
        assert answers[-1].content == row.content.encode()
    if row.holds is not None and "201" in statuses:
        doors.check_stored(service, words, [words.fill(held) for held in row.holds])
    elif "@PATH" in "".join(row.segments) or "201" in statuses:
        doors.check_stored(service, words, [words[f"@BODY{n}"] for n in range(statuses.split().count("201"))])


@pytest.mark.parametrize(("row", "service"), DIRECTLY)
def test_directly(row: Row, service: Service, doors: Doors) -> None:
    """What is sent is answered as the row says, and only what was acknowledged is stored."""
    _check(row, service, "direct", doors)


@pytest.mark.replicas
@pytest.mark.parametrize(("row", "service"), PROXIED)
def test_through_haproxy(row: Row, service: Service, proxied: Doors) -> None:
    """The same through `deploy/haproxy.cfg`: whatever HAProxy makes of it, no 2xx acknowledges other bytes."""
    _check(row, service, "haproxy", proxied)
