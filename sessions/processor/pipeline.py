"""Natural batching: while a POST to storage is under way, finished envelopes queue up; the next POST takes them all.

So small chunks share round trips and journal flushes, and a lone chunk waits for nothing.
"""

import asyncio
from collections import deque
from typing import Final

from prometheus_client import Histogram

from sessions.processor.storage_client import FrameAnswer, StorageClient
from sessions.runtime.errors import DomainError

POSTS_IN_FLIGHT: Final = 2
POST_BYTES: Final = 16 * 1024 * 1024
POST_ENVELOPES: Final = 1024
_ATTEMPTS: Final = 3
_RETRY_SECONDS: Final = 0.2

BATCH_ENVELOPES = Histogram(
    "lucid_submit_batch_envelopes",
    "Envelopes in one POST to session-storage.",
    buckets=(1, 2, 4, 8, 16, 32, 64, 128, 1024),
)


class Submitter:
    """Hands envelopes to storage, many at a time."""

    def __init__(self, storage: StorageClient) -> None:
        self._storage = storage
        self._queue: deque[tuple[bytes, asyncio.Future[FrameAnswer]]] = deque()
        self._posts: set[asyncio.Task[None]] = set()

    async def submit(self, envelope: bytes) -> FrameAnswer:
        """Store one envelope.

        Raises:
            DomainError: what storage answered, or `storage-unavailable`; repeating is safe.
        """
        answer: asyncio.Future[FrameAnswer] = asyncio.get_running_loop().create_future()
        self._queue.append((envelope, answer))
        self._pump()
        return await answer

    def _pump(self) -> None:
        while self._queue and len(self._posts) < POSTS_IN_FLIGHT:
            batch = [self._queue.popleft()]
            size = len(batch[0][0])
            while self._queue and size + len(self._queue[0][0]) <= POST_BYTES and len(batch) < POST_ENVELOPES:
                batch.append(self._queue.popleft())
                size += len(batch[-1][0])
            post = asyncio.create_task(self._post(batch))
            self._posts.add(post)
            post.add_done_callback(self._posted)

    def _posted(self, post: asyncio.Task[None]) -> None:
        self._posts.discard(post)
        self._pump()

    async def _post(self, batch: list[tuple[bytes, asyncio.Future[FrameAnswer]]]) -> None:
        # A recorder that went away has cancelled its future; its envelope goes all the same, it is idempotent.
        BATCH_ENVELOPES.observe(len(batch))
        try:
            answers = await self._with_retries([envelope for envelope, _ in batch])
        except Exception as error:  # noqa: BLE001 - each waiter gets it
            for _, waiting in batch:
                if not waiting.done():
                    waiting.set_exception(error)
        else:
            for (_, waiting), answer in zip(batch, answers, strict=True):
                if not waiting.done():
                    waiting.set_result(answer)

    async def _with_retries(self, envelopes: list[bytes]) -> list[FrameAnswer]:
        for attempt in range(1, _ATTEMPTS + 1):
            try:
                return await self._storage.submit(envelopes)
            except DomainError as error:
                if error.retry_after_seconds is None or attempt == _ATTEMPTS:
                    raise
                await asyncio.sleep(_RETRY_SECONDS * attempt)
        raise AssertionError  # the last attempt has returned or raised
