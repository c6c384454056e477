import base64
import hashlib
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from starlette.datastructures import Headers

from sessions.runtime import digest
from sessions.runtime.errors import DomainError


def _check(header: str | None, content: bytes, *more: str) -> None:
    """Check with a line of the field each."""
    lines = [line for line in (header, *more) if line is not None]
    digest.check(Headers(raw=[(b"content-digest", line.encode()) for line in lines]), content)


def _header(name: str, data: bytes) -> str:
    algorithm = {"sha-256": hashlib.sha256, "sha-512": hashlib.sha512}[name]
    return f"{name}=:{base64.b64encode(algorithm(data).digest()).decode()}:"


@settings(deadline=None)
@given(st.binary())
def test_what_is_made_is_accepted(content: bytes) -> None:
    header = digest.content_digest(content)
    assert header == _header("sha-256", content)
    assert re.fullmatch(digest.HEADER_PATTERN, header)
    _check(header, content)
    with pytest.raises(DomainError) as caught:
        _check(header, content + b"x")
    assert caught.value.code == "digest-mismatch"


def test_none_is_asked_for() -> None:
    _check(None, b"x")


@pytest.mark.parametrize(
    "header",
    [
        _header("sha-512", b"x"),
        f"{_header('sha-256', b'x')}, {_header('sha-512', b'x')}",
        f" {_header('sha-256', b'x')} ,{_header('sha-512', b'x')}",
        f"md5=:AAAA:, {_header('sha-256', b'x')}",
        "unixsum=:AAAA:",
    ],
)
def test_right_and_unknown_ones(header: str) -> None:
    _check(header, b"x")


@pytest.mark.parametrize("header", [f"{_header('sha-256', b'x')}, {_header('sha-512', b'y')}", _header("sha-512", b"")])
def test_one_wrong_is_enough(header: str) -> None:
    with pytest.raises(DomainError) as caught:
        _check(header, b"x")
    assert caught.value.code == "digest-mismatch"


@pytest.mark.parametrize(
    "header", ["", "sha-256", "sha-256=abc", "sha-256=:a:", "sha-256=:AAA:,", "SHA-256=:AAAA:", ","]
)
def test_what_cannot_be_read(header: str) -> None:
    with pytest.raises(DomainError) as caught:
        _check(header, b"x")
    assert caught.value.code == "bad-content-digest"


@pytest.mark.parametrize(
    "lines",
    [
        ("md5=:AAAA:", _header("sha-256", b"y")),
        (_header("sha-512", b"x"), _header("sha-256", b"y")),
        (_header("sha-256", b"y"), _header("sha-256", b"x")),
    ],
)
def test_lines_of_the_field_are_one_list(lines: tuple[str, str]) -> None:
    """B9: only the first line was looked at."""
    with pytest.raises(DomainError) as caught:
        _check(lines[0], b"x", *lines[1:])
    assert caught.value.code == "digest-mismatch"


def test_right_lines_of_the_field() -> None:
    _check(_header("sha-512", b"x"), b"x", "md5=:AAAA:", _header("sha-256", b"x"))


def test_a_digest_after_the_body_counts_beside_the_one_before_it() -> None:
    right, wrong = (("content-digest", digest.content_digest(data)) for data in (b"abc", b"xyz"))
    for header, trailer, good in (
        (None, right, True),
        (right, right, True),
        (None, wrong, False),
        (right, wrong, False),
    ):
        headers = Headers(dict([header] if header else []))
        trailers = [(trailer[0].encode(), trailer[1].encode()), (b"x-other", b"1")]
        if good:
            digest.check(headers, b"abc", trailers)
            continue
        with pytest.raises(DomainError) as caught:
            digest.check(headers, b"abc", trailers)
        assert caught.value.code == "digest-mismatch"
