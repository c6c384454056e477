"""What a run came to, in tables: the same ones for a terminal (`bench.report`) and for documents (`bench.markdown`)."""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median
from typing import Final

from bench import anchoring, ingest, sealing
from bench.ingest import CELLS, TOOLS_CELL
from bench.profiling import REST, SERVICES, STAGES
from bench.results import Bar, Results, slope

BARS: Final = (
    Bar("1 MiB x 16 beside the bare loop", "ours 1 MiB x 16 | speed", "bare 1 MiB x 16 | speed", 0.8),
    Bar("1 MiB x 16 beside restic", "ours 1 MiB x 16 | speed", "restic backup | speed", 1.5),
    Bar("1 MiB x 16 beside borg", "ours 1 MiB x 16 | speed", "borg backup | speed", 1.5),
    Bar("64 KiB x 64 beside the bare loop", "ours 64 KiB x 64 | speed", "bare 64 KiB x 64 | speed", 1.0),
    Bar("64 KiB x 64, chunks a second", "ours 64 KiB x 64 | chunks", "", 1800),
    Bar("8 MiB x 8 beside the bare loop", "ours 8 MiB x 8 | speed", "bare 8 MiB x 8 | speed", 0.8),
    Bar("replay beside restic restore", "ours replay | speed", "restic restore | speed", 1.0),
    Bar("p99 of a slow chunk beside a bare insert's p50", "ours paced | p99", "bare paced | p50", 4, at_most=True),
    Bar("sealing 1,000,000 chunks, s", "seal 1000000 | time", "", 10, at_most=True),
    Bar("its memory, MiB", "seal 1000000 | more memory", "", 150, at_most=True),
    Bar("a proof out of it, ms", "prove in 1000000 | time", "", 20, at_most=True),
    Bar("making a batch of 10,000 sessions, s", "batch of 10000 | made in", "", 5, at_most=True),
    Bar("gas of that batch", "batch of 10000 | gas", "", 50_000, at_most=True),
    Bar("event loop lag at full load, processor, p99, ms", "lag processor | p99", "", 20, at_most=True),
    Bar("event loop lag at full load, storage, p99, ms", "lag storage | p99", "", 20, at_most=True),
)


@dataclass(frozen=True)
class Figures:
    """A table: its title, the names of its columns, of which the first names the row, and what to say below it."""

    title: str
    head: Sequence[str]
    rows: Sequence[Sequence[str]]
    below: str = ""


def shown(value: float | None) -> str:
    """A figure in three places or so; `-` for none."""
    if value is None:
        return "-"
    if value >= 1000:  # noqa: PLR2004
        return f"{value:,.0f}"
    return f"{value:.3g}" if value < 100 else f"{value:.0f}"  # noqa: PLR2004


def of(results: Results) -> list[Figures]:
    """All tables that have a row."""
    made = (_recording, _paced, _tools, _costs, _memory, _profile, _sealing, _batches, _bars)
    return [table for make in made if (table := make(results)).rows]


def _medians(results: Results, names: Sequence[str]) -> list[str]:
    return [shown(results.median(name)) for name in names]


def _spread(results: Results, name: str) -> str:
    """The median, and the least and the most beside it."""
    found = results.series.get(name)
    return f"{shown(found.middle)} ({min(found.values):.0f}-{max(found.values):.0f})" if found else "-"


def _stolen(results: Results, whose: Sequence[str]) -> str:
    """How far the machine was its own, while these figures were measured."""
    found = [value for name in whose if (one := results.series.get(f"{name} | stolen")) for value in one.values]
    if not found:
        return ""
    spread = f"{median(found):.0f}% ({min(found):.0f}-{max(found):.0f})"
    return f"stolen of the CPU time asked for: {spread}"


def _recording(results: Results) -> Figures:
    rows = []
    for cell in CELLS:
        ours, bare = f"ours {cell.name}", f"bare {cell.name} | speed"
        if f"{ours} | speed" in results.series:
            ratio = results.ratio(f"{ours} | speed", bare)
            latency = _medians(results, [f"{ours} | p50", f"{ours} | p99"])
            speed, beside = _spread(results, f"{ours} | speed"), _spread(results, bare)
            rows.append((cell.name, speed, *latency, beside, "-" if ratio is None else f"{ratio:.2f}"))
    below = _stolen(results, [f"{who} {cell.name}" for cell in CELLS for who in ("ours", "bare")])
    return Figures(
        "Recording", ("chunk x sessions", "MiB/s", "p50 ms", "p99 ms", "bare loop, MiB/s", "ratio"), rows, below
    )


