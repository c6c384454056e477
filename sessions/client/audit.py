"""The audit trail: what a client asks of session-storage about it."""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any, Final

from sessions.client.answers import known_members, read_anchor
from sessions.client.paging import walk
from sessions.client.transport import OneStorage
from sessions.core import audit
from sessions.core.audit import AuditEvent
from sessions.core.errors import AuditFormatError
from sessions.core.receipt import Anchor
from sessions.core.types import HASH_BYTES, MAX_CHUNK_INDEX, Hash, SessionId

_MAX_ITEMS: Final = 10_000
_PAGE_ITEMS: Final = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditDay:
    """A day of the trail, and the session that it is; None where its seal will tell."""

    day: str
    session_id: SessionId
    status: str
    events: int | None
    sealed_at: str | None
    root: Hash | None
    anchor: Anchor | None


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditItem:
    """What lies at an index of a day: a JSON object, or None if it is none; and the event, if that is known here."""

    index: int
    value: dict[str, Any] | None
    event: AuditEvent | None

    def to_json(self) -> dict[str, Any]:
        """As storage gave it."""
        return {"index": self.index, "event": self.value}


def day_page(value: object) -> tuple[list[AuditDay], str | None]:
    """Read one page of days, and the cursor of the next one.

    Raises:
        FormatError: it is not such an answer.
    """
    page = known_members("list of days", value, ("days", "next_cursor"))
    return [_day(item) for item in page.items("days", _MAX_ITEMS)], page.optional("next_cursor", page.text)


def _day(value: object) -> AuditDay:
    read = known_members("day", value, AuditDay.__dataclass_fields__)
    day = read.text("day")
    if read.text("session_id") != audit.session_of(day):
        raise read.fail("session_id", "that of the day")
    return AuditDay(
        day=day,
        session_id=audit.session_of(day),
        status=read.one_of("status", ("open", "sealing", "sealed")),
        events=read.optional("events", read.integer),
        sealed_at=read.optional("sealed_at", read.timestamp),
        root=read.optional("root", lambda name: Hash(read.hex(name, HASH_BYTES))),
        anchor=read.optional("anchor", lambda name: read_anchor(read.value(name))),
    )


def event_page(value: object) -> tuple[list[AuditItem], str | None]:
    """Read one page of events, and the cursor of the next one.

    Raises:
        FormatError: it is not such an answer.
    """
    page = known_members("list of events", value, ("events", "next_cursor"))
    items = []
    for item in page.items("events", _MAX_ITEMS):
        read = known_members("place in the trail", item, ("index", "event"))
        given = read.value("event")
        if given is not None and not isinstance(given, dict):
            raise read.fail("event", "an object or null")
        items.append(AuditItem(index=read.integer("index", 0, MAX_CHUNK_INDEX), value=given, event=_known(given)))
    return items, page.optional("next_cursor", page.text)


def _known(value: object) -> AuditEvent | None:
    try:
        return audit.from_json(value)
    except AuditFormatError:  # of a newer service, it may be
        return None


class AuditCalls(OneStorage):
    """The calls about the audit trail; `AsyncClient` has them."""

    async def audit_days(self) -> AsyncIterator[AuditDay]:
        """All days that have events, newest first."""

        async def page(cursor: str | None) -> tuple[list[AuditDay], str | None]:
            params = {"limit": 1000} | ({} if cursor is None else {"cursor": cursor})
            return await self._storage.json(
                "GET", "/api/v1/audit-days", lambda value, _: day_page(value), params=params
            )

        async for item in walk("the list of days", page):
            yield item

    async def audit_events(self, day: str) -> AsyncIterator[AuditItem]:
        """What lies in the trail of a day such as `2026-01-31`, in order."""
        audit.session_of(day)  # it is not sent when it is no day

        async def page(cursor: str | None) -> tuple[list[AuditItem], str | None]:
            params = {"day": day, "limit": _PAGE_ITEMS} | ({} if cursor is None else {"cursor": cursor})
            return await self._storage.json(
                "GET", "/api/v1/audit-events", lambda value, _: event_page(value), params=params
            )

        async for item in walk("the list of events", page):
            yield item
