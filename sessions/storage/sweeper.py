"""Shreds sessions whose time is up. One replica at a time does, by a lease; two at once would do no harm.

What a sweep may not shred it leaves, and reports. Each session is judged again when it is shredded: a legal hold, or a
longer retention, that is acknowledged before that moment stands.
"""

import asyncio
from collections import Counter
from typing import Final

import structlog
from prometheus_client import Counter as Metric

from sessions.core.audit import Action, Outcome
from sessions.core.types import SessionId
from sessions.runtime.audit import Audit
from sessions.runtime.errors import DomainError
from sessions.runtime.tasks import skipped
from sessions.storage.anchor import Lease
from sessions.storage.mongo import Readiness, translated
from sessions.storage.retention import Due, Place, Verdict
from sessions.storage.shredding import Shredder
from sessions.storage.store import ShredReason

SWEEP_SECONDS: Final = 600.0
LEASE_SECONDS: Final = 120.0
PAGE_SESSIONS: Final = 100
SWEEPER: Final = "retention"
"""Who shreds, in tombstones."""
_REFUSALS: Final = {"session-held": Verdict.HELD, "session-retained": Verdict.RETAINED}
_AWAY: Final = ("database-unavailable", "audit-unavailable")
"""Errors that say nothing of the session: each later one would meet them, too."""

SWEPT = Metric("lucid_retention_sessions_total", "Sessions whose time was up, by what became of them.", ("verdict",))
for _verdict in Verdict:
    SWEPT.labels(_verdict.value)
_log = structlog.get_logger()


class Sweeper:
    """Looks now and then for sessions that are due."""

    def __init__(self, due: Due, shredder: Shredder, lease: Lease, audit: Audit) -> None:
        self._due = due
        self._shredder = shredder
        self._lease = lease
        self._audit = audit

    async def run(self, readiness: Readiness) -> None:
        """Sweep until cancelled."""
        await readiness.established.wait()
        while True:
            try:
                await self.sweep()
            except DomainError as error:
                _log.warning("retention_not_swept", reason=error.detail)
            await asyncio.sleep(SWEEP_SECONDS)

    async def sweep(self) -> Counter[Verdict]:
        """Shred all that is due now; gives how many sessions were shredded, and how many stay and why.

        Raises:
            DomainError: `database-unavailable` or `audit-unavailable`; what is left is for the next sweep.
        """
        seen: Counter[Verdict] = Counter()
        start: Place | None = None
        while await self._leading():
            page = await self._due.page(start, PAGE_SESSIONS)
            for session in page.sessions:
                verdict = session.verdict
                if verdict is Verdict.SHRED:
                    if not await self._leading():
                        return seen
                    try:
                        verdict = await self._shred(session.record.session_id)
                    except Exception as error:
                        if isinstance(error, DomainError) and error.code in _AWAY:
                            raise
                        skipped(session_id=session.record.session_id)
                        continue
                seen[verdict] += 1
                SWEPT.labels(verdict.value).inc()
            start = page.following
            if start is None:
                break
        if seen:
            _log.info("retention_swept", **{verdict.value: count for verdict, count in seen.items()})
        return seen

    async def _leading(self) -> bool:
        async with translated():
            return await self._lease.acquire() is not None

    async def _shred(self, session_id: SessionId) -> Verdict:
        await self._audit.own(Action.RETENTION_SHRED, Outcome.BEGUN, session_id)
        try:
            await self._shredder.shred(session_id, ShredReason.RETENTION, SWEEPER)
        except DomainError as error:
            if error.code not in _REFUSALS:
                raise
            await self._audit.own(Action.RETENTION_SHRED, Outcome.REFUSED, session_id, error.code)
            return _REFUSALS[error.code]
        await self._audit.own(Action.RETENTION_SHRED, Outcome.ALLOWED, session_id)
        _log.info("session_shredded", session_id=session_id, reason=ShredReason.RETENTION.value)
        return Verdict.SHRED
