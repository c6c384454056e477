"""Cursors: where a page of a list ended, as text that is opaque to clients."""

import base64
import binascii
import json
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any, TypeVar

from sessions.core.errors import CoreError
from sessions.runtime.errors import DomainError

T = TypeVar("T")


def encode(values: Sequence[object]) -> str:
    """Values that JSON has, as a cursor."""
    return base64.urlsafe_b64encode(json.dumps(list(values)).encode()).decode()


def decode(text: str | None, read: Callable[..., T]) -> T | None:
    """What `read` makes of the values of a cursor; None without one.

    `read` takes the values one by one, and raises `ValueError`, `TypeError` or `CoreError` for those that are none.

    Raises:
        DomainError: `invalid-request`.
    """
    if text is None:
        return None
    try:
        values = json.loads(base64.urlsafe_b64decode(text.encode()))
        if not isinstance(values, list):
            raise TypeError("no list")
        return read(*values)
    except (ValueError, TypeError, OverflowError, binascii.Error, RecursionError, CoreError):
        raise DomainError("invalid-request", "cursor: use next_cursor of the page before, unchanged") from None


def time(text: Any) -> datetime:
    """A time of a cursor.

    Raises:
        ValueError, TypeError: it is none, has no time zone, or is finer than our times, which are of milliseconds.
    """
    value = datetime.fromisoformat(text)
    if value.tzinfo is None:
        raise ValueError("no time zone")
    if value.microsecond % 1000:
        raise ValueError("finer than a millisecond")
    return value.astimezone(UTC)
