"""Kill points ship disabled, and are hard to enable by mistake."""

import signal
import subprocess
import sys

import pytest

from sessions.processor.killpoints import Point
from sessions.runtime import killpoints
from sessions.runtime.killpoints import ALLOW, AT, KillPointError
from sessions.storage.killpoints import Point as StoragePoint


def test_without_a_point_nothing_happens() -> None:
    killpoints.arm(Point, {ALLOW: "allowed"})
    for point in Point:
        killpoints.reach(point)


@pytest.mark.parametrize("environment", [{AT: "chunk-sealed"}, {AT: "chunk-sealed", ALLOW: "1"}])
def test_a_point_needs_leave(environment: dict[str, str]) -> None:
    with pytest.raises(KillPointError, match="it is for tests"):
        killpoints.arm(Point, environment)


@pytest.mark.parametrize("where", ["", "nowhere", "chunk-sealed:x", StoragePoint.CHUNK_NOTED])
def test_a_point_that_there_is_not(where: str) -> None:
    with pytest.raises(KillPointError, match="there is no point"):
        killpoints.arm(Point, {AT: where, ALLOW: "allowed"})


def test_it_strikes_at_the_pass_that_was_named() -> None:
    code = "from sessions.processor.killpoints import Point\nfrom sessions.runtime.killpoints import arm, reach\n"
    code += "arm(Point)\nfor n in range(5):\n"
    code += "  reach(Point.CHUNK_STORED); reach(Point.CHUNK_SEALED); print(n, flush=True)"
    environment = {AT: "chunk-sealed:3", ALLOW: "allowed"}
    ended = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    assert (ended.returncode, ended.stdout.split()) == (-signal.SIGKILL, ["0", "1"])
