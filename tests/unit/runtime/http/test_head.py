"""Heads of requests: what the parser makes of them. `tests/conformance` has the same at real services."""

import pytest

from sessions.runtime.errors import PROBLEMS, DomainError
from sessions.runtime.http import head


def parsed(line: str, *fields: str) -> head.Head:
    return head.parse("\r\n".join((line, "Host: x", *fields, "", "")).encode("latin-1"))


def code(line: str, *fields: str) -> str:
    with pytest.raises(DomainError) as caught:
        parsed(line, *fields)
    assert caught.value.code in PROBLEMS
    return caught.value.code


@pytest.mark.parametrize(
    ("target", "path", "query", "host"),
    [
        ("/a/b?c=d", "/a/b", b"c=d", b"x"),
        ("/%61%20%c3%a4?%zz", "/a \xe4", b"%zz", b"x"),
        ("/a%2Fb%2f", "/a%2Fb%2F", b"", b"x"),
        ("/a%252Fb", "/a%2Fb", b"", b"x"),
        ("/a/../b//", "/a/../b//", b"", b"x"),
        ("//b", "//b", b"", b"x"),
        ("http://a.example", "/", b"", b"a.example"),
        ("HTTPS://a.example:85/b?c", "/b", b"c", b"a.example:85"),
        ("http://[::1]:85/b", "/b", b"", b"[::1]:85"),
    ],
)
def test_targets(target: str, path: str, query: bytes, host: bytes) -> None:
    """RFC 9112 section 3.2: the host of an absolute target counts, not Host."""
    found = parsed(f"GET {target} HTTP/1.1")
    assert (found.path, found.query, dict(found.headers)[b"host"]) == (path, query, host)


@pytest.mark.parametrize(
    "target",
    ["*", "a:80", "/a#b", "/a%", "/a%2", "/a%gg", "ftp://x/", "http://a@x/", "http://", "http:///a", "/\xff", ""],
)
def test_targets_that_are_none(target: str) -> None:
    assert code(f"GET {target} HTTP/1.1") == "bad-request-head"


def test_the_server_as_a_target() -> None:
    """RFC 9112 section 3.2.4."""
    assert parsed("OPTIONS * HTTP/1.1").path == "*"


@pytest.mark.parametrize(("version", "read"), [("1.0", "1.0"), ("1.1", "1.1"), ("1.2", "1.1"), ("1.9", "1.1")])
def test_versions(version: str, read: str) -> None:
    """RFC 9110 section 2.5."""
    found = parsed(f"GET / HTTP/{version}", "X: \t1 \t")
    assert (found.version, found.headers) == (read, [(b"host", b"x"), (b"x", b"1")])


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("GET / HTTP/2.0", "version-not-supported"),
        ("GET / HTTP/0.9", "version-not-supported"),
        ("GET / RTSP/1.0", "bad-request-head"),
        ("GET / HTTP/1.1 ", "bad-request-head"),
        ("GET  / HTTP/1.1", "bad-request-head"),
        ("get / HTTP/1.1", "not-implemented"),
        ("BREW / HTTP/1.1", "not-implemented"),
        ("CONNECT a:80 HTTP/1.1", "not-implemented"),
    ],
)
def test_request_lines_that_are_refused(line: str, expected: str) -> None:
    assert code(line) == expected


@pytest.mark.parametrize(
    ("codings", "expected"),
    [
        (["gzip, chunked"], "not-implemented"),
        (["gzip", "chunked"], "not-implemented"),
        (["gzip"], "bad-request-head"),
        (["chunked, chunked"], "bad-request-head"),
        ([", chunked"], "bad-request-head"),
    ],
)
def test_codings_that_are_refused(codings: list[str], expected: str) -> None:
    """RFC 9112 section 6.1."""
    assert code("PUT / HTTP/1.1", *(f"Transfer-Encoding: {coding}" for coding in codings)) == expected


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"GET /" + b"a" * 100, "target-too-long"),
        (b"a" * 100, "not-implemented"),
        (b"GET / HTTP/1.1\r\nX: " + b"a" * 100, "head-too-large"),
    ],
)
def test_heads_without_end(data: bytes, expected: str) -> None:
    """RFC 9112 section 3, RFC 6585 section 5."""
    assert head.without_end(data, 64).code == expected
