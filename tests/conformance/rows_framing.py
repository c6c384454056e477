"""RFC 9112 sections 6 and 7: where a body ends. No answer may acknowledge other bytes than were sent."""

from typing import Final

from tests.conformance.row import BODY_BYTES, Row, chunked, counted, get, put

_WHOLE: Final = "a0\r\n@BODY0\r\n0\r\n\r\n"
_LIMIT: Final = 16 * 1024 * 1024


def _length(value: str) -> str:
    return put(f"Content-Length: {value}")


LENGTHS: Final = (
    Row("9112 6.2", "a length", counted(), "201"),
    Row("9112 6.2", "a length and a later segment", (counted()[:-6], "@BODY0"), "201"),
    Row("9112 6.2", "a length, and a next request", counted() + get(), "201 200"),
    Row("9112 6.3", "no length is no body", put(body=""), "201", only="processor", holds=("",)),
    Row("9112 6.3", "length 0", put("Content-Length: 0", body=""), "201", only="processor", holds=("",)),
    Row("9112 6.3", "no length is no JSON", put(body=""), "400", only="storage"),
    Row("9110 8.6", "leading zeros", _length(f"000{BODY_BYTES}"), "201"),
    Row("9110 8.6", "a sign", _length(f"+{BODY_BYTES}"), "400"),
    Row("9110 8.6", "a negative length", _length("-1"), "400"),
    Row("9110 8.6", "hexadecimal", _length("0xa0"), "400"),
    Row("9110 8.6", "a space within", _length("1 60"), "400"),
    Row("9110 8.6", "letters after it", _length(f"{BODY_BYTES}b"), "400"),
    Row("9110 8.6", "a fraction", _length(f"{BODY_BYTES}.0"), "400"),
    Row("9110 8.6", "an exponent", _length("16e1"), "400"),
    Row("9110 8.6", "an empty length", _length(""), "400"),
    Row("9110 8.6", "digits that are not ASCII", _length("\xb1\xb6\xb0"), "400"),
    Row("9110 8.6", "a list", _length(f"{BODY_BYTES}, {BODY_BYTES}"), "400", "201|400"),
    Row("9110 8.6", "a list of different lengths", _length(f"{BODY_BYTES}, 5"), "400"),
    Row("9110 8.6", "a length and a comma", _length(f"{BODY_BYTES},"), "400"),
    Row("9112 6.3", "two equal lengths", counted(f"Content-Length: {BODY_BYTES}"), "400", "201|400"),
    Row("9112 6.3", "two different lengths", counted("Content-Length: 5"), "400"),
    Row("9112 6.3", "a length with an underscore", counted("Content_Length: 5"), "201"),
    Row("9110 8.6", "more than may be", put(f"Content-Length: {_LIMIT + 1}", body=""), "413", early=True),
    Row("9110 8.6", "a length of 18 digits", _length("9" * 18), "413", early=True),
    Row("9110 8.6", "a length of 20 digits", _length("9" * 20), "400|413"),
    Row("9110 8.6", "2 to the 64th, and the body", _length(str(2**64 + BODY_BYTES)), "400|413"),
)
CODINGS: Final = (
    Row("9112 6.1", "chunked", chunked(_WHOLE), "201"),
    Row("9112 6.1", "chunked in capitals", put("Transfer-Encoding: CHUNKED", body=_WHOLE), "201"),
    Row("9112 6.1", "an empty element", put("Transfer-Encoding: , chunked", body=_WHOLE), "400", "201|400|422"),
    Row("9112 6.1", "chunked twice", put("Transfer-Encoding: chunked, chunked", body=_WHOLE), "400"),
    Row("9112 6.1", "chunked in two lines", put(*("Transfer-Encoding: chunked",) * 2, body=_WHOLE), "400"),
    Row("9112 6.1", "chunked and a length", counted("Transfer-Encoding: chunked"), "400"),
    Row(
        "9112 6.1",
        "a length before chunked",
        put("Content-Length: 5", "Transfer-Encoding: chunked", body=_WHOLE),
        "400",
        "201|400",
    ),
    Row(
        "9112 6.1",
        "an unknown coding before it",
        put("Transfer-Encoding: gzip, chunked", body=_WHOLE),
        "501",
        "400|422|501",
    ),
    Row(
        "9112 6.1",
        "an unknown coding in a line before",
        put("Transfer-Encoding: gzip", "Transfer-Encoding: chunked", body=_WHOLE),
        "501",
        "400|422|501",
    ),
    Row("9112 6.3", "chunked is not the last", put("Transfer-Encoding: chunked, gzip", body=_WHOLE), "400"),
    Row("9112 6.3", "not chunked at all", put("Transfer-Encoding: gzip", body=_WHOLE), "400"),
    Row("9112 6.3", "identity", put("Transfer-Encoding: identity", f"Content-Length: {BODY_BYTES}"), "400"),
    Row("9112 6.3", "a name like chunked", put("Transfer-Encoding: xchunked", body=_WHOLE), "400"),
    Row("9112 6.3", "chunked in quotes", put('Transfer-Encoding: "chunked"', body=_WHOLE), "400"),
    Row("9112 6.3", "chunked with a parameter", put("Transfer-Encoding: chunked;q=1", body=_WHOLE), "400"),
    Row("9112 6.3", "a vertical tab before it", put("Transfer-Encoding: \x0bchunked", body=_WHOLE), "400"),
    Row("9112 6.3", "an empty coding", put("Transfer-Encoding:", body=_WHOLE), "400"),
    Row("9112 6.1", "HTTP/1.0", chunked(_WHOLE).replace("HTTP/1.1", "HTTP/1.0"), "400"),
    Row("9112 6.1", "chunked with an underscore", counted("Transfer_Encoding: chunked"), "201"),
)
CHUNKS: Final = (
    Row("9112 7.1", "two chunks", chunked("50\r\n@LEFT0\r\n50\r\n@RIGHT0\r\n0\r\n\r\n"), "201"),
    Row(
        "9112 7.1",
        "two chunks in segments",
        (chunked("50\r\n@LEFT0\r"), "\n5", "0\r\n@RIGHT0", "\r\n0\r\n\r", "\n"),
        "201",
    ),
    Row("9112 7.1", "a size in capitals", chunked("A0\r\n@BODY0\r\n0\r\n\r\n"), "201"),
    Row("9112 7.1", "leading zeros", chunked("0000a0\r\n@BODY0\r\n000\r\n\r\n"), "201"),
    Row("9112 7.1", "chunks of one byte", chunked("@DRIP0" + "0\r\n\r\n"), "201"),
    Row("9112 7.1", "no chunk", chunked("0\r\n\r\n"), "201", only="processor", holds=("",)),
    Row("9112 7.1", "a next request", chunked(_WHOLE) + get(), "201 200"),
    Row("9112 7.1", "a size of too many digits", chunked(f"{'0' * 30}a0\r\n@BODY0\r\n0\r\n\r\n"), "400|201", "400|201"),
    Row("9112 7.1", "2 to the 64th and the size", chunked("100000000000000a0\r\n@BODY0\r\n0\r\n\r\n"), "400"),
    Row("9112 7.1", "a negative size", chunked("-a0\r\n@BODY0\r\n0\r\n\r\n"), "400"),
    Row("9112 7.1", "a size with 0x", chunked("0xa0\r\n@BODY0\r\n0\r\n\r\n"), "400"),
    Row("9112 7.1", "a size with an underscore", chunked("a_0\r\n@BODY0\r\n0\r\n\r\n"), "400"),
    Row("9112 7.1", "a space before a size", chunked(" a0\r\n@BODY0\r\n0\r\n\r\n"), "400"),
    Row("9112 7.1", "an empty size", chunked("\r\n@BODY0\r\n0\r\n\r\n"), "400"),
    Row("9112 7.1", "a size that is none", chunked("g\r\n@BODY0\r\n0\r\n\r\n"), "400"),
    Row("9112 7.1", "LF alone after a size", chunked("a0\n@BODY0\r\n0\r\n\r\n"), "400", "201|400"),
    Row("9112 7.1", "LF alone after a chunk", chunked("a0\r\n@BODY0\n0\r\n\r\n"), "400", "201|400"),
    Row("9112 7.1", "LF alone at the end", chunked("a0\r\n@BODY0\r\n0\r\n\n"), "400", "201|400"),
    Row("9112 7.1", "CR alone after a size", chunked("a0\r@BODY0\r\n0\r\n\r\n"), "400"),
    Row("9112 7.1", "nothing after a chunk", chunked("a0\r\n@BODY00\r\n\r\n"), "400"),
    Row("9112 7.1", "a size that is too small", chunked("9f\r\n@BODY0\r\n0\r\n\r\n"), "400"),
    Row("9112 7.1", "a size that is too large", chunked("a3\r\n@BODY0\r\n0\r\n\r\n"), "400"),
    # HAProxy takes LF alone for the end of a chunk, and so CR for the chunk's last byte.
    Row("9112 7.1", "a size that is too large by one", chunked("a1\r\n@BODY0\r\n0\r\n\r\n"), "400", "-"),
    Row(
        "9112 7.1",
        "a whole chunk beyond the limit",
        chunked(f"{_LIMIT + 2:x}\r\n{'a' * (_LIMIT + 2)}\r\n0\r\n\r\n"),
        "413",
        only="processor",
    ),
    Row("9112 7.1.1", "an extension", chunked("a0;name=value\r\n@BODY0\r\n0;x\r\n\r\n"), "201"),
    Row("9112 7.1.1", "a quoted extension", chunked('a0;name="a b";c\r\n@BODY0\r\n0\r\n\r\n'), "201"),
    Row("9112 7.1.1", "space around an extension", chunked("a0 ; name = value\r\n@BODY0\r\n0\r\n\r\n"), "201"),
    Row("9112 7.1.1", "CR in an extension", chunked("a0;a\rb\r\n@BODY0\r\n0\r\n\r\n"), "400"),
    Row("9112 7.1.1", "LF in an extension", chunked("a0;a\nb\r\n@BODY0\r\n0\r\n\r\n"), "400"),
    Row("9112 7.1.1", "NUL in an extension", chunked("a0;a\0b\r\n@BODY0\r\n0\r\n\r\n"), "400", "201|400"),
    Row(
        "9112 7.1.1",
        "an extension that is too large",
        chunked(f"a0;{'x' * 20_000}\r\n@BODY0\r\n0\r\n\r\n"),
        "400|413",
        "201|400",
    ),
    Row("9112 7.1.2", "a trailer", chunked("a0\r\n@BODY0\r\n0\r\nX: 1\r\n\r\n"), "201"),
    Row("9112 7.1.2", "a trailer and a next request", chunked("a0\r\n@BODY0\r\n0\r\nX: 1\r\n\r\n") + get(), "201 200"),
    Row("9112 7.1.2", "a trailer that is no field", chunked("a0\r\n@BODY0\r\n0\r\nX\r\n\r\n"), "400"),
    Row("9112 7.1.2", "a space before a trailer's colon", chunked("a0\r\n@BODY0\r\n0\r\nX : 1\r\n\r\n"), "400"),
    Row("9112 7.1.2", "a folded trailer", chunked("a0\r\n@BODY0\r\n0\r\nX: 1\r\n 2\r\n\r\n"), "400", "201|400"),
    Row(
        "9112 7.1.2",
        "a trailer that is too large",
        chunked(f"a0\r\n@BODY0\r\n0\r\nX: {'1' * 40_000}\r\n\r\n"),
        "400|431",
    ),
    Row("9110 6.5.1", "a length in a trailer", chunked("a0\r\n@BODY0\r\n0\r\nContent-Length: 5\r\n\r\n"), "201"),
    Row(
        "9110 6.5.1",
        "a coding in a trailer",
        chunked("a0\r\n@BODY0\r\n0\r\nTransfer-Encoding: gzip\r\n\r\n"),
        "201",
        "201|400",
    ),
    Row(
        "9110 6.5.1",
        "a token in a trailer",
        chunked("a0\r\n@BODY0\r\n0\r\n@AUTH\r\n\r\n").replace("@AUTH\r\n", "", 1),
        "401",
    ),
)
ENDS: Final = (
    Row("9112 8", "a body that ends early", counted()[:-6] + "@LEFT0", "400", "400|", half=True),
    Row("9112 8", "a chunk that ends early", chunked("a0\r\n@LEFT0"), "400", "400|", half=True),
    Row("9112 8", "no last chunk", chunked("a0\r\n@BODY0\r\n"), "400", "400|", half=True),
    Row("9112 8", "no end of the trailer", chunked("a0\r\n@BODY0\r\n0\r\n"), "400", "400|", half=True),
    Row("9112 8", "a head that ends early", "GET /livez HTTP/1.1\r\nHost: x\r\n", "", "400|", half=True),
)
ROWS: Final = LENGTHS + CODINGS + CHUNKS + ENDS
