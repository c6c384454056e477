"""Lost processors that a seal did not wait for: what they hold may be missing in the recording."""

from collections.abc import Sequence

import structlog
from prometheus_client import Counter

from sessions.core.types import SessionId
from sessions.storage.processors import Known

UNHEARD = Counter("lucid_seals_unheard_total", "Sessions that were sealed without hearing from a lost processor.")
_log = structlog.get_logger()


def names_of(processors: Sequence[Known]) -> tuple[str, ...]:
    """Return the names of processors."""
    return tuple(known.record.name for known in processors)


def note_unheard(session_id: SessionId, lost: Sequence[Known]) -> None:
    """Report a seal that may leave out what lost processors hold, with their last reports."""
    if lost:
        UNHEARD.inc()
        _log.error("session_sealed_unheard", session_id=session_id, processors=[known.to_json() for known in lost])
