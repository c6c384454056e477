"""The quarantine of a chunk-processor: spool entries that session-storage did not take."""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Final
from urllib.parse import quote

from sessions.client.answers import known_members
from sessions.client.paging import walk
from sessions.client.transport import MAX_JSON_BYTES, Transport
from sessions.core.types import CHUNK_MAX_BYTES_LIMIT

_PATH: Final = "/api/v1/spool"
_PAGE_ITEMS: Final = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class SpoolEntry:
    """A quarantined entry: an opening, an envelope (of the chunk `index`) or a seal.

    None is what its bytes do not say, or an older version did not keep. `by` is the name of the token that opened the
    session at this processor.
    """

    name: str
    kind: str | None
    session_id: str | None
    index: int | None
    entry_bytes: int
    reason: str
    detail: str
    by: str | None
    quarantined_at: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class SpoolPage:
    """Some quarantined entries, and how much the spool and the whole quarantine hold; sizes in bytes."""

    entries: tuple[SpoolEntry, ...]
    next_cursor: str | None
    spooled_entries: int
    spooled_bytes: int
    quarantined_entries: int
    quarantined_bytes: int
    quarantine_max_bytes: int


def spool_entry(value: object) -> SpoolEntry:
    """Read a quarantined entry.

    Raises:
        FormatError: it is not such an answer.
    """
    read = known_members("quarantined entry", value, SpoolEntry.__dataclass_fields__)
    return SpoolEntry(
        name=read.text("name"),
        kind=read.optional("kind", read.text),
        session_id=read.optional("session_id", read.text),
        index=read.optional("index", read.integer),
        entry_bytes=read.integer("entry_bytes"),
        reason=read.text("reason"),
        detail=read.text("detail"),
        by=read.optional("by", read.text),
        quarantined_at=read.optional("quarantined_at", read.text),
    )


def spool_page(value: object) -> SpoolPage:
    """Read one page of the quarantine.

    Raises:
        FormatError: it is not such an answer.
    """
    read = known_members("page of the spool", value, SpoolPage.__dataclass_fields__)
    return SpoolPage(
        entries=tuple(spool_entry(item) for item in read.items("entries", _PAGE_ITEMS)),
        next_cursor=read.optional("next_cursor", read.text),
        spooled_entries=read.integer("spooled_entries"),
        spooled_bytes=read.integer("spooled_bytes"),
        quarantined_entries=read.integer("quarantined_entries"),
        quarantined_bytes=read.integer("quarantined_bytes"),
        quarantine_max_bytes=read.integer("quarantine_max_bytes"),
    )


class SpoolCalls:
    """The calls about one processor's spool; `AsyncClient` has them."""

    _processor: Transport

    async def spool_page(self, cursor: str | None = None, *, limit: int = _PAGE_ITEMS) -> SpoolPage:
        """Return one page of quarantined entries, oldest first."""
        params = {"limit": limit} | ({} if cursor is None else {"cursor": cursor})
        return await self._processor.json("GET", _PATH, lambda value, _: spool_page(value), params=params)

    async def spool_entries(self) -> AsyncIterator[SpoolEntry]:
        """Return all quarantined entries, oldest first."""

        async def page(cursor: str | None) -> tuple[tuple[SpoolEntry, ...], str | None]:
            found = await self.spool_page(cursor)
            return found.entries, found.next_cursor

        async for item in walk("the list of quarantined entries", page):
            yield item

    async def spool_entry(self, name: str) -> SpoolEntry:
        """Return one quarantined entry."""
        return await self._processor.json("GET", _entry_path(name), lambda value, _: spool_entry(value))

    async def spool_content(self, name: str) -> bytes:
        """Return the plaintext of a quarantined chunk; it needs the role replay."""
        return (await self._processor.body("GET", f"{_entry_path(name)}/content", CHUNK_MAX_BYTES_LIMIT))[0]

    async def retry_spooled(self, name: str) -> None:
        """Put a quarantined entry back into the spool, from which it is delivered again."""
        await self._processor.body("POST", f"{_entry_path(name)}/retry", MAX_JSON_BYTES)

    async def drop_spooled(self, name: str) -> None:
        """Delete a quarantined entry for good."""
        await self._processor.body("DELETE", _entry_path(name), MAX_JSON_BYTES)


def _entry_path(name: str) -> str:
    return f"{_PATH}/{quote(name, safe='')}"
