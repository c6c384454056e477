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

    One that comes with an order answers a question not asked yet. The processor stands by it in this `generation` of
    the database, for as long as storage's uptime is below `until_seconds`, and longer only for an order that it then
    finds at storage.
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

    async def order(self, session_id: SessionId, order: WaitingOrder, first: Confirmation | None) -> bool:
        """Add an order to an open session, unless it has one of the same count and origin.

        The first order of a session asks all processors; `first` is the answer of the one that brings it. Return False
        when nothing was added: the session is not open, has this order, or has `MAX_ORDERS` others.
        """

    async def confirm(self, ask: Ask, confirmation: Confirmation) -> bool:
        """Note a processor's answer; return False when the question is not the newest, or the session not open."""

    async def ask_again(self, ask: Ask) -> None:
        """Put another question in the place of this one, so that what was confirmed counts no more."""

    async def withdraw(self, session_id: SessionId, order_id: str) -> None:
        """Remove an order."""

    async def unanswered(self, processor: str, after: SessionId | None, limit: int) -> Sequence[Ask]:
        """Return questions that a processor has not confirmed, by session id, those beyond `after`."""

    async def asked(self, session_ids: Sequence[SessionId]) -> Mapping[SessionId, str]:
        """Return the newest question about each of these sessions that has an order."""

    async def waiting(self, after: SessionId | None, limit: int) -> Sequence[tuple[SessionId, Closing]]:
        """Return sessions that have an order, with their orders, by id, those beyond `after`."""
