"""Natural batching: while a POST to storage is under way, finished envelopes queue up; the next POST takes them all.

So chunks share round trips and journal flushes, and a lone chunk waits for nothing. Beside a POST a second goes when
as many wait as the first has: to storage one of a single small envelope is nearly as much work as one of thirty. When
more queues up than one POST takes, sessions take turns.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from prometheus_client import Histogram

from sessions.core.types import SessionId
from sessions.processor.fair_queue import FairQueue
from sessions.processor.storage_answers import FrameAnswer
from sessions.processor.storage_client import StorageClient
from sessions.processor.storage_errors import OverdueError, RequestFailedError
from sessions.processor.storage_watch import StorageWatch
from sessions.runtime import tracing
from sessions.runtime.errors import DomainError
from sessions.runtime.metrics import BATCH_BUCKETS, LATENCY_BUCKETS, SIZE_BUCKETS

POSTS_IN_FLIGHT: Final = 2
POST_BYTES: Final = 16 * 1024 * 1024
POST_ENVELOPES: Final = 1024
SMALL_BYTES: Final = 128 * 1024
"""Envelopes that are this small on average do not wait beside a POST of larger ones."""
JOIN_ENVELOPES: Final = 32
JOIN_BYTES: Final = JOIN_ENVELOPES * SMALL_BYTES
"""While a POST is under way, fewer than it has wait for others to come, but not more than these."""
JOIN_SECONDS: Final = 0.025
"""And nothing waits longer for others."""
SHARE_BYTES: Final = 2 * 1024 * 1024
"""What one session may have in a POST while there are others."""
SHARED_SECONDS: Final = 2.0
"""So long after an envelope of another session there are others."""
_STALE_SHARE: Final = 0.5
"""Share of the time that a POST may take, after which a queued envelope is not tried behind one that took too long."""
_ATTEMPTS: Final = 3
_RETRY_SECONDS: Final = 0.2

BATCH_ENVELOPES = Histogram(
    "lucid_submit_batch_envelopes",
    "Envelopes in one POST to session-storage.",
    buckets=BATCH_BUCKETS,
)
BATCH_BYTES = Histogram(
    "lucid_submit_batch_bytes", "Bytes of the envelopes in one POST to session-storage.", buckets=SIZE_BUCKETS
)
SUBMIT_SECONDS = Histogram(
    "lucid_submit_duration_seconds", "Time until a POST was answered or given up.", buckets=LATENCY_BUCKETS
)


@dataclass(slots=True, eq=False)
class _Item:
    """An envelope, who waits for it, and where in a trace."""

    session_id: SessionId
    envelope: bytes
    answer: asyncio.Future[FrameAnswer]
    trace: Any
    queued_at: float


@dataclass(frozen=True, slots=True)
class _Post:
    """A POST that is under way."""

    sessions: set[SessionId]
    envelopes: int
    large: bool


class Submitter:
    """Hands envelopes to storage, many at a time.

    With a `watch` there is a spool behind it: then nothing is tried twice here, a POST that takes too long is given up,
    and with it goes all that waits in the queue.
    """

    def __init__(self, storage: StorageClient, watch: StorageWatch | None = None) -> None:
        self._storage = storage
        self._watch = watch
        self._queue: FairQueue[_Item] = FairQueue()
        self._posts: dict[asyncio.Task[None], _Post] = {}
        self._waiting_since = 0.0
        self._joined: asyncio.TimerHandle | None = None
        self._last: SessionId | None = None
        self._shared_until = 0.0

    async def submit(self, session_id: SessionId, envelope: bytes) -> FrameAnswer:
        """Store one envelope.

        Raises:
            DomainError: what storage answered, or `storage-unavailable`; repeating is safe.
        """
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[FrameAnswer] = loop.create_future()
        if session_id != self._last:
            if self._last is not None:
                self._shared_until = loop.time() + SHARED_SECONDS
            self._last = session_id
        if not self._queue:
            self._waiting_since = loop.time()
        self._queue.put(session_id, len(envelope), _Item(session_id, envelope, answer, tracing.here(), loop.time()))
        self._pump()
        return await answer

    def _pump(self) -> None:
        while self._queue and len(self._posts) < POSTS_IN_FLIGHT and not self._others_may_join():
            share, busy = POST_BYTES, set[SessionId]()
            now = asyncio.get_running_loop().time()
            if now < self._shared_until:
                # One that floods is then in one POST at a time, and that is a short one: another waits for no more.
                share, busy = SHARE_BYTES, set().union(*(post.sessions for post in self._posts.values()))
            batch, whose = self._queue.take(POST_BYTES, POST_ENVELOPES, share, busy)
            if not batch:
                return
            self._waiting_since = now
            size_bytes = sum(len(item.envelope) for item in batch)
            post = asyncio.create_task(self._post(batch, size_bytes))
            self._posts[post] = _Post(whose, len(batch), large=size_bytes > SMALL_BYTES * len(batch))
            post.add_done_callback(self._posted)

    def _others_may_join(self) -> bool:
        """Whether what waits had better wait on: a POST is under way, and another would be a short one.

        But small ones not beside a POST of large ones: it takes its time, and whoever else records then is not kept
        waiting for it.
        """
        if not self._posts:
            return False
        small = self._queue.size_bytes <= SMALL_BYTES * self._queue.items
        if small and any(post.large for post in self._posts.values()):
            return False
        enough = min(JOIN_ENVELOPES, *(post.envelopes for post in self._posts.values()))
        if self._queue.items >= enough or self._queue.size_bytes >= JOIN_BYTES:
            return False
        loop = asyncio.get_running_loop()
        until = self._waiting_since + JOIN_SECONDS
        if loop.time() >= until:
            return False
        if self._joined is None:
            self._joined = loop.call_at(until, self._join_is_over)
        return True

    def _join_is_over(self) -> None:
        self._joined = None
        self._pump()

    def _posted(self, post: asyncio.Task[None]) -> None:
        del self._posts[post]
        self._pump()

    async def _post(self, batch: list[_Item], size_bytes: int) -> None:
        # A recorder that went away has cancelled its future; its envelope goes all the same, it is idempotent.
        BATCH_ENVELOPES.observe(len(batch))
        BATCH_BYTES.observe(size_bytes)
        try:
            facts = {"batch.envelopes": len(batch)}
            with SUBMIT_SECONDS.time(), tracing.span("submit", facts, of=[item.trace for item in batch]):
                answers = await self._send([item.envelope for item in batch])
        except RequestFailedError as error:
            await self._failed(batch, error)
        except Exception as error:  # noqa: BLE001 - each waiter gets it
            # Of storage that is away the next POST would hear the same, perhaps only after a while.
            lost = self._watch is not None and isinstance(error, DomainError) and self._watch.lost(error)
            _refuse([*batch, *(self._queue.clear() if lost else ())], error)
        else:
            _answer(batch, answers)

    async def _failed(self, batch: list[_Item], error: RequestFailedError) -> None:
        """Find out whose envelopes a POST failed of: each session's go alone, so that one fails for no other."""
        if self._watch is not None:
            self._watch.lost(error)
        if isinstance(error, OverdueError) and self._watch is not None:  # what waited behind it has waited long enough
            since = asyncio.get_running_loop().time() - _STALE_SHARE * self._watch.overdue_seconds
            _refuse([*batch, *self._queue.clear(lambda item: item.queued_at < since)], error)
            return
        sessions: dict[SessionId, list[_Item]] = {}
        for item in batch:
            sessions.setdefault(item.session_id, []).append(item)
        if len(sessions) == 1:
            _refuse(batch, error)
            return
        for items in sessions.values():
            try:
                _answer(items, await self._send([item.envelope for item in items]))
            except Exception as again:  # noqa: BLE001 - each waiter gets it
                if self._watch is not None and isinstance(again, DomainError):
                    self._watch.lost(again)
                _refuse(items, again)

    async def _send(self, envelopes: list[bytes]) -> list[FrameAnswer]:
        if self._watch is None:
            return await self._with_retries(envelopes)
        return await self._watch.attempt(self._storage.submit(envelopes))

    async def _with_retries(self, envelopes: list[bytes]) -> list[FrameAnswer]:
        for attempt in range(1, _ATTEMPTS + 1):
            try:
                return await self._storage.submit(envelopes)
            except DomainError as error:
                if error.retry_after_seconds is None or attempt == _ATTEMPTS:
                    raise
                await asyncio.sleep(_RETRY_SECONDS * attempt)
        raise AssertionError  # the last attempt has returned or raised


def _answer(items: Sequence[_Item], answers: Sequence[FrameAnswer]) -> None:
    for item, answer in zip(items, answers, strict=True):
        if not item.answer.done():
            item.answer.set_result(answer)


def _refuse(items: Sequence[_Item], error: Exception) -> None:
    for item in items:
        if not item.answer.done():
            item.answer.set_exception(error)
