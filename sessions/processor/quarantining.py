"""What happens to spool entries that session-storage does not take: kept aside, tried again, dropped, or shredded."""

from collections.abc import Mapping
from typing import Any

import structlog

from sessions.core.types import SessionId
from sessions.processor.quarantine import QUARANTINED, Quarantined
from sessions.processor.spool import Spool
from sessions.processor.spool_format import HEADER_BYTES, Kind, read_header
from sessions.processor.spool_index import Entry
from sessions.runtime.errors import DomainError

_log = structlog.get_logger()


class Quarantining:
    """Moves entries between the spool and its quarantine."""

    def __init__(self, spool: Spool) -> None:
        self._spool = spool
        self._quarantine = spool.quarantine

    async def quarantine(self, entry: Entry, reason: str, **facts: Any) -> None:
        """Move an entry to the quarantine, with facts about it.

        When it cannot be written there it stays in the spool, and is tried again; others do not wait for it.
        """
        if await self.copy(entry, reason, **facts):
            await self._spool.delivered([entry])

    async def copy(self, entry: Entry, reason: str, **facts: Any) -> bool:
        """Write an entry to the quarantine, and leave it in the spool; return whether that was done."""
        session, is_envelope = entry.session, entry.kind is Kind.ENVELOPE
        facts |= {"session_id": session.session_id, "kind": entry.kind.name.lower(), "by": session.by}
        facts["index"] = entry.index if is_envelope else None

        def keep() -> str:
            return self._quarantine.keep(entry.place.name, self._spool.raw(entry), reason=reason, **facts).name

        try:
            name = await self._spool.in_thread(keep)
        except FileNotFoundError:
            return True  # it was delivered in the meantime, and its segment is gone
        except OSError as error:
            _log.error("spool_quarantine_failed", reason=reason, error=error.strerror, errno=error.errno)
            return False
        QUARANTINED.labels(reason).inc()
        shown = {fact: value for fact, value in facts.items() if fact != "key"}
        _log.error("spool_entry_quarantined", reason=reason, file=name, **shown)
        self._spool.note()
        return True

    async def shred(self, session_id: SessionId) -> None:
        """Delete all that there is of a session that was shredded, in the spool and in the quarantine.

        Raises:
            OSError: some of it may still be there; repeat it.
        """
        session = self._spool.sessions.get(session_id)
        entries: list[Entry] = []
        if session is not None:
            entries = [*session.openings, *session.earlier, *session.chunks.values(), *session.seals]
        names = [one.name for one in self._quarantine.of_session(session_id)]

        def erase() -> None:
            self._spool.erase(entries)
            for name in names:
                self._quarantine.drop(name)

        await self._spool.in_thread(erase)
        await self._spool.delivered(entries)
        _log.info("spool_session_shredded", session_id=session_id, entries=len(entries), quarantined=len(names))
        self._spool.note()

    def listed(self) -> list[Quarantined]:
        """Return all quarantined entries, oldest first."""
        return sorted(self._quarantine.entries.values(), key=lambda one: one.name)

    def get(self, name: str) -> Quarantined:
        """Return a quarantined entry.

        Raises:
            DomainError: `not-found`.
        """
        found = self._quarantine.entries.get(name)
        if found is None:
            raise DomainError("not-found", f"the quarantine has no entry {name}")
        return found

    async def payload(self, name: str) -> tuple[Kind, bytes]:
        """Return what a quarantined entry holds.

        Raises:
            DomainError: `not-found`; `envelope-corrupt` when its bytes are not those that were written.
        """
        self.get(name)
        try:
            data = await self._spool.in_thread(lambda: self._quarantine.read(name))
        except FileNotFoundError:
            raise DomainError("not-found", f"the file of entry {name} is gone from the quarantine") from None
        header = read_header(data)
        if header is None or not header.fits(data[HEADER_BYTES:]):
            raise DomainError("envelope-corrupt", f"entry {name} is damaged: its bytes are not those that were written")
        return header.kind, data[HEADER_BYTES:]

    async def drop(self, name: str) -> None:
        """Delete a quarantined entry for good.

        Raises:
            DomainError: `not-found`.
        """
        self.get(name)
        await self._spool.in_thread(lambda: self._quarantine.drop(name))
        self._spool.note()

    def key_of(self, name: str) -> Mapping[str, Any] | None:
        """Return the wrapped key that opens a quarantined envelope; None when it is not with it."""
        return self.get(name).key
