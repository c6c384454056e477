"""`scripts/bench`: one run, everything interleaved in it, ratios of medians."""

import argparse
import asyncio
import contextlib
import json
import os
import platform
import re
import shutil
import signal
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

from bench import (
    against,
    anchoring,
    corpus,
    disk,
    latency,
    markdown,
    model,
    model_tables,
    report,
    sealing,
    slow_disk,
    tables,
    tools,
)
from bench.ingest import BAR_CELLS, CELLS, KIB, QUICK_CELLS, Ingest
from bench.options import PARTS, command, options_of
from bench.profiling import ProfileError
from bench.results import Results
from bench.slow_disk import SlowDiskError
from bench.versions import VersionError, checkout
from scripts.devstack.process import ROOT
from scripts.devstack.stack import Stack

LATENCY_SECONDS: Final = 20
COMPARED_SECONDS: Final = 8
"""For each of many rounds with `--against`."""
_LAG: Final = re.compile(r'^lucid_event_loop_lag_seconds_bucket\{le="([^"]+)"\} ([0-9.e+]+)$', re.MULTILINE)
_SHARE: Final = 0.99


def _told(text: str) -> None:
    print(f"{time.strftime('%H:%M:%S')} {text}", file=sys.stderr, flush=True)


def machine() -> dict[str, str]:
    """What this was measured on, and with."""
    cpu = re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())
    memory = re.search(r"MemTotal:\s+(\d+)", Path("/proc/meminfo").read_text())
    found = {
        "date": datetime.now(UTC).strftime("%Y-%m-%d"),
        "cpu": f"{os.cpu_count()} x {cpu[1] if cpu else platform.machine()}",
        "memory": f"{int(memory[1]) // 1024**2 if memory else '?'} GiB",
        "system": platform.platform(terse=True),
        "python": platform.python_version(),
    }
    for package in ("cryptography", "zstandard", "pymongo", "uvicorn"):
        found[package] = version(package)
    rivals, _ = tools.installed()
    return found | {tool.name: tools.version(tool.name) for tool in rivals}


def _lags(stack: Stack) -> dict[str, dict[float, float]]:
    """Counts of the services' own metric of the event loop's lag, by bucket."""
    found = {}
    for name, url in (("processor", stack.processor_url), ("storage", stack.storage_url)):
        request = urllib.request.Request(f"{url}/metrics", headers={"authorization": f"Bearer {stack.tokens['audit']}"})
        with urllib.request.urlopen(request) as answer:
            found[name] = {float(most): float(count) for most, count in _LAG.findall(answer.read().decode())}
    return found


def _add_lag(results: Results, before: dict[str, dict[float, float]], after: dict[str, dict[float, float]]) -> None:
    for name, counts in after.items():
        new = {most: count - before[name][most] for most, count in counts.items()}
        whole = new[float("inf")]
        results.add(
            f"lag {name} | p99", next(most for most, count in new.items() if count >= _SHARE * whole) * 1000, "ms"
        )


