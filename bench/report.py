"""What a run came to, for people: tables of 80 columns, and which bars are reached."""

from typing import Final

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from bench import anchoring, ingest, sealing
from bench.ingest import CELLS, TOOLS_CELL
from bench.profiling import REST, SERVICES, STAGES
from bench.results import Bar, Results, slope

_COLUMNS: Final = 80
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


def shown(value: float | None) -> str:
    """A figure in three places or so; `-` for none."""
    if value is None:
        return "-"
    if value >= 1000:  # noqa: PLR2004
        return f"{value:,.0f}"
    return f"{value:.3g}" if value < 100 else f"{value:.0f}"  # noqa: PLR2004


def _spread(results: Results, name: str) -> str:
    found = results.series.get(name)
    return f"{min(found.values):.0f}-{max(found.values):.0f}" if found else "-"


def _table(title: str, *head: str) -> Table:
    table = Table(*head[:1], title=title, title_justify="left", box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for name in head[1:]:
        table.add_column(name, justify="right")
    return table


def _recording(results: Results) -> Table:
    head = ("chunk x sessions", "MiB/s", "spread", "p50 ms", "p99 ms", "bare", "spread", "ratio")
    table = _table("Recording", *head)
    for cell in CELLS:
        ours, bare = f"ours {cell.name}", f"bare {cell.name}"
        names = (f"{ours} | speed", f"{ours} | p50", f"{ours} | p99", f"{bare} | speed")
        speed, p50, p99, bare_speed = (shown(results.median(name)) for name in names)
        spreads = _spread(results, f"{ours} | speed"), _spread(results, f"{bare} | speed")
        ratio = results.ratio(f"{ours} | speed", f"{bare} | speed")
        if speed != "-":
            table.add_row(cell.name, speed, spreads[0], p50, p99, bare_speed, spreads[1], f"{ratio or 0:.2f}")
    return table


def _tools(results: Results) -> Table:
    table = _table(
        f"Beside other tools, MiB/s (ours: {TOOLS_CELL.name})", "", "recording", "spread", "replay", "spread"
    )
    whole = [("ours", f"ours {TOOLS_CELL.name}", "ours replay")]
    whole += [(tool, f"{tool} backup", f"{tool} restore") for tool in ("restic", "borg")]
    for name, there, back in whole:
        speeds = [f"{there} | speed", f"{back} | speed"]
        if speeds[0] in results.series:
            cells = [text for speed in speeds for text in (shown(results.median(speed)), _spread(results, speed))]
            table.add_row(name, *cells)
    return table


def _costs(results: Results) -> Table:
    parts = [f"{short} {what}" for what in ("CPU", "MiB") for short in ("proc.", "stor.", "mongod")]
    table = _table("What it costs: CPU seconds for 1 GiB, and most memory", "chunk x sessions", *parts)
    for cell in CELLS:
        ours = f"ours {cell.name}"
        if f"{ours} | speed" in results.series:
            names = [f"{ours} | {what} {part}" for what in ("CPU", "memory") for part in ingest.SERVICES]
            table.add_row(cell.name, *(shown(results.median(name)) for name in names))
    return table


def _profile(results: Results) -> Table:
    """One row a stage; a column for each service and cell."""
    cells = [cell for cell in CELLS if any(name.startswith(f"profile {cell.name} |") for name in results.series)]
    heads = [f"{part}\n{cell.name}" for part in SERVICES for cell in cells]
    table = _table("Where the services' CPU time goes, in %", "", *heads)
    for stage in [*(stage for stage, _ in STAGES), REST]:
        names = [f"profile {cell.name} | {part} | {stage}" for part in SERVICES for cell in cells]
        if any(name in results.series for name in names):
            table.add_row(stage, *(shown(results.median(name)) for name in names))
    return table


def _sealing(results: Results) -> Table:
    table = _table("Sealing and proving", "chunks", "seal, s", "more MiB", "a proof, ms")
    sizes = [size for size in sealing.SIZES if f"seal {size} | time" in results.series]
    figures = ("seal {} | time", "seal {} | more memory", "prove in {} | time")
    for size in sizes:
        table.add_row(f"{size:,}", *(shown(results.median(name.format(size))) for name in figures))
    if len(sizes) > 1:
        growth = [slope(sizes, [results.series[name.format(size)].middle for size in sizes]) for name in figures[::2]]
        table.caption = f"a seal grows as n^{growth[0]:.2f}, a proof as n^{growth[1]:.2f}"
    return table


def _batches(results: Results) -> Table:
    table = _table(
        "Anchoring: one transaction a batch", "sessions", "made in, s", "gas", "gas a session", "a receipt, ms"
    )
    for size in anchoring.BATCHES:
        figures = ("made in", "gas", "gas a session", "a receipt, fetched and verified")
        if f"batch of {size} | gas" in results.series:
            table.add_row(f"{size:,}", *(shown(results.median(f"batch of {size} | {name}")) for name in figures))
    return table


def _bars(results: Results) -> Table:
    table = _table("Bars", "", "bar", "now", "")
    for bar in BARS:
        met = bar.met(results)
        said = "not measured" if met is None else "reached" if met else "MISSED"
        sign = "<=" if bar.at_most else ">="
        table.add_row(bar.what, f"{sign} {shown(bar.bound)}", shown(bar.value(results)), said)
    return table


def show(results: Results) -> None:
    """Print all tables of what was measured."""
    console = Console(width=_COLUMNS, highlight=False)
    for make in (_recording, _tools, _costs, _profile, _sealing, _batches, _bars):
        table = make(results)
        if table.row_count:
            console.print(table)
