import base64
import hashlib
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sessions.runtime import digest
from sessions.runtime.errors import DomainError


def _header(name: str, data: bytes) -> str:
    algorithm = {"sha-256": hashlib.sha256, "sha-512": hashlib.sha512}[name]
    return f"{name}=:{base64.b64encode(algorithm(data).digest()).decode()}:"


@settings(deadline=None)
@given(st.binary())
def test_what_is_made_is_accepted(content: bytes) -> None:
    header = digest.content_digest(content)
    assert header == _header("sha-256", content)
    assert re.fullmatch(digest.HEADER_PATTERN, header)
    digest.check(header, content)
    with pytest.raises(DomainError) as caught:
        digest.check(header, content + b"x")
    assert caught.value.code == "digest-mismatch"


def test_none_is_asked_for() -> None:
    digest.check(None, b"x")


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
    digest.check(header, b"x")


@pytest.mark.parametrize("header", [f"{_header('sha-256', b'x')}, {_header('sha-512', b'y')}", _header("sha-512", b"")])
def test_one_wrong_is_enough(header: str) -> None:
    with pytest.raises(DomainError) as caught:
        digest.check(header, b"x")
    assert caught.value.code == "digest-mismatch"


@pytest.mark.parametrize(
    "header", ["", "sha-256", "sha-256=abc", "sha-256=:a:", "sha-256=:AAA:,", "SHA-256=:AAAA:", ","]
)
def test_what_cannot_be_read(header: str) -> None:
    with pytest.raises(DomainError) as caught:
        digest.check(header, b"x")
    assert caught.value.code == "bad-content-digest"
