"""A budget of bytes: the bound on what a service holds in memory for requests in flight.

Owners that contend for it take turns, and so do the parts of one owner: a flooding owner delays only itself.
"""

import asyncio
import random
import time
from collections import OrderedDict, deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Final, Self, TypeAlias

from sessions.runtime.errors import DomainError

_STEP_MIN_BYTES: Final = 64 * 1024
_STEP_MAX_BYTES: Final = 1024 * 1024
_REFUSED_SECONDS: Final = 30.0
"""Seconds after a refusal in which the budget counts as exhausted, so that probes see it."""


@dataclass(slots=True, eq=False)
class _Waiter:
    size_bytes: int
    holds_bytes: int
    turn: asyncio.Future[None]


_Line: TypeAlias = deque[_Waiter]


class ByteBudget:
    """Hands out bytes, and refuses a waiter after `wait_seconds`.

    Without contention, requests are served in order of arrival. With waiters, owners take turns, and so do the parts of
    one owner; owners that hold more than an equal share come after the others. No owner holds more than
    `owner_max_bytes`, except with a single reservation.
    """

    def __init__(self, total_bytes: int, wait_seconds: float = 5.0, owner_max_bytes: int | None = None) -> None:
        self.total_bytes = total_bytes
        self.owner_max_bytes = total_bytes if owner_max_bytes is None else owner_max_bytes
        self.used_bytes = 0
        self._refused_at = -_REFUSED_SECONDS
        self._wait_seconds = wait_seconds
        self._lines: OrderedDict[str, OrderedDict[str, _Line]] = OrderedDict()
        self._held: dict[str, int] = {}
        self._held_by_part: dict[str, dict[str, int]] = {}

    @property
    def is_exhausted(self) -> bool:
        """Return whether somebody waits for bytes, or was refused them in the last seconds."""
        return bool(self._lines) or time.monotonic() < self._refused_at + _REFUSED_SECONDS

    def reserve(self, size_bytes: int, owner: str = "", part: str = "") -> "Reservation":
        """Hold `size_bytes` for the time of the block; a request for more than the whole budget waits for all of it.

        `owner` is a token's name, say, and `part` one of its sessions.
        """
        return Reservation(self, size_bytes, owner, part)

    def try_acquire(self, size_bytes: int, owner: str, part: str = "", holds_bytes: int = 0) -> bool:
        """Take bytes if they are free and nobody waits; return whether they were taken."""
        if self._lines or self.used_bytes + size_bytes > self.total_bytes:
            return False
        if not self._within_bound(owner, size_bytes, holds_bytes):
            return False
        self._take(size_bytes, owner, part)
        return True

    async def acquire(self, size_bytes: int, owner: str, part: str = "", holds_bytes: int = 0) -> None:
        """Take bytes, at most the whole budget; the caller has to `release` them.

        `holds_bytes` are those of the owner's bytes that belong to the same reservation.

        Raises:
            DomainError: `overloaded`, when nothing came free in time.
        """
        if self.try_acquire(size_bytes, owner, part, holds_bytes):
            return
        waiter = _Waiter(size_bytes, holds_bytes, asyncio.get_running_loop().create_future())
        line = self._lines.setdefault(owner, OrderedDict()).setdefault(part, deque())
        wait_seconds = self._wait_seconds
        if holds_bytes:  # it may be the one that all others wait for; nor shall all give up at once
            line.appendleft(waiter)
            wait_seconds *= random.uniform(0.6, 1.0)  # noqa: S311 - nothing secret
        else:
            line.append(waiter)
        self._grant()  # who waits may have more already than its share, and this one not
        try:
            await asyncio.wait_for(asyncio.shield(waiter.turn), wait_seconds)
        except BaseException as error:
            if waiter.turn.done():  # granted in the very moment of giving up: hand it back
                self.release(size_bytes, owner, part)
            else:
                line.remove(waiter)
                self._forget_empty(owner, part)
                self._grant()
            if isinstance(error, TimeoutError):
                self._refused_at = time.monotonic()
                raise DomainError(
                    "overloaded", "too many bytes are in flight; repeat the request later", retry_after_seconds=1
                ) from None
            raise

    def _within_bound(self, owner: str, size_bytes: int, holds_bytes: int) -> bool:
        held = self._held.get(owner, 0)
        return held == holds_bytes or held + size_bytes <= self.owner_max_bytes

    def _take(self, size_bytes: int, owner: str, part: str) -> None:
        self.used_bytes += size_bytes
        self._held[owner] = self._held.get(owner, 0) + size_bytes
        parts = self._held_by_part.setdefault(owner, {})
        parts[part] = parts.get(part, 0) + size_bytes

    def release(self, size_bytes: int, owner: str, part: str = "") -> None:
        """Give back what `acquire` has taken."""
        self.used_bytes -= size_bytes
        parts = self._held_by_part.get(owner, {})
        for held, key in ((self._held, owner), (parts, part)):
            left = held.get(key, 0) - size_bytes
            if left:
                held[key] = left
            else:
                held.pop(key, None)
        if not parts:
            self._held_by_part.pop(owner, None)
        if self._lines:
            self._grant()

    def _grant(self) -> None:
        while (found := self._next()) is not None:
            owner, part = found
            waiter = self._lines[owner][part][0]
            if self.used_bytes + waiter.size_bytes > self.total_bytes:
                return
            self._lines[owner][part].popleft()
            self._lines[owner].move_to_end(part)
            self._lines.move_to_end(owner)
            self._forget_empty(owner, part)
            self._take(waiter.size_bytes, owner, part)
            waiter.turn.set_result(None)

    def _forget_empty(self, owner: str, part: str) -> None:
        if not self._lines[owner][part]:
            del self._lines[owner][part]
        if not self._lines[owner]:
            del self._lines[owner]

    def _next(self) -> tuple[str, str] | None:
        """Return whose turn it is, owner and part; None when no owner may hold more."""
        may: dict[str, list[str]] = {}
        for owner, lines in self._lines.items():
            heads = [part for part, line in lines.items() if self._may(owner, line[0])]
            if heads:
                may[owner] = heads
        if not may:
            return None
        owner = _modest(may, self._held, self.total_bytes, len(self._lines.keys() | self._held.keys()))
        held = self._held_by_part.get(owner, {})
        return owner, _modest(may[owner], held, self.total_bytes, len(self._lines[owner].keys() | held.keys()))

    def _may(self, owner: str, waiter: _Waiter) -> bool:
        return self._within_bound(owner, waiter.size_bytes, waiter.holds_bytes)


