"""Seals abandoned sessions as they are, so that what was recorded is proved although no recorder came back.

One replica at a time does, by a lease; two at once would do no harm, for whoever seals second finds the seal.
"""

import asyncio
from typing import Final

import structlog
from prometheus_client import Counter

from sessions.runtime.errors import DomainError
from sessions.runtime.tasks import skipped, turn
from sessions.storage.activity import Activity
from sessions.storage.anchor import Lease
from sessions.storage.heads import sealed_summary
from sessions.storage.ledger import Ledger
from sessions.storage.mongo import Readiness, translated
from sessions.storage.seal_desk import Waiting

LEASE_SECONDS: Final = 120.0
_AT_ONCE: Final = 100
_PAUSE_SHARE: Final = 10
_PAUSE_MAX_SECONDS: Final = 60.0
_GRACE_MAX_SECONDS: Final = 600.0

IDLE_SEALS = Counter("lucid_idle_seals_total", "Abandoned sessions, by what became of them.", ("outcome",))
for _outcome in ("sealed", "refused", "waiting"):
    IDLE_SEALS.labels(_outcome)
_log = structlog.get_logger()


class IdleSealer:
    """Looks now and then for sessions that nobody writes to any more."""

    def __init__(self, activity: Activity, ledger: Ledger, lease: Lease, idle_seconds: float) -> None:
        self._activity = activity
        self._ledger = ledger
        self._lease = lease
        self._idle_seconds = idle_seconds

    async def run(self, readiness: Readiness) -> None:
        """Seal until cancelled; not at all with 0 seconds.

        Whoever could not reach us while the database or we were away gets some minutes to hand over what it holds: that
        comes before the seal.
        """
        if not self._idle_seconds:
            return
        await readiness.established.wait()
        pause_seconds = min(self._idle_seconds / _PAUSE_SHARE, _PAUSE_MAX_SECONDS)
        grace_seconds = wait_seconds = min(self._idle_seconds, _GRACE_MAX_SECONDS)
        while True:
            await asyncio.sleep(wait_seconds)
            wait_seconds = pause_seconds
            with turn():
                try:
                    await self.sweep()
                except DomainError as error:
                    _log.warning("idle_not_sealed", reason=error.detail)
                    wait_seconds = grace_seconds

    async def sweep(self) -> int:
        """Seal all that are idle now; gives how many.

        Raises:
            DomainError: `database-unavailable`; what is left is for the next sweep.
        """
        sealed = 0
        while await self._leading():
            found = await self._activity.idle(_AT_ONCE)
            done = 0
            for session_id in found:
                try:
                    if not await self._activity.is_idle(session_id):
                        continue  # it was written to, or sealed, while those before it were sealed
                    sealed_now = await self._ledger.seal(session_id, None, "idle", wait_seconds=0)
                except DomainError as error:
                    if error.code == "database-unavailable":
                        raise
                    # Too many gaps to list: it stays open, and is tried again when it has been idle once more.
                    await self._activity.put_off(session_id)
                    IDLE_SEALS.labels("refused").inc()
                    _log.warning("idle_seal_refused", session_id=session_id, code=error.code, reason=error.detail)
                    continue
                except Exception:  # noqa: BLE001 - whatever is wrong with this session, others are idle, too
                    skipped(session_id=session_id)
                    await self._activity.put_off(session_id)
                    IDLE_SEALS.labels("refused").inc()
                    continue
                if isinstance(sealed_now, Waiting):  # the desk seals it once all processors have confirmed
                    IDLE_SEALS.labels("waiting").inc()
                    continue
                done += 1
                IDLE_SEALS.labels("sealed").inc()
                chunk_count = (await sealed_summary(sealed_now)).chunk_count
                _log.info("session_sealed_idle", session_id=session_id, chunk_count=chunk_count)
            sealed += done
            if len(found) < _AT_ONCE:
                break
        return sealed

    async def _leading(self) -> bool:
        async with translated():
            return await self._lease.acquire() is not None
