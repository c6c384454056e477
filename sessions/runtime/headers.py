"""Security headers: what a browser may do with an answer, which for an interface of programs is next to nothing.

Only pages that are made for browsers bring a policy of their own: session-storage's console.

No Strict-Transport-Security: it would hold for every port of this host, and so for what else runs there without TLS.
"""

import inspect
from collections.abc import Iterable
from typing import Final, TypeAlias
from urllib.parse import urlsplit

from fastapi.openapi import docs

Headers: TypeAlias = list[tuple[bytes, bytes]]
DOCS_PATH: Final = "/docs"

_COMMON: Final[Headers] = [
    (b"x-content-type-options", b"nosniff"),
    (b"cache-control", b"no-store"),
    (b"referrer-policy", b"no-referrer"),
    (b"x-frame-options", b"DENY"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"x-permitted-cross-domain-policies", b"none"),
]
_NOTHING: Final = "default-src 'none'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'"


def _docs_policy() -> str:
    """What the framework's page of the document needs: its script and style from where it says, and the document."""
    asked = inspect.signature(docs.get_swagger_ui_html).parameters

    def origin(name: str) -> str:
        url = urlsplit(asked[name].default)
        return f"{url.scheme}://{url.netloc}"

    return "; ".join(
        (
            _NOTHING,
            # The page starts its script by a few lines of its own; nothing that a caller sent is on the page.
            f"script-src 'unsafe-inline' {origin('swagger_js_url')}",
            f"style-src 'unsafe-inline' {origin('swagger_css_url')}",
            f"img-src 'self' data: {origin('swagger_favicon_url')}",
            "connect-src 'self'",
        )
    )


_OWN: Final = frozenset({b"content-security-policy", b"cache-control"})
_API: Final[Headers] = [*_COMMON, (b"content-security-policy", _NOTHING.encode())]
_DOCS: Final[Headers] = [*_COMMON, (b"content-security-policy", _docs_policy().encode())]


def completed(path: str, own: Iterable[tuple[bytes, bytes]]) -> Headers:
    """The headers of an answer, which come to its own; a policy or way of caching of its own stays."""
    present = list(own)
    kept = {name.lower() for name, _ in present} & _OWN
    return [*present, *(header for header in (_DOCS if path == DOCS_PATH else _API) if header[0] not in kept)]
