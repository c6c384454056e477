"""The clock of storage's host leaps, ahead and back, while it records, seals and anchors."""

import json
import threading
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from itertools import chain

import pytest

from scripts.devstack import process
from scripts.devstack.clock import HostClock
from scripts.devstack.stack import Stack
from sessions.client.verifying import Request, verify
from tests.conftest import own_stack
from tests.e2e.conftest import Api, session_name
from tests.e2e.test_cli import Shell

pytestmark = pytest.mark.clocks

IDLE_SECONDS = 15.0
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
    date = parsedate_to_datetime(api.storage("GET", "/readyz", None).headers["date"])
    return date - datetime.now(UTC)


def proven(shell: Shell, stack: Stack, name: str) -> dict:
    """The session's receipt, which verifies on the chain."""
    receipt = json.loads(shell("receipt", name, "--wait", "60", role="audit").stdout)
    assert verify(Request(json.dumps(receipt).encode(), node_url=stack.rpc_url)).verdict == "proven"
    sealed_at = datetime.fromisoformat(receipt["manifest"]["sealed_at"])
    assert abs(sealed_at - datetime.now(UTC)) < timedelta(minutes=5)
    return receipt


def status(api: Api, name: str) -> str:
    return str(api.processor("GET", f"/api/v1/sessions/{name}").json()["status"])


class SlowRecorder(threading.Thread):
    """Sends a chunk now and then, whatever happens."""

    def __init__(self, api: Api, name: str) -> None:
        super().__init__()
        self._api, self.session, self._ended = api, name, threading.Event()
        self.statuses: list[int] = []

    def run(self) -> None:
        while not self._ended.wait(0.5):
            number = len(self.statuses)
            self.statuses.append(self._api.put_chunk(self.session, number, b"%d" % number).status_code)

    def finish(self) -> int:
        """How many chunks there are."""
        self._ended.set()
        self.join()
        assert set(self.statuses) == {201}
        return len(self.statuses)


@pytest.fixture
def slow(api: Api) -> Iterator[SlowRecorder]:
    recorder = SlowRecorder(api, session_name("slow"))
    recorder.start()
    yield recorder
    recorder.finish()


def test_nothing_is_sealed_or_shredded_or_anchored_twice_because_a_clock_leaps(
    own: Stack, api: Api, clock: HostClock, slow: SlowRecorder
) -> None:
    shell, abandoned = Shell(own), session_name("abandoned")
    names = [session_name(f"recorded-{number}") for number in range(3)]
    api.record(names[0], [b"one", b"two"])
    proven(shell, own, names[0])

    clock.leap(2 * HOURS)
    assert process.wait_until(lambda: host_is_off(api) > timedelta(hours=1.9), 5)
    api.record(names[1], [b"three"])
    api.record(abandoned, [b"nobody comes back"], seal=False)
    assert process.wait_until(lambda: status(api, abandoned) == "sealed", 60)  # so idle sessions were looked for
    assert proven(shell, own, abandoned)["manifest"]["sealed_by"] == "idle"
    assert status(api, slow.session) == "open"
    proven(shell, own, names[1])

    clock.leap(400 * DAYS)
    own.restart("storage")  # what is due is shredded at start
    assert host_is_off(api) > timedelta(days=399)
    assert api.storage("GET", "/api/v1/retention/due").json()["sessions"] == []
    early = api.processor("DELETE", f"/api/v1/sessions/{names[0]}", "admin")
    assert (early.status_code, early.json()["code"]) == (409, "session-retained")
    assert api.processor("GET", f"/api/v1/sessions/{names[0]}/content", "replay").content == b"onetwo"

    clock.leap(-2 * HOURS)
    assert process.wait_until(lambda: host_is_off(api) < timedelta(hours=-1.9), 5)
    api.record(names[2], [b"four"])
    proven(shell, own, names[2])
    path = f"/api/v1/sessions/{slow.session}/seal"
    sealed = api.processor("POST", path, json={"chunk_count": slow.finish()})
    assert sealed.status_code == 200, sealed.text
    assert proven(shell, own, slow.session)["manifest"]["sealed_by"] == "recorder"

    roots = [one["root"] for one in api.storage("GET", "/api/v1/anchors").json()["anchors"]]
    batches = [api.storage("GET", f"/api/v1/anchors/{root}").json()["sessions"] for root in roots]
    anchored = Counter(chain(*batches))  # days of the audit trail are among them, if a leap went over midnight
    assert [anchored[name] for name in (*names, abandoned, slow.session)] == [1] * 5
