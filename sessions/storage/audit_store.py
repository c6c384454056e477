"""Where the audit trail is kept. Twin: `memory_audit.py`; the real thing: `mongo_audit.py`."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from sessions.core import audit
from sessions.core.audit import Action, AuditEvent
from sessions.core.errors import CoreError
from sessions.core.types import SessionId


@dataclass(frozen=True, slots=True)
class StoredEvent:
    """An event as it lies there: its place in its day, and its bytes, which somebody may have altered."""

    index: int
    data: bytes

    def event(self) -> AuditEvent | None:
        """The event; None when the bytes are none."""
        try:
            return audit.from_bytes(self.data)
        except CoreError:
            return None

    @property
    def closes(self) -> bool:
        """Whether its day takes no more events."""
        event = self.event()
        return event is not None and event.action is Action.TRAIL_CLOSE


class EventStore(Protocol):
    """Events by the session of their day and their index there. They are only ever added."""

    async def append(self, session_id: SessionId, start: int, events: Sequence[bytes]) -> int:
        """Store events at `start` and behind, in order, up to the first index that is taken; gives how many were.

        They are journaled before this returns.
        """

    async def last(self, session_id: SessionId) -> StoredEvent | None:
        """The event with the highest index."""

    async def page(self, session_id: SessionId, start: int, limit: int) -> list[StoredEvent]:
        """Events from index `start` on, ascending, as a majority of the database has them."""

    async def unsealed(self, limit: int) -> list[SessionId]:
        """Sessions of days that have no manifest yet, the oldest first."""

    async def days(self, limit: int, before: SessionId | None) -> list[SessionId]:
        """Sessions of all days, the newest first, those before one of them."""
