"""What a recorder asks about a whole session, with storage there or away: how far it is, and to seal it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sessions.core.types import SessionId
from sessions.processor.drainer import Drainer
from sessions.processor.seal_orders import SealOrders
from sessions.processor.spooling import Spooling
from sessions.processor.storage_client import StorageClient
from sessions.processor.storage_errors import is_away, is_transient
from sessions.runtime.errors import DomainError


@dataclass(frozen=True, slots=True)
class Queued:
    """A seal that is kept, here or at session-storage, and what it waits for."""

    session_id: SessionId
    chunk_count: int | None
    spooled_chunks: int
    waiting_for: Sequence[str] = ()

    def to_json(self) -> dict[str, Any]:
        """Return the answer to the recorder."""
        return {
            "session_id": self.session_id,
            "status": "seal-queued",
            "chunk_count": self.chunk_count,
            "spooled_chunks": self.spooled_chunks,
            "waiting_for": list(self.waiting_for),
        }


class SessionDesk:
    """Asks session-storage, and the spool where that is away."""

    def __init__(
        self,
        storage: StorageClient,
        spooling: Spooling | None = None,
        drainer: Drainer | None = None,
        orders: SealOrders | None = None,
    ) -> None:
        self._storage = storage
        self._spooling = spooling
        self._drainer = drainer
        self._orders = orders

    async def view(self, session_id: SessionId) -> dict[str, Any]:
        """Return a session's state, and where to resume; while storage is away, what the spool has of it.

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
            if not is_transient(error) or (view := await spooling.status(session_id)) is None:
                raise
            return view

    async def seal(
        self, session_id: SessionId, chunk_count: int | None, *, keep: bool = True, by: str | None = None
    ) -> "dict[str, Any] | Queued":
        """Seal a session now, or as soon as storage and other processors have handed over what they hold of it.

        Without `keep` it is sealed now, or nothing is ordered. `by` is the name of the token that orders it.

        Raises:
            DomainError: `session-not-found`, `chunks-missing`, `chunk-count-mismatch`, `spool-full`; without `keep`
                `storage-unavailable`.
        """
        spooling = self._spooling
        if spooling is None or self._drainer is None or self._orders is None:
            answer = await self._storage.seal(session_id, chunk_count, owner=by or "")
            return answer.sealed or Queued(session_id, chunk_count, 0, answer.waiting_for)
        reason = spooling.watch.reason
        if spooling.watch.answers and await self._drainer.hurry(session_id):
            try:
                # As long as it takes: there is no chunk that waits for it.
                placed = await self._orders.place(session_id, chunk_count, keep=keep, by=by)
            except DomainError as error:
                spooling.watch.lost(error)
                if not is_away(error) and not (is_transient(error) and keep):
                    raise
                reason = error.detail
            else:
                if placed is not None and placed.sealed is not None:
                    return placed.sealed
                if placed is not None and keep:
                    return Queued(session_id, chunk_count, 0, placed.waiting_for)
                reason = "the session's seal waits for " + (", ".join(placed.waiting_for) if placed else "the spool")
        if not keep:
            detail = f"session {session_id} is not sealed, and nothing was ordered ({reason}); repeat the request"
            raise DomainError("storage-unavailable", detail, retry_after_seconds=5)
        return Queued(session_id, chunk_count, await spooling.orders.keep(session_id, chunk_count, by))


def _away(reason: str) -> DomainError:
    return DomainError(
        "storage-unavailable",
        f"session-storage is away ({reason}), and the spool has not opened this session; repeat the request",
        retry_after_seconds=1,
    )
