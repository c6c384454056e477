"""Where seals are asked for: an order is carried out once every processor has handed over what it holds."""

import asyncio
import math
import time
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import count
from typing import Final

import structlog
from prometheus_client import Counter, Gauge

from sessions.core.manifest import SealedBy
from sessions.core.types import SessionId
from sessions.runtime.errors import DomainError
from sessions.runtime.tasks import skipped
from sessions.storage import problems
from sessions.storage.activity import Activity
from sessions.storage.processors import Known, ProcessorState, Registry
from sessions.storage.questions import Questions
from sessions.storage.seal_orders import MAX_ORDERS, Ask, ClosingStore, Confirmation, WaitingOrder
from sessions.storage.sealed_answer import require_sealed_as_asked
from sessions.storage.sealing import REFUSALS, Sealer
from sessions.storage.store import SessionRecord, SessionStatus, SessionStore
from sessions.storage.unheard import names_of, note_unheard
from sessions.storage.uptime import UptimeClock

WAIT_SECONDS: Final = 5.0
"""Time that the request for a seal waits for processors before it is answered with a 202, in seconds."""
_POLL_SECONDS: Final = 0.1
_UNKNOWN_SECONDS: Final = 7.0  # within which every processor that works stores another report
_UNKNOWN_POLL_SECONDS: Final = 0.5
_UNKNOWN_KEPT: Final = 1000
_SWEEP_SECONDS: Final = 1.0
_THOROUGH_SWEEPS: Final = 10
_SURVEY_SWEEPS: Final = 5
"""Sweeps between two looks at all processors, which keep the metrics of their states up to date."""
_SWEEP_SESSIONS: Final = 100
_LAPSE_SECONDS: Final = 10.0
"""Uptime in seconds after its request's end at which an order that nobody was promised lapses, if a crash left it."""
_REFUSALS_KEPT: Final = 1000

WAITING = Gauge("lucid_seals_waiting", "Sessions whose seal waits for a processor.")
REFUSED = Counter("lucid_seal_orders_refused_total", "Seal orders that waited and were refused; the session is open.")
_log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Waiting:
    """An order that waits for processors."""

    processors: Sequence[Known]


