"""A bound on the memory of answers: each large answer reserves its bytes before it reads, until it is sent.

There are three pools, so that none keeps another waiting: `lists` for JSON, `content` for envelopes, and `seals` for
answers to recorders that repeat a seal. In each pool one token holds at most half, so that a token whose answers are
never read does not shut out the others. Bodies that come in have `INFLIGHT_MAX_BYTES`.
"""

from collections.abc import Awaitable, Callable, Sequence
from typing import Final, TypeAlias

from starlette.requests import Request
from starlette.types import Scope

from sessions.runtime.audit import PRINCIPAL
from sessions.runtime.budget import ByteBudget
from sessions.runtime.errors import DomainError
from sessions.runtime.middleware import WHEN_ANSWERED

SESSION_BYTES: Final = 1024 * 1024
"""Bytes reserved for one session's document, stored and as JSON, without its manifest where that may be large."""
MANIFEST_COPIES: Final = 4
"""Number of times a manifest is in memory: as the database sends it, read, in the answer, and on its way out."""
UNRESERVED_MANIFEST_BYTES: Final = 16 * 1024
"""A seal's answer with a manifest of at most this many bytes reserves nothing, so that it never waits."""
ITEM_BYTES: Final = 4 * 1024
"""Bytes reserved for one item of a list."""
RING_BYTES: Final = 32 * 1024
"""Bytes reserved for one key ring of a list."""
ENVELOPE_COPIES: Final = 3
"""How many times an envelope is in memory: as the database sends it, whole, and in the answer."""
DEFAULT_LIMIT: Final = 100
MAX_LIMIT: Final = 1000
LISTS_WAIT_SECONDS: Final = 5.0
"""After this long without memory a list is refused."""
CONTENT_WAIT_SECONDS: Final = 15.0
"""After this long without memory envelopes are refused: late is better than a replay that breaks off."""

Hold: TypeAlias = Callable[[int], Awaitable[None]]
"""Reserves so many bytes until the request is answered."""
Dependency: TypeAlias = Callable[[Request], Awaitable[None]]


async def unbounded(size_bytes: int) -> None:
    """Reserve nothing."""


class Pool:
    """Bytes that all share, of which each owner gets at most half."""

    def __init__(self, total_bytes: int, wait_seconds: float) -> None:
        self._half = total_bytes // 2
        self._budget = ByteBudget(total_bytes, wait_seconds, self._half)

    @property
    def used_bytes(self) -> int:
        """How many bytes are reserved now."""
        return self._budget.used_bytes

    @property
    def is_exhausted(self) -> bool:
        """See `ByteBudget`."""
        return self._budget.is_exhausted

    async def hold(self, size_bytes: int, scope: Scope) -> None:
        """Reserve bytes until the request is answered.

        Raises:
            DomainError: `overloaded`, when they did not come free in time.
        """
        owner: str = scope.get(PRINCIPAL) or ""
        size_bytes = min(size_bytes, self._half)
        try:
            await self._budget.acquire(size_bytes, owner)
        except DomainError as error:
            detail = "too many large answers at once; repeat the request later"
            raise DomainError(error.code, detail, retry_after_seconds=error.retry_after_seconds) from error
        scope[WHEN_ANSWERED].append(lambda: self._budget.release(size_bytes, owner))


class Reads:
    """The pools, and the dependencies of routes on them."""

    def __init__(self, total_bytes: int) -> None:
        """Share out the bytes: a quarter for lists, an eighth for seals, the rest for content."""
        self.lists = Pool(total_bytes // 4, LISTS_WAIT_SECONDS)
        self.seals = Pool(total_bytes // 8, LISTS_WAIT_SECONDS)
        self.content = Pool(total_bytes - total_bytes // 4 - total_bytes // 8, CONTENT_WAIT_SECONDS)

    @property
    def is_exhausted(self) -> bool:
        """Return whether one of the pools is."""
        return any(pool.is_exhausted for pool in (self.lists, self.seals, self.content))

    async def session(self, request: Request) -> None:
        """Dependency of a route that answers with one session."""
        await self.lists.hold(SESSION_BYTES, request.scope)

    def items(self, item_bytes: int = ITEM_BYTES, *, default_limit: int = DEFAULT_LIMIT) -> Dependency:
        """Return the dependency of a route that answers with at most `limit` items, by default `default_limit`."""

        async def page(request: Request) -> None:
            limit = _limit(request.query_params.getlist("limit"), default_limit)
            await self.lists.hold(limit * item_bytes, request.scope)

        return page

    def manifest(self, request: Request) -> Hold:
        """Return a function that reserves memory for a sealed session, given its manifest's size in bytes."""

        async def hold(size_bytes: int) -> None:
            await self.lists.hold(SESSION_BYTES + MANIFEST_COPIES * size_bytes, request.scope)

        return hold

    def seal(self, request: Request) -> Hold:
        """Return a function that reserves memory for a seal's answer, given the manifest's size in bytes."""

        async def hold(size_bytes: int) -> None:
            if size_bytes > UNRESERVED_MANIFEST_BYTES:
                await self.seals.hold(MANIFEST_COPIES * size_bytes, request.scope)

        return hold

    def envelopes(self, request: Request) -> Hold:
        """Return what reserves memory for envelopes of so many bytes."""

        async def hold(size_bytes: int) -> None:
            await self.content.hold(ENVELOPE_COPIES * size_bytes, request.scope)

        return hold


def _limit(texts: Sequence[str], default_limit: int) -> int:
    """Return how many items may be answered; `MAX_LIMIT` for what the route may read as any number, or refuse."""
    if not texts:
        return default_limit
    text = texts[0]
    if len(texts) > 1 or len(text) > len(str(MAX_LIMIT)) or not (text.isascii() and text.isdigit()):
        return MAX_LIMIT
    return min(MAX_LIMIT, int(text))
