"""When a connection is given up, and why. Times are of the event loop's clock, in seconds."""

import math

from sessions.runtime.http.edge import Edge


class Deadline:
    """The time until which a connection waits for a head, for a body, or for its client to read."""

    def __init__(self, edge: Edge) -> None:
        self._edge = edge
        self.reason = "head"
        self._at = math.inf
        self._begun = self._stopped_at = 0.0
        self._moved_bytes = 0
        self._reader: tuple[float, int] | None = None
        self._read_bytes, self._read_at = 0, 0.0

    def set(self, at: float, reason: str) -> None:
        """Set it."""
        self._at, self.reason = at, reason

    def clear(self) -> None:
        """Wait for nothing of the client."""
        self._at = math.inf

    def body_begins(self, now: float) -> None:
        """Begin to wait for a body."""
        self._begun, self._moved_bytes = now, 0
        self.body_moves(0, now)

    def body_moves(self, count: int, now: float) -> None:
        """Note that bytes of the body have come."""
        self._moved_bytes += count
        self.set(self._edge.due(self._begun, self._moved_bytes, now), "body")

    def body_stops(self, now: float) -> None:
        """Wait for no body: it is we who do not read."""
        self._stopped_at, self._at = now, math.inf

    def body_resumes(self, now: float) -> None:
        """Wait for the body again; the time between does not count."""
        self._begun += now - self._stopped_at

    def reader_begins(self, read_bytes: int, now: float) -> None:
        """Begin to wait for the client to read; `read_bytes` is what it has taken of all that was written."""
        self._reader, self._read_bytes, self._read_at = (now, read_bytes), read_bytes, now

    def reader_ends(self) -> None:
        """Wait for no reader."""
        self._reader = None

    def passed(self, read_bytes: int, now: float) -> bool:
        """Return whether it has passed, of which `reason` is why."""
        if self._reader is not None:
            begun, before_bytes = self._reader
            if read_bytes > self._read_bytes:
                self._read_bytes, self._read_at = read_bytes, now
            if now >= self._edge.due(begun, read_bytes - before_bytes, self._read_at):
                self.reason = "answer"
                return True
        return now >= self._at
