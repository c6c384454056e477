"""When each open session was last written to, as precisely as an idle seal needs it, and for a small part of the cost.

A chunk's acknowledgement must not wait for a note of its time. So a replica notes a session once in a while only, and
before it stores what came: then a session whose note is older than `idle + slack` seconds has had no chunk for `idle`.
"""

import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Final, Protocol

from sessions.core.types import SessionId
from sessions.storage.uptime import UptimeClock

_REMEMBERED_SESSIONS: Final = 10_000
_SLACK_SHARE: Final = 10
_SLACK_MAX_SECONDS: Final = 300.0


class ActivityStore(Protocol):
    """Notes of when open sessions were active, in seconds of storage's uptime."""

    async def touch(self, session_ids: Sequence[SessionId], now_seconds: float) -> None:
        """Note that those of them that are open are active now."""

    async def idle(self, before_seconds: float, now_seconds: float, limit: int) -> list[SessionId]:
        """Return open sessions whose note is from before that, the oldest first, that no idle seal waits for.

        Note those without a note as active now.
        """

    async def is_idle(self, session_id: SessionId, before_seconds: float) -> bool:
        """Return whether an open session's note is from before that."""


class Activity:
    """Notes sessions as active, each once in `slack_seconds` at most."""

    def __init__(
        self,
        store: ActivityStore,
        uptime: UptimeClock,
        idle_seconds: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`idle_seconds` is what will be asked for; 0: nothing is ever asked for, and nothing is noted."""
        self._store = store
        self._uptime = uptime
        self._idle_seconds = idle_seconds
        self._clock = clock
        self._noted: OrderedDict[SessionId, float] = OrderedDict()
        self.slack_seconds = min(idle_seconds / _SLACK_SHARE, _SLACK_MAX_SECONDS)

    async def note(self, session_ids: Sequence[SessionId]) -> None:
        """Note sessions that are written to, before it is done.

        Raises:
            DomainError: `database-unavailable`.
        """
        if not self._idle_seconds:
            return
        now = self._clock()
        fresh = [
            one for one in session_ids if now - self._noted.get(one, now - self._idle_seconds) > self.slack_seconds
        ]
        if not fresh:
            return
        await self._store.touch(fresh, await self._uptime.read())
        for session_id in fresh:
            self._noted[session_id] = now
            self._noted.move_to_end(session_id)
        self._forget()

    def _forget(self) -> None:
        while len(self._noted) > _REMEMBERED_SESSIONS:  # they are only noted once more
            self._noted.popitem(last=False)

    def written(self) -> None:
        """Have storage's uptime counted soon, so that a set-back to before this write is noticed."""
        self._uptime.stir()

    def opened(self, session_id: SessionId) -> None:
        """Take a session that was opened now for noted: until it has a note it is not idle, and gets one that is later.

        So its first chunk need not wait for one.
        """
        if self._idle_seconds:
            self._noted[session_id] = self._clock()
            self._forget()

    async def put_off(self, session_id: SessionId) -> None:
        """Have a session that cannot be sealed found again when it has been idle once more.

        Raises:
            DomainError: `database-unavailable`.
        """
        await self._store.touch([session_id], await self._uptime.read())

    def set_back(self) -> None:
        """Note all sessions again: the database was set back to before its notes."""
        self._noted.clear()

    async def is_idle(self, session_id: SessionId) -> bool:
        """Return whether an open session has certainly had no chunk for `idle_seconds`.

        Raises:
            DomainError: `database-unavailable`.
        """
        return await self._store.is_idle(session_id, await self._uptime.read() - self._before_seconds)

    @property
    def _before_seconds(self) -> float:
        return self._idle_seconds + self.slack_seconds

    async def idle(self, limit: int) -> list[SessionId]:
        """Open sessions that have certainly had no chunk for `idle_seconds`.

        Raises:
            DomainError: `database-unavailable`.
        """
        now = await self._uptime.read()
        return await self._store.idle(now - self._before_seconds, now, limit)
