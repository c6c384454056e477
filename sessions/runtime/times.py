"""Times: UTC, to the millisecond, as MongoDB keeps them and RFC 3339 writes them."""

from collections.abc import Callable
from datetime import UTC, datetime
from typing import TypeAlias

Clock: TypeAlias = Callable[[], datetime]
"""Gives the present, as `now` does; tests move it."""


def now() -> datetime:
    """The present, cut to milliseconds."""
    time = datetime.now(UTC)
    return time.replace(microsecond=time.microsecond // 1000 * 1000)


def to_rfc3339(time: datetime) -> str:
    """`2026-01-31T23:59:59.000Z`."""
    return time.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
