"""What both services accept as metadata."""

import json
from typing import Any

import pytest

from sessions.core.errors import CoreError
from sessions.runtime.errors import DomainError
from sessions.runtime.metadata import MAX_METADATA_BYTES, MAX_METADATA_LEVELS, canonical_metadata, require_shallow


def _nested(levels: int, *, as_object: bool) -> dict[str, Any]:
    value: Any = {} if as_object else []
    for _ in range(levels - 2):
        value = {"a": value} if as_object else [value]
    return {"a": value}


@pytest.mark.parametrize("as_object", [False, True])
def test_metadata_have_at_most_so_many_levels(as_object: bool) -> None:
    assert MAX_METADATA_LEVELS == 32
    deep = _nested(MAX_METADATA_LEVELS, as_object=as_object)
    assert json.loads(canonical_metadata(deep)) == deep
    for levels in (MAX_METADATA_LEVELS + 1, 450, 100_000):
        for check in (canonical_metadata, require_shallow):
            with pytest.raises(DomainError, match="at most 32 objects and lists within one another") as caught:
                check(_nested(levels, as_object=as_object))
            assert caught.value.code == "invalid-request"


def test_a_deep_one_among_many() -> None:
    wide = {f"k{number}": [number, {"x": "y"}] for number in range(100)}
    assert require_shallow(wide) is wide
    with pytest.raises(DomainError):
        require_shallow({**wide, "deep": _nested(MAX_METADATA_LEVELS, as_object=False)})


def test_the_bound_of_bytes_is_one_of_the_canonical_form() -> None:
    """L8: six bytes of JSON in ASCII may be one of it."""
    text = "\x7f" * (MAX_METADATA_BYTES - len('{"a":""}'))
    assert len(canonical_metadata({"a": text})) == MAX_METADATA_BYTES
    with pytest.raises(DomainError, match="at most 65536 bytes"):
        canonical_metadata({"a": text + "x"})
    assert canonical_metadata(None) == b"{}"


@pytest.mark.parametrize("value", [float("nan"), 2**60, "\ud800"])
def test_what_has_no_canonical_form(value: object) -> None:
    with pytest.raises(CoreError, match="no canonical form"):
        canonical_metadata({"a": value})
