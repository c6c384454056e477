"""scrub."""

import json

import pytest
from starlette.responses import JSONResponse

from tests.unit.cli.conftest import Run
from tests.unit.client.fake import Fake, problem


def _finding(index: int | None, kind: str = "altered") -> dict:
    return {"kind": kind, "part": "body", "session_id": "a", "index": index, "detail": "it is not as it was"}


def _page(cursor: str | None, *findings: dict) -> JSONResponse:
    body = {
        "sessions": 1,
        "chunks": 2,
        "bytes": 2048,
        "total_bytes": 4096,
        "findings": list(findings),
        "next_cursor": cursor,
        "new": 1,
    }
    return JSONResponse(body)


def test_all_is_well(run: Run, fake: Fake) -> None:
    fake.fault("POST", "/scrub", _page("next"), _page(None))
    done = run("scrub")
    assert (done.code, done.out) == (0, "2 sessions, 4 chunks, 4.0 KiB of bodies: all as it was stored\n")


def test_what_is_wrong_ends_in_an_exit_code(run: Run, fake: Fake) -> None:
    pages = _page("next", _finding(3)), _page(None, _finding(None, "missing"))
    fake.fault("POST", "/scrub", *pages, *pages)
    shown = run("scrub", "--sample", "5%")
    assert shown.code == 7
    assert shown.out.splitlines() == [
        "[-] altered body: a chunk 3: it is not as it was",
        "[-] missing body: a: it is not as it was",
        "2 sessions, 4 chunks, 4.0 KiB of bodies: 2 findings",
    ]
    answer = run("scrub", "--json")
    assert (answer.code, json.loads(answer.out)["findings"]) == (7, [_finding(3), _finding(None, "missing")])


def test_one_session(run: Run, fake: Fake) -> None:
    fake.fault("POST", "/scrub", _page(None), problem(404, "session-not-found"))
    assert run("scrub", "--session", "a").code == 0
    assert run("scrub", "--session", "none", "--sample", "1%").code == 5


def test_an_answer_that_is_none(run: Run, fake: Fake) -> None:
    fake.fault("POST", "/scrub", _page(None, _finding(1, "odd")), JSONResponse({}), _page("x"), _page("x"))
    assert run("scrub").code == 1
    assert run("scrub").code == 1
    assert "does not come to an end" in run("scrub").err


@pytest.mark.parametrize("sample", ["0%", "5", "101%", "-1%", "x%", "0.0%"])
def test_a_share_that_is_none(run: Run, sample: str) -> None:
    assert run("scrub", "--sample", sample).code == 2
