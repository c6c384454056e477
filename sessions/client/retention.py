"""How long sessions are kept: what a client asks of session-storage about it."""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias, cast

from sessions.client.answers import known_members
from sessions.client.paging import walk
from sessions.client.transport import OneStorage, session_path
from sessions.core.types import SessionId, session_id

Verdict: TypeAlias = Literal["shred", "held", "retained"]
_VERDICTS: Final = ("shred", "held", "retained")
_MAX_ITEMS: Final = 10_000


@dataclass(frozen=True, slots=True, kw_only=True)
class DueSession:
    """A session whose time is up: it is shredded next, or stays because it is `held` or `retained`. RFC 3339 times."""

    session_id: SessionId
    sealed_at: str
    delete_at: str
    retained_until: str | None
    verdict: Verdict


@dataclass(frozen=True, slots=True, kw_only=True)
class Kept:
    """Before when nobody may shred a session, and after when it is shredded; None: not at all, or not sealed yet."""

    session_id: SessionId
    retained_until: str | None
    delete_at: str | None


def due_page(value: object) -> tuple[list[DueSession], str | None]:
    """Read one page of sessions that are due, and the cursor of the next one.

    Raises:
        FormatError: it is not such an answer.
    """
    page = known_members("list of due sessions", value, ("sessions", "next_cursor"))
    found = []
    for item in page.items("sessions", _MAX_ITEMS):
        read = known_members("due session", item, DueSession.__dataclass_fields__)
        found.append(
            DueSession(
                session_id=session_id(read.text("session_id")),
                sealed_at=read.text("sealed_at"),
                delete_at=read.text("delete_at"),
                retained_until=read.optional("retained_until", read.text),
                verdict=cast("Verdict", read.one_of("verdict", _VERDICTS)),
            )
        )
    return found, page.optional("next_cursor", page.text)


def kept(value: object) -> Kept:
    """Read how long a session is kept, of its status.

    Raises:
        FormatError: it is not such an answer.
    """
    read = known_members("session", value, Kept.__dataclass_fields__)
    return Kept(
        session_id=session_id(read.text("session_id")),
        retained_until=read.optional("retained_until", read.text),
        delete_at=read.optional("delete_at", read.text),
    )


class RetentionCalls(OneStorage):
    """The calls about retention; `AsyncClient` has them."""

    async def retention_due(self) -> AsyncIterator[DueSession]:
        """All sessions whose time is up, page by page."""

        async def page(cursor: str | None) -> tuple[list[DueSession], str | None]:
            params = {"limit": 1000} | ({} if cursor is None else {"cursor": cursor})
            return await self._storage.json(
                "GET", "/api/v1/retention/due", lambda value, _: due_page(value), params=params
            )

        async for item in walk("the list of due sessions", page):
            yield item

    async def set_retention(
        self, session: str, *, retain_days: int | None = None, delete_after_days: int | None = None
    ) -> Kept:
        """Give a session terms of its own, in days after its seal; None: the operator's, 0 days to deletion: never."""
        body = {"retain_days": retain_days, "delete_after_days": delete_after_days}
        path = f"{session_path(session)}/retention"
        return await self._storage.json("PUT", path, lambda value, _: kept(value), json=body)
