"""What a run came to, as Markdown: `scripts/bench --markdown FILE`, of the FILE that `--json FILE` wrote."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from bench import anchoring, ingest, sealing
from bench.ingest import CELLS
from bench.report import BARS, shown
from bench.results import Results


def table(head: Sequence[str], rows: Iterable[Iterable[str]]) -> str:
    """A table; all but the first column to the right."""
    lines = [list(head), ["---", *["--:"] * (len(head) - 1)], *map(list, rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def about(document: Mapping[str, Any]) -> str:
    """On what it was measured, when, with which versions, and by which command."""
    machine = dict(document["machine"])
    command = document.get("command", "scripts/bench")
    first = f"Measured {machine.pop('date')} on {machine.pop('cpu')}, {machine.pop('memory')}, {machine.pop('system')}"
    rest = ", ".join(f"{name} {value.removeprefix(name).strip()}" for name, value in machine.items())
    rounds = document["rounds"]
    how = f"medians of {rounds} rounds" if rounds > 1 else "a single round, which is no more than a try"
    return f"{first}, by `{command}`: {how}. {rest}."


def show(document: Mapping[str, Any]) -> str:
    """All that was measured."""
    results = Results.of_document(document["figures"])
    parts = (
        about(document),
        _recording(results),
        _tools(results),
        _costs(results),
        _sealing(results),
        _batches(results),
        _bars(results),
    )
    return "\n\n".join(part for part in parts if part)


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    return table(head, rows) if rows else ""


def _spread(results: Results, name: str) -> str:
    found = results.series.get(name)
    return f"{shown(found.middle)} ({min(found.values):.0f}-{max(found.values):.0f})" if found else "-"


def _recording(results: Results) -> str:
    rows = []
    for cell in CELLS:
        ours, bare = f"ours {cell.name}", f"bare {cell.name}"
        if f"{ours} | speed" in results.series:
            ratio = results.ratio(f"{ours} | speed", f"{bare} | speed")
            p50, p99 = (shown(results.median(f"{ours} | {share}")) for share in ("p50", "p99"))
            speeds = _spread(results, f"{ours} | speed"), _spread(results, f"{bare} | speed")
            rows.append((cell.name, speeds[0], p50, p99, speeds[1], "-" if ratio is None else f"{ratio:.2f}"))
    return _table(("chunk x sessions", "MiB/s", "p50 ms", "p99 ms", "bare loop, MiB/s", "ratio"), rows)


def _tools(results: Results) -> str:
    whole = [("Lucid Sessions", f"ours {ingest.TOOLS_CELL.name}", "ours replay")]
    whole += [(tool, f"{tool} backup", f"{tool} restore") for tool in ("restic", "borg")]
    rows = [
        (name, _spread(results, f"{there} | speed"), _spread(results, f"{back} | speed"))
        for name, there, back in whole
        if f"{back} | speed" in results.series
    ]
    return _table((f"same files, as {ingest.TOOLS_CELL.name}", "recording, MiB/s", "replay, MiB/s"), rows)


def _costs(results: Results) -> str:
    names = [f"{what} {part}" for what in ("CPU", "memory") for part in ingest.SERVICES]
    rows = [
        (cell.name, *(shown(results.median(f"ours {cell.name} | {name}")) for name in names))
        for cell in CELLS
        if f"ours {cell.name} | {names[0]}" in results.series
    ]
    units = ["CPU s/GiB"] * len(ingest.SERVICES) + ["most MiB"] * len(ingest.SERVICES)
    head = [f"{part}, {unit}" for part, unit in zip(ingest.SERVICES * 2, units, strict=True)]
    return _table(("chunk x sessions", *head), rows)


def _sealing(results: Results) -> str:
    names = ("seal {} | time", "seal {} | more memory", "prove in {} | time")
    rows = [
        (f"{size:,}", *(shown(results.median(name.format(size))) for name in names))
        for size in sealing.SIZES
        if names[0].format(size) in results.series
    ]
    return _table(("chunks", "seal, s", "more MiB", "a proof, ms"), rows)


def _batches(results: Results) -> str:
    names = ("made in", "gas", "gas a session", "a receipt, fetched and verified")
    rows = [
        (f"{size:,}", *(shown(results.median(f"batch of {size} | {name}")) for name in names))
        for size in anchoring.BATCHES
        if f"batch of {size} | gas" in results.series
    ]
    return _table(("sessions in a batch", "made in, s", "gas", "gas a session", "a receipt, ms"), rows)


def _bars(results: Results) -> str:
    rows = []
    for bar in BARS:
        met = bar.met(results)
        said = "not measured" if met is None else "reached" if met else "missed"
        rows.append((bar.what, f"{'<=' if bar.at_most else '>='} {shown(bar.bound)}", shown(bar.value(results)), said))
    return _table(("bar", "bound", "now", ""), rows)
