"""The audit trail's twin in memory."""

from collections.abc import Sequence
from typing import Final

from sessions.core.audit import day_of
from sessions.core.types import SessionId
from sessions.storage.audit_store import StoredEvent
from sessions.storage.memory import MemorySessions
from sessions.storage.store import SessionStatus

_UNSEALED: Final = (SessionStatus.OPEN, SessionStatus.SEALING)


class MemoryEvents:
    """`EventStore` in memory."""

    def __init__(self, sessions: MemorySessions) -> None:
        self._sessions = sessions
        self.events: dict[SessionId, dict[int, bytes]] = {}

    async def append(self, session_id: SessionId, start: int, events: Sequence[bytes]) -> int:
        """See `EventStore`."""
        day = self.events.setdefault(session_id, {})
        for place, data in enumerate(events):
            if start + place in day:
                return place
            day[start + place] = data
        return len(events)

    async def last(self, session_id: SessionId) -> StoredEvent | None:
        """See `EventStore`."""
        day = self.events.get(session_id)
        return StoredEvent(max(day), day[max(day)]) if day else None

    async def page(self, session_id: SessionId, start: int, limit: int) -> list[StoredEvent]:
        """See `EventStore`."""
        day = self.events.get(session_id, {})
        return [StoredEvent(index, day[index]) for index in sorted(day) if index >= start][:limit]

    async def unsealed(self, limit: int) -> list[SessionId]:
        """See `EventStore`."""
        records = self._sessions.records.items()
        return sorted(name for name, record in records if day_of(name) and record.status in _UNSEALED)[:limit]

    async def days(self, limit: int, before: SessionId | None) -> list[SessionId]:
        """See `EventStore`."""
        names = (name for name in self._sessions.records if day_of(name) and (before is None or name < before))
        return sorted(names, reverse=True)[:limit]
