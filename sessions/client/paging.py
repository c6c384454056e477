"""Lists that come in pages, each of which names where the next one starts."""

from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from typing import TypeVar

from sessions.client.errors import BadAnswerError

T = TypeVar("T")


async def walk(
    what: str, page: Callable[[str | None], Awaitable[tuple[Iterable[T], str | None]]], start: str | None = None
) -> AsyncIterator[T]:
    """All items of a list; `page` gives those of one page, and the cursor of the next one (None at the end).

    Raises:
        BadAnswerError: a page names itself as the one that follows it.
    """
    cursor = start
    while True:
        items, following = await page(cursor)
        for item in items:
            yield item
        if following is None:
            return
        if following == cursor:
            raise BadAnswerError(f"{what} does not come to an end")
        cursor = following
