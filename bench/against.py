"""`scripts/bench --against VERSION`: two versions of the services, measured in turns."""

import contextlib
import random
import shutil
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

from bench import latency
from bench.comparison import CELLS
from bench.corpus import Corpus
from bench.ingest import Cell, Ingest, subordinate
from bench.results import Results
from scripts.devstack.mongod import Mongod
from scripts.devstack.process import ROOT
from scripts.devstack.stack import Stack

NOW: Final = "now"
BEFORE: Final = "before"


@dataclass
class Comparison:
    """Rounds of the present version and of the version in the folder `other`.

    Each round starts one mongod and the services of both versions, with a database each. A case is recorded by one
    version and directly afterwards by the other one, so both meet the same machine.

    Attributes:
        source: The corpus that both versions record.
        other: The other version's checkout.
        folder: For data and logs.
        told: Reports progress.
        marks: Further variables of mongod's environment.
        parts: What is measured: `recording`, `latency` or both.
        results: The figures of each version.
    """

    source: Corpus
    other: Path
    folder: Path
    told: Callable[[str], None]
    marks: Mapping[str, str] = field(default_factory=dict)
    parts: Collection[str] = ("recording",)
    results: dict[str, Results] = field(default_factory=lambda: {NOW: Results(), BEFORE: Results()})

    def round(self, number: int, latency_seconds: float) -> None:
        """Measure each case once with each version. A latency is measured for so many seconds."""
        draw, cells = random.Random(number), list(CELLS)
        with self._stacks(draw) as ingests:
            draw.shuffle(cells)
            for cell in cells if "recording" in self.parts else ():
                for version in order(cell, number):
                    ingests[version].ours(cell, number)
            for version in order(latency.CELL, number) if "latency" in self.parts else ():
                latency.ours(ingests[version], number, latency_seconds, self.results[version], self._teller(version))
        if "recording" in self.parts:
            self.told("; ".join(self._last(cell) for cell in CELLS))

    def _last(self, cell: Cell) -> str:
        speeds = [self.results[version].series[f"ours {cell.name} | speed"].values[-1] for version in (NOW, BEFORE)]
        return f"{cell.name}: {speeds[0]:.0f} now, {speeds[1]:.0f} before"

    def _teller(self, version: str) -> Callable[[str], None]:
        return lambda text: self.told(f"{version}: {text}")

    @contextlib.contextmanager
    def _stacks(self, draw: random.Random) -> Iterator[dict[str, Ingest]]:
        """Start both versions, empty, and record a little with each: the first chunks of a process are slower."""
        work = self.folder / "work"
        shutil.rmtree(work, ignore_errors=True)
        work.mkdir()
        code, found = {NOW: ROOT, BEFORE: self.other}, {}
        little = replace(self.source, files=self.source.files[:1])
        with contextlib.ExitStack() as running:
            mongod = Mongod.from_environment(work / "mongo")
            mongod.marks = {**mongod.marks, **self.marks}
            mongod.start()
            running.callback(mongod.stop)
            for version in draw.sample(list(code), 2):
                # No anchoring, so the chain has nothing to do; blocks by the second would cost CPU time.
                settings = {"storage": {"ANCHORING": "off"}}
                stack = Stack(work / version, settings=settings, block_seconds=0, code=code[version])
                stack.mongod = Mongod(None, url=mongod.url)
                stack.start()
                running.callback(stack.stop)
                subordinate("bench.load", Ingest(stack, little, work, Results(), self.told).order(CELLS[0], "first"))
                found[version] = Ingest(stack, self.source, work, self.results[version], self._teller(version))
            yield found


def order(cell: Cell, number: int) -> list[str]:
    """Return which version records first: drawn for two rounds together, and the other one in the second of them."""
    versions = [NOW, BEFORE]
    random.Random(f"{cell.name}/{number // 2}").shuffle(versions)
    return versions if number % 2 == 0 else versions[::-1]
