"""A session as the spool knows it, while session-storage is away."""

import asyncio
from typing import Any, Final

from sessions.processor.spool_format import entry_bytes
from sessions.processor.spool_index import SpooledSession

MAX_GAPS: Final = 1000


async def status_of(session: SpooledSession, opened_at: str) -> dict[str, Any]:
    """Return the status of a session of which the spool has something."""
    indexes, entries = list(session.chunks), list(session.chunks.values())
    missing, truncated = await asyncio.to_thread(_gaps, indexes)
    return {
        "session_id": session.session_id,
        "status": "open",
        "chunk_count": len(entries),
        "plaintext_bytes": sum(entry.plaintext_bytes for entry in entries),
        "envelope_bytes": sum(entry.place.entry_bytes - entry_bytes(b"", entry.by) for entry in entries),
        "opened_at": opened_at,
        "sealed_at": None,
        "root": None,
        "anchor": None,
        "next_index": max(indexes, default=-1) + 1,
        "missing": missing,
        "missing_truncated": truncated,
    }


def _gaps(indexes: list[int]) -> tuple[list[list[int]], bool]:
    gaps, expected = [], 0
    for index in sorted(indexes):
        if index > expected:
            gaps.append([expected, index - 1])
        expected = index + 1
    return gaps[:MAX_GAPS], len(gaps) > MAX_GAPS
