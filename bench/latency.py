"""How long one chunk takes while many sessions record slowly, beside a bare insert at the same pace."""

from collections.abc import Callable
from typing import Final

from bench.ingest import KIB, Cell, Ingest, subordinate
from bench.results import Results, percentile

CELL: Final = Cell(64 * KIB, 50)
PER_SECOND: Final = 50


def measure(ingest: Ingest, number: int, seconds: float, results: Results, told: Callable[[str], None]) -> None:
    """Both, one after the other; in odd rounds the other way round."""
    order = ingest.order(CELL, f"paced-{number}") | {"plan": {"per_second": PER_SECOND, "seconds": seconds}}
    for name, module in (("ours", "bench.load"), ("bare", "bench.bare"))[:: -1 if number % 2 else 1]:
        told(f"latency {name}")
        outcome = subordinate(module, order)
        _add(results, f"{name} paced", outcome["latencies"])
        if "first" in outcome:
            _add(results, f"{name} paced, first", outcome["first"])


def _add(results: Results, name: str, latencies: list[float]) -> None:
    for share in (0.5, 0.99):
        results.add(f"{name} | p{share * 100:.0f}", percentile(latencies, share) * 1000, "ms")
