"""Whom a seal waits for. All processors are asked again when what they had confirmed may hold no more.

A database that was set back has confirmations from before: their processors may have been released from them since, and
hold something of the session again. A set-back that happens while no replica runs is noticed by none, so each replica
asks again when it begins. That delays a seal by about a second.
"""

import asyncio
from dataclasses import replace
from typing import Final

from sessions.storage.processors import Known, ProcessorState, Registry, Survey
from sessions.storage.seal_orders import Closing, ClosingStore, ask_all_again
from sessions.storage.store import SessionRecord

_PRESENT_PATIENCE: Final = 24
"""How many times PROCESSOR_WAIT_SECONDS a seal waits for a processor that reports and still holds chunks."""


class Questions:
    """Knows who has confirmed, and whether confirmations in the database can be relied on."""

    def __init__(self, orders: ClosingStore, registry: Registry) -> None:
        self._orders = orders
        self._registry = registry
        self._doubtful = True
        self._asking = asyncio.Lock()

    def set_back(self) -> None:
        """Rely on no confirmation that is there now: the database was set back to an earlier state."""
        self._doubtful = True

    async def renewed(self) -> bool:
        """Ask again if need be; return whether confirmations that were read before count no more.

        Raises:
            DomainError: `database-unavailable`.
        """
        if not self._doubtful and not self._asking.locked():
            return False
        async with self._asking:
            if self._doubtful:
                self._doubtful = False
                try:
                    await ask_all_again(self._orders)
                except BaseException:
                    self._doubtful = True
                    raise
        return True

    async def waited_for(self, record: SessionRecord) -> tuple[list[Known], list[Known]]:
        """Return the processors that a session's seal waits for, and the lost ones that it does not wait for.

        It waits for a missing one until its first order has waited for PROCESSOR_WAIT_SECONDS. For one that reports it
        waits much longer, since that hands over what it holds; but not for ever, should it never confirm.

        Raises:
            DomainError: `database-unavailable`.
        """
        closing, survey = record.closing, await self._registry.survey()
        if await self.renewed() and closing is not None:
            closing = replace(closing, clear=frozenset())
        return self.left(closing, survey)

    def left(self, closing: Closing | None, survey: Survey) -> tuple[list[Known], list[Known]]:
        """Return the same by what is known."""
        clear = closing.clear if closing is not None else frozenset()
        waited = survey.now_seconds - closing.orders[0].placed_seconds if closing is not None else 0.0
        limit = self._registry.wait_seconds
        waiting: list[Known] = []
        lost: list[Known] = []
        for known in survey.processors:
            if known.record.name in clear:
                continue
            patience = limit * _PRESENT_PATIENCE if known.state is ProcessorState.PRESENT else limit
            gone = known.state is ProcessorState.LOST or waited > patience
            (lost if gone else waiting).append(known)
        return waiting, lost
