"""A recorder's metadata as both services take them: what is refused by one must not have been promised by the other."""

from collections.abc import Mapping
from typing import Annotated, Any, Final, TypeAlias

from pydantic import AfterValidator

from sessions.core import manifest
from sessions.runtime.errors import DomainError

MAX_METADATA_BYTES: Final = 64 * 1024
"""The most bytes of metadata in canonical form (RFC 8785)."""
MAX_METADATA_LEVELS: Final = 32
"""The most objects and lists within one another, the metadata object counted as the first level."""


def canonical_metadata(metadata: Mapping[str, Any] | None) -> bytes:
    """Return metadata (None: an empty object) as RFC 8785 JSON.

    Raises:
        CoreError: they have no canonical form.
        DomainError: `invalid-request`, they are too deep or too large.
    """
    require_shallow(metadata or {})
    canonical = manifest.canonical_metadata(metadata or {})
    if len(canonical) > MAX_METADATA_BYTES:
        raise DomainError("invalid-request", f"metadata may have at most {MAX_METADATA_BYTES} bytes as JSON")
    return canonical


def require_shallow(metadata: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return metadata that are not too deep. They are looked through by level: recursion would have limits of its own.

    Raises:
        DomainError: `invalid-request`.
    """
    level: list[Any] = [metadata]
    for _ in range(MAX_METADATA_LEVELS):
        level = [inner for outer in level for inner in _contents(outer) if isinstance(inner, dict | list)]
        if not level:
            return metadata
    detail = f"metadata may have at most {MAX_METADATA_LEVELS} objects and lists within one another"
    raise DomainError("invalid-request", detail)


def _contents(value: Any) -> Any:
    return value.values() if isinstance(value, dict) else value


ShallowMetadata: TypeAlias = Annotated[dict[str, Any], AfterValidator(require_shallow)]
"""A recorder's metadata in a request. What takes time to check, `canonical_metadata` does, once for each request."""
