"""The order in which sessions take turns at the drainer: each turn is short, and a session goes to the end after it.

Sessions that have only an order to seal left have a line of their own, since session-storage may hold such a request
for seconds. Every step costs the same however many sessions wait.
"""

import heapq
from collections import OrderedDict

from sessions.core.types import SessionId
from sessions.processor.spool import Spool
from sessions.processor.spool_index import SpooledSession


class DrainOrder:
    """Two lines of sessions, and those that pause. A session is in one of the three, or has its turn."""

    def __init__(self, spool: Spool) -> None:
        self._spool = spool
        self._holding: OrderedDict[SessionId, None] = OrderedDict()
        self._ordering: OrderedDict[SessionId, None] = OrderedDict()
        self._paused: dict[SessionId, float] = {}
        self._ends: list[tuple[float, SessionId]] = []
        self._turns: set[SessionId] = set()

    def __bool__(self) -> bool:
        """Return whether a session may be waiting for its turn."""
        return bool(self._holding or self._ordering)

    def admit(self, now: float) -> None:
        """Append the sessions that are new, and those whose pause is over by the monotonic time `now`."""
        for name in self._spool.fresh:
            if name not in self._turns:
                self._line_up(name, now)
        self._spool.fresh.clear()
        while self._ends and self._ends[0][0] <= now:
            end, name = heapq.heappop(self._ends)
            if self._paused.get(name) == end:
                del self._paused[name]
                self._append(name)

    def pauses(self, name: SessionId) -> bool:
        """Return whether a session waits for its next attempt."""
        return name in self._paused

    def has_turn(self, name: SessionId) -> bool:
        """Return whether it is a session's turn."""
        return name in self._turns

    def next_holding(self) -> SpooledSession | None:
        """Begin the turn of the first session that holds openings or envelopes; None when there is none."""
        return self._next(self._holding, holds=True)

    def next_ordering(self) -> SpooledSession | None:
        """Begin the turn of the first session that has only orders to seal; None when there is none."""
        return self._next(self._ordering, holds=False)

    def take(self, session: SpooledSession) -> SpooledSession:
        """Begin the turn of a session before the others'."""
        self._holding.pop(session.session_id, None)
        self._ordering.pop(session.session_id, None)
        self._turns.add(session.session_id)
        return session

    def ended(self, name: SessionId, now: float) -> None:
        """End a session's turn: what is left of it waits at the end of its line, or pauses until its `retry_at`."""
        self._turns.discard(name)
        if name in self._spool.sessions:
            self._line_up(name, now)

    def _line_up(self, name: SessionId, now: float) -> None:
        session = self._spool.sessions.get(name)
        if session is None:
            return
        if session.retry_at > now:
            self._paused[name] = session.retry_at
            heapq.heappush(self._ends, (session.retry_at, name))
            return
        self._paused.pop(name, None)
        self._append(name)

    def _append(self, name: SessionId) -> None:
        session = self._spool.sessions.get(name)
        if session is None:
            return
        mine, other = (self._holding, self._ordering) if session.holds else (self._ordering, self._holding)
        other.pop(name, None)
        mine.setdefault(name)

    def _next(self, line: OrderedDict[SessionId, None], *, holds: bool) -> SpooledSession | None:
        while line:
            name, _ = line.popitem(last=False)
            session = self._spool.sessions.get(name)
            if session is not None and session.holds != holds:
                self._append(name)
            elif session is not None:
                return self.take(session)
        return None
