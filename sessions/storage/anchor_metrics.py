"""What anchoring shows on `/metrics`: read off the anchorer's status when it is asked for."""

from collections.abc import Iterator
from typing import Final

from prometheus_client import REGISTRY
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from sessions.runtime.metrics import UNKNOWN
from sessions.storage.anchorer_status import AnchorerStatus

_WEI_PER_COIN: Final = 10**18


class AnchorMetrics(Collector):
    """Shows the anchorer of this process; without one, ANCHORING=off."""

    def __init__(self) -> None:
        self._status = AnchorerStatus()
        self._enabled = False
        self._interval_seconds = UNKNOWN

    def show(self, status: AnchorerStatus | None, interval_seconds: float = UNKNOWN) -> None:
        """Show this status from now on; None is anchoring that is off."""
        self._status = status or AnchorerStatus()
        self._enabled = status is not None
        self._interval_seconds = interval_seconds

    def collect(self) -> Iterator[Metric]:
        """See `Collector`."""
        status = self._status
        up = UNKNOWN if status.chain_ok is None else status.chain_ok
        balance = UNKNOWN if status.balance_wei is None else status.balance_wei / _WEI_PER_COIN
        for name, text, value in (
            ("enabled", "1 with ANCHORING=on, 0 with off.", self._enabled),
            (
                "interval_seconds",
                "ANCHOR_INTERVAL_SECONDS, the least time between two batches; NaN with ANCHORING=off.",
                self._interval_seconds,
            ),
            ("leader", "1 while this replica holds the anchorer's lease.", status.leader),
            ("chain_up", "1 while the chain does what it is asked for, 0 while it does not; NaN before that.", up),
            (
                "balance_coins",
                "What the publisher's account holds, in the chain's coin; NaN until it is known.",
                balance,
            ),
        ):
            yield GaugeMetricFamily(f"lucid_anchor_{name}", text, value=float(value))
        batches = CounterMetricFamily("lucid_anchor_batches", "Batches by the step they took.", labels=("step",))
        batches.add_metric(("made",), status.batches_made)
        batches.add_metric(("included",), status.batches_included)
        batches.add_metric(("confirmed",), status.batches_confirmed)
        yield batches
        for name, text, value in (
            ("sessions", "Sealed sessions that were put into batches.", status.sessions_batched),
            ("transactions", "Transactions that were signed, replacements included.", status.transactions_signed),
            ("reorganisations", "Batches that the chain had and dropped.", status.reorganisations),
            ("failures", "Rounds of anchoring that failed; each is tried again.", status.failures),
        ):
            yield CounterMetricFamily(f"lucid_anchor_{name}", text, value=float(value))


METRICS: Final = AnchorMetrics()
REGISTRY.register(METRICS)
