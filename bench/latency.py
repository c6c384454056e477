"""Measures the latency of a chunk while many sessions record slowly, and compares it with a bare insert.

It also measures two services that do the minimum: their latency is the lower bound for any two services.
"""

import random
from collections.abc import Callable
from typing import Any, Final

from bench import hops
from bench.ingest import KIB, Cell, Ingest, subordinate
from bench.results import Results, percentile

CELL: Final = Cell(64 * KIB, 50)
PER_SECOND: Final = 50


def measure(ingest: Ingest, number: int, seconds: float, results: Results, told: Callable[[str], None]) -> None:
    """All three, one after the other, in an order drawn for the round."""
    order = _order(ingest, number, seconds)
    with hops.running(order["mongodb_url"]) as hops_url:
        jobs = [
            ("ours", "bench.load", order),
            ("hops", "bench.load", order | {"url": hops_url}),
            ("bare", "bench.bare", order),
        ]
        for name, module, what in random.Random(number).sample(jobs, len(jobs)):
            _one(name, module, what, results, told)


def ours(ingest: Ingest, number: int, seconds: float, results: Results, told: Callable[[str], None]) -> None:
    """Measure the services alone."""
    _one("ours", "bench.load", _order(ingest, number, seconds), results, told)


def _order(ingest: Ingest, number: int, seconds: float) -> dict[str, Any]:
    return ingest.order(CELL, f"paced-{number}") | {"plan": {"per_second": PER_SECOND, "seconds": seconds}}


def _one(name: str, module: str, order: dict[str, Any], results: Results, told: Callable[[str], None]) -> None:
    told(f"latency {name}")
    outcome = subordinate(module, order)
    _add(results, f"{name} paced", outcome["latencies"])
    results.add(f"{name} paced | stolen", outcome["stolen"], "%")
    if name == "ours":
        _add(results, f"{name} paced, first", outcome["first"])


def _add(results: Results, name: str, latencies: list[float]) -> None:
    for share in (0.5, 0.99):
        results.add(f"{name} | p{share * 100:.0f}", percentile(latencies, share) * 1000, "ms")
