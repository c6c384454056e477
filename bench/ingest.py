"""Recording at full speed, beside the bare loop and beside backup tools, and replaying, beside a restore."""

import hashlib
import http.client
import json
import random
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from bench import tools
from bench.corpus import Corpus
from bench.profiling import Profile
from bench.results import Results, percentile
from bench.usage import Meter, Stolen
from scripts.devstack.stack import Stack

KIB: Final = 1024
MIB: Final = 1024 * KIB
_READ_BYTES: Final = 256 * KIB
SERVICES: Final = ("processor", "storage", "mongod")


@dataclass(frozen=True, slots=True)
class Cell:
    """A size of chunks and a number of sessions that record at once."""

    chunk_bytes: int
    sessions: int

    @property
    def name(self) -> str:
        """As it is shown."""
        size = f"{self.chunk_bytes // MIB} MiB" if self.chunk_bytes >= MIB else f"{self.chunk_bytes // KIB} KiB"
        return f"{size} x {self.sessions}"


CELLS: Final = (
    *(Cell(64 * KIB, sessions) for sessions in (1, 8, 64)),
    *(Cell(MIB, sessions) for sessions in (1, 8, 16, 64)),
    *(Cell(8 * MIB, sessions) for sessions in (1, 8, 64)),
)
QUICK_CELLS: Final = (Cell(64 * KIB, 8), Cell(MIB, 16), Cell(8 * MIB, 1))
BAR_CELLS: Final = (Cell(64 * KIB, 64), Cell(MIB, 16), Cell(8 * MIB, 8))
TOOLS_CELL: Final = Cell(MIB, 16)
"""What backup tools are compared with."""


