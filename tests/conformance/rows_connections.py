"""RFC 9112 section 9, RFC 9110 sections 7.6 to 7.8 and 10.1.1: connections, upgrades and expectations."""

from typing import Final

from tests.conformance.row import BODY_BYTES, Row, chunked, counted, get, put

_H2C: Final = ("Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c", "HTTP2-Settings: AAMAAABkAAQAAP__")
_WEBSOCKET: Final = (
    "Connection: Upgrade",
    "Upgrade: websocket",
    "Sec-WebSocket-Version: 13",
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
)
_WHOLE: Final = "a0\r\n@BODY0\r\n0\r\n\r\n"
_CONTINUE: Final = "Expect: 100-continue"


def _old(request: str) -> str:
    return request.replace("HTTP/1.1", "HTTP/1.0")


PERSISTENCE: Final = (
    Row("9112 9.3", "a connection stays open", get(), "200"),
    Row("9112 9.3", "two requests", get() * 2, "200 200"),
    Row("9112 9.6", "close", get("Connection: close"), "200", has="connection: close"),
    Row("9112 9.6", "close in capitals", get("Connection: CLOSE"), "200", has="connection: close"),
    Row("9112 9.6", "close in a list", get("Connection: x, close , y"), "200", has="connection: close"),
    Row(
        "9112 9.6", "close in a second line", get("Connection: x", "Connection: close"), "200", has="connection: close"
    ),
    Row("9112 9.6", "a name that contains close", get("Connection: closed"), "200"),
    Row("9112 9.6", "nothing is served after close", counted("Connection: close") + counted(number=1), "201"),
    Row("9112 9.3", "HTTP/1.0", _old(get() * 2), "200", has="connection: close"),
    Row(
        "9112 9.3", "HTTP/1.0 with keep-alive", _old(get("Connection: keep-alive")), "200", has="connection: keep-alive"
    ),
    Row(
        "9112 9.3",
        "HTTP/1.0 with keep-alive and close",
        _old(get("Connection: keep-alive, close")),
        "200",
        has="connection: close",
    ),
    Row("9112 9.3", "a PUT by HTTP/1.0", _old(counted()), "201", has="connection: close"),
    Row("9110 7.6.1", "a field that Connection names", counted("Connection: X-Hop", "X-Hop: 1"), "201"),
    Row("9110 7.6.1", "Connection names the length", counted("Connection: Content-Length"), "201", "201|400"),
    Row("9110 7.6.1", "Connection names the token", counted("Connection: Authorization"), "201", "201|401"),
    Row("9110 7.6.1", "an empty Connection", counted("Connection:"), "201"),
    Row(
        "9112 C.2.2",
        "Proxy-Connection and Keep-Alive",
        counted("Proxy-Connection: close", "Keep-Alive: timeout=1"),
        "201",
    ),
    Row("9110 10.1.4", "TE", counted("Connection: TE", "TE: trailers"), "201"),
)
PIPELINES: Final = (
    Row("9112 9.3.2", "three chunks", "".join(counted(number=n) for n in range(3)), "201 201 201"),
    Row(
        "9112 9.3.2",
        "three chunks and a question",
        "".join(counted(number=n) for n in range(3)) + get(),
        "201 201 201 200",
    ),
    Row("9112 9.3.2", "a chunk in two segments", (counted() + counted(number=1)[:-6] + "@LEFT1", "@RIGHT1"), "201 201"),
    Row("9112 9.3.2", "a chunked body and another", chunked(_WHOLE) + counted(number=1), "201 201"),
    Row("9112 9.3.2", "after a refusal", counted("Content-Encoding: gzip") + get(), "415 200"),
    Row("9112 9.3.2", "after a question without a token", get(path="@READ") + counted(), "401 201"),
    Row(
        "9112 9.3",
        "an answer before a chunked body that does not come",
        get("Transfer-Encoding: chunked") + "5\r\nab",
        "200",
        early=True,
    ),
    Row("9112 9.3.2", "nothing after a broken head", get(": 1") + counted(), "400"),
    Row("9112 9.3.2", "nothing after a broken chunk", chunked("g\r\n" + _WHOLE) + counted(), "400"),
    Row(
        "9112 9.3.2",
        "nothing after an unknown coding",
        put("Transfer-Encoding: gzip, chunked", body=_WHOLE) + counted(),
        "501",
        "400|422|501",
    ),
    Row("9112 9.3.2", "nothing after two lengths", counted("Content-Length: 5") + counted(), "400"),
    Row(
        "9112 9.3.2",
        "nothing after a body that is too large",
        put("Content-Length: 99999999", body="") + counted(),
        "413",
        early=True,
    ),
)
_INNER: Final = "GET /none HTTP/1.1\r\nHost: x\r\n\r\n"
_INNER_LENGTH: Final = f"Content-Length: {len(_INNER)}"
_INNER_CHUNK: Final = f"{len(_INNER):x}\r\n{_INNER}\r\n0\r\n\r\n"
HIDDEN: Final = (
    Row("9112 11.2", "a request in the body of GET", get(_INNER_LENGTH) + _INNER, "200"),
    Row("9112 11.2", "a request in a chunk of GET", get("Transfer-Encoding: chunked") + _INNER_CHUNK, "200"),
    Row("9112 11.2", "a request in the body of HEAD", get(_INNER_LENGTH, method="HEAD") + _INNER, "200", head=True),
    Row(
        "9112 11.2",
        "a request in a body without a token",
        get(_INNER_LENGTH, path="@PATH0", method="PUT") + _INNER,
        "401",
    ),
    Row("9112 11.2", "a request in a body for nothing", get(_INNER_LENGTH, path="/none", method="PUT") + _INNER, "404"),
    Row("9112 11.2", "a request in a body of a wrong method", get(_INNER_LENGTH, method="DELETE") + _INNER, "405"),
    Row("9112 11.2", "a request in a body of TRACE", get(_INNER_LENGTH, method="TRACE") + _INNER, "405"),
    Row("9112 11.2", "a request in a body of OPTIONS", get(_INNER_LENGTH, path="*", method="OPTIONS") + _INNER, "204"),
    Row("9112 11.2", "a request in a coded body", put(_INNER_LENGTH, "Content-Encoding: gzip", body=_INNER), "415"),
    Row("9112 11.2", "a request in an upgrade's body", get(*_H2C, _INNER_LENGTH) + _INNER, "200"),
    Row("9112 11.2", "a request in a later segment", (get(_INNER_LENGTH, path="/none"), _INNER), "404"),
    Row("9112 11.2", "a request in a trailer", chunked("a0\r\n@BODY0\r\n0\r\nGET /none HTTP/1.1\r\n\r\n"), "400"),
    Row("9112 11.2", "a request in an extension", chunked(f"a0;x\n{_INNER}\r\n@BODY0\r\n0\r\n\r\n"), "400"),
)
HALVES: Final = (
    Row("9112 9.6", "a question, then no more", get(), "200", half=True),
    Row("9112 9.6", "a chunk, then no more", counted(), "201", half=True),
    Row("9112 9.6", "a chunked body, then no more", chunked(_WHOLE), "201", half=True),
    Row("9112 9.6", "a chunk in segments, then no more", (counted()[:-6] + "@LEFT0", "@RIGHT0"), "201", half=True),
    Row("9112 9.6", "two chunks, then no more", counted() + counted(number=1), "201 201", "201( 201)?", half=True),
    Row("9112 9.6", "nothing", "", "", "|400", half=True),
)
UPGRADES: Final = (
    Row("9110 7.8", "h2c", counted(*_H2C), "201"),
    Row("9110 7.8", "h2c, the body in a later segment", (counted(*_H2C)[:-6], "@BODY0"), "201"),
    Row("9110 7.8", "h2c, the body in two segments", (counted(*_H2C)[:-6] + "@LEFT0", "@RIGHT0"), "201"),
    Row("9110 7.8", "h2c, chunked", chunked(_WHOLE, *_H2C), "201"),
    Row("9110 7.8", "h2c, chunked in a later segment", (chunked("", *_H2C), _WHOLE), "201"),
    Row("9110 7.8", "h2c, and a next request", counted(*_H2C) + get(), "201 200"),
    Row("9110 7.8", "h2c without a body", get(*_H2C), "200"),
    Row("9110 7.8", "h2c and the preface", get(*_H2C) + "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "200 (505|400)"),
    Row("9110 7.8", "websocket", get(*_WEBSOCKET), "200"),
    Row("9110 7.8", "websocket with a body", counted(*_WEBSOCKET), "201"),
    Row("9110 7.8", "TLS and h2c", counted("Connection: Upgrade", "Upgrade: TLS/1.0, h2c"), "201"),
    Row("9110 7.8", "Upgrade alone", counted("Upgrade: h2c"), "201"),
    Row("9110 7.8", "Connection: Upgrade alone", counted("Connection: Upgrade"), "201"),
    Row("9110 7.8", "an upgrade by HTTP/1.0", _old(counted(*_H2C)), "201"),
    Row("9110 7.8", "an upgrade and an expectation", (counted(_CONTINUE, *_H2C)[:-6], "@BODY0"), "100 201"),
)
EXPECTATIONS: Final = (
    Row("9110 10.1.1", "100-continue, the body in a later segment", (counted(_CONTINUE)[:-6], "@BODY0"), "100 201"),
    Row("9110 10.1.1", "100-continue, the body with it", counted(_CONTINUE), "(100 )?201"),
    Row("9110 10.1.1", "in capitals", (counted("Expect: 100-CONTINUE")[:-6], "@BODY0"), "100 201"),
    Row("9110 10.1.1", "chunked", (chunked("", _CONTINUE), _WHOLE), "100 201"),
    Row("9110 10.1.1", "without a body", get(_CONTINUE), "200"),
    Row("9110 10.1.1", "HTTP/1.0", (_old(counted(_CONTINUE))[:-6], "@BODY0"), "201", "(100 )?201"),
    Row("9110 10.1.1", "an unknown expectation", counted("Expect: 200-maybe"), "417"),
    Row("9110 10.1.1", "an unknown one beside it", counted("Expect: 100-continue, x"), "417"),
    Row("9110 10.1.1", "no token", counted(_CONTINUE)[:-6].replace("@AUTH\r\n", ""), "401", early=True),
    Row(
        "9110 10.1.1",
        "no token, and the body is sent all the same",
        (counted(_CONTINUE)[:-6].replace("@AUTH\r\n", ""), "@BODY0"),
        "401",
    ),
    Row("9110 10.1.1", "more than may be", put("Content-Length: 99999999", _CONTINUE, body=""), "413", early=True),
    Row(
        "9110 10.1.1",
        "what is not here",
        get(_CONTINUE, f"Content-Length: {BODY_BYTES}", path="/none", method="PUT"),
        "404",
        early=True,
    ),
)
ROWS: Final = PERSISTENCE + PIPELINES + HIDDEN + HALVES + UPGRADES + EXPECTATIONS
