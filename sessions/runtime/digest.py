"""The Content-Digest header (RFC 9530): made for what we send, checked for what we are sent."""

import base64
import binascii
import hashlib
import re
from collections.abc import Iterable
from typing import Final

from starlette.datastructures import Headers

from sessions.core.types import Buffer
from sessions.runtime.errors import DomainError

_ALGORITHMS: Final = {"sha-256": hashlib.sha256, "sha-512": hashlib.sha512}
_ENTRY = re.compile(r"\s*([a-z*][a-z0-9_.*-]*)=:([A-Za-z0-9+/=]*):\s*")
HEADER_PATTERN: Final = r"^[a-z*][a-z0-9_.*-]*=:[A-Za-z0-9+/=]*:(\s*,\s*[a-z*][a-z0-9_.*-]*=:[A-Za-z0-9+/=]*:)*$"
"""No space around it: that does not belong to a header's value (RFC 9110 section 5.5)."""


def content_digest(content: Buffer) -> str:
    """The header's value for a body."""
    return f"sha-256=:{base64.b64encode(hashlib.sha256(content).digest()).decode()}:"


def check(headers: Headers, content: Buffer, trailers: Iterable[tuple[bytes, bytes]] = ()) -> None:
    """Check a body against its Content-Digest; ignore unknown algorithms, as the RFC says.

    Several lines of the field are one list (RFC 9110 section 5.3). A digest may come after the body, in a trailer.

    Raises:
        DomainError: `bad-content-digest`, `digest-mismatch`.
    """
    lines = headers.getlist("content-digest")
    lines += [value.decode("latin-1") for name, value in trailers if name == b"content-digest"]
    if not lines:
        return
    for entry in ",".join(lines).split(","):
        found = _ENTRY.fullmatch(entry)
        if found is None:
            raise DomainError("bad-content-digest", "write it as sha-256=:BASE64: (RFC 9530)")
        algorithm = _ALGORITHMS.get(found[1])
        if algorithm is None:
            continue
        try:
            expected = base64.b64decode(found[2], validate=True)
        except binascii.Error:
            raise DomainError("bad-content-digest", f"the {found[1]} digest is not base64") from None
        if algorithm(content).digest() != expected:
            raise DomainError(
                "digest-mismatch", f"the body's {found[1]} is not the one in Content-Digest; send it again"
            )
