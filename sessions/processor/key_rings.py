"""The DEKs in use, in a cache with a bound and an age limit; what is not in it is fetched and unwrapped again."""

import asyncio
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from sessions.core.key_ring import WrappedDek
from sessions.core.types import DekId, SessionId
from sessions.processor.keys import Dek, KeyWrapper
from sessions.processor.spooling import Spooling
from sessions.processor.storage_answers import Keys
from sessions.processor.storage_client import StorageClient
from sessions.processor.storage_errors import fits_spool
from sessions.runtime.errors import DomainError
from sessions.runtime.tasks import turn

_SWEEP_SECONDS: Final = 60.0


@dataclass(frozen=True, slots=True)
class OpenRing:
    """A session's unwrapped keys: the first seals, each opens what it sealed."""

    keys: Mapping[DekId, Dek] = field(repr=False)
    wrapped: WrappedDek = field(repr=False)
    """The active one, wrapped: it goes to the spool with what is sealed under it."""

    @property
    def active(self) -> Dek:
        """The key that seals."""
        return next(iter(self.keys.values()))


@dataclass(frozen=True, slots=True)
class _Held:
    ring: OpenRing
    until_seconds: float


class KeyRings:
    """Knows the keys of the sessions used last, each for `max_seconds` after it was fetched.

    The age limit counts from the fetch and not from the last use: so a session that another processor shredded is
    forgotten here, too. A ring whose wrapping changes in the meantime still holds the same keys.
    """

    def __init__(
        self,
        wrapper: KeyWrapper,
        storage: StorageClient,
        max_sessions: int,
        max_seconds: float = 900,
        clock: Callable[[], float] = time.monotonic,
        *,
        spooling: Spooling | None = None,
    ) -> None:
        self._wrapper = wrapper
        self._storage = storage
        self._max_sessions = max_sessions
        self._max_seconds = max_seconds
        self._clock = clock
        self._spooling = spooling
        self._rings: OrderedDict[SessionId, _Held] = OrderedDict()
        self._forgotten = 0
        self._fetching: dict[tuple[SessionId, str], asyncio.Task[OpenRing]] = {}
        if spooling is not None:
            spooling.orders.knows = self._rings.__contains__

    async def open(
        self, session_id: SessionId, metadata: Mapping[str, Any] | None, by: str | None = None
    ) -> tuple[OpenRing, bool]:
        """Open a session at storage, a new one with a new key; return its ring, and whether it is new.

        During an outage of storage the session is opened in the spool. Its key is added to the session's ring later.
        """
        wrapped = self._wrapper.wrap(session_id, Dek.generate())
        asked, spooling = self._forgotten, self._spooling
        if spooling is None:
            keys, created = await self._storage.open(session_id, metadata, wrapped)
            return self._remember(session_id, keys, asked), created
        if spooling.takes(session_id):
            return await self._open_in(spooling, session_id, metadata, wrapped, by)
        try:
            keys, created = await spooling.attempt(self._storage.open(session_id, metadata, wrapped))
        except DomainError as error:
            if not fits_spool(error):
                raise
            return await self._open_in(spooling, session_id, metadata, wrapped, by)
        return self._remember(session_id, keys, asked), created

    async def _open_in(
        self,
        spooling: Spooling,
        session_id: SessionId,
        metadata: Mapping[str, Any] | None,
        wrapped: WrappedDek,
        by: str | None,
    ) -> tuple[OpenRing, bool]:
        asked = self._forgotten
        keys = await spooling.keys(session_id)
        created = await spooling.open(session_id, metadata, keys[0] if keys else wrapped, by)
        return self._remember(session_id, keys or (wrapped,), asked), created

    async def for_sealing(self, session_id: SessionId, by: str | None = None) -> OpenRing:
        """The ring of an open session; opens the session if need be."""

        async def fetch() -> OpenRing:
            return (await self.open(session_id, None, by))[0]

        return self._cached(session_id) or await self._once((session_id, "sealing"), fetch)

    async def for_opening(self, session_id: SessionId) -> OpenRing:
        """The ring of a session that exists."""

        async def fetch() -> OpenRing:
            asked = self._forgotten
            _, keys = await self._storage.session(session_id)
            return self._remember(session_id, keys, asked)

        # Apart from those who seal: they open a session that these would not find.
        return self._cached(session_id) or await self._once((session_id, "opening"), fetch)

    async def key(self, session_id: SessionId, dek_id: DekId) -> Dek:
        """The key of this name, fetched again should the ring have grown.

        Raises:
            DomainError: `key-unavailable`.
        """
        held = self._cached(session_id)
        if held is not None and dek_id in held.keys:
            return held.keys[dek_id]
        for wrapped in await self._spooling.keys(session_id) if self._spooling is not None else ():
            if wrapped.dek_id == dek_id:
                return self._wrapper.unwrap(session_id, wrapped)
        for _ in range(2):
            ring = await self.for_opening(session_id)
            if dek_id in ring.keys:
                return ring.keys[dek_id]
            self.forget(session_id)
        detail = f"the key ring of session {session_id} has no key {dek_id.hex()}"
        raise DomainError("key-unavailable", detail, session_id=session_id)

    def unwrapped(self, session_id: SessionId, keys: Keys) -> OpenRing:
        """Return a session's ring as session-storage has it now, without remembering it.

        Raises:
            DomainError: `key-unavailable`, `session-shredded`.
        """
        return self._remember(session_id, keys, -1)

    def forget(self, session_id: SessionId) -> None:
        """Drop a session's keys from memory."""
        self._forgotten += 1
        self._rings.pop(session_id, None)

    def set_back(self) -> None:
        """Drop all keys: session-storage's database was set back, and may not have them in its rings."""
        self._forgotten += 1
        self._rings.clear()

    def expire(self) -> None:
        """Drop what is older than the age limit."""
        now = self._clock()
        for session_id in [session_id for session_id, held in self._rings.items() if held.until_seconds <= now]:
            del self._rings[session_id]

    async def keep_short(self) -> None:
        """Drop what is too old, for good: also when nobody asks for it any more."""
        while True:
            await asyncio.sleep(min(self._max_seconds, _SWEEP_SECONDS))
            with turn():
                self.expire()

    def _cached(self, session_id: SessionId) -> OpenRing | None:
        held = self._rings.get(session_id)
        if held is None:
            return None
        if held.until_seconds <= self._clock():
            del self._rings[session_id]
            return None
        self._rings.move_to_end(session_id)
        return held.ring

    async def _once(self, what: tuple[SessionId, str], fetch: Callable[[], Awaitable[OpenRing]]) -> OpenRing:
        """Many chunks of one new session ask at once; one of them asks storage."""
        task = self._fetching.get(what)
        if task is None:
            task = asyncio.ensure_future(_as_coroutine(fetch))
            self._fetching[what] = task
            task.add_done_callback(lambda _: self._fetching.pop(what, None))
        return await asyncio.shield(task)

    def _remember(self, session_id: SessionId, keys: Keys, asked: int) -> OpenRing:
        if not keys:
            raise DomainError("session-shredded", f"session {session_id} has no keys any more", session_id=session_id)
        opened = {wrapped.dek_id: self._wrapper.unwrap(session_id, wrapped) for wrapped in keys}
        ring = OpenRing(opened, keys[0])
        if asked != self._forgotten:
            return ring  # a session was shredded since storage was asked, and it may be this one
        self._rings[session_id] = _Held(ring, self._clock() + self._max_seconds)
        self._rings.move_to_end(session_id)
        while len(self._rings) > self._max_sessions:
            self._rings.popitem(last=False)
        return ring


async def _as_coroutine(fetch: Callable[[], Awaitable[OpenRing]]) -> OpenRing:
    return await fetch()
