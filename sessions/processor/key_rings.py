"""The DEKs in use, in a bounded cache; whatever is not in it is fetched from storage and unwrapped again."""

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from sessions.core.types import DekId, SessionId
from sessions.processor.keys import Dek, KeyWrapper
from sessions.processor.storage_client import KeyRing, StorageClient
from sessions.runtime.errors import DomainError


@dataclass(frozen=True, slots=True)
class OpenRing:
    """A session's unwrapped keys: the first seals, each opens what it sealed."""

    keys: Mapping[DekId, Dek] = field(repr=False)

    @property
    def active(self) -> Dek:
        """The key that seals."""
        return next(iter(self.keys.values()))


class KeyRings:
    """Knows the keys of the sessions used last."""

    def __init__(self, wrapper: KeyWrapper, storage: StorageClient, max_sessions: int) -> None:
        self._wrapper = wrapper
        self._storage = storage
        self._max_sessions = max_sessions
        self._rings: OrderedDict[SessionId, OpenRing] = OrderedDict()
        self._fetching: dict[tuple[SessionId, str], asyncio.Task[OpenRing]] = {}

    async def open(self, session_id: SessionId, metadata: Mapping[str, Any] | None) -> tuple[OpenRing, bool]:
        """Open a session at storage (with a new key, should it be new); gives its ring, and if it was."""
        wrapped = self._wrapper.wrap(session_id, Dek.generate())
        keys, created = await self._storage.open(session_id, metadata, wrapped)
        return self._remember(session_id, keys), created

    async def for_sealing(self, session_id: SessionId) -> OpenRing:
        """The ring of an open session; opens the session if need be."""

        async def fetch() -> OpenRing:
            return (await self.open(session_id, None))[0]

        return self._cached(session_id) or await self._once((session_id, "sealing"), fetch)

    async def for_opening(self, session_id: SessionId) -> OpenRing:
        """The ring of a session that exists."""

        async def fetch() -> OpenRing:
            _, keys = await self._storage.session(session_id)
            return self._remember(session_id, keys)

        # Apart from those who seal: they open a session that these would not find.
        return self._cached(session_id) or await self._once((session_id, "opening"), fetch)

    async def key(self, session_id: SessionId, dek_id: DekId) -> Dek:
        """The key of this name, fetched again should the ring have grown.

        Raises:
            DomainError: `key-unavailable`.
        """
        for _ in range(2):
            ring = await self.for_opening(session_id)
            if dek_id in ring.keys:
                return ring.keys[dek_id]
            self.forget(session_id)
        detail = f"the key ring of session {session_id} has no key {dek_id.hex()}"
        raise DomainError("key-unavailable", detail, session_id=session_id)

    def forget(self, session_id: SessionId) -> None:
        """Drop a session's keys from memory."""
        self._rings.pop(session_id, None)

    def _cached(self, session_id: SessionId) -> OpenRing | None:
        if (ring := self._rings.get(session_id)) is not None:
            self._rings.move_to_end(session_id)
        return ring

    async def _once(self, what: tuple[SessionId, str], fetch: Callable[[], Awaitable[OpenRing]]) -> OpenRing:
        """Many chunks of one new session ask at once; one of them asks storage."""
        task = self._fetching.get(what)
        if task is None:
            task = asyncio.ensure_future(_as_coroutine(fetch))
            self._fetching[what] = task
            task.add_done_callback(lambda _: self._fetching.pop(what, None))
        return await asyncio.shield(task)

    def _remember(self, session_id: SessionId, keys: KeyRing) -> OpenRing:
        ring = OpenRing({wrapped.dek_id: self._wrapper.unwrap(session_id, wrapped) for wrapped in keys})
        if not ring.keys:
            raise DomainError("session-shredded", f"session {session_id} has no keys any more", session_id=session_id)
        self._rings[session_id] = ring
        self._rings.move_to_end(session_id)
        while len(self._rings) > self._max_sessions:
            self._rings.popitem(last=False)
        return ring


async def _as_coroutine(fetch: Callable[[], Awaitable[OpenRing]]) -> OpenRing:
    return await fetch()
