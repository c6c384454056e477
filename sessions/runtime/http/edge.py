"""Bounds and deadlines of connections. Sizes in bytes, times in seconds."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Edge:
    """What a client may take of a service before and while it is served."""

    head_max_bytes: int = 32 * 1024
    """Limit on a request's line and header fields together."""
    head_seconds: float = 10.0
    """From the connection, or from a head's first byte, to the head's end."""
    idle_seconds: float = 75.0
    """How long a connection stays open between two requests: longer than clients and proxies keep it."""
    stall_seconds: float = 30.0
    """How long a body, or the reading of an answer, may make no progress."""
    bytes_per_second_min: int = 1024
    """What a body, or the reading of an answer, has to come to on average, beyond one stall."""
    linger_seconds: float = 10.0
    """How long what a client still sends is read and dropped, so that it gets the answer (RFC 9112 section 9.6)."""
    connections_max: int = 4096
    connections_max_per_address: int = 2048

    def due(self, begun: float, moved_bytes: int, now: float) -> float:
        """Return when a transfer has failed that began then, has come so far, and made progress just now."""
        return min(now, begun + moved_bytes / self.bytes_per_second_min) + self.stall_seconds
