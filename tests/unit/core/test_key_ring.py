"""Key rings: bytes and JSON, both ways, and nothing else is read."""

import base64
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sessions.core import key_ring
from sessions.core.errors import KeyRingFormatError
from sessions.core.key_ring import (
    MAX_KEYS,
    KeyRing,
    SealedDek,
    WrappedDek,
    Wrapping,
    key_from_json,
    key_to_json,
    parse_sealed,
    parse_wrapping,
)
from tests import strategies

KEY = WrappedDek(b"d" * 16, "kek", b"wrapped", SealedDek("0123456789abcdef", b"sealed"))
_wrappings = st.builds(
    Wrapping,
    check=st.none() | st.binary(min_size=8, max_size=8),
    nonce=st.binary(min_size=12, max_size=12),
    sealed=st.binary(min_size=48, max_size=48),
)


@given(_wrappings)
def test_a_wrapping_comes_back_as_it_went(wrapping):
    assert parse_wrapping(wrapping.to_bytes()) == wrapping


@given(st.binary(max_size=80) | st.tuples(st.sampled_from([b"\1", b"\2"]), st.binary(max_size=80)).map(b"".join))
def test_a_wrapping_has_one_spelling(data):
    try:
        wrapping = parse_wrapping(data)
    except KeyRingFormatError:
        assert (data[:1], len(data)) not in ((b"\1", 61), (b"\2", 69))
    else:
        assert wrapping.to_bytes() == data


@given(strategies.wrapped_deks)
def test_a_key_comes_back_as_it_went(key):
    assert key_from_json(json.loads(json.dumps(key_to_json(key)))) == key


@given(st.builds(KeyRing, strategies.session_ids, st.lists(strategies.wrapped_deks, max_size=3).map(tuple)))
def test_a_key_ring_comes_back_as_it_went(ring):
    assert key_ring.from_bytes(json.dumps(key_ring.to_json(ring)).encode()) == ring


@given(st.binary(min_size=1168, max_size=1168))
def test_a_sealed_key_comes_back_as_it_went(hpke):
    assert parse_sealed(key_ring.sealed_to_bytes(hpke)) == hpke


@pytest.mark.parametrize("data", [b"", b"\1", b"\1" + bytes(1167), b"\1" + bytes(1169), b"\2" + bytes(1168)])
def test_what_is_no_sealed_key(data):
    with pytest.raises(KeyRingFormatError, match="1169 bytes"):
        parse_sealed(data)


def test_what_keys_are_bound_to():
    assert Wrapping(None, b"", b"").aad("s", b"d" * 16) == b"\x01s" + b"d" * 16
    assert Wrapping(b"c" * 8, b"", b"").aad("s", b"d" * 16) == b"\x02s" + b"d" * 16
    assert key_ring.recovery_info("s", b"d" * 16) == b"lucid/recovery/v1\0s" + b"d" * 16


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"dek_id": base64.b64encode(bytes(15)).decode()}, "dek_id"),
        ({"dek_id": base64.b64encode(bytes(17)).decode()}, "dek_id"),
        ({"dek_id": "!" * 24}, "dek_id"),
        ({"dek_id": 5}, "dek_id"),
        ({"dek_id": "A" * 21 + "B=="}, "dek_id"),
        ({"kek_id": ""}, "kek_id"),
        ({"kek_id": "a b"}, "kek_id"),
        ({"kek_id": "k\n"}, "kek_id"),
        ({"kek_id": "x" * 65}, "kek_id"),
        ({"wrapped": ""}, "wrapped"),
        ({"wrapped": base64.b64encode(bytes(4096)).decode()}, "wrapped"),
        ({"recovery": "text"}, "sealed key"),
        ({"recovery": {"recipient": "0123456789abcdef"}}, "lacks sealed"),
        ({"recovery": {"recipient": "0123456789ABCDEF", "sealed": "AAAA"}}, "recipient"),
        ({"recovery": {"recipient": "0123456789abcdef", "sealed": ""}}, "sealed"),
        ({"more": 1}, "unknown"),
    ],
)
def test_what_is_no_key(change, message):
    with pytest.raises(KeyRingFormatError, match=message):
        key_from_json(key_to_json(KEY) | change)


def test_a_key_of_before_recovery():
    value = key_to_json(KEY)
    del value["recovery"]
    assert key_from_json(value).recovery is None
    with pytest.raises(KeyRingFormatError):
        key_from_json(None)


@pytest.mark.parametrize(
    "change",
    [
        {"version": 2},
        {"session_id": "/etc"},
        {"session_id": 1},
        {"keys": {}},
        {"keys": [key_to_json(KEY)] * (MAX_KEYS + 1)},
        {"keys": [1]},
        {"x": 1},
    ],
)
def test_what_is_no_key_ring(change):
    with pytest.raises(KeyRingFormatError):
        key_ring.from_json(key_ring.to_json(KeyRing("s", (KEY,))) | change)


def test_a_file_that_is_no_json():
    with pytest.raises(KeyRingFormatError, match="not JSON"):
        key_ring.from_bytes(b"{")


def test_no_repr_shows_what_is_wrapped():
    text = repr(KeyRing("s", (KEY,))) + repr(Wrapping(b"check", b"nonce", b"secret"))
    assert "wrapped=" not in text
    assert "b'sealed'" not in text
    assert "secret" not in text
