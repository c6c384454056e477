"""Where the services' time goes: samples of what runs, by stage, of a pass of its own: sampling costs time, too."""

import collections
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Final

_RATE: Final = 100
SERVICES: Final = ("processor", "storage")
STAGES: Final = (
    ("zstd, AES-GCM", ("seal (sessions/processor/crypt.py", "open_envelope (sessions/processor/crypt.py")),
    ("SHA-256", ("fingerprint (sessions/core/envelope.py",)),
    ("to storage", ("(sessions/processor/wire.py", "(sessions/processor/pipeline.py", "(httpx/", "(httpcore/")),
    ("MongoDB driver", ("(pymongo/", "(bson/", "(sessions/storage/mongo")),
    ("envelopes parsed", ("(sessions/storage/ingest.py", "(sessions/core/")),
    ("logs, metrics", ("(structlog/", "(prometheus_client/")),
    ("event loop", ("(asyncio/runners.py",)),
    ("HTTP server", ("(uvicorn/", "(starlette/", "(fastapi/", "(sessions/runtime/")),
    ("requests", ("(sessions/",)),
)
"""Each with marks of its frames, `function (file`. A sample is of the stage of its innermost frame that has one."""
REST: Final = "other"


class ProfileError(Exception):
    """There is no profile to be had here; says why."""


class Profile:
    """Samples processes from `start` to `stop`."""

    def __init__(self, pids: Mapping[str, int], folder: Path) -> None:
        self._pids, self._folder = {name: pids[name] for name in SERVICES}, folder
        self._samplers: dict[str, subprocess.Popen[bytes]] = {}

    def start(self) -> None:
        """Begin.

        Raises:
            ProfileError: py-spy is not there.
        """
        program = shutil.which("py-spy", path=str(Path(sys.executable).parent)) or shutil.which("py-spy")
        if program is None:
            raise ProfileError("py-spy is not there: run scripts/setup")
        for name, pid in self._pids.items():
            command = [
                program,
                "record",
                "--nonblocking",
                "--format",
                "raw",
                "--rate",
                str(_RATE),
                "--duration",
                "3600",
            ]
            command += ["--output", str(self._file(name)), "--pid", str(pid)]
            self._samplers[name] = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)

    def stop(self) -> dict[str, dict[str, float]]:
        """End; of each process the share of its samples that each stage has.

        Raises:
            ProfileError: the processes could not be looked into.
        """
        for sampler in self._samplers.values():
            sampler.send_signal(signal.SIGINT)
        said = {name: sampler.communicate()[1] for name, sampler in self._samplers.items()}
        found = {}
        for name in self._samplers:
            if not self._file(name).exists():
                reason = said[name].decode(errors="replace").strip()[-300:]
                raise ProfileError(f"py-spy cannot look into {name}; root may, or whoever may trace it: {reason}")
            found[name] = shares(self._file(name).read_text().splitlines())
        return found

    def _file(self, name: str) -> Path:
        return self._folder / f"{name}.profile"


def stage_of(frames: Iterable[str]) -> str:
    """The stage of a stack, its innermost frame first; each is `function (file:line)`."""
    for frame in frames:
        for stage, marks in STAGES:
            if any(mark in frame for mark in marks):
                return stage
    return REST


def shares(lines: Iterable[str]) -> dict[str, float]:
    """Of stacks as `outermost;…;innermost count`, the share that each stage has of all."""
    counts: collections.Counter[str] = collections.Counter()
    for line in lines:
        stack, _, count = line.rpartition(" ")
        if "(concurrent/futures/thread.py" in stack.rpartition(";")[2]:
            continue  # a thread that waits for work
        counts[stage_of(reversed(stack.split(";")))] += int(count)
    whole = counts.total()
    return {stage: count / whole for stage, count in counts.most_common()} if whole else {}
