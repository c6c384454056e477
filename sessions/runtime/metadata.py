"""A recorder's metadata as both services take them: what is refused by one must not have been promised by the other."""

from collections.abc import Mapping
from typing import Any, Final

from sessions.core import manifest
from sessions.runtime.errors import DomainError

MAX_METADATA_BYTES: Final = 64 * 1024


def canonical_metadata(metadata: Mapping[str, Any] | None) -> bytes:
    """Metadata (None: an empty object) as RFC 8785 JSON.

    Raises:
        CoreError: they have no canonical form.
        DomainError: `invalid-request`, there is too much of them.
    """
    canonical = manifest.canonical_metadata(metadata or {})
    if len(canonical) > MAX_METADATA_BYTES:
        raise DomainError("invalid-request", f"metadata may have at most {MAX_METADATA_BYTES} bytes as JSON")
    return canonical
