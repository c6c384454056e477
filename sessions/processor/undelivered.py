"""What deliveries of spool entries count, and how they fail."""

from prometheus_client import Counter

from sessions.processor.spool_format import Kind
from sessions.processor.spool_index import Entry
from sessions.runtime.errors import DomainError

DRAINED = Counter("lucid_spool_drained_total", "Entries that session-storage has taken or had.", ("kind",))
for _kind in Kind:
    DRAINED.labels(_kind.name.lower())


class EntryFailedError(Exception):
    """Entries could not be delivered; they stay in the spool."""

    def __init__(self, entries: tuple[Entry, ...], error: DomainError) -> None:
        super().__init__(error.detail)
        self.entries = entries
        self.error = error


def unreadable(entry: Entry, error: ValueError) -> EntryFailedError:
    """Return the failure of an entry whose payload is not what its kind says."""
    return EntryFailedError((entry,), DomainError("internal", str(error)))
