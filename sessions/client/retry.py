"""When to try again, and how long to wait: the one place that decides it.

A retry is safe because every request of the services may be repeated: a chunk is bound to its index, so the same
content again is answered 200 and changes nothing.
"""

import asyncio
import random
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final, TypeVar

from sessions.client.errors import BusyError, ClientError, UnreachableError

RETRIED_STATUSES: Final = frozenset({202, 429, 502, 503, 504, 507})
"""202 stands for a seal that is kept until session-storage is back."""

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryPolicy:
    """How long to keep trying. All times are in seconds; `budget_seconds` 0 means one attempt."""

    budget_seconds: float = 60.0
    wait_initial_seconds: float = 0.1
    wait_max_seconds: float = 5.0


class Patience:
    """Counts the attempts of one piece of work, and the time since it last made progress."""

    def __init__(self, policy: RetryPolicy) -> None:
        self._policy = policy
        self.renew()

    def renew(self) -> None:
        """There was progress: start afresh."""
        self._attempts = 0
        self._deadline = time.monotonic() + self._policy.budget_seconds

    def wait_seconds(self, error: ClientError) -> float | None:
        """How long to wait before the next attempt; None when there should be none.

        A `Retry-After` is obeyed, even when it is longer than our own longest wait; when it ends after the deadline
        there is no use in waiting at all.
        """
        if not is_transient(error):
            return None
        ceiling = min(self._policy.wait_max_seconds, self._policy.wait_initial_seconds * 2**self._attempts)
        # Half to whole of the ceiling, so that clients that failed together do not come back together.
        wait = ceiling * (0.5 + random.random() / 2)  # noqa: S311 - nothing secret hangs on it
        wait = max(wait, error.retry_after_seconds if isinstance(error, BusyError) else 0.0)
        self._attempts = min(self._attempts + 1, 30)
        return wait if time.monotonic() + wait <= self._deadline else None


def is_transient(error: ClientError) -> bool:
    """Whether the same request may succeed later."""
    return isinstance(error, UnreachableError) or (isinstance(error, BusyError) and error.status in RETRIED_STATUSES)


async def retrying(policy: RetryPolicy, attempt: Callable[[], Awaitable[T]]) -> T:
    """Call `attempt` until it succeeds, fails for good, or the time is up; then its last error is raised."""
    patience = Patience(policy)
    while True:
        try:
            return await attempt()
        except ClientError as error:
            wait = patience.wait_seconds(error)
            if wait is None:
                raise
        await asyncio.sleep(wait)