def _modest(names: Iterable[str], held: Mapping[str, int], total_bytes: int, count: int) -> str:
    """Return the first in turn that holds less than an equal share; else the first."""
    share, names = total_bytes // max(1, count), list(names)
    return next((name for name in names if held.get(name, 0) < share), names[0])


class Reservation:
    """Bytes of a budget, held within an `async with`; it may grow there.

    A class of its own, since a generator's wrapper costs as much as all else here, for every chunk.

    Raises:
        DomainError: `overloaded`, on entering or growing, when nothing came free in time.
    """

    __slots__ = ("_budget", "_owner", "_part", "_wanted_bytes", "size_bytes")

    def __init__(self, budget: ByteBudget, size_bytes: int, owner: str, part: str) -> None:
        self._budget, self._wanted_bytes, self._owner, self._part = budget, size_bytes, owner, part
        self.size_bytes = 0

    async def __aenter__(self) -> Self:
        """Take them."""
        if self._wanted_bytes:
            await self.grow(self._wanted_bytes)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        """Give them back."""
        self._budget.release(self.size_bytes, self._owner, self._part)
        self.size_bytes = 0

    def try_grow(self, size_bytes: int, most_bytes: int) -> bool:
        """Grow to at least `size_bytes` without waiting, in steps up to `most_bytes`; return whether it did.

        Each step doubles the reservation, which therefore holds at most twice the bytes that were asked for.
        """
        if size_bytes <= self.size_bytes:
            return True
        step = min(max(self.size_bytes, _STEP_MIN_BYTES), _STEP_MAX_BYTES)
        more = self._more(min(max(size_bytes, self.size_bytes + step), most_bytes))
        if not self._budget.try_acquire(more, self._owner, self._part, self.size_bytes):
            return False
        self.size_bytes += more
        return True

    async def grow(self, size_bytes: int) -> None:
        """Come to hold `size_bytes`, or the whole budget where that is less."""
        if (more := self._more(size_bytes)) > 0:
            await self._budget.acquire(more, self._owner, self._part, self.size_bytes)
            self.size_bytes += more

    def _more(self, size_bytes: int) -> int:
        return min(size_bytes, self._budget.total_bytes) - self.size_bytes
