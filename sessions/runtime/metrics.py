"""The metrics that both services have. Names and units by the Prometheus conventions."""

import asyncio
from functools import cache
from typing import Final

from prometheus_client import Gauge, Histogram, Info, disable_created_metrics

from sessions import __version__
from sessions.runtime.budget import ByteBudget

LATENCY_BUCKETS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)
SIZE_BUCKETS: Final = tuple(4**power for power in range(4, 14))
"""Bytes, from 256 to 64 Mi."""
BATCH_BUCKETS: Final = (1, 2, 4, 8, 16, 32, 64, 128, 1024)
"""Envelopes that go together."""
UNKNOWN: Final = float("nan")
"""What a gauge shows before it was measured: no condition of an alert is true of it."""
_METHODS: Final = frozenset({"GET", "HEAD", "PUT", "POST", "DELETE", "OPTIONS", "PATCH"})

# When a series began is of no use here, and would double their number.
disable_created_metrics()  # type: ignore[no-untyped-call] # the library has no types for it
BUILD = Info("lucid_build", "The version that runs.")
BUILD.info({"version": __version__})

REQUEST_SECONDS = Histogram(
    "lucid_request_duration_seconds",
    "Time from a request's head to the end of its answer.",
    ("method", "route", "status"),
    buckets=LATENCY_BUCKETS,
)
REQUESTS_IN_FLIGHT = Gauge("lucid_requests_in_flight", "Requests that are being served now.")
BUDGET_USED_BYTES = Gauge("lucid_inflight_bytes", "Bytes of requests held in memory now.")
BUDGET_TOTAL_BYTES = Gauge(
    "lucid_inflight_limit_bytes", "The most bytes of requests that may be held in memory at once."
)
LOOP_LAG_SECONDS = Histogram(
    "lucid_event_loop_lag_seconds",
    "How much later than asked for the event loop runs a timer.",
    buckets=(0.001, 0.0025, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1, 5),
)
_LAG_PROBE_SECONDS: Final = 0.1


@cache
def request_seconds(method: str, route: str, status: int) -> Histogram:
    """Return the series of such requests. There are few: routes by their templates, and no free words."""
    return REQUEST_SECONDS.labels(method, route, status)


def method_label(method: str) -> str:
    """A request's method; anybody may send any word, so those that no route has are one."""
    return method if method in _METHODS else "other"


def watched(budget: ByteBudget) -> ByteBudget:
    """Show a budget's use, and return the budget."""
    BUDGET_TOTAL_BYTES.set(budget.total_bytes)
    BUDGET_USED_BYTES.set_function(lambda: budget.used_bytes)
    return budget


async def watch_loop_lag() -> None:
    """Measure the event loop's lag until cancelled."""
    loop = asyncio.get_running_loop()
    while True:
        due = loop.time() + _LAG_PROBE_SECONDS
        await asyncio.sleep(_LAG_PROBE_SECONDS)
        LOOP_LAG_SECONDS.observe(max(0.0, loop.time() - due))
