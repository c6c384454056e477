"""The limits on a chunk's size of the processors that report here, CHUNK_MAX_BYTES of each."""

import time
from collections.abc import Callable
from typing import Final

from sessions.runtime.health import Check
from sessions.storage.processors import MAX_PROCESSORS

_HEARD_SECONDS: Final = 60.0
"""Seconds after which a processor that does not report to this replica counts no more."""


class ChunkLimits:
    """Compares this service's limit with those of the processors."""

    def __init__(self, own_bytes: int, clock: Callable[[], float] = time.monotonic) -> None:
        self.own_bytes = own_bytes
        self._clock = clock
        self._others: dict[str, tuple[float, int]] = {}

    def heard(self, processor: str, limit_bytes: int | None) -> None:
        """Note a processor's limit; None: it does not report one."""
        self._others.pop(processor, None)
        if limit_bytes is None or limit_bytes == self.own_bytes:
            return
        while len(self._others) >= MAX_PROCESSORS:
            del self._others[next(iter(self._others))]
        self._others[processor] = (self._clock(), limit_bytes)

    def check(self) -> Check:
        """Return the health of the limits: `degraded` while a processor has another one."""
        since = self._clock() - _HEARD_SECONDS
        named = [f"{limit} at {name}" for name, (at, limit) in sorted(self._others.items()) if at >= since]
        if not named:
            return Check("ok")
        return Check(
            "degraded", f"CHUNK_MAX_BYTES: it is {self.own_bytes} here and {', '.join(named)}; set all of them alike"
        )
