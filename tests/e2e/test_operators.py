"""What an operator does about lost processors and about the quarantine, by the command line of a running stack."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from scripts.devstack.process import wait_until
from scripts.devstack.stack import Stack
from sessions.processor.spool_format import Found, Kind, scan
from tests.conftest import own_stack
from tests.e2e.conftest import Api, session_name
from tests.e2e.test_cli import NOT_FOUND, UNREACHABLE, Shell, narrow

SESSIONS = "/api/v1/sessions"
WAIT_SECONDS = 15
GHOST = "ghost-0a1b2c3d"
AS_OF_0_1_0 = "9000000000000001-000000000000"
"""Name of an entry in quarantine beyond those of the spool."""


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """Processors are lost soon."""
    settings = {"storage": {"PROCESSOR_WAIT_SECONDS": str(WAIT_SECONDS), "ANCHORING": "off"}}
    yield from own_stack(tmp_path_factory, settings=settings)


@pytest.fixture(scope="module")
def api(stack: Stack) -> Iterator[Api]:
    one = Api(stack)
    yield one
    one.close()


@pytest.fixture(scope="module")
def shell(stack: Stack) -> Shell:
    return Shell(stack)


def _metric(answer: httpx.Response, name: str) -> float:
    lines = answer.text.splitlines()
    return sum(float(line.rsplit(" ", 1)[1]) for line in lines if line.split(" ")[0] == name)


def _states(shell: Shell) -> dict[str, str]:
    found = json.loads(shell("processors", "list", "--json", role="audit").stdout)["processors"]
    return {one["name"]: one["state"] for one in found}


def _events(api: Api) -> list[tuple[str, str, str | None]]:
    day = api.storage("GET", "/api/v1/audit-days").json()["days"][0]["day"]
    events = api.storage("GET", "/api/v1/audit-events", params={"day": day, "limit": 1000}).json()["events"]
    return [(one["event"]["action"], one["event"]["outcome"], one["event"]["session_id"]) for one in events]


def _outcomes(api: Api, action: str) -> list[str]:
    """Return the outcomes of an action so far; the services write refusals with a delay."""
    return [event[1] for event in _events(api) if event[0] == action]


def test_a_processor_that_is_lost(api: Api, shell: Shell) -> None:
    """The seal waits for it, then does not, and says so wherever one looks, until it is forgotten."""
    session = session_name("unheard")
    api.record(session, [b"x"], seal=False)
    reported = api.storage("POST", f"/api/v1/processors/{GHOST}/report", "processor", json={"holdings": {}})
    assert reported.status_code == 200, reported.text
    assert _states(shell)[GHOST] == "present"
    waits = shell("--retry-seconds", "0", "seal", session, role="record", expect=UNREACHABLE)
    assert f"waits for {GHOST}" in waits.stderr
    queued = api.processor("POST", f"{SESSIONS}/{session}/seal")
    assert (queued.status_code, queued.json()["waiting_for"]) == (202, [GHOST])
    assert wait_until(lambda: api.processor("GET", f"{SESSIONS}/{session}").json()["status"] == "sealed", 60)
    sealed = shell("seal", session, role="record").stdout
    narrow(sealed)
    for said in (sealed, shell("status", session, role="record").stdout):
        assert f"[!] sealed without hearing from {GHOST}" in said
    for answer in (
        api.processor("POST", f"{SESSIONS}/{session}/seal"),
        api.processor("GET", f"{SESSIONS}/{session}"),
        api.storage("GET", f"{SESSIONS}/{session}"),
    ):
        assert (answer.status_code, answer.json()["unheard"]) == (200, [GHOST])
    assert _metric(api.storage("GET", "/metrics", None), "lucid_seals_unheard_total") == 1

    assert wait_until(lambda: _states(shell)[GHOST] == "lost", 60)
    shown = shell("processors", "list", role="audit").stdout
    narrow(shown)
    assert GHOST in shown
    at_once = session_name("unheard")
    api.record(at_once, [b"x"])
    assert api.storage("GET", f"{SESSIONS}/{at_once}").json()["unheard"] == [GHOST]
    assert _metric(api.storage("GET", "/metrics", None), "lucid_seals_unheard_total") == 2

    shell("processors", "forget", GHOST, role="admin")
    shell("processors", "forget", GHOST, role="admin", expect=NOT_FOUND)
    assert GHOST not in _states(shell)
    heard = session_name("heard")
    api.record(heard, [b"x"])
    assert api.storage("GET", f"{SESSIONS}/{heard}").json()["unheard"] == []
    assert [event[:2] for event in _events(api) if event[0] == "processor.forget"][:2] == [
        ("processor.forget", "begun"),
        ("processor.forget", "allowed"),
    ]


def _to_quarantine(spool: Path) -> None:
    """Move the one envelope of a spool into its quarantine, as version 0.1.0 left it there: without facts."""
    envelopes = []
    for segment in sorted(spool.glob("*.seg")):
        data = segment.read_bytes()
        for found in scan(data):
            if isinstance(found, Found) and found.header.kind is Kind.ENVELOPE:
                envelopes += [data[found.offset : found.offset + found.header.entry_bytes]]
        segment.unlink()
    (envelope,) = envelopes
    (spool / "quarantine" / f"{AS_OF_0_1_0}.entry").write_bytes(envelope)


def _entries(shell: Shell) -> list[dict[str, Any]]:
    return json.loads(shell("spool", "list", "--json", role="admin").stdout)["entries"]


def test_a_chunk_that_comes_back_from_quarantine(stack: Stack, api: Api, shell: Shell, tmp_path: Path) -> None:
    """It was acknowledged, and version 0.1.0 put it aside: it is listed, read, retried, and at storage after that."""
    session, spool = session_name("quarantined"), Path(stack.env["processor"]["SPOOL_DIR"])
    api.record(session, [b"chunk 0"], seal=False)
    stack.kill("storage")
    assert api.put_chunk(session, 1, b"chunk 1").json()["durability"] == "spooled"
    stack.kill("processor")
    _to_quarantine(spool)
    stack.resume("storage")
    stack.resume("processor")

    (entry,) = _entries(shell)
    assert (entry["name"], entry["session_id"], entry["index"]) == (AS_OF_0_1_0, session, 1)
    listed = shell("spool", "list", role="admin").stdout
    narrow(listed)
    assert "quarantine  1 entries" in listed
    narrow(shell("spool", "show", AS_OF_0_1_0, role="admin").stdout)
    shell("spool", "show", AS_OF_0_1_0, "-o", tmp_path / "chunk", role="replay")
    assert (tmp_path / "chunk").read_bytes() == b"chunk 1"

    shell("spool", "retry", AS_OF_0_1_0, role="admin")
    chunk = f"{SESSIONS}/{session}/chunks/1"
    assert wait_until(lambda: api.storage("GET", f"{chunk}/envelope").status_code == 200, 20)
    assert api.processor("GET", chunk, "replay").content == b"chunk 1"
    assert _entries(shell) == []
    shell("spool", "retry", AS_OF_0_1_0, role="admin", expect=NOT_FOUND)
    assert wait_until(lambda: api.processor("POST", f"{SESSIONS}/{session}/seal").status_code == 200, 20)
    assert api.processor("GET", f"{SESSIONS}/{session}/content", "replay").content == b"chunk 0chunk 1"

    told = [event for event in _events(api) if event[2] == session]
    assert ("chunk.read", "allowed", session) in told
    assert [event[1] for event in told if event[0] == "spool.retry"] == ["begun", "allowed"]


def test_a_chunk_that_is_dropped_from_quarantine(stack: Stack, api: Api, shell: Shell) -> None:
    """A seal is refused while the quarantine has a chunk of the session that nothing replaces; not after that."""
    session, spool = session_name("dropped"), Path(stack.env["processor"]["SPOOL_DIR"])
    api.record(session, [b"chunk 0"], seal=False)
    stack.kill("storage")
    assert api.put_chunk(session, 1, b"chunk 1").json()["durability"] == "spooled"
    stack.kill("processor")
    _to_quarantine(spool)
    stack.resume("storage")
    stack.resume("processor")

    def refused() -> bool:
        answer = api.processor("POST", f"{SESSIONS}/{session}/seal")
        return (answer.status_code, answer.json().get("missing")) == (409, [[1, 1]])

    assert wait_until(refused, 20)
    shell("spool", "drop", AS_OF_0_1_0, role="admin")
    shell("spool", "drop", AS_OF_0_1_0, role="admin", expect=NOT_FOUND)
    assert wait_until(lambda: api.processor("POST", f"{SESSIONS}/{session}/seal").status_code == 200, 20)
    assert api.processor("GET", f"{SESSIONS}/{session}/content", "replay").content == b"chunk 0"
    assert wait_until(lambda: _outcomes(api, "spool.drop") == ["begun", "allowed", "refused"], 20)
