"""Logs of a process of its own, since they are set up once for all of it."""

import json
import subprocess
import sys
from pathlib import Path

PROGRAM = """
import structlog
from sessions.runtime import log
log.configure("INFO", "some-service")
said = structlog.get_logger()
for number in range(2000):
    said.info("something_happened", number=number)
import sys
print("goes on", file=sys.stderr)
"""


def run(target: Path) -> subprocess.CompletedProcess[str]:
    with target.open("w") as output:
        return subprocess.run(
            [sys.executable, "-c", PROGRAM], stdout=output, stderr=subprocess.PIPE, text=True, check=False
        )


def test_a_line_is_a_json_object(tmp_path: Path) -> None:
    run(tmp_path / "log")
    lines = [json.loads(line) for line in (tmp_path / "log").read_text().splitlines()]
    assert [line["number"] for line in lines] == list(range(2000))
    assert {(line["service"], line["event"], line["level"]) for line in lines} == {
        ("some-service", "something_happened", "info")
    }


def test_a_disk_that_is_full_does_not_stop_the_work() -> None:
    assert "goes on" in run(Path("/dev/full")).stderr
