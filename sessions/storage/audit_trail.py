"""The audit trail: takes events in, one behind the other, and closes a day.

A day's indexes have no gaps, whoever writes: a writer inserts behind the last event that it knows, and when another
was there first, looks again. The event that closes a day takes an index like any other, so of it and a writer who comes
at the same moment one is first: either the event is before the close, and the seal that follows covers it, or the
writer finds the day closed, and goes on in the next one. Nothing is ever in a day and outside its seal.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from typing import Final

from sessions.core import audit
from sessions.core.audit import Action, AuditEvent, Outcome
from sessions.core.types import SessionId
from sessions.runtime.errors import DomainError
from sessions.runtime.times import Clock, now, to_rfc3339
from sessions.storage.audit_store import EventStore, StoredEvent
from sessions.storage.store import Retention, SessionRecord, SessionStatus, SessionStore

INSERT_EVENTS: Final = 256
"""The most in one insert: the driver encodes on the event loop."""
_FOR_GOOD: Final = Retention(delete_after_days=0)


@dataclass(slots=True, eq=False)
class _Batch:
    """What one caller wants written, and what became of it."""

    events: list[bytes]
    done: bool = False
    error: DomainError | None = None


class Trail:
    """Writes the trail, as one of many replicas."""

    def __init__(self, events: EventStore, sessions: SessionStore, service: str, clock: Clock = now) -> None:
        self._events = events
        self._sessions = sessions
        self._service = service
        self._clock = clock
        self._lock = asyncio.Lock()
        self._waiting: list[_Batch] = []
        self._today = self._day = date.min  # by the clock; and the one that events go into, which may be a later one
        self._next: int | None = None

    async def write(self, events: Sequence[AuditEvent]) -> None:
        """Store events; they are journaled when this returns. Those that wait meanwhile travel together.

        Repeated after an error, an event may be there twice.

        Raises:
            DomainError: `database-unavailable`.
        """
        batch = _Batch([event.to_bytes() for event in events])
        self._waiting.append(batch)
        try:
            async with self._lock:
                if not batch.done:
                    await self._write_waiting()
        finally:
            if batch in self._waiting:  # its caller went away
                self._waiting.remove(batch)
        if batch.error is not None:
            raise DomainError(batch.error.code, batch.error.detail, retry_after_seconds=1) from batch.error

    async def _write_waiting(self) -> None:
        taken = list(self._waiting)
        error: DomainError | None = None
        try:
            await self._append([data for batch in taken for data in batch.events])
        except DomainError as caught:
            error = caught  # of all: each would wait for the same database
            self._next = None
        for batch in taken:
            batch.done, batch.error = True, error
            if batch in self._waiting:
                self._waiting.remove(batch)

    async def _append(self, rest: list[bytes]) -> None:
        today = self._clock().date()
        if today != self._today:
            self._today = self._day = today
            self._next = None
        while rest:
            name = session_of(self._day)
            if self._next is None:
                self._next = await self._first_free(name)
            if self._next is None:
                self._day += timedelta(days=1)
                continue
            some = rest[:INSERT_EVENTS]
            stored = await self._events.append(name, self._next, some)
            self._next = self._next + stored if stored == len(some) else None
            rest = rest[stored:]

    async def _first_free(self, name: SessionId) -> int | None:
        """The index behind a day's last event; None when the day is closed."""
        await self._sessions.create(_record(name))
        last = await self._events.last(name)
        return None if last is not None and last.closes else _behind(last)

    async def close(self, name: SessionId) -> None:
        """Write the last event of a day; does nothing where it is.

        Raises:
            DomainError: `database-unavailable`.
        """
        event = AuditEvent(
            time=to_rfc3339(self._clock()),
            service=self._service,
            principal=None,
            action=Action.TRAIL_CLOSE,
            session_id=None,
            outcome=Outcome.ALLOWED,
            code=None,
            request_id=None,
        )
        while True:
            last = await self._events.last(name)
            if last is not None and last.closes:
                return
            if await self._events.append(name, _behind(last), [event.to_bytes()]):
                return


def _behind(last: StoredEvent | None) -> int:
    return 0 if last is None else last.index + 1


def session_of(day: date) -> SessionId:
    """The session of a day."""
    return audit.session_of(day.isoformat())


def begin_of(name: SessionId) -> datetime:
    """When the day of a session of the trail begins."""
    return datetime.combine(date.fromisoformat(name.removeprefix(audit.RESERVED_PREFIX)), time(), UTC)


def _record(name: SessionId) -> SessionRecord:
    return SessionRecord(
        session_id=name,
        status=SessionStatus.OPEN,
        opened_at=begin_of(name),
        metadata=b"{}",
        keys=(),
        retention=_FOR_GOOD,
    )
