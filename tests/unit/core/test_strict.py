import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sessions.core import strict
from sessions.core.errors import FormatError, ProofFormatError
from tests.strategies import json_values, timestamps


def reader(**members):
    return strict.Reader("thing", members, members, ProofFormatError)


def test_members_are_exact():
    for value in (None, [], "x", 1):
        with pytest.raises(ProofFormatError, match="a thing is a JSON object"):
            strict.Reader("thing", value, ["a"], ProofFormatError)
    with pytest.raises(ProofFormatError, match="the thing lacks a, b"):
        strict.Reader("thing", {"c": 1}, ["b", "a", "c"], ProofFormatError)
    with pytest.raises(ProofFormatError, match="unknown members: 'b', 'c'"):
        strict.Reader("thing", {"a": 1, "c": 1, "b": 1}, ["a"], ProofFormatError)


def test_unknown_members_are_named_in_plain_ascii():
    with pytest.raises(ProofFormatError) as caught:
        strict.Reader("thing", {"\ud800\n": 1}, [], ProofFormatError)
    assert str(caught.value).isascii()
    assert str(caught.value).isprintable()


def test_values_as_they_are():
    assert reader(a=[1]).value("a") == [1]
    assert reader(a=None).optional("a", lambda _: 1) is None
    assert reader(a=7).optional("a", reader(a=7).integer) == 7


def test_texts():
    assert reader(a="x").text("a") == "x"
    assert reader(a="x").one_of("a", ["x", "y"]) == "x"
    with pytest.raises(ProofFormatError, match="a of the thing should be a string"):
        reader(a=1).text("a")
    with pytest.raises(ProofFormatError, match="one of x, y"):
        reader(a="z").one_of("a", ["x", "y"])


@pytest.mark.parametrize("value", [True, False, 1.0, "1", None, [1], -1, 2**53])
def test_what_is_no_integer(value):
    with pytest.raises(ProofFormatError, match="an integer from 0 to 9007199254740991"):
        reader(a=value).integer("a")


def test_integers():
    assert [reader(a=value).integer("a") for value in (0, 2**53 - 1)] == [0, 2**53 - 1]
    with pytest.raises(ProofFormatError, match="an integer from 2 to 3"):
        reader(a=4).integer("a", 2, 3)


@given(st.binary(min_size=4, max_size=4))
def test_hex(value):
    assert reader(a=value.hex()).hex("a", 4) == value
    assert reader(a="0x" + value.hex()).hex("a", 4, "0x") == value
    assert reader(a=[value.hex()] * 3).hexes("a", 4) == (value,) * 3


@pytest.mark.parametrize(
    "value", ["", "ab", "ABCD", "abcg", "ab cd", "0xabcd", "abcde", "abcdef", "a\u0660cd", 1, None]
)
def test_what_is_no_hex_of_two_bytes(value):
    with pytest.raises(ProofFormatError, match="2 bytes in lower-case hex"):
        reader(a=value).hex("a", 2)
    with pytest.raises(ProofFormatError, match="2 bytes in lower-case hex"):
        reader(a=[value]).hexes("a", 2)


@pytest.mark.parametrize("value", ["abcd", "0Xabcd", "0x0xabcd"])
def test_a_prefix_is_needed(value):
    with pytest.raises(ProofFormatError, match="2 bytes"):
        reader(a=value).hex("a", 2, "0x")


@pytest.mark.parametrize("value", [None, {}, "ab", ["ab"] * 65])
def test_what_is_no_list(value):
    with pytest.raises(ProofFormatError, match="a list of at most 64"):
        reader(a=value).hexes("a", 1)


@given(timestamps)
def test_times(value):
    assert reader(a=value).timestamp("a") == value


@pytest.mark.parametrize("value", ["2024-02-29T00:00:00.000Z", "2000-02-29T23:59:59.999Z", "2026-12-31T00:00:00.000Z"])
def test_last_days(value):
    assert reader(a=value).timestamp("a") == value


@pytest.mark.parametrize(
    "value",
    [
        "",
        "2026-01-31T23:59:59Z",
        "2026-01-31T23:59:59.00Z",
        "2026-01-31T23:59:59.0000Z",
        "2026-01-31T23:59:59.000+00:00",
        "2026-01-31t23:59:59.000z",
        "2026-01-31 23:59:59.000Z",
        "2026-01-31T23:59:59.000Z\n",
        "2026-01-31T24:00:00.000Z",
        "2026-01-31T23:60:00.000Z",
        "2026-01-31T23:59:60.000Z",
        "2026-13-01T00:00:00.000Z",
        "2026-00-01T00:00:00.000Z",
        "2026-01-00T00:00:00.000Z",
        "2026-01-32T00:00:00.000Z",
        "2026-04-31T00:00:00.000Z",
        "2026-02-29T00:00:00.000Z",
        "1900-02-29T00:00:00.000Z",
        "2024-02-30T00:00:00.000Z",
        "\u0662\u0660\u0662\u0666-01-31T23:59:59.000Z",
        "2026-01-31T23:59:59.00\u0660Z",
        20260131,
    ],
)
def test_what_is_no_time(value):
    with pytest.raises(ProofFormatError):
        reader(a=value).timestamp("a")


@given(json_values)
def test_json_is_read(value):
    text = json.dumps(value)
    assert strict.loads(text, "thing", ProofFormatError) == value
    assert strict.loads(text.encode(), "thing", ProofFormatError) == value


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{",
        b"{} {}",
        b"\xff",
        b"\xef\xbb\xbf{}",
        "{}".encode("utf-16"),
        "{}".encode("utf-32-le"),
        b'{"a":1,"a":1}',
        b'{"a":{"b":1,"b":2}}',
        b"NaN",
        b"[Infinity]",
        b"[-Infinity]",
        b"[" * 100_000,
        b"9" * 5_000,
    ],
    ids=lambda data: repr(data[:12]),
)
def test_what_is_no_json(data):
    with pytest.raises(FormatError, match="the thing is not JSON") as caught:
        strict.loads(data, "thing", ProofFormatError)
    assert len(str(caught.value)) < 300
