"""retention: due, set."""

import json

from starlette.responses import JSONResponse

from tests.unit.cli.conftest import Run
from tests.unit.client.fake import Fake, FakeSession, problem

SEALED, DUE, UNTIL = "2026-01-31T11:00:00.000Z", "2026-03-02T11:00:00.000Z", "2026-05-01T11:00:00.000Z"


def _due(name: str, verdict: str, until: str | None = None) -> dict:
    return {"session_id": name, "sealed_at": SEALED, "delete_at": DUE, "retained_until": until, "verdict": verdict}


def _page(cursor: str | None, *sessions: dict) -> JSONResponse:
    return JSONResponse({"sessions": list(sessions), "next_cursor": cursor, "new": 1})


def test_what_is_due(run: Run, fake: Fake) -> None:
    pages = (_page("next", _due("a", "shred"), _due("b", "held")), _page(None, _due("c", "retained", UNTIL)))
    fake.fault("GET", "/retention/due", *pages, *pages)
    shown = run("retention", "due")
    assert shown.code == 0
    for name, fate in (("a", "goes next"), ("b", "stays: legal hold"), ("c", "stays: retained until 2026-05-01 11:00")):
        assert any(line.startswith(name) and line.rstrip().endswith(fate) for line in shown.out.splitlines())
    assert all(len(line.rstrip()) <= 80 for line in shown.out.splitlines())
    answer = json.loads(run("retention", "due", "--json").out)
    assert answer == {"sessions": [_due("a", "shred"), _due("b", "held"), _due("c", "retained", UNTIL)]}


def test_a_list_that_is_none(run: Run, fake: Fake) -> None:
    fake.fault("GET", "/retention/due", JSONResponse({}), _page("x", _due("a", "maybe")), _page("x"), _page("x"))
    assert run("retention", "due").code == 1
    assert run("retention", "due").code == 1
    assert "does not come to an end" in run("retention", "due").err


def test_terms_are_set(run: Run, fake: Fake) -> None:
    kept = {"session_id": "a", "retained_until": UNTIL, "delete_at": None, "status": "sealed"}
    fake.fault("PUT", "/sessions/a/retention", JSONResponse(kept), JSONResponse(kept))
    shown = run("retention", "set", "a", "--retain-days", "90", "--delete-after-days", "0")
    assert shown.out.splitlines() == ["session         a", f"retained until  {UNTIL}", "deleted at      -"]
    answer = json.loads(run("retention", "set", "a", "--retain-days", "90", "--json").out)
    assert answer == {"session_id": "a", "retained_until": UNTIL, "delete_at": None}


def test_terms_that_are_refused(run: Run, fake: Fake) -> None:
    fake.fault("PUT", "/sessions/a/retention", problem(409, "retention-too-short"))
    refused = run("retention", "set", "a", "--retain-days", "1")
    assert (refused.code, "keep it for longer" in refused.err) == (6, True)
    assert run("retention", "set", "a", "--retain-days", "-1").code == 2


def test_the_status_of_a_session_shows_its_terms_and_its_tombstone(run: Run, fake: Fake) -> None:
    fake.sessions["a"] = FakeSession()
    status = fake._status("a")
    gone = {"shredded_at": UNTIL, "shred_reason": "requested", "shredded_by": "boss"}
    fake.fault("GET", "/sessions/a", JSONResponse({**status, **gone}), JSONResponse({**status, "delete_at": DUE}))
    assert "shredded by  boss (requested)" in run("status", "a").out
    assert f"deleted at  {DUE}" in run("status", "a").out
