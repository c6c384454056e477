"""Delivers the spool to session-storage, each session separately: a session that fails delays no other.

Sessions take turns. Within a session the opening is delivered before the envelopes, and the envelopes before the order
to seal. After each failure the pause becomes longer. An entry that fails alone several times, while session-storage is
reachable, goes to the quarantine.
"""

import asyncio
import time
from collections import OrderedDict
from functools import partial
from typing import Final

import structlog

from sessions.core.types import SessionId
from sessions.processor.delivery import Delivery
from sessions.processor.drain_order import DrainOrder
from sessions.processor.spool_index import Entry, SpooledSession
from sessions.processor.spooling import Spooling
from sessions.processor.undelivered import EntryFailedError
from sessions.runtime.errors import DomainError
from sessions.runtime.tasks import end_all, skipped

SEAL_WAIT_SECONDS: Final = 20.0
"""Longest time that a seal waits for its session's spooled entries, in seconds."""
DELIVERY_ATTEMPTS: Final = 10
"""Deliveries of one entry alone that fail before it goes to the quarantine; with their pauses about two minutes."""
_SESSIONS_AT_ONCE: Final = 8
_ORDERS_AT_ONCE: Final = 2
"""Limit on the sessions with nothing but orders to seal among them: session-storage may hold each for seconds."""
_URGENT_AT_ONCE: Final = 6
"""Limit on the urgent sessions among them while others wait."""
_PAUSE_SECONDS: Final = 0.2
_RETRY_FIRST_SECONDS: Final = 0.5
_RETRY_MAX_SECONDS: Final = 30.0
_OVERLOADED_MAX_SECONDS: Final = 8.0
_DOUBLINGS: Final = 16
_UNHEARD_SECONDS: Final = 900.0
"""Time after which failures count even if session-storage has answered nothing else meanwhile, in seconds."""

_log = structlog.get_logger()


