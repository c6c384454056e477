"""What a run came to, for people: tables of 80 columns, and which bars are reached."""

from typing import Final

from bench import anchoring, ingest, sealing
from bench.ingest import CELLS, TOOLS_CELL, Cell
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


def _shown(value: float | None) -> str:
    if value is None:
        return "-"
    if value >= 1000:  # noqa: PLR2004
        return f"{value:,.0f}"
    return f"{value:.3g}" if value < 100 else f"{value:.0f}"  # noqa: PLR2004


def _rows(rows: list[tuple[str, ...]], widths: tuple[int, ...]) -> list[str]:
    return [
        "".join(
            f"{cell:<{width}}" if at == 0 else f"{cell:>{width}}"
            for at, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        for row in rows
    ]


def _spread(results: Results, name: str) -> str:
    found = results.series.get(name)
    return f"{min(found.values):.0f}-{max(found.values):.0f}" if found else "-"


def _cell(results: Results, cell: Cell) -> tuple[str, ...]:
    ours, bare = f"ours {cell.name}", f"bare {cell.name}"
    ratio = results.ratio(f"{ours} | speed", f"{bare} | speed")
    return (
        cell.name,
        _shown(results.median(f"{ours} | speed")),
        _spread(results, f"{ours} | speed"),
        _shown(results.median(f"{ours} | p50")),
        _shown(results.median(f"{ours} | p99")),
        _shown(results.median(f"{bare} | speed")),
        _spread(results, f"{bare} | speed"),
        "-" if ratio is None else f"{ratio:.2f}",
    )


def tables(results: Results) -> str:
    """All tables, one below the other."""
    measured = [cell for cell in CELLS if f"ours {cell.name} | speed" in results.series]
    lines = ["recording, MiB/s and ms", ""]
    head = ("chunk x sessions", "ours", "spread", "p50", "p99", "bare", "spread", "ratio")
    lines += _rows([head, *(_cell(results, cell) for cell in measured)], (16, 8, 10, 8, 8, 8, 10, 8))
    lines += ["", f"beside other tools ({TOOLS_CELL.name}), MiB/s", ""]
    whole = [("ours", f"ours {TOOLS_CELL.name}", "ours replay")]
    whole += [(tool, f"{tool} backup", f"{tool} restore") for tool in ("restic", "borg")]
    rows = [("", "recording", "spread", "replay", "spread")]
    for name, there, back in whole:
        speeds = [f"{there} | speed", f"{back} | speed"]
        if speeds[0] in results.series:
            shown = [text for speed in speeds for text in (_shown(results.median(speed)), _spread(results, speed))]
            rows.append((name, *shown))
    lines += _rows(rows, (16, 12, 12, 12, 12))
    lines += ["", "what it costs: CPU seconds for 1 GiB, and most memory, MiB", ""]
    head = ("chunk x sessions", *(part for part in ingest.SERVICES), *ingest.SERVICES)
    rows = [head]
    for cell in measured:
        cpu = [_shown(results.median(f"ours {cell.name} | CPU {part}")) for part in ingest.SERVICES]
        memory = [_shown(results.median(f"ours {cell.name} | memory {part}")) for part in ingest.SERVICES]
        rows.append((cell.name, *cpu, *memory))
    lines += _rows(rows, (16, 11, 9, 9, 13, 9, 9))
    lines += _sealing(results) + _batches(results)
    return "\n".join(lines)


def _sealing(results: Results) -> list[str]:
    sizes = [size for size in sealing.SIZES if f"seal {size} | time" in results.series]
    if not sizes:
        return []
    rows = [("chunks", "seal, s", "more MiB", "a proof, ms")]
    for size in sizes:
        names = (f"seal {size} | time", f"seal {size} | more memory", f"prove in {size} | time")
        rows.append((f"{size:,}", *(_shown(results.median(name)) for name in names)))
    lines = ["", "sealing and proving", "", *_rows(rows, (16, 12, 12, 14))]
    if len(sizes) > 1:
        times = [results.series[f"seal {size} | time"].middle for size in sizes]
        proofs = [results.series[f"prove in {size} | time"].middle for size in sizes]
        lines.append(f"grows as n^{slope(sizes, times):.2f}; a proof as n^{slope(sizes, proofs):.2f}")
    return lines


def _batches(results: Results) -> list[str]:
    sizes = [size for size in anchoring.BATCHES if f"batch of {size} | gas" in results.series]
    if not sizes:
        return []
    rows = [("sessions", "made in, s", "gas", "gas a session", "a receipt, ms")]
    for size in sizes:
        names = ("made in", "gas", "gas a session", "a receipt, fetched and verified")
        rows.append((f"{size:,}", *(_shown(results.median(f"batch of {size} | {name}")) for name in names)))
    return ["", "anchoring, one transaction a batch", "", *_rows(rows, (16, 12, 12, 15, 15))]


def verdict(results: Results) -> str:
    """Each bar, and whether it is reached."""
    rows = [("", "bar", "now", "")]
    for bar in BARS:
        met = bar.met(results)
        sign = "<=" if bar.at_most else ">="
        said = "not measured" if met is None else "reached" if met else "MISSED"
        rows.append((bar.what, f"{sign} {_shown(bar.bound)}", _shown(bar.value(results)), said))
    return "\n".join(_rows(rows, (48, 10, 8, 13)))
