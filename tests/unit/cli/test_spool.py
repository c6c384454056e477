"""spool and processors."""

import json
from pathlib import Path

from starlette.responses import JSONResponse, Response

from tests.unit.cli.conftest import Run
from tests.unit.client.fake import Fake, problem
from tests.unit.client.test_processors import ENTRY, NAME, PROCESSOR, page

LONG = {**ENTRY, "session_id": "s" * 128, "reason": "metadata-refused", "index": 2**53 - 1}


def _narrow(text: str) -> None:
    assert [line for line in text.splitlines() if len(line) > 80] == []


def test_the_quarantine_for_people(run: Run, fake: Fake) -> None:
    fake.fault("GET", "/spool", *[page(None, ENTRY, LONG, {**ENTRY, "index": None, "kind": "seal"})] * 2)
    shown = run("spool", "list")
    assert shown.code == 0
    _narrow(shown.out)
    lines = shown.out.splitlines()
    assert lines[0].split() == ["SESSION", "CHUNK", "REASON", "NAME"]
    assert lines[1].split() == ["s", "3", "conflict", NAME]
    assert "seal conflict" in shown.out
    assert lines[-2:] == [
        "quarantine  1 entries, 1.0 KiB of 1.0 GiB",
        "spool       2 entries, 2.0 KiB, to be delivered",
    ]
    fake.fault("GET", "/spool", page(None), page(None))
    assert run("spool", "list").out.splitlines() == lines[-2:]


def test_the_quarantine_as_json(run: Run, fake: Fake) -> None:
    fake.fault("GET", "/spool", page(None, ENTRY), page("next", ENTRY), page(None, LONG))
    answer = json.loads(run("spool", "list", "--json").out)
    assert [one["session_id"] for one in answer["entries"]] == ["s", "s" * 128]
    assert (answer["spooled_entries"], answer["quarantine_max_bytes"], answer["next_cursor"]) == (2, 1024**3, None)


def test_one_entry(run: Run, fake: Fake, tmp_path: Path) -> None:
    entry = {**ENTRY, "detail": "session-storage answered conflict, and said much about it " * 4}
    fake.fault("GET", f"/spool/{NAME}", *[JSONResponse(entry)] * 2, JSONResponse({**ENTRY, "detail": ""}))
    shown = run("spool", "show", NAME)
    _narrow(shown.out)
    assert "reason   conflict\n[i] session-storage answered" in shown.out
    assert json.loads(run("spool", "show", NAME, "--json").out)["index"] == 3
    assert "[i]" not in run("spool", "show", NAME).out
    fake.fault("GET", "/content", Response(b"plain"), Response(b"plain"))
    assert run("spool", "show", NAME, "-o", tmp_path / "chunk").err == f"5 B of entry {NAME} in {tmp_path}/chunk\n"
    assert (tmp_path / "chunk").read_bytes() == b"plain"
    assert run("spool", "show", NAME, "-o", tmp_path / "chunk").code == 6
    answer = json.loads(run("spool", "show", NAME, "-o", tmp_path / "other", "--json").out)
    assert answer == {"name": NAME, "file": str(tmp_path / "other"), "bytes": 5}
    assert run("spool", "show", NAME, "-o", tmp_path / "none" / "chunk").code == 1, "nothing is decrypted for it"
    fake.fault("GET", "/content", problem(403, "forbidden"))
    assert run("spool", "show", NAME, "-o", tmp_path / "forbidden").code == 4


def test_the_ways_out(run: Run, fake: Fake) -> None:
    for method, command, word in (("POST", "retry", "retried"), ("DELETE", "drop", "dropped")):
        fake.fault(
            method, f"/spool/{NAME}", Response(status_code=204), Response(status_code=204), problem(404, "not-found")
        )
        assert run("spool", command, NAME).err.startswith(NAME)
        assert json.loads(run("spool", command, NAME, "--json").out) == {"name": NAME, word: True}
        assert run("spool", command, NAME).code == 5


def test_processors(run: Run, fake: Fake) -> None:
    known = {"processors": [PROCESSOR, {**PROCESSOR, "name": "p" * 128, "state": "lost"}]}
    fake.fault("GET", "/processors", JSONResponse(known), JSONResponse(known))
    shown = run("processors", "list")
    _narrow(shown.out)
    assert shown.out.splitlines()[1].split() == [
        "desk-17-0a1b2c3d", "missing", "2026-01-31", "10:00", "3", "4.0", "KiB", "1",
    ]  # fmt: skip
    assert json.loads(run("processors", "list", "--json").out)["processors"][1]["state"] == "lost"
    fake.fault(
        "DELETE", "/processors/a", Response(status_code=204), Response(status_code=204), problem(404, "not-found")
    )
    assert run("processors", "forget", "a").err == "a is forgotten: no seal waits for it\n"
    assert json.loads(run("processors", "forget", "a", "--json").out) == {"name": "a", "forgotten": True}
    assert run("processors", "forget", "a").code == 5


def test_a_seal_that_waits_and_one_that_did_not(run: Run, fake: Fake, tmp_path: Path) -> None:
    source = tmp_path / "f"
    source.write_bytes(b"x")
    assert run("record", source, "--session", "s").code == 0
    sealed = json.loads(run("seal", "s", "--json").out)
    waits = {"session_id": "s", "status": "seal-queued", "waiting_for": ["desk-17"]}
    fake.fault("POST", "/seal", JSONResponse(waits, 202))
    waiting = run("--retry-seconds", "0", "seal", "s")
    assert (waiting.code, "waits for desk-17" in waiting.err) == (3, True)
    body = {name: sealed[name] for name in ("manifest", "manifest_sha256", "root")}
    fake.fault("POST", "/seal", JSONResponse({**body, "unheard": ["desk-17"]}))
    warned = run("seal", "s").out
    assert "[!] sealed without hearing from desk-17" in warned
    _narrow(warned)
    fake.fault("GET", "/sessions/s", JSONResponse({**fake._status("s"), "unheard": ["desk-17"]}))
    assert "[!] sealed without hearing from desk-17" in run("status", "s").out
    assert "[!]" not in run("status", "s").out
