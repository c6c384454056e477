"""Orders to seal sessions that are kept in the spool while session-storage is away."""

import json
from collections.abc import Awaitable, Callable
from typing import Final

from sessions.core.types import SessionId
from sessions.processor.killpoints import Point
from sessions.processor.spool import Spool
from sessions.processor.spool_format import Kind
from sessions.processor.spool_index import Entry, SpooledSession
from sessions.processor.spool_room import full
from sessions.runtime.errors import DomainError
from sessions.runtime.killpoints import reach
from sessions.runtime.times import now, to_rfc3339

MAX_ORDERS: Final = 8
"""Limit on the queued orders of one token for one session, each with another chunk count.

Storage carries out the first order that fits. Orders of other tokens do not count towards this limit.
"""
MAX_UNKNOWN_ORDERS: Final = 1000
"""Limit on the queued orders of one token, applied to orders for sessions that this processor does not know."""


class KeptOrders:
    """Keeps orders until the drainer sends them to session-storage, after all chunks of their session."""

    def __init__(self, spool: Spool, read: Callable[[Entry], Awaitable[bytes | None]]) -> None:
        """`read` returns an entry's payload; None when it is gone or damaged."""
        self._spool = spool
        self._read = read
        self.knows: Callable[[SessionId], bool] = lambda _: False
        """Whether this process has used a session's keys lately: it exists, perhaps at session-storage alone."""

    async def keep(self, session_id: SessionId, chunk_count: int | None, by: str | None = None) -> int:
        """Keep an order to seal a session; return how many of the session's chunks are spooled.

        Raises:
            DomainError: `chunk-count-mismatch`, `spool-full`.
        """
        session = self._spool.sessions.get(session_id)
        highest = max(session.chunks, default=-1) if session is not None else -1
        if chunk_count is not None and highest >= chunk_count:
            raise _mismatch(session_id, chunk_count, f"chunk {highest} is there")
        orders = [] if session is None else list(session.seals)
        if chunk_count not in await self._counts(orders):  # an order without a count is not covered by one with a count
            if sum(entry.by == by for entry in orders) >= MAX_ORDERS:
                raise _mismatch(session_id, chunk_count or 0, f"{MAX_ORDERS} other orders of this token wait already")
            payload = {"session_id": session_id, "chunk_count": chunk_count, "ordered_at": to_rfc3339(now())}
            if not (self._spool.holds(session_id) or self.knows(session_id)):
                self._require_few(by)
            await self._spool.append(Kind.SEAL, session_id, json.dumps(payload).encode(), by=by)
            reach(Point.SEAL_SPOOLED)
        session = self._spool.sessions.get(session_id)
        return 0 if session is None else len(session.chunks)

    async def require_within(self, session: SpooledSession, index: int, by: str | None) -> None:
        """Refuse a chunk at or beyond the chunk count of a queued order of the same token.

        Orders of other tokens do not count: the drainer delivers all spooled chunks before any order.

        Raises:
            DomainError: `storage-unavailable`, since the order's end is not known yet.
        """
        counts = await self._counts([entry for entry in session.seals if entry.by == by])
        if any(count is not None and index >= count for count in counts):
            raise DomainError(
                "storage-unavailable",
                f"chunk {index} is beyond the chunk count with which this token ordered the seal of session"
                f" {session.session_id}, and the order waits for session-storage; repeat the request",
                retry_after_seconds=5,
            )

    def _require_few(self, by: str | None) -> None:
        if self._spool.room.shares.of(by).orders >= MAX_UNKNOWN_ORDERS:
            raise full(f"session-storage is away, and {MAX_UNKNOWN_ORDERS} orders to seal of this token wait already")

    async def _counts(self, orders: list[Entry]) -> list[int | None]:
        """Return the chunk counts of orders; None: all chunks."""
        payloads = [await self._read(entry) for entry in orders]
        return [json.loads(payload)["chunk_count"] for payload in payloads if payload is not None]


def _mismatch(session_id: SessionId, chunk_count: int, why: str) -> DomainError:
    detail = f"session {session_id} cannot be sealed with {chunk_count} chunks: {why}"
    return DomainError("chunk-count-mismatch", detail, session_id=session_id)
