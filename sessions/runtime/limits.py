"""Limits on the requests of one token, and on failed authentication.

All of it is arithmetic on the event loop's thread: no locks, no timers, one small object for each token that is valid.
"""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from prometheus_client import Counter

from sessions.runtime.errors import DomainError

LIMITED = Counter("lucid_requests_limited_total", "Requests that were answered with 429, by the limit.", ("limit",))
for _limit in ("connections", "rate", "failures", "turns"):
    LIMITED.labels(_limit)
FAILURES_PER_SECOND: Final = 20
FAILURES_BURST: Final = 200
"""Limit on answers of 401, at once and then for each second. Failures of others never limit a valid token."""


@dataclass(frozen=True, slots=True)
class Limits:
    """Limits of each token; 0 is no limit. The burst is the rate of one second."""

    rate_per_second: int = 0
    connections_max: int = 0


class Bucket:
    """A token bucket: `burst` at once, then `per_second`."""

    __slots__ = ("_at", "_burst", "_left", "_per_second")

    def __init__(self, per_second: float, burst: float) -> None:
        self._per_second = per_second
        self._burst = burst
        self._left = burst
        self._at = time.monotonic()

    def take(self) -> float:
        """Take one; gives 0, or if there is none the seconds until there will be."""
        now = time.monotonic()
        self._left = min(self._burst, self._left + (now - self._at) * self._per_second)
        self._at = now
        if self._left < 1:
            return (1 - self._left) / self._per_second
        self._left -= 1
        return 0.0


class Usage:
    """The present use of one token."""

    __slots__ = ("_bucket", "_connections_max", "in_flight")

    def __init__(self, limits: Limits) -> None:
        rate = limits.rate_per_second
        self._bucket = Bucket(rate, rate) if rate else None
        self._connections_max = limits.connections_max or math.inf
        self.in_flight = 0

    def enter(self) -> Callable[[], None]:
        """Let a request in; call what this gives when it has been answered.

        Raises:
            DomainError: `too-many-requests`.
        """
        if self.in_flight >= self._connections_max:
            detail = f"this token has {self.in_flight} requests in flight, the most that it may; let some be answered"
            raise too_many("connections", detail, 1)
        if self._bucket is not None and (wait := self._bucket.take()):
            raise too_many("rate", "this token asks more often than it may; slow down", wait)
        self.in_flight += 1
        return self._leave

    def _leave(self) -> None:
        self.in_flight -= 1


class Failures:
    """Bounds what requests without a valid token cost: guessing, or a recorder whose token has expired."""

    def __init__(self, per_second: float = FAILURES_PER_SECOND, burst: float = FAILURES_BURST) -> None:
        self._bucket = Bucket(per_second, burst)

    def refusal(self, detail: str) -> DomainError:
        """The error for one more of them: `unauthorized`, or of too many `too-many-requests`, which tells nothing."""
        wait = self._bucket.take()
        if wait:
            return too_many("failures", "too many requests without a valid token; check yours, and come back", wait)
        return DomainError("unauthorized", detail)


def too_many(limit: str, detail: str, wait_seconds: float) -> DomainError:
    """Count a refusal by the name of its limit, and return the error."""
    LIMITED.labels(limit).inc()
    return DomainError("too-many-requests", detail, retry_after_seconds=math.ceil(wait_seconds))
