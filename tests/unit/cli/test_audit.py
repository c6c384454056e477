"""audit list, show, verify."""

import json
from typing import Any

import pytest
from starlette.responses import JSONResponse, Response

from sessions.core.receipt import Anchor, Batch, Receipt
from tests.unit.cli.conftest import Run
from tests.unit.client.fake import Fake, problem
from tests.unit.client.test_audit import DAY, EVENTS, MANIFEST, NAME, _day, _items
from tests.unit.storage.chunks import event


def _page(*places: Any) -> JSONResponse:
    return JSONResponse({"events": list(places), "next_cursor": None})


def test_days(run: Run, fake: Fake) -> None:
    days = [_day(), _day(status="sealed", events=17, sealed_at="2026-02-01T00:05:00.000Z", anchor=Anchor().to_json())]
    fake.fault("GET", "/audit-days", *2 * [JSONResponse({"days": days, "next_cursor": None})])
    shown = run("audit", "list")
    assert shown.code == 0
    assert [line.split() for line in shown.out.splitlines()] == [
        ["DAY", "STATUS", "EVENTS", "SEALED", "ANCHOR"],
        [DAY, "open", "-", "-", "-"],
        [DAY, "sealed", "17", "2026-02-01", "00:05", "pending"],
    ]
    assert [one["events"] for one in json.loads(run("audit", "list", "--json").out)["days"]] == [None, 17]


def test_events_in_lines_that_fit(run: Run, fake: Fake) -> None:
    long = event(2, principal="p" * 64, session_id="s" * 60, code="session-held", count=12)
    places = [
        {"index": 0, "event": event(0).to_json()},
        {"index": 1, "event": None},
        {"index": 2, "event": long.to_json()},
        {"index": 3, "event": event(3, principal=None, session_id=None, request_id=None).to_json()},
    ]
    fake.fault("GET", "/audit-events", *2 * [_page(*places)])
    shown = run("audit", "show", DAY)
    assert shown.code == 0
    lines = shown.out.splitlines()
    assert lines[0] == "12:00:00.000 chunk.read allowed, session a, by replay-1, at storage, request r-0"
    assert lines[1] == "1: this is no event (of those that this program knows)"
    assert "12 times" in shown.out
    assert lines[-1] == "12:00:00.000 chunk.read allowed, at storage"
    assert all(len(line) <= 80 for line in lines if "p" * 64 not in line and "s" * 60 not in line)
    assert json.loads(run("audit", "show", DAY, "--json").out) == {"day": DAY, "events": places}


def test_verify(run: Run, fake: Fake) -> None:
    place = Batch(root=MANIFEST.leaf_hash(), size=1, index=0, path=())
    receipt = JSONResponse(Receipt(manifest=MANIFEST, batch=place, anchor=Anchor()).to_json())
    places = [one.to_json() for one in _items(EVENTS)]
    fake.fault("GET", "/receipt", *4 * [receipt])
    fake.fault("GET", "/audit-events", _page(*places), _page(*places), _page(*places[:2]), _page(*places[1:]))
    well = run("audit", "verify", DAY)
    assert well.code == 0
    assert "verdict: proven in part" in well.out
    assert run("audit", "verify", DAY, "--require-anchor").code == 8
    shown = run("audit", "verify", DAY)
    assert shown.code == 7
    assert "event 2 is missing" in " ".join(shown.out.split())
    answer = json.loads(run("audit", "verify", DAY, "--json").out)
    assert (answer["verdict"], answer["session_id"], answer["anchor_proven"]) == ("failed", NAME, False)


@pytest.mark.parametrize(
    ("answer", "expected", "said"),
    [
        (problem(409, "session-open"), 8, f"{DAY} is not sealed yet"),
        (problem(404, "session-not-found"), 5, "session-not-found"),
        (problem(403, "forbidden"), 4, "forbidden"),
    ],
)
def test_a_day_without_a_receipt(run: Run, fake: Fake, answer: Response, expected: int, said: str) -> None:
    fake.fault("GET", "/receipt", answer)
    done = run("audit", "verify", DAY)
    assert (done.code, said in done.err) == (expected, True)


@pytest.mark.parametrize("day", ["yesterday", "2026-02-30", "2026-1-1"])
def test_what_is_no_day(run: Run, day: str) -> None:
    for command in ("show", "verify"):
        done = run("audit", command, day)
        assert (done.code, "is no day such as 2026-01-31" in done.err) == (2, True)


def test_an_address_that_is_none(run: Run) -> None:
    assert run("audit", "verify", DAY, "--publisher", "0x12").code == 2