def subordinate(module: str, order: dict[str, Any]) -> dict[str, Any]:
    """Run a program of ours as a process of its own; gives what it came to, and what was `stolen` meanwhile, in %.

    Raises:
        RuntimeError: it failed; what it said last.
    """
    command, stolen = [sys.executable, "-m", module], Stolen()
    done = subprocess.run(command, input=json.dumps(order), capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{module} failed: {done.stderr.strip()[-1000:]}")
    found: dict[str, Any] = json.loads(done.stdout)
    return found | {"stolen": stolen.percent()}


def pids(stack: Stack) -> dict[str, int]:
    """The processes that are measured."""
    found = {
        "processor": stack.process("processor"),
        "storage": stack.process("storage"),
        "mongod": stack.process("mongod"),
    }
    return {name: running.pid for name, running in found.items() if running is not None}


class Ingest:
    """Everything of one round, on one stack, in an order drawn for it."""

    def __init__(self, stack: Stack, corpus: Corpus, work: Path, results: Results, told: Callable[[str], None]) -> None:
        self._stack, self._corpus, self._work, self._results, self._told = stack, corpus, work, results, told

    def order(self, cell: Cell, prefix: str) -> dict[str, Any]:
        """What the programs of a cell are told."""
        return {
            "files": [str(path) for path in self._corpus.files],
            "chunk_bytes": cell.chunk_bytes,
            "sessions": cell.sessions,
            "prefix": prefix,
            "url": self._stack.processor_url,
            "token": self._stack.tokens["record"],
            "mongodb_url": self._stack.mongodb_url,
        }

    def jobs(self, number: int, cells: tuple[Cell, ...], rivals: list[tools.Tool]) -> list[Callable[[], None]]:
        """The work of round `number`, in an order that no other round has."""
        jobs: list[Callable[[], None]] = []
        for cell in cells:
            jobs += [lambda cell=cell: self.ours(cell, number), lambda cell=cell: self._bare(cell)]  # type: ignore[misc]
        jobs += [lambda tool=tool: self._rival(tool) for tool in rivals]  # type: ignore[misc]
        jobs += [lambda: self._replay(number)]
        random.Random(number).shuffle(jobs)
        return jobs

    def _add(self, name: str, outcome: dict[str, Any]) -> None:
        mib = outcome["bytes"] / MIB
        self._results.add(f"{name} | speed", mib / outcome["seconds"], "MiB/s")
        self._results.add(f"{name} | chunks", outcome["chunks"] / outcome["seconds"], "1/s")
        self._results.add(f"{name} | stolen", outcome["stolen"], "%")
        for share in (0.5, 0.99):
            taken = percentile(outcome["latencies"], share) * 1000
            self._results.add(f"{name} | p{share * 100:.0f}", taken, "ms")

    def ours(self, cell: Cell, number: int) -> None:
        """Record the corpus in a cell: speed, latencies, and what the processes cost."""
        name = f"ours {cell.name}"
        self._told(name)
        meter = Meter(pids(self._stack))
        outcome = subordinate("bench.load", self.order(cell, f"r{number}-{cell.chunk_bytes}-{cell.sessions}"))
        self._add(name, outcome)
        for part, seconds in meter.cpu().items():
            self._results.add(f"{name} | CPU {part}", seconds / outcome["bytes"] * 1024 * MIB, "s/GiB")
        for part, peak in meter.peaks().items():
            self._results.add(f"{name} | memory {part}", peak, "MiB")

    def profile(self, cell: Cell) -> None:
        """Record once more, and see what the services do meanwhile.

        Raises:
            ProfileError: that cannot be seen here.
        """
        self._told(f"profile of {cell.name}")
        sampled = Profile(pids(self._stack), self._work)
        sampled.start()
        try:
            subordinate("bench.load", self.order(cell, f"profile-{cell.chunk_bytes}-{cell.sessions}"))
        finally:
            found = sampled.stop()
        for part, stages in found.items():
            for stage, share in stages.items():
                self._results.add(f"profile {cell.name} | {part} | {stage}", share * 100, "%")

    def _bare(self, cell: Cell) -> None:
        name = f"bare {cell.name}"
        self._told(name)
        self._add(name, subordinate("bench.bare", self.order(cell, "")))

    def _rival(self, tool: tools.Tool) -> None:
        self._told(tool.name)
        mib, restored = self._corpus.size_bytes / MIB, self._work / "restored"
        self._results.add(f"{tool.name} backup | speed", mib / tool.backup(self._corpus, self._work), "MiB/s")
        self._results.add(f"{tool.name} restore | speed", mib / tool.restore(self._work, restored), "MiB/s")
        shutil.rmtree(restored)

    def _replay(self, number: int) -> None:
        """Record the corpus as one session, seal it, and read it whole, as a restore does, into a file."""
        self._told("replay")
        session, stack = f"replay-{number}", self._stack
        subordinate("bench.load", self.order(Cell(MIB, 1), session))
        connection = http.client.HTTPConnection(urlsplit(stack.processor_url).netloc, timeout=300)
        url = f"/api/v1/sessions/{session}-0"
        count = -(-self._corpus.size_bytes // MIB)
        body = json.dumps({"chunk_count": count})
        connection.request("POST", f"{url}/seal", body, _headers(stack, "record"))
        sealed = connection.getresponse()
        if sealed.status != http.client.OK:
            raise RuntimeError(f"seal: HTTP {sealed.status}: {sealed.read(300)!r}")
        sealed.read()
        target, digest, began = self._work / "replayed", hashlib.sha256(), time.perf_counter()
        connection.request("GET", f"{url}/content", headers=_headers(stack, "replay"))
        with target.open("wb") as file:
            for piece in _pieces(connection.getresponse()):
                file.write(piece)
        seconds = time.perf_counter() - began
        connection.close()
        with target.open("rb") as file:
            while piece := file.read(MIB):
                digest.update(piece)
        target.unlink()
        if digest.digest() != hashlib.sha256(self._corpus.content()).digest():
            raise RuntimeError("what was replayed is not what was recorded")
        self._results.add("ours replay | speed", self._corpus.size_bytes / MIB / seconds, "MiB/s")


def _headers(stack: Stack, role: str) -> dict[str, str]:
    return {"authorization": f"Bearer {stack.tokens[role]}", "content-type": "application/json"}


def _pieces(answer: http.client.HTTPResponse) -> Iterator[bytes]:
    while piece := answer.read(_READ_BYTES):
        yield piece
