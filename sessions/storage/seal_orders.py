"""Seal orders that wait until every processor has handed over what it holds of a session, and the port that keeps them.

A processor that cannot reach storage acknowledges chunks into its own spool. A seal that did not wait for these chunks
would leave them out of the recording for good. So an order waits while a processor has not confirmed that it holds
nothing of the session. With its confirmation a processor promises to take nothing of the session into its spool until
the order is decided, so a confirmation stays true.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from secrets import token_hex
from typing import Final, Protocol

from sessions.core.manifest import SealedBy
from sessions.core.types import SessionId

MAX_ORDERS: Final = 8
"""Limit on the orders of one session that wait at the same time."""
_ASKED_AT_ONCE: Final = 100


@dataclass(frozen=True, slots=True)
class WaitingOrder:
    """An order to seal a session, not decided yet.

    `placed_seconds` is storage's uptime when it came. `until_seconds` is the uptime after which the order lapses; None:
    it was answered with a 202 and stays.
    """

    chunk_count: int | None
    sealed_by: SealedBy
    placed_seconds: float
    until_seconds: float | None = None
    order_id: str = field(default_factory=lambda: token_hex(8))

    def is_like(self, other: "WaitingOrder") -> bool:
        """Return whether one of the two orders can serve for both."""
        return (self.chunk_count, self.sealed_by) == (other.chunk_count, other.sealed_by)


@dataclass(frozen=True, slots=True)
class Closing:
    """The orders of a session, and which processors have confirmed the newest question about it.

    A crash loses none of it. A confirmation counts for the question that it answers (`ask_id`). It stays while there
    is an order: processors keep their promises that long, so further orders need no other question.
    `floor` is the least number of chunks that the recording has, by what processors say that they acknowledged.
    """

    ask_id: str
    orders: tuple[WaitingOrder, ...]
    clear: frozenset[str] = frozenset()
    floor: int = 0


@dataclass(frozen=True, slots=True)
class Confirmation:
    """What a processor answers about a session: it holds nothing, and acknowledged chunks below `floor`.

    One that comes with an order answers a question that the order asks. The processor keeps its promise in this
    `generation` of the database, until storage's uptime is beyond `until_seconds`, and longer for an order that it
    then finds at storage. So it counts if the uptime is read after the order was stored.
    """

    processor: str
    floor: int = 0
    until_seconds: float | None = None
    generation: str | None = None


@dataclass(frozen=True, slots=True)
class Ask:
    """A question to all processors about a session."""

    session_id: SessionId
    ask_id: str


class ClosingStore(Protocol):
    """The orders that wait. Every write is one document and journaled before it returns."""

    async def order(self, session_id: SessionId, order: WaitingOrder, floor: int = 0) -> bool:
        """Add an order to an open session, unless it has one that `is_like` it; raise `Closing.floor` to `floor`.

        The first order of a session asks all processors. Return False when the session is not open, or has `MAX_ORDERS`
        other orders.
        """

    async def keep(self, session_id: SessionId, order_id: str) -> bool:
        """Have an order lapse no more; return whether the open session still has it."""

    async def confirm(self, ask: Ask, confirmation: Confirmation) -> bool:
        """Note a processor's answer; return False when the question is not the newest, or the session not open."""

    async def ask_again(self, ask: Ask) -> None:
        """Put another question in the place of this one, so that what was confirmed counts no more."""

    async def withdraw(self, session_id: SessionId, order_id: str, *, kept: bool = True) -> None:
        """Remove an order; with `kept=False` only one that would lapse."""

    async def unanswered(self, processor: str, after: SessionId | None, limit: int) -> Sequence[Ask]:
        """Return questions that a processor has not confirmed, by session id, those beyond `after`.

        They include questions about sessions that are being sealed: a confirmation changes nothing any more, but the
        processor's promise does.
        """

    async def asked(self, session_ids: Sequence[SessionId]) -> Mapping[SessionId, str]:
        """Return the newest question about each of these sessions that has an order."""

    async def waiting(self, after: SessionId | None, limit: int) -> Sequence[tuple[SessionId, Closing]]:
        """Return sessions that have an order, with their orders, by id, those beyond `after`."""


async def ask_all_again(orders: ClosingStore) -> None:
    """Ask all processors again about every session that has an order.

    Raises:
        DomainError: `database-unavailable`.
    """
    after: SessionId | None = None
    while page := await orders.waiting(after, _ASKED_AT_ONCE):
        for session_id, closing in page:
            await orders.ask_again(Ask(session_id, closing.ask_id))
        after = page[-1][0]
