"""Poison that is stored stops itself, and no other session: its seal is refused, and background work goes on."""

from datetime import UTC, datetime, timedelta

import pytest
from bson import Int64

from scripts.devstack.process import wait_until
from sessions.core import frames
from sessions.core.envelope import Codec, Header
from sessions.core.types import CHUNK_MAX_BYTES_LIMIT, ChunkIndex, DekId, SessionId
from tests.attacks.hands import Hands
from tests.e2e.conftest import Api, session_name

RESUMED_SECONDS = 60.0
"""Seals that a crash left are looked for each 30 s."""


def _claiming(session: str, index: int, plaintext_bytes: int) -> bytes:
    """A well-formed envelope whose header claims this length; zstd, so that no length contradicts it."""
    header = Header(Codec.ZSTD, DekId(bytes(16)), bytes(12), ChunkIndex(index), plaintext_bytes, SessionId(session))
    return header.to_bytes() + b"junk" + bytes(16)


def _as_a_crash_leaves_it(hands: Hands, name: str) -> None:
    """The session has a seal order of a minute ago, which nobody carried out."""
    order = {"chunk_count": None, "sealed_by": "idle", "sealed_at": datetime.now(UTC) - timedelta(minutes=1), "id": "x"}
    hands.db["sessions"].update_one({"_id": name}, {"$set": {"status": "sealing", "seal_order": order}})


def _status(api: Api, name: str) -> str:
    return str(api.storage("GET", f"/api/v1/sessions/{name}").json()["status"])


@pytest.fixture
def name(api: Api) -> str:
    """An open session with a chunk."""
    one = session_name("victim")
    api.record(one, [b"the first chunk"], seal=False)
    return one


@pytest.mark.parametrize("plaintext_bytes", [CHUNK_MAX_BYTES_LIMIT + 1, 2**62, 2**64 - 1])
def test_no_envelope_claims_more_than_a_chunk_may_have(api: Api, name: str, plaintext_bytes: int) -> None:
    """M7: 2^62 bytes were stored, and the session could never be sealed; 2^64-1 was answered with 500."""
    body = frames.join([_claiming(name, 1, plaintext_bytes)])
    refused = api.storage("POST", "/api/v1/envelopes", "processor", content=body)
    assert (refused.status_code, refused.json()["code"]) == (400, "bad-envelope")
    sealed = api.processor("POST", f"/api/v1/sessions/{name}/seal", json={"chunk_count": 1})
    assert sealed.status_code == 200, sealed.text


def test_what_an_older_version_stored_stops_no_other_seal(api: Api, hands: Hands, name: str) -> None:
    """M7: the seal was a 500 for ever, and the task that resumes seals had died: the victim stayed `sealing`."""
    poison = session_name("poison")
    api.record(poison, [b"a chunk"], seal=False)
    hands.alter(poison, 0, plaintext_bytes=Int64(2**62))
    refused = api.processor("POST", f"/api/v1/sessions/{poison}/seal", json={"chunk_count": 1})
    assert (refused.status_code, refused.json()["code"]) == (500, "envelope-corrupt"), refused.text
    assert _status(api, poison) == "open"
    for one in (poison, name):
        _as_a_crash_leaves_it(hands, one)
    assert wait_until(lambda: _status(api, poison) == "open", RESUMED_SECONDS)
    # The victim may have been looked at in an earlier turn; the turns go on after that of the poison.
    _as_a_crash_leaves_it(hands, name)
    assert wait_until(lambda: _status(api, name) == "sealed", RESUMED_SECONDS)
    health = api.storage("GET", "/health", None)
    assert health.json()["checks"]["background"] == {"status": "ok", "detail": ""}, health.text


def test_a_task_that_keeps_failing_is_failed_health_and_recording_goes_on(api: Api, hands: Hands, name: str) -> None:
    """M7: the task that resumes seals died of a session's record that it could not read, and health was `ok`."""
    broken = session_name("broken")
    api.record(broken, [b"a chunk"], seal=False)
    unreadable = {"status": "sealing", "seal_order": {"sealed_by": "nobody"}}
    hands.db["sessions"].update_one({"_id": broken}, {"$set": unreadable})
    try:
        # At the latest 30 s until it is looked for, then 1 + 2 s between three failures.
        assert wait_until(lambda: api.storage("GET", "/health", None).status_code == 503, RESUMED_SECONDS)
        found = api.storage("GET", "/health", None).json()["checks"]["background"]
        assert found == {"status": "failed", "detail": "seals keeps failing (KeyError): the log has the reason"}
        assert api.storage("GET", "/readyz", None).status_code == 200
        stored = api.put_chunk(name, 1, b"the second chunk")
        assert (stored.status_code, stored.json()["durability"]) == (201, "stored")
    finally:
        hands.db["sessions"].delete_one({"_id": broken})
