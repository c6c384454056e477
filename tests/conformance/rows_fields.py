"""RFC 9112 section 5 and RFC 9110 section 5: the syntax of fields, and fields that are repeated."""

from typing import Final

from tests.conformance.row import BODY_BYTES, Row, counted, get, put

SYNTAX: Final = (
    Row("9112 5.1", "a space before the colon", get("X : 1"), "400"),
    Row("9112 5.1", "a tab before the colon", get("X\t: 1"), "400"),
    Row("9112 5.1", "a space before the length's colon", put(f"Content-Length : {BODY_BYTES}"), "400"),
    Row("9112 5.1", "no space after the colon", put(f"Content-Length:{BODY_BYTES}"), "201"),
    Row("9112 5.1", "space around a value", put(f"Content-Length: \t {BODY_BYTES} \t"), "201"),
    Row("9112 5.1", "a line without a colon", get("X"), "400"),
    Row("9112 5.1", "a field without a name", get(": 1"), "400"),
    Row("9112 5.2", "a folded line", get("X: 1", " 2"), "400", "200|400"),
    Row("9112 5.2", "a line folded by a tab", get("X: 1", "\t2"), "400", "200|400"),
    Row("9112 5.2", "a folded length", put("Content-Length:", f" {BODY_BYTES}"), "400", "201|400"),
    Row("9112 5.2", "a folded line within a token", put(f"Content-Length: {BODY_BYTES}", " 0"), "400"),
    Row("9110 5.1", "names in any case", put(f"cOnTENT-lengTH: {BODY_BYTES}"), "201"),
    Row("9110 5.1", "an unknown field", get("X-Nobody-Knows: 1"), "200"),
    Row("9110 5.1", "all characters of a name", get("!#$%&'*+-.^_`|~09aZ: 1"), "200"),
    Row("9110 5.4", "a field that is too large", get(f"X: {'a' * 40_000}"), "431", "400|431"),
    Row("9110 5.4", "a large field", get(f"X: {'a' * 10_000}"), "200"),
    Row("9110 5.4", "many fields", get(*("X: 1",) * 90), "200"),
    Row("9110 5.4", "too many fields", get(*("X: 1",) * 200), "431", "400|431"),
    Row("9110 5.4", "fields without an end", get()[:-2] + "a:\r\n" * 20_000, "431", "400|431"),
    Row("9110 5.5", "an empty value", get("X:"), "200"),
    Row("9110 5.5", "a NUL in a value", get("X: a\0b"), "400"),
    Row("9110 5.5", "a CR in a value", get("X: a\rb"), "400"),
    Row("9110 5.5", "a CR before the end of a line", get("X: a\r"), "400"),
    Row("9110 5.5", "a control character in a value", get("X: a\x01b"), "400", "200|400"),
    Row("9110 5.5", "DEL in a value", get("X: a\x7fb"), "400", "200|400"),
    Row("9110 5.5", "a tab in a value", get("X: a\tb"), "200"),
    Row("9110 5.5", "a byte above ASCII in a value", get("X: a\xffb"), "200"),
    Row("9110 5.6.2", "a byte above ASCII in a name", get("X\xff: 1"), "400"),
    Row("9110 5.6.2", "a separator in a name", get("X(1): 1"), "400"),
    Row("9110 5.6.2", "a NUL in a name", get("X\0: 1"), "400"),
    Row("9110 5.6.2", "a space in a name", get("X Y: 1"), "400"),
)
REPEATED: Final = (
    Row("9110 5.3", "two equal tokens", counted("@AUTH"), "400"),
    Row("9110 5.3", "a token and another", counted("Authorization: Bearer x"), "400"),
    Row("9110 5.3", "two types", counted("Content-Type: application/json", "Content-Type: text/plain"), "400"),
    Row("9110 5.3", "two lines of an unknown field", counted("X: 1", "X: 2"), "201"),
    Row("9110 5.3", "two lines of Accept", counted("Accept: a/b", "Accept: c/d"), "201"),
    Row(
        "9110 5.3",
        "two expectations",
        counted("Expect: 100-continue", "Expect: 100-continue"),
        "400",
        "400|201|100 400",
    ),
)
ROWS: Final = SYNTAX + REPEATED
