"""Ending tasks before they are done: all of a service's at its end, or reading ahead that nobody wants any more."""

import asyncio
from collections.abc import Iterable
from typing import Any, Final

AGAIN_SECONDS: Final = 10.0
"""Longer than what a task does at its end, writing the last audit events say, takes."""


async def end_all(tasks: Iterable[asyncio.Task[Any]]) -> None:
    """Cancel tasks, and wait until all have ended, whichever way.

    One that goes on is cancelled again: before Python 3.12 `asyncio.wait_for`, which MongoDB's driver uses, takes no
    notice of a cancellation that comes together with what it waits for, and an endless task would keep the service from
    ending.
    """
    left = set(tasks)
    while left:
        for task in left:
            task.cancel()
        done, left = await asyncio.wait(left, timeout=AGAIN_SECONDS)
        for task in done:
            if not task.cancelled():
                task.exception()  # looked at, so that asyncio does not complain of it
