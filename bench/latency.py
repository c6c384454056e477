"""How long one chunk takes while many sessions record slowly, beside a bare insert at the same pace."""

from collections.abc import Callable
from typing import Any, Final

from bench.ingest import KIB, Cell, Ingest, subordinate
from bench.results import Results, percentile

CELL: Final = Cell(64 * KIB, 50)
PER_SECOND: Final = 50


def measure(ingest: Ingest, number: int, seconds: float, results: Results, told: Callable[[str], None]) -> None:
    """Both, one after the other; in odd rounds the other way round."""
    order = ingest.order(CELL, f"paced-{number}") | {"plan": {"per_second": PER_SECOND, "seconds": seconds}}
    for name, module in (("ours", "bench.load"), ("bare", "bench.bare"))[:: -1 if number % 2 else 1]:
        told(f"latency {name}")
        _add(results, f"{name} paced", subordinate(module, order))


def _add(results: Results, name: str, outcome: dict[str, Any]) -> None:
    for share in (0.5, 0.99):
        results.add(f"{name} | p{share * 100:.0f}", percentile(outcome["latencies"], share) * 1000, "ms")
