"""The processors that storage knows. Each reports what its spool holds; a seal waits until all have handed over."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any, Final, Protocol

from prometheus_client import Gauge

from sessions.core.types import SessionId
from sessions.runtime.errors import DomainError
from sessions.runtime.times import to_rfc3339
from sessions.storage.seal_orders import Ask, ClosingStore, Confirmation, ask_all_again
from sessions.storage.uptime import UptimeClock

PRESENT_SECONDS: Final = 15.0
"""Uptime of storage since a processor's last report, in seconds, up to which the processor counts as present."""
ASKS_AT_ONCE: Final = 200
MAX_RUNS: Final = 8
"""Limit on the earlier processes of one name that storage remembers."""
MAX_PROCESSORS: Final = 256
"""Limit on the processors that storage knows at the same time."""
_REFRESH_SECONDS: Final = 5.0
"""A report that says nothing new is stored after this many seconds, so that an idle processor costs few writes."""

KNOWN = Gauge("lucid_processors", "Processors that storage knows, by whether they report.", ("state",))


class ProcessorState(StrEnum):
    """Whether a processor reports."""

    PRESENT = "present"
    MISSING = "missing"
    """It does not report; seals wait for it."""
    LOST = "lost"
    """It has not reported for PROCESSOR_WAIT_SECONDS of storage's uptime; seals do not wait for it any more."""


for _state in ProcessorState:
    KNOWN.labels(_state.value)


@dataclass(frozen=True, slots=True, kw_only=True)
class Holdings:
    """What a spool holds; `spooled_seals` of its entries are orders to seal."""

    spooled_entries: int = 0
    spooled_bytes: int = 0
    spooled_sessions: int = 0
    spooled_seals: int = 0
    quarantined_entries: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """One report of a processor.

    `confirmed` are questions that it answers now, each with its `Confirmation.floor`. `promised` are all sessions that
    it keeps out of its spool; the answer says which of these still have a question. `run` names its process.
    """

    name: str
    holdings: Holdings
    run: str | None = None
    confirmed: Sequence[tuple[Ask, int]] = ()
    promised: Sequence[SessionId] = ()
    after: SessionId | None = None
    leaving: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessorRecord:
    """A processor's last report: `reported_seconds` is storage's uptime then, `reported_at` the database's time."""

    name: str
    holdings: Holdings
    reported_seconds: float
    reported_at: datetime


@dataclass(frozen=True, slots=True)
class Known:
    """A processor and its state now; `missing_seconds` is storage's uptime since its last report."""

    record: ProcessorRecord
    state: ProcessorState
    missing_seconds: float

    def to_json(self) -> dict[str, Any]:
        """Return the processor as the REST interface shows it."""
        holdings = self.record.holdings
        return {
            "name": self.record.name,
            "state": self.state.value,
            "last_report_at": to_rfc3339(self.record.reported_at),
            "missing_seconds": round(self.missing_seconds, 1),
            "spooled_entries": holdings.spooled_entries,
            "spooled_bytes": holdings.spooled_bytes,
            "spooled_sessions": holdings.spooled_sessions,
            "quarantined_entries": holdings.quarantined_entries,
        }


@dataclass(frozen=True, slots=True)
class Answer:
    """What a processor learns from its report: questions to answer, and the newest about what it promised.

    A promise about a session that is not in `asked` binds no more.
    """

    asks: Sequence[Ask] = ()
    asked: Mapping[SessionId, str] = field(default_factory=dict)
    uptime_seconds: float = 0.0


class Stored(StrEnum):
    """What became of a report."""

    KNOWN = "known"
    NEW = "new"
    """It is stored, and its processor was never met with `ProcessorStore.meet`."""
    REPLACED = "replaced"
    """It is not stored: another process has reported under this name since this one did."""


class ProcessorStore(Protocol):
    """The processors. A report replaces the one before it."""

    async def report(self, name: str, holdings: Holdings, uptime_seconds: float, run: str | None = None) -> Stored:
        """Store a report, but of no process that another one of its name has replaced.

        The last `MAX_RUNS` processes of a name are remembered.
        """

    async def meet(self, name: str) -> None:
        """Note that a new processor is known, and all that follows from it is done."""

    async def all(self) -> Sequence[ProcessorRecord]:
        """Return all processors, by name."""

    async def forget(self, name: str, run: str | None = None) -> bool:
        """Remove a processor, with `run` only if that is its process; return whether it was there."""


