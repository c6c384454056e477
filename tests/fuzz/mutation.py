"""Inputs for a parser: what it reads, changed here and there; and bytes out of nowhere."""

import copy
import json
from collections.abc import Sequence
from typing import Any

from hypothesis import strategies as st

_NUMBERS = (0, 1, 2, 4, 8, 16, 127, 128, 255, 256, 65535, 2**31, 2**32 - 1, 2**53, 2**63, 2**64 - 1)
_WORDS = (
    *(b"\0", b"\n", b"\r\n", b"#", b" ", b"=", b":", b",", b"-", b"\xff\xfe", b"\xef\xbb\xbf", b"\xed\xa0\x80"),
    *(b"\\u0000", b"\\ud800", b"\xd9\xa1", b"\xe2\x80\xa8", b"\x1c", b"1e999", b"NaN", b"-0", b"null", b"true"),
    *(b"[" * 2000, b'{"a":' * 2000, b"9" * 5000, b"sessions=", b"expires=9999-12-31T23:59:59-23:59", b"roles="),
    *(number.to_bytes(size, "big") for size in (1, 2, 4, 8) for number in _NUMBERS if number < 256**size),
)
_VALUES: tuple[Any, ...] = (
    *(None, True, False, 0, -1, 1, 1.0, 0.5, 2**53, -(2**63), 10**400, "", "a", "\0", "\ud800", "\u0661", "a" * 300),
    *([], {}, [[]], [None] * 100, [[0, 0]] * 200, {"a": 1}, "ab" * 32, "AB" * 32, "9999-12-31T23:59:59.999Z", "demo\n"),
)
_MOST_EDITS = 4
_MOST_BYTES = 200_000
_MOST_PLACES = 2000


@st.composite
def _edited(draw: st.DrawFn, seeds: Sequence[bytes]) -> bytes:
    data = draw(st.sampled_from(seeds))
    for _ in range(draw(st.integers(1, _MOST_EDITS))):
        size = len(data)
        start, end = sorted((draw(st.integers(0, size)), draw(st.integers(0, size))))
        kind = draw(st.integers(0, 6))
        if kind == 0:
            data = data[:start] + draw(st.sampled_from(_WORDS)) + data[start:]
        elif kind == 1:
            word = draw(st.sampled_from(_WORDS))
            data = data[:start] + word + data[start + len(word) :]
        elif kind == 2 and start < size:
            data = data[:start] + bytes([data[start] ^ (1 << draw(st.integers(0, 7)))]) + data[start + 1 :]
        elif kind == 3:
            data = data[:start] + data[end:]
        elif kind == 4:
            data = data[:end]
        elif kind == 5:
            data = data[:start] + data[start:end] * draw(st.integers(2, 50)) + data[end:]
        else:
            other = draw(st.sampled_from(seeds))
            data = data[:start] + other[min(start, len(other)) :]
        data = data[:_MOST_BYTES]
    return data


def _places(value: Any) -> list[tuple[Any, Any]]:
    """Every container of a JSON value, with each of its keys or indexes."""
    found: list[tuple[Any, Any]] = []
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for name, inner in items:
        found += [(value, name), *_places(inner)]
    return found


@st.composite
def _other_json(draw: st.DrawFn, seeds: Sequence[bytes]) -> bytes:
    """The same JSON with other values in places, with fewer members, or with more."""
    value = json.loads(draw(st.sampled_from(seeds)))
    for _ in range(draw(st.integers(1, _MOST_EDITS))):
        places = _places(value)
        if not 0 < len(places) <= _MOST_PLACES:
            break
        inside, name = draw(st.sampled_from(places))
        kind = draw(st.integers(0, 3))
        if kind == 0:
            del inside[name]
        elif kind == 1 and isinstance(inside, dict):
            inside[draw(st.sampled_from(("more", "\ud800", "a" * 2000)))] = copy.deepcopy(inside[name])
        else:
            inside[name] = copy.deepcopy(draw(st.sampled_from(_VALUES)))
    compact = draw(st.booleans())
    return json.dumps(value, sort_keys=compact, separators=(",", ":") if compact else None).encode()


def _is_json(seed: bytes) -> bool:
    return seed[:1] in (b"{", b"[")


def inputs(seeds: Sequence[bytes]) -> st.SearchStrategy[bytes]:
    """What to give to a parser that reads `seeds`."""
    kinds = [st.sampled_from(seeds), _edited(seeds), st.binary(max_size=400)]
    if all(map(_is_json, seeds)):
        kinds += [_other_json(seeds), _other_json(seeds)]
    else:
        kinds.append(_edited(seeds))
    return st.one_of(kinds)