class SealDesk:
    """Takes orders, and carries them out when nothing is left to wait for. Any replica may do so."""

    def __init__(
        self,
        sessions: SessionStore,
        sealer: Sealer,
        orders: ClosingStore,
        *,
        registry: Registry,
        uptime: UptimeClock,
        activity: Activity,
    ) -> None:
        self._sessions = sessions
        self._sealer = sealer
        self._orders = orders
        self._registry = registry
        self._uptime = uptime
        self._activity = activity
        self._refusals: OrderedDict[str, DomainError] = OrderedDict()
        self._unknown_since: OrderedDict[tuple[SessionId, str], datetime | None] = OrderedDict()
        self._questions = Questions(orders, registry)

    def set_back(self) -> None:
        """Ask all processors again: the database was set back to an earlier state."""
        self._questions.set_back()

    async def seal(
        self,
        session_id: SessionId,
        chunk_count: int | None,
        sealed_by: SealedBy,
        first: Confirmation | None = None,
        *,
        keep: bool = True,
        wait_seconds: float = WAIT_SECONDS,
    ) -> SessionRecord | Waiting:
        """Seal a session; return it sealed, or what the order waits for.

        `first` is the processor that asks, which has handed over what it holds. With `keep` the order stays when it has
        to wait; without, it is withdrawn.

        Raises:
            DomainError: `session-not-found`, `chunks-missing`, `chunk-count-mismatch`, `overloaded`.
        """
        floor = first.floor if first else 0
        deadline = time.monotonic() + wait_seconds
        order: WaitingOrder | None = None
        if await self._sessions.get(session_id) is None:
            await self._unknown(session_id, first, wait_seconds)
        while True:
            record = await self._get(session_id)
            if record.seal is not None:
                await require_sealed_as_asked(record, chunk_count, sealed_by, floor)
                return record
            if order is None or not _has(record, order):
                if order is not None and (refusal := self._refusals.get(order.order_id)) is not None:
                    raise refusal
                order = await self._order(record, chunk_count, sealed_by, first, wait_seconds)
                if order is None:
                    continue
            waiting = await self.decide(session_id)
            if waiting and time.monotonic() >= deadline:
                if not keep:
                    await self._orders.withdraw(session_id, order.order_id, kept=False)
                elif not await self._orders.keep(session_id, order.order_id):
                    continue  # it was decided just now
                return Waiting(waiting)
            if waiting:
                await asyncio.sleep(_POLL_SECONDS)

    async def _order(
        self,
        record: SessionRecord,
        chunk_count: int | None,
        sealed_by: SealedBy,
        first: Confirmation | None,
        wait_seconds: float,
    ) -> WaitingOrder | None:
        """Place an order, and confirm it for the processor that brings it; None when it was decided meanwhile."""
        await self._questions.renewed()  # else it would take back this confirmation with those from before a set-back
        session_id, now = record.session_id, await self._uptime.read()
        wanted = WaitingOrder(chunk_count, sealed_by, now, now + wait_seconds + _LAPSE_SECONDS)
        if not await self._orders.order(session_id, wanted, first.floor if first else 0):
            if record.status is SessionStatus.OPEN and record.closing and len(record.closing.orders) >= MAX_ORDERS:
                detail = f"{MAX_ORDERS} orders to seal session {session_id} wait for processors; repeat the request"
                raise DomainError("overloaded", detail, retry_after_seconds=5)
            if record.status is SessionStatus.SEALING:
                await self._sealer.settle(record)
            return None
        closing = (await self._get(session_id)).closing
        order = next((one for one in closing.orders if one.is_like(wanted)), None) if closing is not None else None
        if closing is not None and order is not None and first is not None and await self._stands(first):
            await self._orders.confirm(Ask(session_id, closing.ask_id), first)
        return order

    async def _stands(self, first: Confirmation) -> bool:
        """Return whether a processor still keeps the promise that its request names; read after the order is stored."""
        now = await self._uptime.read()
        in_time = first.until_seconds is None or first.until_seconds >= now
        return in_time and first.generation in (None, self._uptime.generation)

    async def _unknown(self, session_id: SessionId, first: Confirmation | None, wait_seconds: float) -> None:
        """Wait for a session that storage does not know, since another processor's spool may hold all of it.

        Each processor has to report after the order came. A request that does not wait is repeated, and the first one
        counts.

        Raises:
            DomainError: `overloaded`, while one is missing or its spool is not empty; the order is to be repeated.
        """
        asker = session_id, first.processor if first else ""
        for _ in range(max(1, round(_UNKNOWN_SECONDS / _UNKNOWN_POLL_SECONDS)) if wait_seconds else 1):
            survey = await self._registry.survey()
            others = [known for known in survey.processors if first is None or known.record.name != first.processor]
            came_at = max((known.record.reported_at for known in others), default=None)
            asked_at = self._unknown_since.setdefault(asker, came_at)
            waiting = [
                known.record.name
                for known in others
                if known.state is not ProcessorState.LOST
                and (_may_open(known) or asked_at is None or known.record.reported_at <= asked_at)
            ]
            if not waiting or await self._sessions.get(session_id) is not None:
                self._unknown_since.pop(asker, None)
                return
            await asyncio.sleep(_UNKNOWN_POLL_SECONDS if wait_seconds else 0)
        while len(self._unknown_since) > _UNKNOWN_KEPT:
            self._unknown_since.popitem(last=False)
        raise problems.seal_waits(session_id, waiting)

    async def decide(self, session_id: SessionId) -> list[Known]:
        """Carry out the orders of a session; return the processors that they wait for, or nothing if none is left.

        Raises:
            DomainError: `database-unavailable`.
        """
        while True:
            record = await self._get(session_id)
            if record.status is SessionStatus.SEALING:
                await self._sealer.settle(record)
                continue
            if record.seal is not None or record.closing is None:
                return []
            order = record.closing.orders[0]
            if await self._is_over(record, order):
                await self._orders.withdraw(session_id, order.order_id)
                continue
            waiting, lost = await self._questions.waited_for(record)
            if waiting:
                return waiting
            try:
                if await self._sealer.carry_out(record, order, names_of(lost)):
                    note_unheard(session_id, lost)
            except DomainError as error:
                if error.code not in REFUSALS:
                    raise
                await self._refused(session_id, order, error)
            self._uptime.stir()

    async def _is_over(self, record: SessionRecord, order: WaitingOrder) -> bool:
        if order.until_seconds is not None:
            return order.until_seconds < await self._uptime.read()
        # What a processor has handed over since the order may have made the session active again.
        return order.sealed_by == "idle" and not await self._activity.is_idle(record.session_id)

    async def _refused(self, session_id: SessionId, order: WaitingOrder, error: DomainError) -> None:
        REFUSED.inc()
        if order.sealed_by == "idle":  # else each sweep for idle sessions would order it again, and scan it
            await self._activity.put_off(session_id)
        _log.warning("seal_order_refused", session_id=session_id, code=error.code, detail=error.detail)
        self._refusals[order.order_id] = error
        while len(self._refusals) > _REFUSALS_KEPT:
            self._refusals.popitem(last=False)

    async def sweep(self, *, thorough: bool = True) -> int:
        """Carry out all orders that can be; return how many still wait.

        A thorough sweep also withdraws idle orders of sessions that are active again, which costs a read of each.

        Raises:
            DomainError: `database-unavailable`.
        """
        still, after = 0, None
        await self._questions.renewed()
        while page := await self._orders.waiting(after, _SWEEP_SESSIONS):
            survey = await self._registry.survey()
            for session_id, closing in page:
                over = any((order.until_seconds or math.inf) < survey.now_seconds for order in closing.orders)
                over = over or (thorough and any(order.sealed_by == "idle" for order in closing.orders))
                if not over and self._questions.left(closing, survey)[0]:
                    still += 1
                    continue
                try:
                    still += bool(await self.decide(session_id))
                except DomainError as error:
                    if error.code == "database-unavailable":
                        raise
                    _log.warning("seal_not_decided", session_id=session_id, code=error.code, detail=error.detail)
                except Exception:  # noqa: BLE001 - one session's trouble is no other's
                    skipped(session_id=session_id)
            after = page[-1][0]
            if len(page) < _SWEEP_SESSIONS:
                break
        WAITING.set(still)
        return still

    async def run(self) -> None:
        """Carry out orders until cancelled."""
        for sweep in count():
            try:
                if sweep % _SURVEY_SWEEPS == 0:
                    await self._registry.survey()
                await self.sweep(thorough=sweep % _THOROUGH_SWEEPS == 0)
            except DomainError as error:
                _log.warning("seals_not_decided", reason=error.detail)
            await asyncio.sleep(_SWEEP_SECONDS)

    async def _get(self, session_id: SessionId) -> SessionRecord:
        record = await self._sessions.get(session_id)
        if record is None:
            raise problems.session_not_found(session_id)
        return record


def _may_open(known: Known) -> bool:
    """Return whether a spool may hold a session that storage does not know: it holds more than orders."""
    return known.record.holdings.spooled_entries > known.record.holdings.spooled_seals


def _has(record: SessionRecord, order: WaitingOrder) -> bool:
    return record.closing is not None and order in record.closing.orders
