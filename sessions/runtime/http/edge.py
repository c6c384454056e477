"""Bounds and deadlines of connections. Sizes in bytes, times in seconds."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Edge:
    """Limits for one client, before and during a request."""

    head_max_bytes: int = 32 * 1024
    """Limit on a request's line and header fields together."""
    head_seconds: float = 10.0
    """Limit on the time from the connection, or from a head's first byte, to the head's end."""
    idle_seconds: float = 75.0
    """Limit on the idle time between two requests. Clients and proxies should close earlier."""
    stall_seconds: float = 30.0
    """Limit on the time without progress of a body, or of a client that reads an answer."""
    bytes_per_second_min: int = 1024
    """Least average rate of a body, or of a client that reads an answer, after one stall."""
    linger_seconds: float = 10.0
    """Time in which a refused client's bytes are read and dropped, so that it gets the answer; RFC 9112 section 9.6."""
    connections_max: int = 4096
    connections_max_per_address: int = 2048

    def due(self, begun: float, moved_bytes: int, now: float) -> float:
        """Return when a transfer has failed that began then, has come so far, and made progress just now."""
        return min(now, begun + moved_bytes / self.bytes_per_second_min) + self.stall_seconds
