"""Delivers the openings of one session: its metadata, and the keys that its envelopes are under."""

from typing import Any, Final

import structlog

from sessions.core import key_ring
from sessions.core.manifest import metadata_sha256
from sessions.processor.killpoints import Point
from sessions.processor.openings import read_key, read_opening
from sessions.processor.spool_index import Entry, SpooledSession
from sessions.processor.spooling import Spooling
from sessions.processor.storage_client import StorageClient
from sessions.processor.storage_errors import is_transient
from sessions.processor.undelivered import DRAINED, EntryFailedError, unreadable
from sessions.runtime.errors import DomainError
from sessions.runtime.killpoints import reach

_METADATA_REFUSALS: Final = ("metadata-conflict", "retention-too-short", "invalid-request")
_log = structlog.get_logger()


class OpeningDelivery:
    """Hands over openings."""

    def __init__(self, spooling: Spooling, storage: StorageClient) -> None:
        self._spooling = spooling
        self._spool = spooling.spool
        self._quarantining = spooling.quarantining
        self._storage = storage

    async def deliver(self, session: SpooledSession) -> None:
        """Open a session at session-storage, with each of its keys.

        Raises:
            EntryFailedError: an opening could not be delivered, for now.
        """
        for entry in [opening for opening in session.openings if not opening.delivered]:
            payload = await self._spooling.payload(entry)
            if payload is None:
                continue
            reach(Point.DRAIN_BEFORE_OPENING)
            try:
                opening = read_opening(payload)
            except ValueError as error:
                raise unreadable(entry, error) from None
            session.kept_keys.add(read_key(opening).dek_id)
            try:
                await self._open(session, opening["metadata"], opening)
            except DomainError as error:
                await self._refused(entry, opening, error)
            else:
                DRAINED.labels("opening").inc()
            reach(Point.DRAIN_AFTER_OPENING)
            await self._spool.delivered([entry])

    async def _refused(self, entry: Entry, opening: dict[str, Any], error: DomainError) -> None:
        session = entry.session
        if is_transient(error) or error.code == "session-shredded":
            raise EntryFailedError((entry,), error)
        _log.warning("spooled_opening_refused", session_id=session.session_id, code=error.code, detail=error.detail)
        if error.code == "session-sealed":
            # Perhaps it was we who delivered and sealed it, before a crash: metadata and envelopes are compared.
            await self._require_kept(entry, opening["metadata"])
            return
        if opening["metadata"] is None or error.code not in _METADATA_REFUSALS:
            raise EntryFailedError((entry,), error)
        if not await self._quarantining.copy(entry, "metadata-refused", detail=f"{error.code}: {error.detail}"):
            raise EntryFailedError((entry,), error)
        try:
            # What was recorded is worth more than what was said of it: without metadata its key is taken.
            await self._open(session, None, opening)
        except DomainError as again:
            if again.code != "session-sealed":
                raise EntryFailedError((entry,), again) from None

    async def _open(self, session: SpooledSession, metadata: dict[str, Any] | None, opening: dict[str, Any]) -> None:
        """Open a session at storage, and see to it that its ring has the key that envelopes are under."""
        key = read_key(opening)
        attempt = self._spooling.attempt
        keys, _ = await attempt(self._storage.open(session.session_id, metadata, key))
        session.foreign.discard(key.dek_id)
        if any(known.dek_id == key.dek_id for known in keys):
            return
        if len(keys) >= key_ring.MAX_KEYS:  # then what is under this key is encrypted under another
            session.foreign.add(key.dek_id)
            return
        await attempt(self._storage.add_key(session.session_id, key))

    async def _require_kept(self, entry: Entry, metadata: dict[str, Any] | None) -> None:
        """Quarantine metadata that a session was sealed without."""
        if metadata is None:
            return
        try:
            sealed_with = await self._spooling.attempt(self._storage.metadata_sha256(entry.session.session_id))
        except DomainError as error:
            raise EntryFailedError((entry,), error) from None
        if sealed_with == metadata_sha256(metadata).hex():
            return
        detail = "session-storage has sealed the session with other metadata"
        if not await self._quarantining.copy(entry, "metadata-refused", detail=detail):
            raise EntryFailedError((entry,), DomainError("internal", detail))
