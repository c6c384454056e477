"""Keeping, scrubbing and shredding on the running stack: as an admin and an auditor do it, and an attacker disturbs it."""

import json
from collections.abc import Iterator

import pytest
from bson import Binary
from pymongo import MongoClient

from scripts.devstack.stack import Stack
from tests.altering import altered_end
from tests.e2e.conftest import Api, session_name
from tests.e2e.test_cli import Shell, narrow


@pytest.fixture
def database(stack: Stack) -> Iterator[MongoClient]:
    with MongoClient(stack.mongodb_url) as client:
        yield client[stack.env["storage"]["MONGODB_DATABASE"]]


def test_a_session_is_kept_for_its_time_and_leaves_a_tombstone(stack: Stack, api: Api) -> None:
    shell, name = Shell(stack), session_name("kept")
    api.record(name, [b"one", b"two"])
    done = shell("retention", "set", name, "--retain-days", "30", role="admin")
    narrow(done.stdout)
    kept = api.processor("GET", f"/api/v1/sessions/{name}", "audit").json()
    assert kept["retained_until"] in done.stdout
    refused = api.processor("DELETE", f"/api/v1/sessions/{name}", "admin")
    assert (refused.status_code, refused.json()["code"]) == (409, "session-retained")
    assert refused.json()["retained_until"] == kept["retained_until"]
    assert name not in shell("retention", "due", role="audit").stdout
    shell("retention", "set", name, role="admin")
    gone = api.processor("DELETE", f"/api/v1/sessions/{name}", "admin").json()
    assert (gone["shred_reason"], bool(gone["shredded_by"])) == ("requested", True)
    for path in ("chunks/0", "content"):
        answer = api.processor("GET", f"/api/v1/sessions/{name}/{path}", "replay")
        assert answer.status_code == 410
        for member in ("shredded_at", "shred_reason", "shredded_by"):
            assert answer.json()[member] == gone[member]
    assert api.storage("GET", f"/api/v1/sessions/{name}/chunks/1/proof").status_code == 200
    assert api.storage("GET", f"/api/v1/sessions/{name}/receipt").status_code == 200
    assert f"shredded by  {gone['shredded_by']} (requested)" in " ".join(
        shell("status", name, role="audit").stdout.split("\n")
    )


def test_metadata_with_terms_that_are_none(api: Api) -> None:
    body = {"metadata": {"retention": {"retain_days": "30"}}}
    answer = api.processor("PUT", f"/api/v1/sessions/{session_name('kept')}", json=body)
    assert (answer.status_code, answer.json()["code"]) == (400, "invalid-request")


def test_a_scrub_finds_what_was_done_to_the_database(stack: Stack, api: Api, database) -> None:
    shell, name = Shell(stack), session_name("scrubbed")
    api.record(name, [b"one", b"two", b"three"])
    well = shell("scrub", "--session", name, role="audit")
    assert "1 sessions, 3 chunks" in well.stdout
    (body,) = database["bodies"].find({"_id.s": name, "_id.i": 1})
    database["bodies"].update_one({"_id": body["_id"]}, {"$set": {"data": Binary(altered_end(body["data"]))}})
    database["bodies"].delete_one({"_id.s": name, "_id.i": 2})
    found = shell("scrub", "--session", name, "--json", role="admin", expect=7)
    findings = [(one["kind"], one["part"], one["index"]) for one in json.loads(found.stdout)["findings"]]
    assert findings == [("altered", "body", 1), ("missing", "body", 2)]
    narrow(shell("scrub", "--session", name, role="admin", expect=7).stdout)
    kept = api.storage("GET", "/api/v1/scrub/findings?limit=1000").json()["findings"]
    assert [one["index"] for one in kept if one["session_id"] == name] == [1, 2]
    metrics = api.storage("GET", "/metrics", None).text
    assert 'lucid_scrub_findings_total{kind="missing"}' in metrics
    assert "scrub_finding" in stack.log("storage").read_text()
    shell("scrub", "--session", name, role="record", expect=4)
