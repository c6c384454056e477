"""Reading JSON that others wrote, strictly: exact members, exact types, one spelling for each value."""

import json
import re
from base64 import b64decode, b64encode
from collections.abc import Callable, Iterable
from typing import Any, Final, TypeVar

from sessions.core.errors import FormatError

_LOWER_HEX = re.compile(r"(?:[0-9a-f]{2})*")
_RFC3339_MILLIS = re.compile(
    r"(\d{4})-(0[1-9]|1[0-2])-(0[1-9]|[12]\d|3[01])T(?:[01]\d|2[0-3]):[0-5]\d:[0-5]\d\.\d{3}Z", re.ASCII
)
_LEAP_YEAR_DAYS: Final = (31, 29, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31)
_YEAR_DAYS: Final = (31, 28, *_LEAP_YEAR_DAYS[2:])
MAX_JSON_INTEGER: Final = 2**53 - 1

T = TypeVar("T")


class Reader:
    """Reads the members of one JSON object; every complaint is a `FormatError` of the given class."""

    def __init__(self, what: str, value: object, members: Iterable[str], error: type[FormatError]) -> None:
        """Take `value`, which must be an object with exactly these members."""
        self._what, self._error = what, error
        if not isinstance(value, dict):
            raise error(f"a {what} is a JSON object")
        self._members: dict[str, Any] = value
        wanted = set(members)
        if missing := sorted(wanted - value.keys()):
            raise error(f"the {what} lacks {', '.join(missing)}")
        if unknown := sorted(map(ascii, value.keys() - wanted)):
            raise error(f"the {what} has unknown members: {', '.join(unknown)[:200]}")

    def value(self, name: str) -> Any:
        """A member as it is."""
        return self._members[name]

    def fail(self, name: str, should: str) -> FormatError:
        """The error for a member that is not what it should be."""
        return self._error(f"{name} of the {self._what} should be {should}")

    def text(self, name: str) -> str:
        """A string."""
        value = self._members[name]
        if not isinstance(value, str):
            raise self.fail(name, "a string")
        return value

    def one_of(self, name: str, words: Iterable[str]) -> str:
        """A string out of a list."""
        value, allowed = self.text(name), list(words)
        if value not in allowed:
            raise self.fail(name, f"one of {', '.join(allowed)}")
        return value

    def integer(self, name: str, least: int = 0, most: int = MAX_JSON_INTEGER) -> int:
        """An integer within bounds; `true` and `1.0` are none."""
        value = self._members[name]
        if type(value) is not int or not least <= value <= most:
            raise self.fail(name, f"an integer from {least} to {most}")
        return value

    def hex(self, name: str, size: int, prefix: str = "") -> bytes:
        """`size` bytes in lower-case hex, after `prefix`."""
        return self._hex(name, self._members[name], size, prefix)

    def hexes(self, name: str, size: int, most: int = 64) -> tuple[bytes, ...]:
        """A list of at most `most` hex strings of `size` bytes each."""
        return tuple(self._hex(name, item, size, "") for item in self.items(name, most))

    def base64(self, name: str, least: int, most: int) -> bytes:
        """From `least` to `most` bytes in base64 (RFC 4648 section 4, padded)."""
        text = self.text(name)
        try:
            value = b64decode(text, validate=True)
        except ValueError:
            value = None
        # More than one text decodes to the same bytes: the last character's spare bits are zero in the right one.
        if value is None or b64encode(value).decode() != text or not least <= len(value) <= most:
            raise self.fail(name, f"{least} bytes in base64" if least == most else f"{least} to {most} bytes in base64")
        return value

    def items(self, name: str, most: int) -> list[Any]:
        """A list of at most `most` items."""
        value = self._members[name]
        if not isinstance(value, list) or len(value) > most:
            raise self.fail(name, f"a list of at most {most}")
        return value

    def timestamp(self, name: str) -> str:
        """A time as RFC 3339, UTC, with milliseconds."""
        value = self.text(name)
        match = _RFC3339_MILLIS.fullmatch(value)
        if not (match and is_date(*map(int, match.groups()))):
            raise self.fail(name, "a time such as 2026-01-31T23:59:59.000Z")
        return value

    def optional(self, name: str, read: Callable[[str], T]) -> T | None:
        """`null`, or what `read` reads."""
        return None if self._members[name] is None else read(name)

    def _hex(self, name: str, value: object, size: int, prefix: str) -> bytes:
        if not (isinstance(value, str) and value.startswith(prefix)):
            raise self.fail(name, f"{size} bytes in lower-case hex")
        digits = value[len(prefix) :]
        if len(digits) != 2 * size or not _LOWER_HEX.fullmatch(digits):
            raise self.fail(name, f"{size} bytes in lower-case hex")
        return bytes.fromhex(digits)


def is_date(year: int, month: int, day: int) -> bool:
    """Whether the calendar has this day, which no month has beyond the 31st."""
    is_leap = year % 4 == 0 and (year % 100 != 0 or year % 400 == 0)
    return day <= (_LEAP_YEAR_DAYS if is_leap else _YEAR_DAYS)[month - 1]


def loads(data: bytes | str, what: str, error: type[FormatError]) -> Any:
    """Parse JSON, in UTF-8 if in bytes; a member that comes twice is an error, and so are NaN and Infinity.

    Raises:
        FormatError: of the class `error`.
    """

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        members = dict(pairs)
        if len(members) != len(pairs):
            raise ValueError("a member comes twice")
        return members

    def constant(word: str) -> None:
        raise ValueError(f"{word} is not JSON")

    try:
        # json would guess at UTF-16 and UTF-32: one more spelling of each value
        text = data if isinstance(data, str) else str(data, "utf-8")
        return json.loads(text, object_pairs_hook=unique, parse_constant=constant)
    except (ValueError, RecursionError) as cause:
        raise error(f"the {what} is not JSON: {str(cause)[:200]}") from cause
