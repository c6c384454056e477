"""The metrics that both services have. Names and units by the Prometheus conventions."""

import asyncio
from typing import Final

from prometheus_client import Gauge, Histogram

from sessions.runtime.budget import ByteBudget

_LATENCY_BUCKETS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)

REQUEST_SECONDS = Histogram(
    "lucid_request_duration_seconds",
    "Time from a request's head to the end of its answer.",
    ("method", "route", "status"),
    buckets=_LATENCY_BUCKETS,
)
REQUESTS_IN_FLIGHT = Gauge("lucid_requests_in_flight", "Requests that are being served now.")
BUDGET_USED_BYTES = Gauge("lucid_inflight_bytes", "Bytes of requests held in memory now.")
BUDGET_TOTAL_BYTES = Gauge("lucid_inflight_limit_bytes", "The most that may be held at once.")
LOOP_LAG_SECONDS = Histogram(
    "lucid_event_loop_lag_seconds",
    "How much later than asked for the event loop runs a timer.",
    buckets=(0.001, 0.0025, 0.005, 0.01, 0.02, 0.05, 0.1, 0.5, 1),
)
_LAG_PROBE_SECONDS: Final = 0.1


def watch_budget(budget: ByteBudget) -> None:
    """Show a budget's use."""
    BUDGET_TOTAL_BYTES.set(budget.total_bytes)
    BUDGET_USED_BYTES.set_function(lambda: budget.used_bytes)


async def watch_loop_lag() -> None:
    """Measure the event loop's lag until cancelled."""
    loop = asyncio.get_running_loop()
    while True:
        due = loop.time() + _LAG_PROBE_SECONDS
        await asyncio.sleep(_LAG_PROBE_SECONDS)
        LOOP_LAG_SECONDS.observe(max(0.0, loop.time() - due))
