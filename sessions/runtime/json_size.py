"""The memory that parsed JSON takes: up to 50 times its text, for nested empty lists."""

from typing import Final

from sessions.runtime.errors import DomainError

VALUES_MAX: Final = 64 * 1024
"""Limit on the values of one JSON document. A batch of the Lucid recorder has a few thousand at most."""
VALUE_BYTES: Final = 192
"""Bytes that a value takes beyond its text, at most: an empty list in a list took 130 on CPython 3.11."""
_SLICE_BYTES: Final = 64 * 1024
_TEXT_COPIES: Final = 3
"""Copies of the text in memory: the body, its strings, and the bytes decoded from them."""


def require_few_values(data: bytes | bytearray) -> int:
    """Return how many values JSON has at most, as its separators count; those within strings are counted as well.

    Raises:
        DomainError: `invalid-request`, for more than `VALUES_MAX`.
    """
    values = 1
    for start in range(0, len(data), _SLICE_BYTES):  # other threads run in between, and a bomb ends it early
        end = start + _SLICE_BYTES
        values += sum(data.count(separator, start, end) for separator in (b",", b"[", b"{", b":"))
        if values > VALUES_MAX:
            raise DomainError("invalid-request", f"the JSON may have at most {VALUES_MAX} values")
    return values


def cost_bytes(data: bytes | bytearray) -> int:
    """Return how many bytes of memory a JSON document takes while it is served.

    Raises:
        DomainError: as `require_few_values`.
    """
    return len(data) * _TEXT_COPIES + require_few_values(data) * VALUE_BYTES
