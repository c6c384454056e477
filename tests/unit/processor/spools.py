"""Spools in folders, and what waits in them."""

from pathlib import Path

from sessions.processor.quarantine import Quarantine
from sessions.processor.spool import Spool
from sessions.processor.spool_index import Entry
from sessions.processor.spool_segments import Segments

MIB = 1024 * 1024


def segments_in(folder: Path, segment_bytes: int = 1000, quarantine_bytes: int = 8 * MIB) -> Segments:
    return Segments(folder, segment_bytes, Quarantine(folder / "quarantine", quarantine_bytes))


def waiting_in(spool: Spool) -> list[Entry]:
    """All that is to be delivered, oldest first."""
    found = [entry for session in spool.sessions.values() for entry in session.waiting()]
    return sorted(found, key=lambda entry: entry.place)
