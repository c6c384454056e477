"""Orders to seal sessions at session-storage: each with the promise that this spool holds nothing of the session."""

from contextlib import suppress
from typing import Any

from sessions.core.types import SessionId
from sessions.processor.reporting import Reporter
from sessions.processor.spooling import Spooling
from sessions.processor.storage_answers import SealAnswer
from sessions.processor.storage_client import StorageClient
from sessions.processor.storage_errors import RequestFailedError, UnheardError, is_transient
from sessions.runtime.errors import DomainError


class SealOrders:
    """Places orders at session-storage."""

    def __init__(self, storage: StorageClient, spooling: Spooling, reporter: Reporter) -> None:
        self._storage = storage
        self._spooling = spooling
        self._reporter = reporter

    async def place(
        self,
        session_id: SessionId,
        chunk_count: int | None,
        *,
        keep: bool = True,
        wait: bool = True,
        by: str | None = None,
    ) -> SealAnswer | None:
        """Have session-storage seal a session; None when the spool holds some of it, which goes first.

        With `keep` session-storage keeps an order that has to wait for other processors; with `wait` it answers some
        seconds later if they may hand over in this time. `by` names the token that asks for it.

        Raises:
            DomainError: what session-storage answered.
        """
        if not await self._reporter.promise_own(session_id):
            return None
        promises = self._spooling.promises
        request = promises.begin(session_id)
        claims: dict[str, Any] = self._reporter.claims(session_id, keep=keep, wait=wait)
        try:
            if claims:  # a process that comes after this one has to know what this order says of the spool
                await self._spooling.spool.in_thread(promises.save)
        except OSError as error:  # nothing was sent
            promises.end(session_id, request, heard=False)
            detail = f"the spool cannot be written: {error.strerror}"
            raise RequestFailedError(detail) from None
        try:
            answer = await self._storage.seal(session_id, chunk_count, owner=by or "", **claims)
        except DomainError as error:
            # Of a verdict nothing is left at session-storage; of what got no answer, or was cancelled, there may be.
            if isinstance(error, UnheardError):
                promises.end(session_id, request, heard=False)
                with suppress(OSError):  # the process that comes after this one is not bound by it, either
                    await self._spooling.spool.in_thread(promises.save)
            elif not is_transient(error):
                promises.end(session_id, request)
            raise
        if answer.sealed is not None:
            promises.release(session_id)
        else:
            promises.end(session_id, request)
        return answer
