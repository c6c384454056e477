"""The twins in memory of what a scrub reads and remembers."""

from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Final

from sessions.core.types import SessionId
from sessions.storage.memory import MemoryChunks, MemorySessions
from sessions.storage.memory_audit import MemoryEvents
from sessions.storage.scrub_store import BodyKey, Finding, KeptFinding, Position

_KEY_BYTES: Final = 16


class MemoryBodyScan:
    """`BodyScan` in memory."""

    def __init__(self, sessions: MemorySessions, chunks: MemoryChunks, events: MemoryEvents) -> None:
        self._sessions = sessions
        self._chunks = chunks
        self._events = events

    async def next_session(self, after: SessionId | None) -> SessionId | None:
        """See `BodyScan`."""
        records = (*self._chunks.records.items(), *self._events.events.items())
        with_records = {name for name, taken in records if taken}
        names = self._sessions.records.keys() | with_records | {key[0] for key in self._chunks.bodies}
        return min((name for name in names if after is None or name > after), default=None)

    async def next_index(self, session_id: SessionId, start: int) -> int | None:
        """See `BodyScan`."""
        indexes = {index for name, index, _ in self._chunks.bodies if name == session_id}
        for records in (self._chunks.records, self._events.events):
            indexes |= set(records.get(session_id, {}))
        return min((index for index in indexes if index >= start), default=None)

    async def keys(self, session_id: SessionId, start: int, end: int) -> set[BodyKey]:
        """See `BodyScan`."""
        return {
            BodyKey(index, digest[:_KEY_BYTES])
            for name, index, digest in self._chunks.bodies
            if name == session_id and start <= index < end
        }

    async def parts(self, session_id: SessionId, key: BodyKey) -> AsyncIterator[bytes]:
        """See `BodyScan`."""
        for (name, index, digest), body in list(self._chunks.bodies.items()):
            if (name, index, digest[:_KEY_BYTES]) == (session_id, key.index, key.digest):
                yield body


class MemoryFindings:
    """`FindingStore` in memory."""

    def __init__(self) -> None:
        self.findings: dict[str, KeptFinding] = {}
        self.at: Position | None = None

    async def keep(self, findings: Sequence[Finding], now: datetime) -> None:
        """See `FindingStore`."""
        for finding in findings:
            kept = self.findings.get(finding.name) or KeptFinding(finding, now, now)
            self.findings[finding.name] = replace(kept, finding=finding, last_seen=now)

    async def page(self, limit: int, after: str | None, only: SessionId | None = None) -> list[KeptFinding]:
        """See `FindingStore`."""
        kept = [self.findings[name] for name in sorted(self.findings) if after is None or name > after]
        return [one for one in kept if only in (None, one.finding.session_id)][:limit]

    async def position(self) -> Position | None:
        """See `FindingStore`."""
        return self.at

    async def move(self, position: Position | None) -> None:
        """See `FindingStore`."""
        self.at = position
