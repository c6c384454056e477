import pytest

from sessions.core.errors import IndexOutOfRangeError, InvalidSessionIdError
from sessions.core.types import MAX_CHUNK_INDEX, chunk_index, session_id


@pytest.mark.parametrize("text", ["a", "Z9", "0", "a.b_c-d", "x" * 128])
def test_session_ids(text):
    assert session_id(text) == text


@pytest.mark.parametrize("text", ["", ".a", "-a", "_a", "a b", "a/b", "a\n", "é", "\u0661", "x" * 129, "a\0", "\ud800"])
def test_what_is_no_session_id(text):
    with pytest.raises(InvalidSessionIdError, match="is not 1 to 128 characters") as caught:
        session_id(text)
    assert str(caught.value).isprintable()


def test_a_long_wrong_session_id_is_not_repeated_whole():
    with pytest.raises(InvalidSessionIdError) as caught:
        session_id("x" * 10_000)
    assert len(str(caught.value)) < 300


@pytest.mark.parametrize("value", [0, 1, MAX_CHUNK_INDEX])
def test_chunk_indexes(value):
    assert chunk_index(value) == value


@pytest.mark.parametrize("value", [-1, MAX_CHUNK_INDEX + 1, 2**64])
def test_what_is_no_chunk_index(value):
    with pytest.raises(IndexOutOfRangeError, match=r"is not within 0 \.\. 9007199254740990"):
        chunk_index(value)