def _paced(results: Results) -> Figures:
    whole = (
        ("a chunk", "ours paced"),
        ("a session's first", "ours paced, first"),
        ("two requests and one insert", "hops paced"),
        ("a bare insert", "bare paced"),
    )
    rows = [
        (what, *_medians(results, [f"{name} | p50", f"{name} | p99", f"{name} | stolen"]))
        for what, name in whole
        if f"{name} | p50" in results.series
    ]
    below = _stolen(results, [name for _, name in whole])
    return Figures("50 chunks a second", ("64 KiB, 50 sessions", "p50 ms", "p99 ms", "stolen %"), rows, below)


def _tools(results: Results) -> Figures:
    whole = [("Lucid Sessions", f"ours {TOOLS_CELL.name}", "ours replay")]
    whole += [(tool, f"{tool} backup", f"{tool} restore") for tool in ("restic", "borg")]
    rows = [
        (name, _spread(results, f"{there} | speed"), _spread(results, f"{back} | speed"))
        for name, there, back in whole
        if f"{back} | speed" in results.series
    ]
    head = (f"same files, as {TOOLS_CELL.name}", "recording, MiB/s", "replay, MiB/s")
    return Figures("Beside other tools", head, rows)


def _of_parts(results: Results, title: str, what: str) -> Figures:
    rows = [
        (cell.name, *_medians(results, [f"ours {cell.name} | {what} {part}" for part in ingest.SERVICES]))
        for cell in CELLS
        if f"ours {cell.name} | {what} {ingest.SERVICES[0]}" in results.series
    ]
    return Figures(title, ("chunk x sessions", *ingest.SERVICES), rows)


def _costs(results: Results) -> Figures:
    return _of_parts(results, "CPU seconds for 1 GiB", "CPU")


def _memory(results: Results) -> Figures:
    return _of_parts(results, "Most memory, MiB", "memory")


def _profile(results: Results) -> Figures:
    """One row a stage; a column for each service and cell."""
    cells = [cell for cell in CELLS if any(name.startswith(f"profile {cell.name} |") for name in results.series)]
    head = [f"{part} {cell.name}" for part in SERVICES for cell in cells]
    rows = []
    for stage in [*(stage for stage, _ in STAGES), REST]:
        names = [f"profile {cell.name} | {part} | {stage}" for part in SERVICES for cell in cells]
        if any(name in results.series for name in names):
            rows.append((stage, *_medians(results, names)))
    return Figures("Where the services' CPU time goes, in %", ("stage", *head), rows)


def _sealing(results: Results) -> Figures:
    names = ("seal {} | time", "seal {} | more memory", "prove in {} | time")
    sizes = [size for size in sealing.SIZES if names[0].format(size) in results.series]
    rows = [(f"{size:,}", *_medians(results, [name.format(size) for name in names])) for size in sizes]
    below = ""
    if len(sizes) > 1:
        growth = [slope(sizes, [results.series[name.format(size)].middle for size in sizes]) for name in names[::2]]
        below = f"a seal grows as n^{growth[0]:.2f}, a proof as n^{growth[1]:.2f}"
    return Figures("Sealing and proving", ("chunks", "seal, s", "more MiB", "a proof, ms"), rows, below)


def _batches(results: Results) -> Figures:
    names = ("made in", "gas", "gas a session", "a receipt, fetched and verified")
    rows = [
        (f"{size:,}", *_medians(results, [f"batch of {size} | {name}" for name in names]))
        for size in anchoring.BATCHES
        if f"batch of {size} | gas" in results.series
    ]
    head = ("sessions in a batch", "made in, s", "gas", "gas a session", "a receipt, ms")
    return Figures("Anchoring: one transaction a batch", head, rows)


def _bars(results: Results) -> Figures:
    rows = []
    for bar in BARS:
        met = bar.met(results)
        said = "not measured" if met is None else "reached" if met else "MISSED"
        rows.append((bar.what, f"{'<=' if bar.at_most else '>='} {shown(bar.bound)}", shown(bar.value(results)), said))
    return Figures("Bars", ("bar", "bound", "now", ""), rows)
