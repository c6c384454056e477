"""Asks all processors again about sessions whose seal waits, when what they had confirmed may hold no more.

A database that was set back has confirmations from before: their processors may have been released from them since, and
hold something of the session again. A set-back that happens while no replica runs is noticed by none, so each replica
asks again when it begins. That delays a seal by about a second.
"""

import asyncio
from typing import Final

from sessions.core.types import SessionId
from sessions.storage.seal_orders import Ask, ClosingStore

_AT_ONCE: Final = 100


class Questions:
    """Knows whether confirmations in the database can be relied on."""

    def __init__(self, orders: ClosingStore) -> None:
        self._orders = orders
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
                    await self._ask_all()
                except BaseException:
                    self._doubtful = True
                    raise
        return True

    async def _ask_all(self) -> None:
        after: SessionId | None = None
        while page := await self._orders.waiting(after, _AT_ONCE):
            for session_id, ask_id in (await self._orders.asked(page)).items():
                await self._orders.ask_again(Ask(session_id, ask_id))
            after = page[-1]
