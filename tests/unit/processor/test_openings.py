"""What spooled openings and orders say."""

import json

import pytest

from sessions.core import key_ring
from sessions.core.key_ring import WrappedDek
from sessions.processor.openings import read_key, read_opening, read_order

KEY = WrappedDek(bytes(16), "k", b"wrapped")
OPENING = {"session_id": "a", "metadata": {"x": 1}, "key": key_ring.key_to_json(KEY), "opened_at": "t", "by": None}


def test_an_opening_is_read_as_it_is() -> None:
    for opening in (OPENING, {**OPENING, "metadata": None, "later": 1}):
        assert read_opening(json.dumps(opening).encode()) == opening
        assert read_key(opening) == KEY
    earlier = {name: value for name, value in OPENING.items() if name != "by"}
    assert read_opening(json.dumps(earlier).encode()) == earlier, "version 0.1.0 did not say who opened it"


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"[]",
        b"null",
        b"{}",
        *(
            json.dumps({key: value for key, value in OPENING.items() if key != name}).encode()
            for name in ("metadata", "key", "opened_at")
        ),
        json.dumps({**OPENING, "key": {}}).encode(),
        json.dumps({**OPENING, "key": None}).encode(),
        b"\xff",
    ],
)
def test_what_is_no_opening(payload: bytes) -> None:
    with pytest.raises(ValueError, match=r"^no opening"):
        read_opening(payload)


@pytest.mark.parametrize("count", [None, 0, 7])
def test_an_order_says_how_many(count: int | None) -> None:
    assert read_order(json.dumps({"session_id": "a", "chunk_count": count}).encode()) == count


@pytest.mark.parametrize("payload", [b"", b"[]", b"null", b"{}", b'{"chunk_count": "x"}', b'{"chunk_count": []}'])
def test_what_is_no_order(payload: bytes) -> None:
    with pytest.raises(ValueError, match=r"^no order"):
        read_order(payload)
