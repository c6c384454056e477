"""The clock of MongoDB's host is set while sessions are recorded (R10): idleness is counted, not read off a clock."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from scripts.devstack.clock import HostClock
from scripts.devstack.mongod import Mongod
from scripts.devstack.process import wait_until
from scripts.devstack.stack import Stack
from tests.e2e.conftest import Api, session_name

pytestmark = pytest.mark.clocks

IDLE_SECONDS = 6
RECORDERS = 12
HOUR_SECONDS = 3600


@contextmanager
def running(folder: Path) -> Iterator[tuple[Api, HostClock]]:
    """A stack whose mongod lives by a clock of its own; no service does."""
    stack = Stack(folder / "stack", settings={"storage": {"SESSION_IDLE_SEAL_SECONDS": str(IDLE_SECONDS)}})
    clock = HostClock(folder / "mongod.clock")
    stack.mongod = Mongod(stack.folder / "mongo", marks={**stack.mongod.marks, **clock.environment()})
    stack.start()
    api = Api(stack)
    try:
        yield api, clock
    finally:
        api.close()
        stack.stop()


class SlowRecorder(threading.Thread):
    """Sends a chunk each half second, and notes what is answered."""

    def __init__(self, stack: Stack) -> None:
        super().__init__()
        self.session = session_name("slow")
        self.answers: list[str] = []
        self._stack, self._over = stack, threading.Event()

    def run(self) -> None:
        api = Api(self._stack)
        while not self._over.wait(0.5):
            answer = api.put_chunk(self.session, len(self.answers), b"now and then")
            if answer.status_code != 503:  # repeated half a second later
                self.answers.append(answer.json().get("code", str(answer.status_code)))
        api.close()

    def finish(self) -> None:
        """Stop, if it runs."""
        self._over.set()
        self.join()


def sealed(api: Api, session: str) -> bool:
    return bool(api.processor("GET", f"/api/v1/sessions/{session}").json()["status"] == "sealed")


def test_a_leap_of_mongodb_seals_nothing_that_is_recorded(tmp_path: Path) -> None:
    """R10: after + 1 h, 4 of 12 recordings that wrote each half second were sealed as idle within 5 s."""
    with running(tmp_path) as (api, clock):
        recorders = [SlowRecorder(api.stack) for _ in range(RECORDERS)]
        try:
            for recorder in recorders:
                recorder.start()
            time.sleep(IDLE_SECONDS + 1)  # so long after its start storage seals nothing
            for leap_seconds in (HOUR_SECONDS, 2 * HOUR_SECONDS):
                clock.leap(leap_seconds)
                time.sleep(4)
        finally:
            for recorder in recorders:
                recorder.finish()
        refused = {one.session: one.answers for one in recorders if set(one.answers) != {"201"}}
        assert len(refused) == 0, f"{len(refused)} of {RECORDERS} were refused: {next(iter(refused.values()))}"
        assert not any(sealed(api, one.session) for one in recorders)


def test_a_clock_that_falls_back_does_not_keep_an_abandoned_session_open(tmp_path: Path) -> None:
    """R10, the other way: a note in the future kept a session open until the clock had caught up."""
    with running(tmp_path) as (api, clock):
        session = session_name("abandoned")
        # Storage may have to hear of a new spool first: a recorder repeats.
        assert wait_until(lambda: api.put_chunk(session, 0, b"nobody comes back").status_code == 201, 10)
        time.sleep(IDLE_SECONDS / 4)
        assert api.put_chunk(session, 1, b"noted as active").status_code == 201
        clock.leap(-2 * HOUR_SECONDS)
        assert wait_until(lambda: sealed(api, session), 4 * IDLE_SECONDS)
