"""Trying a parser: many inputs, each within its time and memory; a finding is the smallest input that shows it."""

import json
import signal
import time
import tracemalloc
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from hypothesis import HealthCheck, Phase, given, seed, settings

from tests.fuzz.mutation import inputs
from tests.fuzz.parsers import Parser

MOST_SECONDS = 2.0
"""Of processor time, for one input of at most 200,000 bytes."""
MEMORY_BASE_BYTES = 2 * 1024 * 1024
"""A file of secrets is read through a buffer of 1 MiB, whatever it holds."""
MEMORY_PER_BYTE = 160
"""A JSON value is up to some hundred bytes in memory for each byte of its text, such as `[[[[`."""


@dataclass
class Counts:
    """How many inputs were tried, and how many of them parsed."""

    tried: int = 0
    parsed: int = 0


class HangError(AssertionError):
    """An input took too long."""


def _hang(_number: int, _frame: object) -> None:
    raise HangError(f"more than {MOST_SECONDS} s")


@contextmanager
def _bounded(size: int) -> Iterator[None]:
    """Fail when what is inside takes too long, or too much memory for an input of `size` bytes."""
    # Of the process's own time, so that a busy machine is no finding.
    before = signal.signal(signal.SIGVTALRM, _hang)
    # Again and again: Python lets an error that is raised within a callback of the garbage collector pass.
    signal.setitimer(signal.ITIMER_VIRTUAL, MOST_SECONDS, 0.1)
    tracemalloc.start(1)
    try:
        yield
        _, peak = tracemalloc.get_traced_memory()
        assert peak <= MEMORY_BASE_BYTES + MEMORY_PER_BYTE * size, f"{peak} bytes of memory for {size} of input"
    finally:
        tracemalloc.stop()
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, before)


def try_one(parser: Parser, data: bytes, folder: Path) -> bool:
    """Whether one input parses. Raises what is a finding."""
    with _bounded(len(data)):
        return parser.run(data, folder)


def examples(parser: Parser, folder: Path, count: int, number: int, *, until: float | None = None) -> Counts:
    """Try `count` inputs, the same ones for the same `number`; after the time `until` (monotonic) none any more.

    Raises what is a finding; then the smallest input that shows it is in the file `folder`/NAME.input.
    """
    counts = Counts()

    @seed(number)
    @settings(
        max_examples=count,
        deadline=None,
        database=None,
        phases=[Phase.generate, Phase.shrink],
        suppress_health_check=list(HealthCheck),
    )
    @given(inputs(parser.seeds))
    def run(data: bytes) -> None:
        if until is not None and time.monotonic() > until:
            return
        # The last one that is tried is the smallest found, so the file is right when the finding comes out.
        try:
            counts.parsed += try_one(parser, data, folder)
        except Exception:
            (folder / f"{parser.name}.input").write_bytes(data)
            raise
        counts.tried += 1

    run()
    return counts


def shown(data: bytes) -> str:
    """An input, to be read by a person."""
    return json.dumps(data.decode("latin-1")) if len(data) <= 2000 else f"{len(data)} bytes, {data[:200]!r} …"
