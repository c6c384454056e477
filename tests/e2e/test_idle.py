"""A recorder that never comes back: its session is sealed as it is, anchored, and verifies."""

import json
import time
from collections.abc import Iterator

import pytest

from scripts.devstack.stack import Stack
from tests.e2e.conftest import Api, session_name
from tests.e2e.test_cli import Shell

_SETTING = "SESSION_IDLE_SEAL_SECONDS"


@pytest.fixture
def impatient(stack: Stack) -> Iterator[Stack]:
    """The stack, with a storage that waits two seconds for recorders."""
    stack.restart("storage", {_SETTING: "2"})
    yield stack
    stack.restart("storage", {_SETTING: "86400"})


def test_an_abandoned_session_is_sealed_with_its_gaps(impatient: Stack, api: Api) -> None:
    shell, name = Shell(impatient), session_name("abandoned")
    for index in (0, 1, 4):
        assert api.put_chunk(name, index, b"%d" % index).status_code == 201
    path = f"/api/v1/sessions/{name}"
    deadline = time.monotonic() + 30
    while (status := api.processor("GET", path).json())["status"] != "sealed":
        assert time.monotonic() < deadline, status
        time.sleep(0.2)
    assert (status["missing"], status["next_index"]) == ([[2, 3]], 5)
    receipt = json.loads(shell("receipt", name, "--wait", "60", role="audit").stdout)
    assert receipt["manifest"]["sealed_by"] == "idle"
    assert receipt["anchor"]["state"] == "confirmed"
    late = api.put_chunk(name, 2, b"2")
    assert (late.status_code, late.json()["code"]) == (409, "session-sealed")
    assert api.put_chunk(name, 4, b"4").status_code == 200
    again = api.processor("POST", f"{path}/seal", json={}).json()
    assert again["manifest"] == receipt["manifest"]