class Run:
    """All rounds."""

    def __init__(self, options: argparse.Namespace, folder: Path) -> None:
        self._options, self._folder = options, folder
        self.results = Results()
        self.before: Results | None = None
        self.left_out: list[str] = []
        self._parts = options.only or list(PARTS)
        self.rounds = 1 if options.quick else options.rounds
        self._slow = {"LD_PRELOAD": str(slow_disk.library(folder, options.fsync_ms))} if options.fsync_ms else {}

    def run(self) -> None:
        """Measure."""
        options = self._options
        source = self._source()
        for number in range(self.rounds):
            _told(f"round {number + 1}")
            self._round(number, source)
        if options.profile:
            self._profile(source)
        if "anchoring" in self._parts:  # once: gas does not vary, and 10,000 sessions take their time
            batches = anchoring.BATCHES[:3] if options.quick else anchoring.BATCHES
            with self._stack() as (_, stack):
                asyncio.run(anchoring.measure(stack, batches, self.results, _told))
                disk.measure_sessions(stack, self.results)

    def _source(self) -> corpus.Corpus:
        if own := self._options.corpus:
            found: corpus.Corpus = own
            return found
        _told("making the corpus")
        return corpus.make(
            self._folder / "corpus", 12 if self._options.quick else self._options.mib, self._options.seed
        )

    def compare(self) -> None:
        """Measure this version and another one in turns.

        Raises:
            VersionError: the other one cannot be had.
        """
        other = checkout(self._options.against, self._folder / "before")
        compared = against.Comparison(self._source(), other, self._folder, _told, self._slow, self._parts)
        self.results, self.before = compared.results[against.NOW], compared.results[against.BEFORE]
        for number in range(self.rounds):
            _told(f"round {number + 1}")
            compared.round(number, 3 if self._options.quick else COMPARED_SECONDS)

    @contextlib.contextmanager
    def _stack(self) -> Iterator[tuple[Path, Stack]]:
        """An empty folder with a new stack, so that nobody finds what another has left."""
        work = self._folder / "work"
        shutil.rmtree(work, ignore_errors=True)
        work.mkdir()
        stack = Stack(work / "stack", settings={"storage": {"ANCHORING": "off"}})
        stack.mongod.marks = {**stack.mongod.marks, **self._slow}
        stack.start()
        try:
            yield work, stack
        finally:
            stack.stop()

    def _round(self, number: int, source: corpus.Corpus) -> None:
        with self._stack() as (work, stack):
            ingest, quick = Ingest(stack, source, work, self.results, _told), self._options.quick
            if "recording" in self._parts:
                rivals, self.left_out = tools.installed()
                if self._slow:
                    rivals, self.left_out = [], ["restic and borg: --fsync-ms makes MongoDB's disk alone slower"]
                before = _lags(stack)
                for job in ingest.jobs(number, QUICK_CELLS if quick else CELLS, rivals):
                    job()
                _add_lag(self.results, before, _lags(stack))
                disk.measure(stack, self.results)
            if "latency" in self._parts:
                latency.measure(ingest, number, 3 if quick else LATENCY_SECONDS, self.results, _told)
            if "sealing" in self._parts:
                sizes = sealing.SIZES[:2] if quick else sealing.SIZES
                asyncio.run(sealing.measure(stack, number, sizes, self.results, _told))

    def _profile(self, source: corpus.Corpus) -> None:
        with self._stack() as (work, stack):
            ingest = Ingest(stack, source, work, self.results, _told)
            for cell in QUICK_CELLS if self._options.quick else BAR_CELLS:
                ingest.profile(cell)


def _told_of(options: argparse.Namespace) -> int:
    """Print what a run before this one came to."""
    if options.markdown:
        print(markdown.show(options.markdown))
        return 0
    load = model.Workload(
        sessions_a_day=options.sessions_a_day,
        session_minutes=options.session_minutes,
        chunk_bytes=round(options.chunk_kib * KIB),
        chunk_seconds=options.chunk_seconds,
        peak=options.peak,
        keep_days=options.keep_days,
        members=round(options.members),
        interval_seconds=options.interval_seconds,
    )
    try:
        found = model.fit(Results.of_document(options.model["figures"]))
    except ValueError as error:
        print(f"bench: {error}", file=sys.stderr)
        return 1
    print(markdown.about(options.model))
    print()
    print(model_tables.show(found, load))
    return 0


def _document(run: Run, arguments: list[str]) -> dict[str, Any]:
    found = {
        "machine": machine(),
        "command": command(arguments).strip(),
        "rounds": run.rounds,
        "figures": run.results.document(),
    }
    return found if run.before is None else found | {"before": run.before.document()}


def main(arguments: list[str]) -> int:
    """The command line; 0 when each bar that was measured is reached."""
    options = options_of(arguments)
    if options.markdown or options.model:
        return _told_of(options)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    folder = Path(tempfile.mkdtemp(prefix="lucid-bench-"))
    run = None
    try:
        run = Run(options, folder)
        (run.compare if options.against else run.run)()
    except (ProfileError, SlowDiskError, VersionError) as error:
        print(f"bench: {error}", file=sys.stderr)
        return 1
    finally:
        if run and options.json:  # what was measured is not lost with what fails after it
            options.json.write_text(json.dumps(_document(run, arguments), indent=1) + "\n")
        if options.keep:
            print(f"data and logs: {folder}")
        else:
            shutil.rmtree(folder, ignore_errors=True)
    about = machine()
    print("\n".join(f"{name:<13}{value}" for name, value in about.items()))
    if run.before is not None:
        report.compare(run.results, run.before)
        return 0
    report.show(run.results)
    print("\n".join(run.left_out))
    if options.plots:
        from bench import plots

        plots.draw(run.results, options.plots)
    return 0 if options.quick or all(bar.met(run.results) is not False for bar in tables.BARS) else 1


if __name__ == "__main__":
    assert ROOT.is_dir()
    sys.exit(main(sys.argv[1:]))
