"""The answers about the spool and its quarantine."""

from pydantic import BaseModel

from sessions.runtime.models import Timestamp


class QuarantinedModel(BaseModel):
    """An entry that session-storage did not take. Null is what its bytes do not say, or version 0.1.0 did not keep.

    `by` is the name of the token that sent it; `index` that of a chunk.
    """

    name: str
    kind: str | None
    session_id: str | None
    index: int | None
    entry_bytes: int
    reason: str
    detail: str
    by: str | None
    quarantined_at: Timestamp | None


class SpoolPage(BaseModel):
    """Quarantined entries, oldest first, and how much the spool and the quarantine hold; sizes in bytes.

    `spooled_entries` wait to be delivered and are not listed. `next_cursor` is null at the end.
    """

    entries: list[QuarantinedModel]
    next_cursor: str | None
    spooled_entries: int
    spooled_bytes: int
    quarantined_entries: int
    quarantined_bytes: int
    quarantine_max_bytes: int