class Drainer:
    """Works through the spool."""

    def __init__(self, spooling: Spooling, delivery: Delivery, attempts: int = DELIVERY_ATTEMPTS) -> None:
        self._spooling = spooling
        self._spool = spooling.spool
        self._watch = spooling.watch
        self._delivery = delivery
        self._attempts = attempts
        self._order = DrainOrder(spooling.spool)
        self._urgent: OrderedDict[SessionId, asyncio.Event] = OrderedDict()
        self._ordering: set[SessionId] = set()
        self._hurrying: set[SessionId] = set()
        self._deliveries: dict[SessionId, asyncio.Task[None]] = {}

    async def run(self) -> None:
        """Drain whenever there is something and storage is there, until cancelled."""
        try:
            while True:
                await self._spool.arrived.wait()
                await self._watch.back.wait()
                self._begin()
                if deliveries := list(self._deliveries.values()):
                    await asyncio.wait(deliveries, timeout=_PAUSE_SECONDS, return_when=asyncio.FIRST_COMPLETED)
                if self._spool.entries and not self._deliveries and not self._order:
                    await asyncio.sleep(_PAUSE_SECONDS)  # all that is left waits for its next attempt
        finally:
            await end_all(self._deliveries.values())

    async def round(self) -> None:
        """Deliver once what can be delivered now, and wait for the end of it."""
        self._begin()
        while self._deliveries:
            await asyncio.wait(list(self._deliveries.values()))
            if not self._watch.away:
                self._begin()

    async def hurry(self, session_id: SessionId) -> bool:
        """Drain a session before the others; return whether nothing of it is left in time."""
        if not self._spool.holds(session_id):
            return True
        done = self._urgent.setdefault(session_id, asyncio.Event())
        away = asyncio.create_task(self._watch.gone.wait())
        waiting = asyncio.create_task(done.wait())
        try:
            await asyncio.wait({away, waiting}, timeout=SEAL_WAIT_SECONDS, return_when=asyncio.FIRST_COMPLETED)
        finally:
            away.cancel()
            waiting.cancel()
        return not self._spool.holds(session_id)

    def urge(self, session_id: SessionId) -> None:
        """Drain a session before the others: its seal waits for it elsewhere."""
        self._urgent.setdefault(session_id, asyncio.Event())

    def _begin(self) -> None:
        """Begin deliveries, as many as go on at once."""
        now = time.monotonic()
        self._note_delivered()
        self._order.admit(now)
        for session_id in [name for name in self._urgent if self._order.pauses(name)]:
            self._urgent.pop(session_id).set()  # nobody waits for a session that fails
        while len(self._deliveries) < _SESSIONS_AT_ONCE and (session := self._next()) is not None:
            session_id = session.session_id
            task = asyncio.create_task(self._deliver(session))
            self._deliveries[session_id] = task
            task.add_done_callback(partial(self._ended, session_id))

    def _next(self) -> SpooledSession | None:
        """Begin the turn of the next session. Neither urgent ones nor orders to seal can take all of them."""
        session = self._next_ordering() if not self._ordering else None
        if session is None and len(self._hurrying) < _URGENT_AT_ONCE:
            session = self._next_urgent()
        return session or self._order.next_holding() or self._next_ordering() or self._next_urgent()

    def _next_ordering(self) -> SpooledSession | None:
        if len(self._ordering) >= _ORDERS_AT_ONCE or (session := self._order.next_ordering()) is None:
            return None
        self._ordering.add(session.session_id)
        return session

    def _next_urgent(self) -> SpooledSession | None:
        for session_id in self._urgent:
            session = self._spool.sessions.get(session_id)
            if session is not None and session.holds and not self._order.has_turn(session_id):
                self._urgent.move_to_end(session_id)
                self._hurrying.add(session_id)
                return self._order.take(session)
        return None

    def _others_wait(self) -> bool:
        """Return whether a session waits for one of the turns that are all taken."""
        waiting = bool(self._order) or len(self._urgent) > len(self._hurrying)
        return waiting and len(self._deliveries) >= _SESSIONS_AT_ONCE

    def _ended(self, session_id: SessionId, _: asyncio.Task[None]) -> None:
        self._deliveries.pop(session_id, None)
        self._ordering.discard(session_id)
        self._hurrying.discard(session_id)
        self._order.ended(session_id, time.monotonic())
        self._note_delivered()

    def _note_delivered(self) -> None:
        """End the waits for sessions that nothing is left of."""
        for session_id in [name for name in self._urgent if not self._spool.holds(name)]:
            self._urgent.pop(session_id).set()

    async def _deliver(self, session: SpooledSession) -> None:
        before = session.delivered
        try:
            await self._delivery.deliver(session, len(self._deliveries), self._others_wait)
        except EntryFailedError as failed:
            await self._failed(session, failed.error, failed.entries)
        except DomainError as error:
            await self._failed(session, error, ())
        except Exception as error:  # noqa: BLE001 - what is in the spool stays there, and is tried again
            skipped(session_id=session.session_id)
            await self._failed(session, DomainError("internal", type(error).__name__), ())
        else:
            if session.delivered == before and self._spool.sessions.get(session.session_id) is session:
                await self._failed(session, DomainError("overloaded", "nothing of it could be delivered now"), ())
                return  # without a pause, its turns would follow each other endlessly
            if session.isolating and session.envelopes_wait:
                return  # its turn ended before the entry that fails was tried
            session.failures = session.overloads = 0
            session.suspect = None
            session.isolating = False
            self._watch.answered()

    async def _failed(self, session: SpooledSession, error: DomainError, entries: tuple[Entry, ...]) -> None:
        now = time.monotonic()
        if self._watch.lost(error):
            return  # that is nobody's fault here, and no attempt
        if error.code == "overloaded":  # its seal is being decided, or storage has much to do
            session.retry_at = now + min(_OVERLOADED_MAX_SECONDS, _RETRY_FIRST_SECONDS * 2**session.overloads)
            session.overloads = min(session.overloads + 1, _DOUBLINGS)
            return
        suspect = entries[0] if len(entries) == 1 else None
        if suspect is not None and session.suspect is not None and suspect is not session.suspect:
            session.failures = 0  # what failed before has been delivered
        session.suspect = suspect
        if session.failures == 0:
            session.failing_since = now
        session.failures += 1
        session.retry_at = now + min(_RETRY_MAX_SECONDS, _RETRY_FIRST_SECONDS * 2 ** (session.failures - 1))
        _log.warning(
            "spool_delivery_failed",
            session_id=session.session_id,
            code=error.code,
            detail=error.detail,
            failures=session.failures,
        )
        session.isolating = session.isolating or bool(entries)
        if len(entries) > 1:
            return
        heard = self._watch.answered_at > session.failing_since or now - session.failing_since > _UNHEARD_SECONDS
        if entries and session.failures >= self._attempts and heard:
            await self._delivery.give_up(entries[0], error)
            session.failures = max(1, self._attempts - 2)  # the next one of the session has fewer attempts
            session.suspect = None
            session.retry_at = now
