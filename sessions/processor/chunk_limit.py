"""The limit on a chunk's size, which chunk-processor and session-storage both have as CHUNK_MAX_BYTES."""

import structlog

from sessions.runtime.health import Check

_log = structlog.get_logger()


class ChunkLimit:
    """This service's limit in bytes, and session-storage's once it has reported one; the lower one holds.

    A chunk beyond session-storage's limit would be acknowledged into the spool and refused there later.
    """

    def __init__(self, own_bytes: int) -> None:
        self.own_bytes = own_bytes
        self._storage_bytes: int | None = None

    @property
    def bytes(self) -> int:
        """Return how many bytes a chunk may have."""
        return self.own_bytes if self._storage_bytes is None else min(self.own_bytes, self._storage_bytes)

    def heard(self, storage_bytes: int | None) -> None:
        """Note session-storage's limit; None: it is of a version that does not report one."""
        if storage_bytes not in (None, self._storage_bytes, self.own_bytes):
            _log.error("chunk_limits_differ", own_bytes=self.own_bytes, storage_bytes=storage_bytes)
        self._storage_bytes = storage_bytes

    def check(self) -> Check:
        """Return the health of the two limits: `degraded` while they differ."""
        if self._storage_bytes in (None, self.own_bytes):
            return Check("ok")
        detail = f"it is {self.own_bytes} here and {self._storage_bytes} at session-storage; set both alike"
        return Check("degraded", f"CHUNK_MAX_BYTES: {detail}. Chunks may have {self.bytes} bytes")
