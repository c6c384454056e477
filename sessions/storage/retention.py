"""How long sessions are kept: before when nobody may shred them, and after when they are shredded by themselves.

Nothing that follows from the settings is stored with a session, so a setting that is changed holds for all sessions at
once. What is due is found by each of the terms that sessions have: all that have the same one are due in the order in
which they were sealed. Legal hold stands above everything.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any, Final, Protocol, TypeAlias

from sessions.core.types import SessionId
from sessions.runtime.errors import DomainError
from sessions.runtime.times import Clock, now
from sessions.storage import problems
from sessions.storage.heads import SessionHead
from sessions.storage.store import Cursor, Retention, SessionRecord, SessionStatus

MAX_DAYS: Final = 36_500
METADATA_MEMBER: Final = "retention"
_MEMBERS: Final = ("retain_days", "delete_after_days")
_SEALED: Final = (SessionStatus.SEALED, SessionStatus.SHREDDED)
Kept: TypeAlias = SessionRecord | SessionHead


@dataclass(frozen=True, slots=True)
class Terms:
    """The operator's terms, in days after the seal; to be deleted after 0 days is never."""

    retain_days: int = 0
    delete_after_days: int = 0
    clock: Clock = now

    def retained_until(self, record: Kept) -> datetime | None:
        """Before when nobody may shred a session; None when it is not sealed, or need not be kept."""
        days = self._retain_days(record.retention)
        return _after(record, days) if days else None

    def delete_at(self, record: Kept) -> datetime | None:
        """After when a session is to be shredded; None for never, or when it is not sealed."""
        own = record.retention.delete_after_days
        days = self.delete_after_days if own is None else own
        return _after(record, days) if days else None

    def require(self, session_id: SessionId, retention: Retention) -> None:
        """Refuse terms under which a session would be kept for less time than it has to be.

        Raises:
            DomainError: `retention-too-short`.
        """
        if retention.retain_days is not None and retention.retain_days < self.retain_days:
            what = f"retain_days {retention.retain_days} is less"
            raise problems.retention_too_short(session_id, what, self.retain_days)
        least = self._retain_days(retention)
        if retention.delete_after_days and retention.delete_after_days < least:
            what = f"delete_after_days {retention.delete_after_days} is less"
            raise problems.retention_too_short(session_id, what, least)

    def objection(self, record: Kept) -> DomainError | None:
        """Why a sealed session may not be shredded now: `session-held`, `session-retained`; None when it may."""
        if record.held:
            return problems.session_held(record.session_id)
        until = self.retained_until(record)
        return problems.session_retained(record.session_id, until) if until and self.clock() < until else None

    def _retain_days(self, retention: Retention) -> int:
        return max(self.retain_days, retention.retain_days or 0)


def _after(record: Kept, days: int) -> datetime | None:
    if record.seal_order is None or record.status not in _SEALED:
        return None
    return record.seal_order.sealed_at + timedelta(days=days)


def from_metadata(metadata: Mapping[str, Any] | None) -> Retention:
    """The terms that a recorder gives with `metadata.retention`; none without it.

    Raises:
        DomainError: `invalid-request`, for anything but the two members, as whole numbers of days.
    """
    if metadata is None or METADATA_MEMBER not in metadata:
        return Retention()
    given = metadata[METADATA_MEMBER]
    if not isinstance(given, dict) or not given.keys() <= set(_MEMBERS):
        raise DomainError("invalid-request", f"metadata.retention is an object with {' and '.join(_MEMBERS)}")
    for name, days in given.items():
        if type(days) is not int or not 0 <= days <= MAX_DAYS:
            detail = f"metadata.retention.{name} is a whole number of days, 0 to {MAX_DAYS}"
            raise DomainError("invalid-request", detail)
    return Retention(**given)


class DueStore(Protocol):
    """Sealed sessions by the terms of their own and the time of their seal."""

    async def terms(self) -> list[int]:
        """The `delete_after_days` that sealed sessions have as their own, ascending, each once."""

    async def due(
        self, delete_after_days: int | None, sealed_until: datetime, after: Cursor | None, limit: int
    ) -> list[SessionHead]:
        """Those with these days as their own (None: the operator's), in the order of their seals, behind a cursor."""


class Verdict(StrEnum):
    """What becomes of a session that is due."""

    SHRED = "shred"
    HELD = "held"
    RETAINED = "retained"


@dataclass(frozen=True, slots=True)
class DueSession:
    """A session whose time is up."""

    record: SessionHead
    delete_at: datetime
    verdict: Verdict


@dataclass(frozen=True, slots=True)
class Place:
    """The end of a page: the terms it was among, and the last session of it."""

    delete_after_days: int | None
    after: Cursor


@dataclass(frozen=True, slots=True)
class DuePage:
    """Sessions that are due, and where the next page starts (None at the end)."""

    sessions: list[DueSession]
    following: Place | None


class Due:
    """Finds the sessions whose time is up, page by page, and says what becomes of each. It changes nothing."""

    def __init__(self, store: DueStore, terms: Terms) -> None:
        self._store = store
        self._terms = terms

    async def page(self, start: Place | None, limit: int) -> DuePage:
        """At most `limit` of them behind `start`: first those under the operator's terms, then the others by theirs."""
        found: list[DueSession] = []
        groups: list[int | None] = [None, *await self._store.terms()]
        for own in groups:
            if start is not None and _order(own) < _order(start.delete_after_days):
                continue
            days = self._terms.delete_after_days if own is None else own
            if not days:
                continue
            after = start.after if start is not None and own == start.delete_after_days else None
            sealed_until = self._terms.clock() - timedelta(days=days)
            wanted = limit - len(found)
            records = await self._store.due(own, sealed_until, after, wanted)
            found += [self._judged(record) for record in records]
            if len(records) == wanted:
                return DuePage(found, Place(own, _cursor(records[-1])))
        return DuePage(found, None)

    def _judged(self, record: SessionHead) -> DueSession:
        objection = self._terms.objection(record)
        verdict = Verdict.SHRED if objection is None else Verdict.HELD if record.held else Verdict.RETAINED
        delete_at = self._terms.delete_at(record)
        assert delete_at is not None  # it is due
        return DueSession(record, delete_at, verdict)


def _order(own: int | None) -> int:
    return -1 if own is None else own


def _cursor(record: SessionHead) -> Cursor:
    assert record.seal_order is not None  # it is sealed
    return record.seal_order.sealed_at, record.session_id
