"""Seals that were begun and are not decided: for how long this process has seen each, by its own monotonic clock."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

from sessions.core.types import SessionId
from sessions.storage.heads import SessionHead

RESUME_SEAL_AFTER_SECONDS: Final = 10.0
"""Time for which a seal is left to the process that began it, in seconds."""
_REMEMBERED: Final = 10_000
"""Limit on the sessions that are remembered; others have their turn once these are decided."""


class BegunSeals:
    """Remembers the sessions of the last look at those that are being sealed."""

    def __init__(self, monotonic: Callable[[], float]) -> None:
        self._monotonic = monotonic
        self._seen: dict[SessionId, tuple[str | None, float]] = {}

    @contextmanager
    def look(self) -> Iterator[Callable[[SessionHead], bool]]:
        """Begin another look; give a function that returns whether a session's order was first seen long ago.

        What a look does not come to is forgotten, unless it breaks off.
        """
        seen: dict[SessionId, tuple[str | None, float]] = {}

        def is_old(head: SessionHead) -> bool:
            now = self._monotonic()
            order_id, since = self._seen.get(head.session_id, (None, now))
            if order_id != head.order_id:
                since = now
            if len(seen) < _REMEMBERED:
                seen[head.session_id] = head.order_id, since
            return now - since >= RESUME_SEAL_AFTER_SECONDS

        try:
            yield is_old
        except BaseException:
            kept = {name: one for name, one in self._seen.items() if name not in seen}
            seen |= dict(list(kept.items())[: _REMEMBERED - len(seen)])
            raise
        finally:
            self._seen = seen
