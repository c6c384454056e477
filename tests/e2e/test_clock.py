"""The clock of storage's host leaps, ahead and back, while it records, seals and anchors."""

import json
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime

import pytest

from scripts.devstack.clock import HostClock
from scripts.devstack.stack import Stack
from sessions.client.verifying import Request, verify
from tests.conftest import own_stack
from tests.e2e.conftest import Api, session_name
from tests.e2e.test_cli import Shell

pytestmark = pytest.mark.clocks

IDLE_SECONDS = 6.0
HOURS, DAYS = 3600, 86_400


@pytest.fixture
def own(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    yield from own_stack(tmp_path_factory)


@pytest.fixture
def clock(own: Stack) -> HostClock:
    clock = HostClock(own.folder / "storage.clock")
    settings = {"SESSION_IDLE_SEAL_SECONDS": f"{IDLE_SECONDS:g}", "RETAIN_DAYS": "1", "DELETE_AFTER_DAYS": "1"}
    own.restart("storage", clock.environment() | settings)
    return clock


@pytest.fixture
def api(own: Stack) -> Iterator[Api]:
    one = Api(own)
    yield one
    one.close()


def host_is_off(api: Api) -> timedelta:
    """How far the clock of storage's host is from the true time: what its HTTP server says."""
    date = parsedate_to_datetime(api.storage("GET", "/healthz", None).headers["date"])
    return date - datetime.now(UTC)


def proven(shell: Shell, stack: Stack, name: str) -> dict:
    """The session's receipt, which verifies on the chain."""
    receipt = json.loads(shell("receipt", name, "--wait", "60", role="audit").stdout)
    assert verify(Request(json.dumps(receipt).encode(), node_url=stack.rpc_url)).verdict == "proven"
    sealed_at = datetime.fromisoformat(receipt["manifest"]["sealed_at"])
    assert abs(sealed_at - datetime.now(UTC)) < timedelta(minutes=5)
    return receipt


def keep_writing(api: Api, name: str, start: int, seconds: float) -> int:
    """A recorder that sends a chunk now and then; the index of its next one."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        assert api.put_chunk(name, start, b"%d" % start).status_code == 201
        start += 1
        time.sleep(1)
    return start


def test_nothing_is_sealed_or_shredded_or_anchored_twice_because_a_clock_leaps(
    own: Stack, api: Api, clock: HostClock
) -> None:
    shell, slow = Shell(own), session_name("slow")
    names = [session_name(f"recorded-{number}") for number in range(3)]
    api.record(names[0], [b"one", b"two"])
    proven(shell, own, names[0])
    following = keep_writing(api, slow, 0, 1)

    clock.leap(2 * HOURS)
    api.record(names[1], [b"three"])
    following = keep_writing(api, slow, following, IDLE_SECONDS + 3)  # idle sessions are looked for by now
    assert host_is_off(api) > timedelta(hours=1.9)
    proven(shell, own, names[1])

    clock.leap(400 * DAYS)
    own.restart("storage")  # what is due is shredded at start
    assert host_is_off(api) > timedelta(days=399)
    assert api.storage("GET", "/api/v1/retention/due").json()["sessions"] == []
    early = api.processor("DELETE", f"/api/v1/sessions/{names[0]}", "admin")
    assert (early.status_code, early.json()["code"]) == (409, "session-retained")
    assert api.processor("GET", f"/api/v1/sessions/{names[0]}/content", "replay").content == b"onetwo"

    clock.leap(-2 * HOURS)
    api.record(names[2], [b"four"])
    following = keep_writing(api, slow, following, 2)
    assert host_is_off(api) < timedelta(hours=-1.9)
    proven(shell, own, names[2])
    sealed = api.processor("POST", f"/api/v1/sessions/{slow}/seal", json={"chunk_count": following})
    assert sealed.status_code == 200, sealed.text
    assert proven(shell, own, slow)["manifest"]["sealed_by"] == "recorder"

    anchors = api.storage("GET", "/api/v1/anchors").json()["anchors"]
    members = [
        name for one in anchors for name in api.storage("GET", f"/api/v1/anchors/{one['root']}").json()["sessions"]
    ]
    assert sorted(members) == sorted([*names, slow])
