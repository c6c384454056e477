"""What an error of session-storage says: that the service is away, or that one request failed and no other."""

from typing import Final

from sessions.runtime.errors import DomainError

AWAY_CODES: Final = frozenset({"storage-unavailable", "database-unavailable", "storage-full"})
"""Answers that concern the service itself: every other request would meet the same."""
_TRANSIENT_CODES: Final = AWAY_CODES | {"overloaded"}


class RequestFailedError(DomainError):
    """One request got no answer, or none that session-storage gives. It says nothing about other requests."""

    def __init__(self, detail: str) -> None:
        super().__init__("storage-unavailable", f"{detail}; repeat the request", retry_after_seconds=1)


class UnheardError(DomainError):
    """No connection could be made, so session-storage has not heard the request."""

    def __init__(self, detail: str) -> None:
        super().__init__("storage-unavailable", f"{detail}; repeat the request", retry_after_seconds=1)


class OverdueError(RequestFailedError):
    """One request took too long."""


def is_away(error: DomainError) -> bool:
    """Return whether an error says that session-storage takes nothing from anybody."""
    return error.code in AWAY_CODES and not isinstance(error, RequestFailedError)


def is_transient(error: DomainError) -> bool:
    """Return whether the same request may succeed later; every other error is a verdict."""
    return error.code in _TRANSIENT_CODES


def fits_spool(error: DomainError) -> bool:
    """Return whether a chunk that met this error is for the spool.

    Not with `overloaded`: the session's seal may be being decided, and would leave the chunk out.
    """
    return error.code in AWAY_CODES
