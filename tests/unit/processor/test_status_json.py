"""A status is read whatever metadata is in it."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sessions.processor import status_json
from sessions.processor.status_json import without_metadata

_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
)
_STATUS = st.dictionaries(st.sampled_from(["a", "metadata", "b", "status", 'x"y', "\\"]), _VALUES)


@given(_STATUS, st.booleans(), st.sampled_from([None, 1]))
def test_what_is_cut_out_is_the_metadata_alone(status: dict, ascii_only: bool, indent: int | None) -> None:
    content = json.dumps(status, ensure_ascii=ascii_only, indent=indent).encode("utf-8", "surrogatepass")
    expected = {name: value for name, value in status.items() if name != "metadata"}
    assert without_metadata(content) == expected
    cut = json.loads(status_json._cut(content))
    assert cut == {**status, **({"metadata": None} if "metadata" in status else {})}


@pytest.mark.parametrize("levels", [300, 900, 100_000])
@pytest.mark.parametrize("order", ["{%b,%b}", "{%b , %b\n}"])
def test_any_depth(levels: int, order: str) -> None:
    """C1, B22: a RecursionError for one session's status."""
    metadata = b'"metadata":{"metadata":' + b"[" * levels + b'"]}"' + b"]" * levels + b"}"
    for parts in ((metadata, b'"keys":[1]'), (b'"keys":[1]', metadata)):
        assert without_metadata(order.encode() % parts) == {"keys": [1]}


@pytest.mark.parametrize(
    "content", [b"", b"[1]", b"nothing", b'{"metadata":', b"[" * 100_000, b'{"a":' + b"[" * 100_000]
)
def test_what_is_none(content: bytes) -> None:
    with pytest.raises((ValueError, RecursionError)):
        without_metadata(content)
