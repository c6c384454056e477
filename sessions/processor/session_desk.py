"""What a recorder asks about a whole session, with storage there or away: how far it is, and to seal it."""

from typing import Any

from sessions.core.types import SessionId
from sessions.processor.drainer import Drainer
from sessions.processor.spooling import Spooling
from sessions.processor.storage_client import StorageClient
from sessions.processor.storage_watch import AWAY_CODES
from sessions.runtime.errors import DomainError


class SessionDesk:
    """Asks session-storage, and the spool where that is away."""

    def __init__(
        self, storage: StorageClient, spooling: Spooling | None = None, drainer: Drainer | None = None
    ) -> None:
        self._storage = storage
        self._spooling = spooling
        self._drainer = drainer

    async def view(self, session_id: SessionId) -> dict[str, Any]:
        """A session's state, and where to resume; while storage is away, what the spool has of it.

        Raises:
            DomainError: `session-not-found`; `storage-unavailable`, when the spool has not opened it.
        """
        spooling = self._spooling
        if spooling is None:
            return (await self._storage.session(session_id))[0]
        if spooling.takes(session_id) and (view := await spooling.status(session_id)) is not None:
            return view
        try:
            if not spooling.watch.answers:
                raise _away(spooling.watch.reason)
            return (await spooling.attempt(self._storage.session(session_id)))[0]
        except DomainError as error:
            if error.code not in AWAY_CODES or (view := await spooling.status(session_id)) is None:
                raise
            return view

    async def seal(self, session_id: SessionId, chunk_count: int | None) -> tuple[dict[str, Any], bool]:
        """Seal a session now (True), or as soon as storage is back and has all that is spooled of it (False).

        Raises:
            DomainError: `session-not-found`, `chunks-missing`, `chunk-count-mismatch`, `spool-full`, …
        """
        spooling = self._spooling
        if spooling is None or self._drainer is None:
            return await self._storage.seal(session_id, chunk_count), True
        if spooling.watch.answers and await self._drainer.hurry(session_id):
            try:
                # As long as it takes: there is no chunk that waits for it.
                return await self._storage.seal(session_id, chunk_count), True
            except DomainError as error:
                if not spooling.watch.lost(error):
                    raise
        return await spooling.order_seal(session_id, chunk_count), False


def _away(reason: str) -> DomainError:
    return DomainError(
        "storage-unavailable",
        f"session-storage is away ({reason}), and the spool has not opened this session; repeat the request",
        retry_after_seconds=1,
    )
