"""Fetching a recording: one stream, taken up again by Range where a connection broke."""

import asyncio
import re
from collections.abc import Callable
from typing import TypeAlias

import httpx

from sessions.client.errors import BadAnswerError, ClientError, UnreachableError
from sessions.client.retry import Patience, RetryPolicy
from sessions.client.transport import Transport

_CONTENT_RANGE = re.compile(r"bytes (\d{1,18})-(\d{1,18})/(\d{1,18}|\*)")

Write: TypeAlias = Callable[[bytes], object]


async def replay(
    transport: Transport,
    path: str,
    write: Write,
    *,
    policy: RetryPolicy,
    start: int = 0,
    progress: Callable[[int, int | None], None] | None = None,
) -> int:
    """Stream the recording from byte `start` into `write`; how many bytes that were.

    `progress(bytes_done, total_bytes)` counts from the recording's first byte; the total is None when not known.

    Raises:
        ClientError: an error answer, or the connection broke and could not be taken up again in the time given.
    """
    patience, at, total = Patience(policy), start, None
    while True:
        headers = {"Range": f"bytes={at}-"} if at else {}
        try:
            async with transport.stream("GET", path, headers=headers) as answer:
                skip, total = _extent(answer, at)
                async for part in answer.aiter_raw():
                    fresh = part[skip:]
                    skip = max(0, skip - len(part))
                    if fresh:
                        write(fresh)
                        at += len(fresh)
                        patience.renew()
                        if progress is not None:
                            progress(at, total)
            if total is not None and at < total:
                # A proxy may end a body early without an error.
                raise UnreachableError(f"the recording ended at byte {at} of {total}")
            return at - start
        except ClientError as error:
            if total is not None and at == total:
                return at - start
            wait = patience.wait_seconds(error)
            if wait is None:
                raise
        await asyncio.sleep(wait)


def _extent(answer: httpx.Response, at: int) -> tuple[int, int | None]:
    """How many bytes of this body were had already, and the length of the whole recording when it is told."""
    if answer.status_code != httpx.codes.PARTIAL_CONTENT:
        length = answer.headers.get("Content-Length", "")
        return at, int(length) if length.isascii() and length.isdigit() else None
    match = _CONTENT_RANGE.fullmatch(answer.headers.get("Content-Range", ""))
    if match is None or int(match[1]) != at:
        raise BadAnswerError(f"byte {at} was asked for, and {answer.headers.get('Content-Range', 'nothing')!r} came")
    return 0, None if match[3] == "*" else int(match[3])
