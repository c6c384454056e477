"""The client of both services, for programs that use asyncio."""

from typing import Self

from sessions.client.audit import AuditCalls
from sessions.client.keys import KeyCalls
from sessions.client.processor_calls import ProcessorCalls
from sessions.client.processors import ProcessorsCalls
from sessions.client.retention import RetentionCalls
from sessions.client.retry import RetryPolicy
from sessions.client.scrub import ScrubCalls
from sessions.client.spool import SpoolCalls
from sessions.client.storage_calls import StorageCalls
from sessions.client.transport import Transport


class AsyncClient(
    ProcessorCalls,
    StorageCalls,
    KeyCalls,
    RetentionCalls,
    ScrubCalls,
    AuditCalls,
    ProcessorsCalls,
    SpoolCalls,
):
    """Speaks to chunk-processor, and to session-storage when its URL is given.

    Every request is repeated while the service cannot be reached or is busy, for as long as `retry` says. Every method
    raises `ClientError` (see `sessions.client.errors`), and `CoreError` for a session id or index that cannot be.

    Args:
        processor_url: Such as `http://127.0.0.1:8085`.
        storage_url: Such as `http://127.0.0.1:8086`.
        token: The bearer token, `lucid_...`.
        retry: How long to keep trying.
    """

    def __init__(
        self,
        processor_url: str,
        storage_url: str | None = None,
        *,
        token: str | None = None,
        retry: RetryPolicy | None = None,
    ) -> None:
        self._policy = retry or RetryPolicy()
        self._processor = Transport("chunk-processor", processor_url, token, self._policy)
        self._storage_or_none = Transport("session-storage", storage_url, token, self._policy) if storage_url else None

    def __repr__(self) -> str:
        return f"{type(self).__name__}()"

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_exc: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Close all connections."""
        await self._processor.close()
        if self._storage_or_none is not None:
            await self._storage_or_none.close()
