"""What happens to spool entries that session-storage does not take: kept aside, tried again, dropped, or shredded."""

import asyncio
import json
from collections.abc import Mapping
from functools import partial
from itertools import islice
from typing import Any, Final

import structlog

from sessions.core import envelope as envelopes
from sessions.core.errors import CoreError
from sessions.core.types import SessionId, session_id
from sessions.processor.promises import Promises
from sessions.processor.quarantine import QUARANTINED, Quarantined
from sessions.processor.spool import Spool
from sessions.processor.spool_format import Kind, entry_bytes, payload_of
from sessions.processor.spool_index import Entry
from sessions.processor.spool_segments import CorruptEntryError
from sessions.runtime.errors import DomainError
from sessions.runtime.times import now, to_rfc3339

DROPS_AT_ONCE: Final = 16
"""Quarantined entries that are deleted at a time; meanwhile no entry is appended to the spool."""
_log = structlog.get_logger()


class Quarantining:
    """Moves entries between the spool and its quarantine."""

    def __init__(self, spool: Spool, promises: Promises) -> None:
        self._spool = spool
        self._promises = promises
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
        facts |= {"session_id": session.session_id, "kind": entry.kind.name.lower(), "by": entry.sender}
        facts["index"] = entry.index if is_envelope else None

        def keep() -> str | None:
            try:
                data = self._spool.raw(entry)
            except FileNotFoundError:
                return None  # it was delivered in the meantime
            return self._quarantine.keep(entry.place.name, data, reason=reason, **facts).name

        try:
            name = await self._spool.in_thread(keep)
        except OSError as error:
            _log.error("spool_quarantine_failed", reason=reason, error=error.strerror, errno=error.errno)
            return False
        if name is None:
            return True
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
        for entry in entries:
            entry.gone = True  # who reads it meanwhile must not take it for damaged
        await self._spool.leftovers.erase(entry.place for entry in entries)
        await self._spool.delivered(entries)
        await self._spool.leftovers.erase_all()  # also what was delivered of it before
        await self._drop(names)
        _log.info("spool_session_shredded", session_id=session_id, entries=len(entries), quarantined=len(names))
        self._spool.note()

    def listed(self, after: str = "", limit: int | None = None) -> list[Quarantined]:
        """Return quarantined entries, oldest first, those beyond `after`."""
        entries = dict(self._quarantine.entries)  # the spool's thread changes it meanwhile; this copies it at once
        names = sorted(name for name in entries if name > after)
        return [entries[name] for name in islice(names, limit)]

    async def shown(self, listed: list[Quarantined]) -> list[dict[str, Any]]:
        """Return entries as the REST interface shows them, with the details that are on the disk."""

        def read() -> list[str]:
            return [str(self._quarantine.facts(one.name).get("detail") or "") for one in listed]

        details = await asyncio.to_thread(read)
        return [one.to_json(detail) for one, detail in zip(listed, details, strict=True)]

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
        found = payload_of(data)
        if found is None:
            raise _damaged(name)
        return found

    async def retry(self, name: str) -> None:
        """Put an entry back into the spool, from which it is delivered again, and then take it out of the quarantine.

        A crash in between leaves it in both, and the second delivery changes nothing: storage has the entry already.

        Raises:
            DomainError: `not-found`, `envelope-corrupt`, `spool-full`; `overloaded` while the seal of its session is
                being decided; `chunk-conflict` while the spool has another envelope of the same chunk.
        """
        one = self.get(name)
        kind, payload = await self.payload(name)
        try:
            index = -1
            if kind is Kind.ENVELOPE:
                header = envelopes.parse(payload).header
                session, index, size = header.session_id, int(header.index), header.plaintext_bytes
            else:
                session, size = session_id(json.loads(payload)["session_id"]), 0
        except (CoreError, ValueError, LookupError, TypeError):
            raise _damaged(name) from None
        key = await self.key_of(name) if kind is Kind.ENVELOPE else None
        opening = json.dumps(_opening(session, one, key)).encode() if key else b""
        self._spool.room.require(2 * entry_bytes(b"", one.by) + len(opening) + len(payload), one.by)
        if opening:
            self._require_no_promise(session)
            await self._spool.append(Kind.OPENING, session, opening, by=one.by)
        if kind is not Kind.SEAL:
            self._require_no_promise(session)
        entry, created = await self._spool.append(kind, session, payload, index, plaintext_bytes=size, by=one.by)
        if not created and not await self._is(entry, payload):
            detail = f"the spool has another envelope of chunk {index} of session {session}; retry when it is delivered"
            raise DomainError("chunk-conflict", detail, session_id=session, index=index)
        _log.info("spool_entry_retried", file=name, session_id=session, kind=kind.name.lower())
        if name in self._quarantine.entries:
            await self.drop(name)

    def _require_no_promise(self, session: SessionId) -> None:
        """Refuse a session that is kept out of the spool. Between this and `Spool.append` nothing may be awaited."""
        if session in self._promises:
            detail = f"the seal of session {session} is being decided; retry when it is sealed or refused"
            raise DomainError("overloaded", detail, retry_after_seconds=5)

    async def _is(self, entry: Entry, payload: bytes) -> bool:
        try:
            return await self._spool.read(entry) == payload
        except (FileNotFoundError, CorruptEntryError):
            return False

    async def drop(self, name: str) -> None:
        """Delete a quarantined entry for good.

        Raises:
            DomainError: `not-found`.
        """
        self.get(name)
        await self._drop([name])
        self._spool.note()

    async def _drop(self, names: list[str]) -> None:
        """Delete entries, and what lies of them in segments that stay: a restart would find that."""
        await self._spool.leftovers.erase_named(names)
        for start in range(0, len(names), DROPS_AT_ONCE):
            some = names[start : start + DROPS_AT_ONCE]
            await self._spool.in_thread(partial(self._drop_all, some))

    def _drop_all(self, names: list[str]) -> None:
        for name in names:
            self._quarantine.drop(name)

    async def key_of(self, name: str) -> Mapping[str, Any] | None:
        """Return the wrapped key that opens a quarantined envelope; None when it is not with it.

        Raises:
            DomainError: `not-found`.
        """
        self.get(name)
        key = (await asyncio.to_thread(self._quarantine.facts, name)).get("key")
        return key if isinstance(key, Mapping) else None


def _opening(session: SessionId, one: Quarantined, key: Mapping[str, Any]) -> dict[str, Any]:
    """Return an opening without metadata, that brings the key of a quarantined envelope."""
    opened_at = one.quarantined_at or to_rfc3339(now())
    return {"session_id": session, "metadata": None, "key": key, "opened_at": opened_at, "by": one.by}


def _damaged(name: str) -> DomainError:
    return DomainError("envelope-corrupt", f"entry {name} is damaged: its bytes are not those that were written")
