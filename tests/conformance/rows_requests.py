"""RFC 9112 sections 2 and 3, RFC 9110 sections 4 and 9: request lines, targets, versions and methods."""

from typing import Final

from tests.conformance.row import BODY_BYTES, Row, counted, get

_LONG: Final = "a" * 8000
_TOO_LONG: Final = "a" * 40_000
_LENGTH: Final = f"Content-Length: {BODY_BYTES}"


def _put_at(target: str) -> str:
    return f"PUT {target} HTTP/1.1\r\nHost: @HOST\r\n@AUTH\r\n{_LENGTH}\r\n\r\n@BODY0"


LINES: Final = (
    Row("9112 2.2", "an empty line before a request", "\r\n" + get(), "200"),
    Row("9112 2.2", "empty lines between requests", get() + "\r\n\r\n" + get(), "200 200"),
    Row("9112 2.2", "lines that end in LF alone", "GET /livez HTTP/1.1\nHost: x\n\n", "400", "200|400"),
    Row("9112 2.2", "one line that ends in LF alone", "GET /livez HTTP/1.1\r\nHost: x\nX: 1\r\n\r\n", "400", "200|400"),
    Row("9112 2.2", "a CR alone in the request line", "GET /livez\r HTTP/1.1\r\nHost: x\r\n\r\n", "400"),
    Row("9112 2.2", "a CR alone between lines", "GET /livez HTTP/1.1\rHost: x\r\n\r\n", "400"),
    Row("9112 2.2", "a space before the first field", "GET /livez HTTP/1.1\r\n Host: x\r\n\r\n", "400"),
    Row("9112 2.2", "TLS to a plain port", "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", "400"),
    Row("9112 2.3", "HTTP/1.0", "GET /livez HTTP/1.0\r\n\r\n", "200", has="connection: close"),
    Row("9112 2.3", "HTTP/1.0 with Host", "GET /livez HTTP/1.0\r\nHost: x\r\n\r\n", "200", has="connection: close"),
    Row("9112 2.3", "HTTP/0.9", "GET /livez\r\n\r\n", "400"),
    Row("9112 2.3", "a name in lower case", "GET /livez http/1.1\r\nHost: x\r\n\r\n", "400"),
    Row("9112 2.3", "another protocol", "GET /livez RTSP/1.0\r\nHost: x\r\n\r\n", "400"),
    Row("9112 2.3", "a version that is none", "GET /livez HTTP/11\r\nHost: x\r\n\r\n", "400"),
    Row("9110 2.5", "a later minor version", "GET /livez HTTP/1.2\r\nHost: x\r\n\r\n", "200"),
    Row("9110 15.6.6", "another major version", "GET /livez HTTP/3.0\r\nHost: x\r\n\r\n", "505", "200|400|505"),
    Row("9110 15.6.6", "HTTP/2 without asking", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "505|400", "-"),
    Row("9112 3", "a tab for a space", "GET\t/livez HTTP/1.1\r\nHost: x\r\n\r\n", "400", "200|400"),
    Row("9112 3", "a space in the target", "GET /li vez HTTP/1.1\r\nHost: x\r\n\r\n", "400"),
    Row("9112 3", "a space after the version", "GET /livez HTTP/1.1 \r\nHost: x\r\n\r\n", "400", "200|400"),
    Row("9112 3", "no target", "GET HTTP/1.1\r\nHost: x\r\n\r\n", "400"),
    Row("9112 3", "no method", " /livez HTTP/1.1\r\nHost: x\r\n\r\n", "400"),
    Row("9112 3", "a target of 8000 bytes", get(path=f"/livez?x={_LONG}"), "200"),
    Row("9112 3", "a target that is too long", get(path=f"/{_TOO_LONG}"), "414", "400|414"),
    Row("9112 3", "a target without an end", f"GET /{_TOO_LONG}", "414", "400|414"),
    Row("9112 3", "a method without an end", _TOO_LONG, "501|400|431", "400"),
)
TARGETS: Final = (
    Row("9112 3.2", "no Host", "GET /livez HTTP/1.1\r\n\r\n", "400"),
    Row("9112 3.2", "two Hosts", "GET /livez HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", "400"),
    # HAProxy makes one field of equal ones.
    Row("9112 3.2", "two equal Hosts", "GET /livez HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n", "400", "200|400"),
    Row("9112 3.2", "an empty Host", "GET /livez HTTP/1.1\r\nHost:\r\n\r\n", "400"),
    Row("9112 3.2", "a path in Host", "GET /livez HTTP/1.1\r\nHost: a/b\r\n\r\n", "400"),
    Row("9112 3.2", "a user in Host", "GET /livez HTTP/1.1\r\nHost: a@b\r\n\r\n", "400"),
    Row("9112 3.2", "a list in Host", "GET /livez HTTP/1.1\r\nHost: a, b\r\n\r\n", "400"),
    Row("9112 3.2", "a port that is no number", "GET /livez HTTP/1.1\r\nHost: a:b\r\n\r\n", "400"),
    Row("9112 3.2", "a Host with a port", "GET /livez HTTP/1.1\r\nHost: a.example:8085\r\n\r\n", "200"),
    Row("9112 3.2", "an IPv6 Host", "GET /livez HTTP/1.1\r\nHost: [::1]:8085\r\n\r\n", "200"),
    Row("9112 3.2.1", "a query", get(path="/livez?a=b&c"), "200"),
    Row("9112 3.2.1", "an empty query", get(path="/livez?"), "200"),
    Row("9112 3.2.1", "a fragment", get(path="/livez#x"), "400"),
    Row("9112 3.2.1", "a fragment in a PUT", _put_at("@PATH0#x"), "400"),
    Row("9112 3.2.2", "an absolute target", "GET http://@HOST/livez HTTP/1.1\r\nHost: @HOST\r\n\r\n", "200"),
    Row("9112 3.2.2", "a scheme in capitals", "GET HTTP://@HOST/livez HTTP/1.1\r\nHost: @HOST\r\n\r\n", "200"),
    Row(
        "9112 3.2.2",
        "an absolute target counts, not Host",
        "GET http://a.example/livez HTTP/1.1\r\nHost: b\r\n\r\n",
        "200",
        "200|400",
    ),
    Row("9112 3.2.2", "an absolute target of a PUT", _put_at("http://@HOST@PATH0"), "201"),
    Row("9112 3.2.2", "an absolute target without a path", get(path="http://@HOST"), "404"),
    Row("9112 3.2.2", "an absolute target without a host", get(path="http:///livez"), "400"),
    Row("9112 3.2.2", "another scheme", get(path="ftp://@HOST/livez"), "400"),
    Row("9110 4.2.4", "a user in the target", get(path="http://user@@HOST/livez"), "400"),
    Row("9112 3.2.3", "an authority with GET", get(path="a:80"), "400"),
    Row("9112 3.2.4", "an asterisk with GET", get(path="*"), "400"),
    Row("9112 3.2.4", "an asterisk with OPTIONS", get(path="*", method="OPTIONS"), "204", has="allow: .*get"),
    Row("9110 4.2.3", "an encoded letter", get(path="/%6civez"), "200"),
    Row("9110 4.2.3", "an encoded letter in a PUT", _put_at("/%61pi@AFTERAPI0"), "201"),
    Row("9110 4.2.3", "an encoded slash is none", get(path="/@ENCODED"), "404"),
    Row("9110 4.2.3", "an encoded slash in a PUT", _put_at("/@ENCODED"), "404|405"),
    Row("3986 2.1", "a percent sign alone", get(path="/livez%"), "400"),
    Row("3986 2.1", "a percent sign before letters", get(path="/livez%zz"), "400"),
    Row("3986 2.1", "an encoded NUL", get(path="/livez%00"), "404|400", "404|400"),
    Row("3986 2.1", "an encoded byte that is no UTF-8", get(path="/livez%ff"), "404|400"),
    Row("3986 2.1", "a byte that must be encoded", get(path="/livez\xff"), "400"),
    Row("3986 2.1", "a control character", get(path="/livez\x01"), "400"),
    Row("3986 6.2.2", "dot segments are not resolved", get(path="/x/../livez"), "404"),
    Row("3986 3.3", "an empty segment", get(path="//livez"), "404"),
    Row("3986 3.3", "a slash at the end", get(path="/livez/"), "404"),
    Row("3986 3.3", "a path in capitals", get(path="/LIVEZ"), "404"),
)
METHODS: Final = (
    Row("9110 9.1", "an unknown method", get(method="BREW"), "501"),
    Row("9110 9.1", "an unknown method with a body", counted().replace("PUT", "BREW"), "501"),
    Row("9110 9.1", "a method in lower case", get(method="get"), "501"),
    Row("9110 15.5.6", "QUERY", get(method="QUERY"), "405", has="allow: get, head"),
    Row("9110 9.1", "a method of another protocol", get(method="DESCRIBE"), "501"),
    Row("9110 9.1", "a method that is no token", get(method="G(T"), "400"),
    Row("9110 9.3.1", "a body with GET", get("Content-Length: 4") + "body", "200"),
    Row("9110 9.3.1", "a chunked body with GET", get("Transfer-Encoding: chunked") + "4\r\nbody\r\n0\r\n\r\n", "200"),
    Row("9110 9.3.2", "HEAD", get(method="HEAD"), "200", has="content-length: [1-9]", head=True),
    Row("9110 9.3.2", "HEAD twice", get(method="HEAD") * 2, "200 200", head=True),
    Row("9110 9.3.2", "HEAD with a body", get("Content-Length: 4", method="HEAD") + "body", "200", head=True),
    Row("9110 9.3.2", "HEAD of nothing", get(path="/none", method="HEAD"), "404", head=True),
    Row("9110 9.3.2", "HEAD without a token", get(path="@READ", method="HEAD"), "401", head=True),
    Row("9110 9.3.2", "HEAD of a recording", get("@READER", path="@READ", method="HEAD"), "200", head=True),
    Row("9110 9.3.4", "the same PUT twice", counted() * 2, "201 200", holds=("@BODY0",)),
    Row("9110 9.3.6", "CONNECT", get(path="a:80", method="CONNECT"), "501", "400|405|501|"),
    Row("9110 9.3.7", "OPTIONS", get(method="OPTIONS"), "405|204", has="allow: get, head"),
    Row("9110 9.3.7", "OPTIONS for a PUT", get(path="@PATH0", method="OPTIONS"), "405|204", has="allow: .*put"),
    Row("9110 9.3.8", "TRACE", get(method="TRACE"), "405", has="allow: get, head"),
    Row("9110 7.6.2", "TRACE that may go no further", get("Max-Forwards: 0", method="TRACE"), "405", "405|501"),
    Row("9110 15.5.6", "a method that a resource lacks", get(method="DELETE"), "405", has="allow: get, head\r"),
    Row("9110 15.5.6", "PATCH with a body", counted().replace("PUT", "PATCH"), "405", has="allow: .*put"),
    Row("9110 15.5.6", "POST with a body", counted().replace("PUT", "POST"), "405", has="allow: .*put"),
    Row("9110 15.5.5", "a body for nothing", _put_at("/none"), "404"),
)
ROWS: Final = LINES + TARGETS + METHODS
