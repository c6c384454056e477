"""The client for programs without asyncio: the asynchronous one, run on a thread of its own."""

import asyncio
import os
import threading
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Mapping
from typing import Any, Self, TypeVar

from sessions.client.aio import AsyncClient
from sessions.client.answers import AnchorRecord, ChunkAck, ChunkRecord, SessionStatus, SessionSummary
from sessions.client.audit import AuditDay, AuditItem
from sessions.client.keys import KeyStatus, Rotated
from sessions.client.processor_calls import CHUNK_BYTES_DEFAULT, IN_FLIGHT_DEFAULT
from sessions.client.processors import ProcessorStatus
from sessions.client.recording import ProgressCallback, Recording
from sessions.client.retention import DueSession, Kept
from sessions.client.retry import RetryPolicy
from sessions.client.scrub import ScrubStep
from sessions.client.seals import Seal
from sessions.client.source import Source
from sessions.client.spool import SpoolEntry, SpoolPage
from sessions.client.storage_calls import FETCHES_IN_FLIGHT_DEFAULT
from sessions.client.targets import Out
from sessions.core.key_ring import KeyRing
from sessions.core.manifest import Manifest
from sessions.core.proof import ChunkProof
from sessions.core.receipt import Receipt

T = TypeVar("T")


class Client:
    """`AsyncClient`, method by method, for programs without asyncio. Use it as a context manager, or `close()` it.

    Callbacks are called in the client's own thread.
    """

    def __init__(
        self,
        processor_url: str,
        storage_url: str | None = None,
        *,
        token: str | None = None,
        retry: RetryPolicy | None = None,
    ) -> None:
        self._client = AsyncClient(processor_url, storage_url, token=token, retry=retry)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="lucid-client", daemon=True)
        self._thread.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exc: object) -> None:
        self.close()

    def close(self) -> None:
        """Close all connections and end the thread."""
        if self._loop.is_closed():
            return
        self._run(self._end())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    async def _end(self) -> None:
        """What was interrupted ends before its connections are closed."""
        rest = asyncio.all_tasks() - {asyncio.current_task()}
        for task in rest:
            task.cancel()
        await asyncio.gather(*rest, return_exceptions=True)
        await self._client.close()
        await asyncio.get_running_loop().shutdown_asyncgens()

    def _run(self, work: Coroutine[Any, Any, T]) -> T:
        future = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            return future.result()
        except BaseException:
            future.cancel()  # Ctrl-C reaches this thread, not the loop's
            raise

    def _iterate(self, items: AsyncIterator[T]) -> Iterator[T]:
        async def following() -> list[T]:
            try:
                return [await anext(items)]
            except StopAsyncIteration:
                return []

        while got := self._run(following()):
            yield from got

    def open_session(self, session_id: str, metadata: Mapping[str, Any] | None = None) -> bool:
        """See `AsyncClient.open_session`."""
        return self._run(self._client.open_session(session_id, metadata))

    def put_chunk(self, session_id: str, index: int, data: bytes) -> ChunkAck:
        """See `AsyncClient.put_chunk`."""
        return self._run(self._client.put_chunk(session_id, index, data))

    def seal(self, session_id: str, chunk_count: int | None = None) -> Seal:
        """See `AsyncClient.seal`."""
        return self._run(self._client.seal(session_id, chunk_count))

    def status(self, session_id: str) -> SessionStatus:
        """See `AsyncClient.status`."""
        return self._run(self._client.status(session_id))

    def record(
        self,
        source: Source,
        session_id: str,
        *,
        chunk_bytes: int = CHUNK_BYTES_DEFAULT,
        in_flight: int = IN_FLIGHT_DEFAULT,
        resume: bool = True,
        metadata: Mapping[str, Any] | None = None,
        progress: ProgressCallback | None = None,
    ) -> Recording:
        """See `AsyncClient.record`."""
        return self._run(
            self._client.record(
                source,
                session_id,
                chunk_bytes=chunk_bytes,
                in_flight=in_flight,
                resume=resume,
                metadata=metadata,
                progress=progress,
            )
        )

    def replay(
        self,
        session_id: str,
        out: Out,
        *,
        start: int | None = None,
        overwrite: bool = False,
        progress: Callable[[int, int | None], None] | None = None,
    ) -> int:
        """See `AsyncClient.replay`."""
        return self._run(self._client.replay(session_id, out, start=start, overwrite=overwrite, progress=progress))

    def delete(self, session_id: str) -> None:
        """See `AsyncClient.delete`."""
        self._run(self._client.delete(session_id))

    def key_status(self) -> KeyStatus:
        """See `AsyncClient.key_status`."""
        return self._run(self._client.key_status())

    def rotate_keys(self, progress: Callable[[int, int], None] | None = None) -> Rotated:
        """See `AsyncClient.rotate_keys`."""
        return self._run(self._client.rotate_keys(progress))

    def key_ring(self, session_id: str) -> KeyRing:
        """See `AsyncClient.key_ring`."""
        return self._run(self._client.key_ring(session_id))

    def retention_due(self) -> Iterator[DueSession]:
        """See `AsyncClient.retention_due`."""
        return self._iterate(self._client.retention_due())

    def set_retention(self, session: str, **days: int | None) -> Kept:
        """See `AsyncClient.set_retention`."""
        return self._run(self._client.set_retention(session, **days))

    def scrub(self, session: str | None = None, *, sample: float = 1.0) -> Iterator[ScrubStep]:
        """See `AsyncClient.scrub`."""
        return self._iterate(self._client.scrub(session, sample=sample))

    def processors(self) -> list[ProcessorStatus]:
        """See `AsyncClient.processors`."""
        return self._run(self._client.processors())

    def forget_processor(self, name: str) -> None:
        """See `AsyncClient.forget_processor`."""
        self._run(self._client.forget_processor(name))

    def spool_page(self, cursor: str | None = None, **limits: int) -> SpoolPage:
        """See `AsyncClient.spool_page`."""
        return self._run(self._client.spool_page(cursor, **limits))

    def spool_entries(self) -> Iterator[SpoolEntry]:
        """See `AsyncClient.spool_entries`."""
        return self._iterate(self._client.spool_entries())

    def spool_entry(self, name: str) -> SpoolEntry:
        """See `AsyncClient.spool_entry`."""
        return self._run(self._client.spool_entry(name))

    def spool_content(self, name: str) -> bytes:
        """See `AsyncClient.spool_content`."""
        return self._run(self._client.spool_content(name))

    def retry_spooled(self, name: str) -> None:
        """See `AsyncClient.retry_spooled`."""
        self._run(self._client.retry_spooled(name))

    def drop_spooled(self, name: str) -> None:
        """See `AsyncClient.drop_spooled`."""
        self._run(self._client.drop_spooled(name))

    def audit_days(self) -> Iterator[AuditDay]:
        """See `AsyncClient.audit_days`."""
        return self._iterate(self._client.audit_days())

    def audit_events(self, day: str) -> Iterator[AuditItem]:
        """See `AsyncClient.audit_events`."""
        return self._iterate(self._client.audit_events(day))

    def hold(self, session_id: str, *, held: bool) -> None:
        """See `AsyncClient.hold`."""
        self._run(self._client.hold(session_id, held=held))

    def session_page(self, **wanted: Any) -> tuple[list[SessionSummary], str | None]:
        """See `AsyncClient.session_page`."""
        return self._run(self._client.session_page(**wanted))

    def list_sessions(self, **wanted: Any) -> Iterator[SessionSummary]:
        """See `AsyncClient.list_sessions`."""
        return self._iterate(self._client.list_sessions(**wanted))

    def receipt(self, session_id: str, **waiting: Any) -> Receipt:
        """See `AsyncClient.receipt`."""
        return self._run(self._client.receipt(session_id, **waiting))

    def proof(self, session_id: str, index: int) -> ChunkProof:
        """See `AsyncClient.proof`."""
        return self._run(self._client.proof(session_id, index))

    def manifest(self, session_id: str) -> Manifest:
        """See `AsyncClient.manifest`."""
        return self._run(self._client.manifest(session_id))

    def chunks(self, session_id: str, *, start: int = 0) -> Iterator[ChunkRecord]:
        """See `AsyncClient.chunks`."""
        return self._iterate(self._client.chunks(session_id, start=start))

    def envelope(self, session_id: str, index: int) -> bytes:
        """See `AsyncClient.envelope`."""
        return self._run(self._client.envelope(session_id, index))

    def envelopes(
        self,
        session_id: str,
        folder: str | os.PathLike[str],
        *,
        in_flight: int = FETCHES_IN_FLIGHT_DEFAULT,
        progress: Callable[[int, int], None] | None = None,
    ) -> tuple[int, int]:
        """See `AsyncClient.envelopes`."""
        return self._run(self._client.envelopes(session_id, folder, in_flight=in_flight, progress=progress))

    def anchors(self) -> Iterator[AnchorRecord]:
        """See `AsyncClient.anchors`."""
        return self._iterate(self._client.anchors())

    def anchor(self, root: bytes) -> AnchorRecord:
        """See `AsyncClient.anchor`."""
        return self._run(self._client.anchor(root))