@dataclass(frozen=True, slots=True)
class Survey:
    """All processors, at an uptime of storage in seconds."""

    now_seconds: float
    processors: Sequence[Known]


@dataclass(frozen=True, slots=True)
class _Kept:
    """What was stored of a report: when, by the monotonic clock, and at which uptime of storage."""

    holdings: Holdings
    run: str | None
    at: float
    uptime_seconds: float


class Registry:
    """Knows which processors there are, and what each still has to hand over."""

    def __init__(
        self,
        store: ProcessorStore,
        orders: ClosingStore,
        uptime: UptimeClock,
        wait_seconds: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Take processors for lost after `wait_seconds` of storage's uptime without a report."""
        self._store = store
        self._orders = orders
        self._uptime = uptime
        self._clock = clock
        self.wait_seconds = wait_seconds
        self._stored: dict[str, _Kept] = {}

    async def report(self, report: Report) -> Answer:
        """Take in a report, and answer with what the processor has to do next.

        Raises:
            DomainError: `database-unavailable`; `processor-replaced` when the name belongs to another process by now.
        """
        now = await self._uptime.read()
        if report.name not in self._stored:
            names = {record.name for record in await self._store.all()}
            if report.name not in names and len(names) >= MAX_PROCESSORS:
                detail = f"storage knows {MAX_PROCESSORS} processors already; forget those that are gone"
                raise DomainError("overloaded", detail, retry_after_seconds=30)
        if report.leaving and not report.holdings.spooled_entries:
            self._stored.pop(report.name, None)
            await self._store.forget(report.name, report.run)  # not one that has begun since
            return Answer()
        before = self._stored.get(report.name)
        if before is None or before.run != report.run:
            before = await self._store_report(report, now)
        for ask, floor in report.confirmed:
            await self._orders.confirm(ask, Confirmation(report.name, floor))
        asks = await self._orders.unanswered(report.name, report.after, ASKS_AT_ONCE)
        refresh = min(_REFRESH_SECONDS, self.wait_seconds / 4)
        fresh = self._clock() - before.at < refresh and before.uptime_seconds <= now
        if asks or not fresh or before.holdings != report.holdings:
            await self._store_report(report, now)
        asked = await self._orders.asked(report.promised) if report.promised else {}
        return Answer(asks, asked, now)

    async def _store_report(self, report: Report, now: float) -> _Kept:
        self._stored.pop(report.name, None)
        stored = await self._store.report(report.name, report.holdings, now, report.run)
        if stored is Stored.REPLACED:
            detail = f"another process reports as {report.name}, perhaps with a copy of its spool; take another name"
            raise DomainError("processor-replaced", detail)
        if stored is Stored.NEW:
            # A replica may be about to seal by a list of processors without this one: its question counts no more.
            await ask_all_again(self._orders)
            await self._store.meet(report.name)
        kept = self._stored[report.name] = _Kept(report.holdings, report.run, self._clock(), now)
        return kept

    async def survey(self) -> "Survey":
        """Return all processors with their states.

        Raises:
            DomainError: `database-unavailable`.
        """
        now = await self._uptime.read()
        found = [self._judged(record, now) for record in await self._store.all()]
        for state in ProcessorState:
            KNOWN.labels(state.value).set(sum(one.state is state for one in found))
        return Survey(now, found)

    def _judged(self, record: ProcessorRecord, now: float) -> Known:
        missing = max(0.0, now - record.reported_seconds)
        state = ProcessorState.PRESENT if missing <= PRESENT_SECONDS else ProcessorState.MISSING
        if missing > self.wait_seconds:
            state = ProcessorState.LOST
        return Known(record, state, missing)

    async def forget(self, name: str) -> bool:
        """Forget a processor: seals do not wait for it any more. Return whether it was known.

        Raises:
            DomainError: `database-unavailable`.
        """
        self._stored.pop(name, None)
        return await self._store.forget(name)

    def set_back(self) -> None:
        """Store the next report of each processor: the database lost what it had stored."""
        self._stored.clear()
