"""A session as the spool knows it, while session-storage is away."""

import asyncio
import heapq
from typing import Any, Final

from sessions.processor.spool_format import entry_bytes
from sessions.processor.spool_index import Entry, SpooledSession

MAX_GAPS: Final = 1000
_SORT_AT_ONCE: Final = 8192
"""Number of indexes that are sorted together: other threads do not run meanwhile."""


async def status_of(session: SpooledSession, opened_at: str) -> dict[str, Any]:
    """Return the status of a session of which the spool has something."""
    # The copies take two milliseconds for a full spool; all else is done in a thread.
    facts = await asyncio.to_thread(_facts, list(session.chunks), list(session.chunks.values()))
    return {
        "session_id": session.session_id,
        "status": "open",
        "opened_at": opened_at,
        "sealed_at": None,
        "root": None,
        "anchor": None,
        **facts,
    }


def _facts(indexes: list[int], entries: list[Entry]) -> dict[str, Any]:
    missing, truncated = _gaps(indexes)
    return {
        "chunk_count": len(entries),
        "plaintext_bytes": sum(entry.plaintext_bytes for entry in entries),
        "envelope_bytes": sum(entry.place.entry_bytes - entry_bytes(b"", entry.by) for entry in entries),
        "next_index": max(indexes, default=-1) + 1,
        "missing": missing,
        "missing_truncated": truncated,
    }


def _gaps(indexes: list[int]) -> tuple[list[list[int]], bool]:
    gaps: list[list[int]] = []
    expected = 0
    starts = range(0, len(indexes), _SORT_AT_ONCE)
    for index in heapq.merge(*(sorted(indexes[start : start + _SORT_AT_ONCE]) for start in starts)):
        if index > expected:
            if len(gaps) == MAX_GAPS:
                return gaps, True
            gaps.append([expected, index - 1])
        expected = index + 1
    return gaps, False
