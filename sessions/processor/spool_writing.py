"""Entries on their way to the disk: grouped, so that they share an fsync, and refused when it fails."""

import asyncio
import errno
import os
from collections import deque
from dataclasses import dataclass, field
from typing import Final

import structlog
from prometheus_client import Counter, Histogram

from sessions.core.types import Buffer, SessionId
from sessions.processor.spool_format import Kind
from sessions.processor.spool_index import Entry
from sessions.processor.spool_room import SpoolRoom, full
from sessions.runtime.errors import DomainError
from sessions.runtime.metrics import LATENCY_BUCKETS

GROUP_BYTES: Final = 16 * 1024 * 1024
"""Limit on the payloads that share an fsync, in bytes; a larger one is written alone."""
SPOOLED = Counter("lucid_spooled_total", "Entries that were written to the spool.", ("kind",))
WRITE_SECONDS = Histogram(
    "lucid_spool_write_duration_seconds", "Time to write a group of entries and fsync it.", buckets=LATENCY_BUCKETS
)
for _kind in Kind:
    SPOOLED.labels(_kind.name.lower())
_log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Waiting:
    """An entry that is not on the disk yet."""

    kind: Kind
    session_id: SessionId
    index: int
    payload: Buffer = field(repr=False)
    plaintext_bytes: int
    by: str | None
    entry_bytes: int
    done: "asyncio.Future[Entry]"


def take_group(queue: deque[Waiting]) -> list[Waiting]:
    """Take from the queue what is written together."""
    group = [queue.popleft()]
    size = len(group[0].payload)
    while queue and size + len(queue[0].payload) <= GROUP_BYTES:
        group.append(queue.popleft())
        size += len(group[-1].payload)
    return group


def refusal(failure: Exception, room: SpoolRoom) -> DomainError:
    """Return the answer to those whose entries could not be written; note in `room` that the disk is full."""
    number = failure.errno if isinstance(failure, OSError) else None
    why = os.strerror(number) if number else type(failure).__name__
    _log.error("spool_write_failed", error=why, errno=number)
    if number in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        room.written_over()
        return full("session-storage is away, and the spool's disk is full")
    detail = f"session-storage is away, and the spool cannot be written: {why}; repeat the request"
    return DomainError("storage-unavailable", detail, retry_after_seconds=5)
