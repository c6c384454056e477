"""Twins in memory of what replicas share: uptime, processors, seal orders that wait, and activity."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from secrets import token_hex

from sessions.core.audit import day_of
from sessions.core.types import SessionId
from sessions.storage.memory import MemorySessions, without
from sessions.storage.processors import MAX_RUNS, Holdings, ProcessorRecord, Stored
from sessions.storage.seal_orders import MAX_ORDERS, Ask, Closing, Confirmation, WaitingOrder
from sessions.storage.store import SessionStatus
from sessions.storage.uptime import Uptime


class MemoryUptime:
    """`UptimeStore` in memory."""

    def __init__(self) -> None:
        self.uptime = Uptime(0.0, 0, token_hex(8))

    async def read(self) -> Uptime:
        """See `UptimeStore`."""
        return self.uptime

    async def beat(self, seen: Uptime, seconds: float) -> Uptime | None:
        """See `UptimeStore`."""
        if seen != self.uptime:
            return None
        self.uptime = replace(seen, seconds=seen.seconds + seconds, beats=seen.beats + 1)
        return self.uptime

    async def renew(self, seen: Uptime) -> Uptime:
        """See `UptimeStore`."""
        if seen == self.uptime:
            self.uptime = replace(seen, generation=token_hex(8), beats=seen.beats + 1)
        return self.uptime


class MemoryProcessors:
    """`ProcessorStore` in memory."""

    def __init__(self) -> None:
        self.records: dict[str, ProcessorRecord] = {}
        self._runs: dict[str, list[str]] = {}
        self._met: set[str] = set()

    async def report(self, name: str, holdings: Holdings, uptime_seconds: float, run: str | None = None) -> Stored:
        """See `ProcessorStore`."""
        runs = self._runs.setdefault(name, [])
        if run in runs[:-1]:
            return Stored.REPLACED
        if run is not None and run not in runs:
            self._runs[name] = [*runs, run][-MAX_RUNS - 1 :]
        self.records[name] = ProcessorRecord(
            name=name, holdings=holdings, reported_seconds=uptime_seconds, reported_at=datetime.now(UTC)
        )
        return Stored.KNOWN if name in self._met else Stored.NEW

    async def meet(self, name: str) -> None:
        """See `ProcessorStore`."""
        self._met.add(name)

    async def all(self) -> list[ProcessorRecord]:
        """See `ProcessorStore`."""
        return [self.records[name] for name in sorted(self.records)]

    async def forget(self, name: str, run: str | None = None) -> bool:
        """See `ProcessorStore`."""
        if run is not None and self._runs.get(name, [])[-1:] != [run]:
            return False
        self._runs.pop(name, None)
        self._met.discard(name)
        return self.records.pop(name, None) is not None


class MemoryClosing:
    """`ClosingStore` in memory."""

    def __init__(self, sessions: MemorySessions) -> None:
        self._records = sessions.records

    async def order(self, session_id: SessionId, order: WaitingOrder, floor: int = 0) -> bool:
        """See `ClosingStore`."""
        record = self._records.get(session_id)
        if record is None or record.status is not SessionStatus.OPEN:
            return False
        before = record.closing or Closing(token_hex(8), ())
        orders = before.orders
        if not any(one.is_like(order) for one in orders):
            if len(orders) >= MAX_ORDERS:
                return False
            orders = (*orders, order)
        closing = replace(before, orders=orders, floor=max(before.floor, floor))
        self._records[session_id] = replace(record, closing=closing)
        return True

    async def keep(self, session_id: SessionId, order_id: str) -> bool:
        """See `ClosingStore`."""
        record = self._records.get(session_id)
        if record is None or record.status is not SessionStatus.OPEN or record.closing is None:
            return False
        orders = tuple(
            replace(one, until_seconds=None) if one.order_id == order_id else one for one in record.closing.orders
        )
        self._records[session_id] = replace(record, closing=replace(record.closing, orders=orders))
        return any(one.order_id == order_id for one in orders)

    async def confirm(self, ask: Ask, confirmation: Confirmation) -> bool:
        """See `ClosingStore`."""
        record = self._records.get(ask.session_id)
        if record is None or record.status is not SessionStatus.OPEN or record.closing is None:
            return False
        if record.closing.ask_id != ask.ask_id:
            return False
        closing = replace(
            record.closing,
            clear=record.closing.clear | {confirmation.processor},
            floor=max(record.closing.floor, confirmation.floor),
        )
        self._records[ask.session_id] = replace(record, closing=closing)
        return True

    async def ask_again(self, ask: Ask) -> None:
        """See `ClosingStore`."""
        record = self._records.get(ask.session_id)
        if record is not None and record.closing is not None and record.closing.ask_id == ask.ask_id:
            closing = replace(record.closing, ask_id=token_hex(8), clear=frozenset())
            self._records[ask.session_id] = replace(record, closing=closing)

    async def withdraw(self, session_id: SessionId, order_id: str, *, kept: bool = True) -> None:
        """See `ClosingStore`."""
        record = self._records.get(session_id)
        if record is None or record.closing is None:
            return
        stays = {one.order_id for one in record.closing.orders if one.until_seconds is None and not kept}
        if order_id not in stays:
            self._records[session_id] = replace(record, closing=without(record.closing, order_id))

    async def unanswered(self, processor: str, after: SessionId | None, limit: int) -> list[Ask]:
        """See `ClosingStore`."""
        asks = []
        for name in sorted(self._records):
            record = self._records[name]
            beyond = after is None or name > after
            if beyond and record.closing is not None and processor not in record.closing.clear:
                asks.append(Ask(name, record.closing.ask_id))
        return asks[:limit]

    async def asked(self, session_ids: Sequence[SessionId]) -> Mapping[SessionId, str]:
        """See `ClosingStore`."""
        found = [self._records[name] for name in session_ids if name in self._records]
        return {record.session_id: record.closing.ask_id for record in found if record.closing is not None}

    async def waiting(self, after: SessionId | None, limit: int) -> list[tuple[SessionId, Closing]]:
        """See `ClosingStore`."""
        found = [(name, closing) for name, one in sorted(self._records.items()) if (closing := one.closing) is not None]
        return [(name, closing) for name, closing in found if after is None or name > after][:limit]


class MemoryActivity:
    """`ActivityStore` in memory."""

    def __init__(self, sessions: MemorySessions) -> None:
        self._sessions = sessions
        self._noted: dict[SessionId, float] = {}

    async def touch(self, session_ids: Sequence[SessionId], now_seconds: float) -> None:
        """See `ActivityStore`."""
        states = await self._sessions.states(session_ids)
        is_open = [name for name, state in states.items() if state.status is SessionStatus.OPEN]
        self._noted |= {name: max(now_seconds, self._noted.get(name, now_seconds)) for name in is_open}

    async def idle(self, before_seconds: float, now_seconds: float, limit: int) -> list[SessionId]:
        """See `ActivityStore`."""
        is_open = [
            name
            for name, record in self._sessions.records.items()
            if record.status is SessionStatus.OPEN
            and day_of(name) is None
            and not any(order.sealed_by == "idle" for order in (record.closing.orders if record.closing else ()))
        ]
        await self.touch([name for name in is_open if name not in self._noted], now_seconds)
        idle = [name for name in is_open if self._noted[name] < before_seconds]
        return sorted(idle, key=self._noted.__getitem__)[:limit]

    async def is_idle(self, session_id: SessionId, before_seconds: float) -> bool:
        """See `ActivityStore`."""
        record = self._sessions.records.get(session_id)
        is_open = record is not None and record.status is SessionStatus.OPEN
        return is_open and self._noted.get(session_id, before_seconds) < before_seconds
