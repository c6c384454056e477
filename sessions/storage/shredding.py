"""Shredding: a session's keys and bodies go, its manifest, chunk records, tiles and receipt stay.

The key ring goes first, in the one write that sets the tombstone; so a crash at any point after it leaves bodies that
nobody can open. That write also marks the session as being shredded, and the mark is taken away when the bodies went:
whoever comes next finds it, and finishes.
"""

from typing import Final

from prometheus_client import Counter

from sessions.core.types import SessionId
from sessions.runtime.audit import require_recording
from sessions.runtime.errors import DomainError
from sessions.runtime.killpoints import reach
from sessions.runtime.tasks import skipped
from sessions.storage import problems
from sessions.storage.killpoints import Point
from sessions.storage.retention import Terms
from sessions.storage.store import (
    BodyStore,
    Change,
    SessionRecord,
    SessionStatus,
    SessionStore,
    ShredReason,
    ShredStore,
    Tombstone,
)

_SEALED: Final = SessionStatus.SEALED
SHREDDED = Counter("lucid_sessions_shredded_total", "Sessions that were shredded, by why.", ("reason",))
for _reason in ShredReason:
    SHREDDED.labels(_reason.value)


class Shredder:
    """Destroys what a session says, and nothing of what proves it."""

    def __init__(self, sessions: SessionStore, unfinished: ShredStore, bodies: BodyStore, terms: Terms) -> None:
        self._sessions = sessions
        self._unfinished = unfinished
        self._bodies = bodies
        self._terms = terms

    async def shred(self, session_id: SessionId, reason: ShredReason, by: str) -> SessionRecord:
        """Destroy a sealed session's keys, then its bodies. May be repeated: the first tombstone stays.

        Raises:
            DomainError: `session-not-found`, `session-open`, `session-held`, `session-retained`, `session-reserved`.
        """
        record = await self._get(require_recording(session_id))
        while record.status is not SessionStatus.SHREDDED:
            if record.status is not _SEALED:
                raise problems.session_open(session_id, "only a sealed session leaves a proof of what it was")
            if (error := self._terms.objection(record)) is not None:
                raise error
            tombstone = Tombstone(self._terms.clock(), reason, by)
            change = Change(status=SessionStatus.SHREDDED, tombstone=tombstone, retention=record.retention)
            updated = await self._sessions.update(session_id, _SEALED, change)
            if updated is not None:
                SHREDDED.labels(reason.value).inc()
            record = updated or await self._get(session_id)  # another shredded, held or retains it
        reach(Point.SHRED_KEYS_DELETED)
        await self._finish(session_id)
        return record

    async def resume(self, limit: int) -> int:
        """Delete bodies that a crash left of shredded sessions; return of how many.

        Raises:
            DomainError: `database-unavailable`.
        """
        finished = 0
        for session_id in await self._unfinished.unfinished(limit):
            try:
                await self._finish(session_id)
            except DomainError:  # the database's
                raise
            except Exception:  # noqa: BLE001 - whatever is wrong with this session, others are to be shredded
                skipped(session_id=session_id)
            else:
                finished += 1
        return finished

    async def _finish(self, session_id: SessionId) -> None:
        await self._bodies.drop(session_id)
        reach(Point.SHRED_BODIES_DELETED)
        await self._unfinished.finished(session_id)
        reach(Point.SHRED_FINISHED)

    async def _get(self, session_id: SessionId) -> SessionRecord:
        record = await self._sessions.get(session_id)
        if record is None:
            raise problems.session_not_found(session_id)
        return record
