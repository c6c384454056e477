import pytest
from hypothesis import given

from sessions.core.errors import FrameFormatError
from sessions.core.frames import join, split
from tests.strategies import payload_lists


@given(payload_lists)
def test_payloads_to_frames_and_back(payloads):
    data = join(payloads)
    assert list(split(data)) == payloads
    assert join(split(data)) == data


def test_any_buffer_is_a_payload():
    assert join([bytearray(b"ab"), memoryview(b"c")]) == join([b"ab", b"c"])
    assert list(split(memoryview(bytearray(join([b"ab"]))))) == [b"ab"]


def test_payloads_are_views_that_cannot_be_written():
    (payload,) = split(bytearray(join([b"ab"])))
    assert payload.readonly


@given(payload_lists)
def test_frames_cut_anywhere_else_are_refused(payloads):
    data, ends = join(payloads), {0}
    for payload in payloads:
        ends.add(max(ends) + 4 + len(payload))
    for length in range(len(data)):
        if length in ends:
            assert len(list(split(data[:length]))) == sorted(ends).index(length)
        else:
            with pytest.raises(FrameFormatError, match=r"is cut off|should have"):
                list(split(data[:length]))


def test_a_length_that_is_too_large_is_refused_before_it_is_believed():
    with pytest.raises(FrameFormatError, match="should have 4294967295 bytes and has 1"):
        list(split(b"\xff\xff\xff\xffa"))
