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


class JsonCost:
    """Reckons, while a JSON document arrives, what it will take in memory.

    Each separator counts as a value, also within a string.
    """

    def __init__(self) -> None:
        self.values = 1
        self._text_bytes = 0

    def add(self, data: bytes | bytearray, start: int, end: int) -> None:
        """Count in the bytes from `start` to `end`.

        Raises:
            DomainError: `invalid-request`, for more than `VALUES_MAX`.
        """
        self._text_bytes += end - start
        for at in range(start, end, _SLICE_BYTES):  # a bomb ends it early
            until = min(end, at + _SLICE_BYTES)
            self.values += sum(data.count(separator, at, until) for separator in (b",", b"[", b"{", b":"))
            if self.values > VALUES_MAX:
                raise DomainError("invalid-request", f"the JSON may have at most {VALUES_MAX} values")

    @property
    def size_bytes(self) -> int:
        """Bytes of memory that it takes while it is served."""
        return self._text_bytes * _TEXT_COPIES + self.values * VALUE_BYTES
