"""Times: UTC, to the millisecond, as MongoDB keeps them and RFC 3339 writes them."""

from datetime import UTC, datetime


def now() -> datetime:
    """The present, cut to milliseconds."""
    time = datetime.now(UTC)
    return time.replace(microsecond=time.microsecond // 1000 * 1000)


def to_rfc3339(time: datetime) -> str:
    """`2026-01-31T23:59:59.000Z`."""
    return time.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
