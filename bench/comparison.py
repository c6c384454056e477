"""Two versions, measured in turns: the ratio of each figure with its interval, and whether its bar holds."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median
from typing import Final

from bench.ingest import KIB, MIB, Cell
from bench.results import Results
from bench.tables import Figures, shown

CELLS: Final = (Cell(64 * KIB, 8), Cell(64 * KIB, 64), Cell(MIB, 16))
CONFIDENCE: Final = 0.95
CPU_MOST: Final = 1.03
"""The most CPU time for a byte that the present version may take, as a ratio to the earlier version."""
SPEED_LEAST: Final = 0.97
"""The interval of the ratio of throughputs must not lie below this."""


@dataclass(frozen=True, slots=True)
class Interval:
    """A median with the interval around it.

    Attributes:
        middle: The median of what was measured.
        least: The lower end.
        most: The upper end.
        known: Whether there were enough values for an interval of `CONFIDENCE`; if not, it spans all values.
    """

    middle: float
    least: float
    most: float
    known: bool

    @classmethod
    def of(cls, values: Sequence[float]) -> "Interval":
        """Return the median and its interval by the sign test, which assumes nothing about how values are spread.

        A value is above the median or below it with equal chance. So the interval ends at the smallest and the largest
        values that are unlikely to be all on one side of it. Fewer than six values cannot give 95 %.
        """
        found = sorted(values)
        count = len(found)
        cut, tail = 0, 1 / 2**count
        while tail <= (1 - CONFIDENCE) / 2:
            cut += 1
            tail += math.comb(count, cut) / 2**count
        outer = max(0, cut - 1)
        return cls(median(found), found[outer], found[-1 - outer], known=cut > 0)


@dataclass(frozen=True, slots=True)
class Measure:
    """A figure that both versions have for each case.

    Attributes:
        title: In a reader's words, with the unit.
        figure: The end of its name in the results.
        bound: What its ratio is held to; infinity for what has no bar.
        at_most: Whether `bound` is the most for the median; otherwise it is the least for the interval's upper end.
        cases: The names of the cases.
    """

    title: str
    figure: str
    bound: float
    at_most: bool
    cases: tuple[str, ...] = tuple(cell.name for cell in CELLS)

    def ratio(self, now: Results, before: Results, case: str) -> Interval | None:
        """Return the ratio of both versions, round by round; None if this was not measured."""
        name = f"ours {case} | {self.figure}"
        if name not in now.series or name not in before.series:
            return None
        pairs = zip(now.series[name].values, before.series[name].values, strict=True)
        return Interval.of([above / below for above, below in pairs if below > 0] or [math.nan])

    def holds(self, found: Interval) -> bool:
        """Return whether the bar is reached."""
        return found.middle <= self.bound if self.at_most else found.most >= self.bound


MEASURES: Final = (
    Measure("Throughput, MiB/s", "speed", SPEED_LEAST, at_most=False),
    Measure("CPU seconds of chunk-processor for 1 GiB", "CPU processor", CPU_MOST, at_most=True),
    Measure("CPU seconds of session-storage for 1 GiB", "CPU storage", CPU_MOST, at_most=True),
    Measure("Latency of a chunk, median in ms", "p50", math.inf, at_most=True, cases=("paced",)),
    Measure("Latency of a chunk, 99th percentile in ms", "p99", math.inf, at_most=True, cases=("paced",)),
)


def of(now: Results, before: Results) -> list[Figures]:
    """Return a table for each measure."""
    tables = [_table(measure, now, before) for measure in MEASURES]
    return [table for table in tables if table.rows]


def _table(measure: Measure, now: Results, before: Results) -> Figures:
    head = ("chunk x sessions", "before", "now", "now / before", "interval", "bar", "")
    rows, short = [], False
    for case in measure.cases:
        found, name = measure.ratio(now, before, case), f"ours {case} | {measure.figure}"
        if found is not None:
            medians = (shown(before.median(name)), shown(now.median(name)), f"{found.middle:.3f}")
            interval = f"{found.least:.3f}-{found.most:.3f}"
            bar = (f"{'<=' if measure.at_most else '>='} {measure.bound:g}", "MISSED")
            if measure.holds(found):
                bar = (bar[0], "reached") if measure.bound < math.inf else ("none", "")
            rows.append((case, *medians, interval, *bar))
            short |= not found.known
    what = "the ratio, the median of all rounds" if measure.at_most else "the interval, whose upper end counts"
    below = f"The bar is for {what}." if measure.bound < math.inf else ""
    if short:
        below += f" Too few rounds for an interval of {CONFIDENCE:.0%}: it spans all rounds."
    return Figures(measure.title, head, rows, below)


def noise(now: Results, before: Results) -> str:
    """Return how much the machine varied: throughput from round to round, and what its hypervisor stole."""
    parts = []
    for cell in CELLS:
        name = f"ours {cell.name}"
        speeds = [one.values for found in (before, now) if (one := found.series.get(f"{name} | speed"))]
        if speeds:
            spread = max(max(values) / min(values) for values in speeds)
            parts.append(f"{cell.name}: {spread:.2f}")
    stolen = [
        value
        for found in (before, now)
        for cell in CELLS
        if (one := found.series.get(f"ours {cell.name} | stolen"))
        for value in one.values
    ]
    if not parts:
        return ""
    return (
        f"The fastest round of a version by its slowest:\n{', '.join(parts)}.\n"
        f"Stolen of the CPU time asked for: {median(stolen):.0f}% ({min(stolen):.0f}-{max(stolen):.0f})."
    )
