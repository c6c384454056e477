"""RFC 9110 sections 8 and 11 to 14, RFC 9530: fields that change what a request or its body means."""

from typing import Final

from tests.conformance.row import Row, chunked, counted, get

_BYTES: Final = "0123456789" * 10


def _read(*lines: str, method: str = "GET") -> str:
    return get("@READER", *lines, path="@READ", method=method)


def _range(name: str, value: str, content: str, status: str = "206") -> Row:
    return Row("9110 14.2", f"Range, {name}", _read(f"Range: {value}"), status, only="processor", content=content)


BODIES: Final = (
    Row("9110 8.4", "no coding", counted("Content-Encoding: identity"), "201"),
    Row("9110 8.4", "gzip", counted("Content-Encoding: gzip"), "415", has="accept-encoding: identity"),
    Row("9110 8.4", "gzip after identity", counted("Content-Encoding: identity, gzip"), "415"),
    Row("9110 8.4", "gzip in a second line", counted("Content-Encoding: identity", "Content-Encoding: gzip"), "415"),
    Row("9110 8.4", "gzip in a line before", counted("Content-Encoding: gzip", "Content-Encoding: identity"), "415"),
    Row("9110 14.4", "a part of a chunk", counted("Content-Range: bytes 0-159/320"), "400"),
    Row("9110 14.4", "the whole as a part", counted("Content-Range: bytes 0-159/160"), "400"),
    Row("9110 14.4", "an unknown range", counted("Content-Range: x"), "400"),
    Row("9110 8.3", "any type of a chunk", counted("Content-Type: text/x; charset=none"), "201", only="processor"),
    Row("9110 8.3", "JSON with its type", counted("Content-Type: application/json"), "201", only="processor"),
    Row(
        "9110 8.3",
        "JSON of another type",
        counted("Authorization: Bearer @TOKEN", "Content-Type: text/plain").replace("@AUTH\r\n", ""),
        "400|415",
        only="storage",
    ),
    Row("9110 8.5", "a language and a location", counted("Content-Language: de", "Content-Location: /x"), "201"),
    Row(
        "9110 12.5.1",
        "Accept is advice",
        counted("Accept: application/xml"),
        "201",
        has="content-type: application/json",
    ),
    Row("9110 12.5.3", "Accept-Encoding is advice", _read("Accept-Encoding: gzip, identity;q=0"), "200"),
    Row("9110 12.5.1", "Accept of a problem", get("Accept: text/html", path="/none"), "404", has="application/problem"),
)
DIGESTS: Final = (
    Row("9530 2", "a digest", counted("Content-Digest: sha-256=:@SHA:"), "201"),
    Row("9530 2", "a wrong digest", counted("Content-Digest: sha-256=:@WRONG:"), "400", only="processor"),
    Row("9530 2", "no digest at all", counted("Content-Digest: x"), "400", only="processor"),
    Row("9530 2", "an unknown algorithm", counted("Content-Digest: md5=:AAAA:"), "201"),
    Row(
        "9530 2",
        "a wrong digest in a second line",
        counted("Content-Digest: md5=:AAAA:", "Content-Digest: sha-256=:@WRONG:"),
        "400",
        only="processor",
    ),
    Row(
        "9530 2",
        "a right digest in a second line",
        counted("Content-Digest: md5=:AAAA:", "Content-Digest: sha-256=:@SHA:"),
        "201",
    ),
    Row(
        "9530 2",
        "a digest in a trailer",
        chunked("a0\r\n@BODY0\r\n0\r\nContent-Digest: sha-256=:@SHA:\r\n\r\n"),
        "201",
    ),
    Row(
        "9530 2",
        "a wrong digest in a trailer",
        chunked("a0\r\n@BODY0\r\n0\r\nContent-Digest: sha-256=:@WRONG:\r\n\r\n"),
        "400",
        "201|400",  # HAProxy may leave a trailer out (RFC 9110 section 6.5.1)
        only="processor",
    ),
    Row(
        "9530 2",
        "a right digest, and a wrong one in a trailer",
        chunked("a0\r\n@BODY0\r\n0\r\nContent-Digest: sha-256=:@WRONG:\r\n\r\n", "Content-Digest: sha-256=:@SHA:"),
        "400",
        "201|400",
        only="processor",
    ),
    Row("9530 4", "a wish for a digest", counted("Want-Content-Digest: sha-256=1"), "201"),
)
ACCESS: Final = (
    Row("9110 11.6.1", "no token", get(path="@READ"), "401", has="www-authenticate: bearer"),
    Row(
        "9110 11.6.1",
        "another scheme",
        get("Authorization: Basic eDp5", path="@READ"),
        "401",
        has="www-authenticate: b",
    ),
    Row("9110 11.6.1", "an unknown token", get("Authorization: Bearer x", path="@READ"), "401", has="www-authenticate"),
    Row("9110 11.6.1", "no token, with a body", counted().replace("@AUTH\r\n", ""), "401", has="www-authenticate"),
    Row("9110 11.1", "a scheme in lower case", counted().replace("@AUTH", "authorization: bearer @TOKEN@JSON"), "201"),
    Row(
        "9110 11.4", "spaces after the scheme", counted().replace("@AUTH", "Authorization: Bearer   @TOKEN@JSON"), "201"
    ),
    Row("9110 15.5.4", "a token of another role", get("@OTHER", path="@READ"), "403"),
    Row("9110 11.6.3", "a proxy's token is none", get("Proxy-@READER", path="@READ"), "401"),
)
CONDITIONS: Final = (
    Row("9110 13.1.1", "If-Match with a tag", counted('If-Match: "a"'), "412"),
    Row("9110 13.1.1", "If-Match of anything, where nothing is", counted("If-Match: *"), "412"),
    Row("9110 13.1.1", "If-Match of GET", _read('If-Match: "a"'), "412"),
    Row("9110 13.1.1", "If-Match of DELETE", get("@ADMIN", 'If-Match: "a"', path="@SESSION", method="DELETE"), "412"),
    Row("9110 13.1.2", "If-None-Match with a tag", counted('If-None-Match: "a"'), "201"),
    Row("9110 13.1.2", "If-None-Match of anything, where nothing is", counted("If-None-Match: *"), "201"),
    Row(
        "9110 13.1.2",
        "If-None-Match of anything, where this chunk is",
        counted() + counted("If-None-Match: *"),
        "201 412",
        only="processor",
    ),
    Row("9110 13.1.4", "If-Unmodified-Since", counted("If-Unmodified-Since: Sun, 06 Nov 1994 08:49:37 GMT"), "201"),
    Row("9110 13.1.3", "If-Modified-Since", _read("If-Modified-Since: Sun, 06 Nov 2044 08:49:37 GMT"), "200"),
    Row("9110 13.1.2", "If-None-Match with a tag, of GET", _read('If-None-Match: "a"'), "200"),
)
CONSOLE: Final = (
    Row(
        "9110 13.1.2", "a tag that is not the page's", get('If-None-Match: "a"', path="/console"), "200", only="storage"
    ),
    Row("9110 13.1.2", "any tag", get("If-None-Match: *", path="/console"), "304", only="storage"),
    Row(
        "9110 13.1.2",
        "any tag, and HEAD",
        get("If-None-Match: *", path="/console", method="HEAD"),
        "304",
        only="storage",
        head=True,
    ),
    Row(
        "9110 15.4.5",
        "304 has no content",
        get("If-None-Match: *", path="/console") * 2,
        "304 304",
        only="storage",
        has="etag: ",
    ),
    Row(
        "9110 13.1.1", "a tag that the page does not have", get('If-Match: "a"', path="/console"), "412", only="storage"
    ),
    Row("9110 14.2", "a part of a page", get("Range: bytes=0-1", path="/console"), "200", only="storage"),
)
RANGES: Final = (
    _range("the first bytes", "bytes=0-9", _BYTES[:10]),
    _range("from a byte on", "bytes=95-", _BYTES[95:]),
    _range("the last bytes", "bytes=-5", _BYTES[95:]),
    _range("more than there is", "bytes=90-200", _BYTES[90:]),
    _range("a number of 25 digits", f"bytes=90-{'9' * 25}", _BYTES[90:], "206"),
    _range("more last bytes than there are", "bytes=-200", _BYTES),
    _range("a unit in capitals", "BYTES=0-9", _BYTES[:10]),
    _range("another unit", "chunks=0-1", _BYTES, "200"),
    _range("backwards", "bytes=9-5", _BYTES, "200"),
    _range("several", "bytes=0-1,5-6", _BYTES, "200"),
    _range("no range", "bytes=x-y", _BYTES, "200"),
    _range("nothing", "bytes=", _BYTES, "200"),
    Row(
        "9110 15.5.17",
        "Range beyond the end",
        _read("Range: bytes=100-"),
        "416",
        only="processor",
        has=r"content-range: bytes \*/100\r",
    ),
    Row("9110 15.5.17", "no last bytes", _read("Range: bytes=-0"), "416", only="processor", has=r"bytes \*/100\r"),
    Row(
        "9110 15.3.7",
        "what a part is of",
        _read("Range: bytes=10-19"),
        "206",
        only="processor",
        has=r"content-range: bytes 10-19/100\r",
    ),
    Row(
        "9110 14.3",
        "ranges are announced",
        _read(),
        "200",
        only="processor",
        has="accept-ranges: bytes",
        content=_BYTES,
    ),
    Row("9110 13.1.5", "If-Range", _read("Range: bytes=5-9", 'If-Range: "a"'), "200", only="processor", content=_BYTES),
    Row("9110 14.2", "Range with HEAD", _read("Range: bytes=5-9", method="HEAD"), "200", only="processor", head=True),
    Row("9110 14.2", "Range with PUT", counted("Range: bytes=0-4"), "201"),
    Row("9110 14.2", "Range of a status", _read("Range: bytes=0-4"), "200", only="storage"),
)
ROWS: Final = BODIES + DIGESTS + ACCESS + CONDITIONS + CONSOLE + RANGES
