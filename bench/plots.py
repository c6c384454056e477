"""The plots of a run, as SVG."""

from pathlib import Path
from typing import Final

import matplotlib as mpl
from matplotlib import pyplot as plt
from matplotlib.figure import Figure

from bench.ingest import CELLS, TOOLS_CELL
from bench.results import Results
from bench.sealing import SIZES

mpl.use("svg")
mpl.rcParams |= {"svg.hashsalt": "lucid", "font.size": 10, "axes.spines.top": False, "axes.spines.right": False}
_BLUE, _GREY, _ORANGE, _GREEN = "#2563eb", "#9ca3af", "#ea580c", "#16a34a"
_PLAIN: Final = {"Date": None}


def draw(results: Results, folder: Path) -> list[Path]:
    """Draw what was measured; the files."""
    folder.mkdir(parents=True, exist_ok=True)
    found = [_recording(results, folder / "bench-recording.svg")]
    if any(f"seal {size} | time" in results.series for size in SIZES):
        found.append(_sealing(results, folder / "bench-sealing.svg"))
    return found


def _recording(results: Results, path: Path) -> Path:
    cells = [cell for cell in CELLS if f"ours {cell.name} | speed" in results.series]
    figure, axes = plt.subplots(figsize=(9, 4))
    for shift, who, label, colour in ((-0.2, "ours", "Lucid Sessions", _BLUE), (0.2, "bare", "bare loop", _GREY)):
        series = [results.series[f"{who} {cell.name} | speed"] for cell in cells]
        middles = [one.middle for one in series]
        spread = [[one.middle - min(one.values) for one in series], [max(one.values) - one.middle for one in series]]
        at = [number + shift for number in range(len(cells))]
        axes.bar(
            at, middles, 0.38, label=label, color=colour, yerr=spread, error_kw={"elinewidth": 1, "ecolor": "#374151"}
        )
    for tool, colour, style in (("restic", _ORANGE, "--"), ("borg", _GREEN, ":")):
        speed = results.median(f"{tool} backup | speed")
        if speed is not None:
            axes.axhline(speed, color=colour, linestyle=style, label=f"{tool} backup")
    axes.set_xticks(range(len(cells)), [cell.name.replace(" x ", "\nx ") for cell in cells])
    axes.set_ylabel("MiB/s, median and spread")
    axes.set_title(
        f"Recording: chunk size x sessions at once (tools: the same corpus, as {TOOLS_CELL.name})", fontsize=10
    )
    axes.legend(frameon=False, ncols=4, loc="upper left", bbox_to_anchor=(0, -0.18))
    return _save(figure, path)


def _sealing(results: Results, path: Path) -> Path:
    sizes = [size for size in SIZES if f"seal {size} | time" in results.series]
    figure, axes = plt.subplots(figsize=(6, 4))
    axes.loglog(
        sizes, [results.series[f"seal {size} | time"].middle for size in sizes], "o-", color=_BLUE, label="seal"
    )
    proofs = [results.series[f"prove in {size} | time"].middle / 1000 for size in sizes]
    axes.loglog(sizes, proofs, "s--", color=_ORANGE, label="prove one chunk")
    axes.set_xlabel("chunks of the session")
    axes.set_ylabel("seconds")
    axes.legend(frameon=False)
    return _save(figure, path)


def _save(figure: Figure, path: Path) -> Path:
    figure.tight_layout()
    figure.savefig(path, metadata=_PLAIN)
    plt.close(figure)
    return path
