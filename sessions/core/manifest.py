"""Manifest v1: the canonical statement about a sealed session, whose hash is what gets anchored."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal, TypeAlias, cast

import rfc8785

from sessions.core import strict
from sessions.core.errors import CoreError, ManifestFormatError
from sessions.core.merkle import leaf_hash
from sessions.core.types import HASH_BYTES, MAX_CHUNK_INDEX, Hash, SessionId, session_id

SESSION_LEAF_PREFIX: Final = b"lucid/session/v1\0"
MAX_MISSING_RANGES: Final = 100_000

SealedBy: TypeAlias = Literal["recorder", "idle"]
MissingRanges: TypeAlias = tuple[tuple[int, int], ...]

_MEMBERS: Final = (
    "version",
    "session_id",
    "chunk_count",
    "missing",
    "plaintext_bytes",
    "envelope_bytes",
    "root",
    "opened_at",
    "sealed_at",
    "sealed_by",
    "metadata_sha256",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """What was recorded: how many chunks, how many bytes, under which root, from when to when.

    `missing` holds the first and last index of each gap, ascending and apart from each other; times are RFC 3339,
    UTC, with milliseconds.
    """

    session_id: SessionId
    chunk_count: int
    missing: MissingRanges
    plaintext_bytes: int
    envelope_bytes: int
    root: Hash
    opened_at: str
    sealed_at: str
    sealed_by: SealedBy
    metadata_sha256: Hash

    def to_json(self) -> dict[str, Any]:
        """The manifest as a JSON object."""
        return {
            "version": 1,
            "session_id": self.session_id,
            "chunk_count": self.chunk_count,
            "missing": [list(gap) for gap in self.missing],
            "plaintext_bytes": self.plaintext_bytes,
            "envelope_bytes": self.envelope_bytes,
            "root": self.root.hex(),
            "opened_at": self.opened_at,
            "sealed_at": self.sealed_at,
            "sealed_by": self.sealed_by,
            "metadata_sha256": self.metadata_sha256.hex(),
        }

    def to_bytes(self) -> bytes:
        """The one byte string that stands for this manifest (RFC 8785)."""
        return rfc8785.dumps(self.to_json())

    def sha256(self) -> Hash:
        """Hash of those bytes."""
        return Hash(hashlib.sha256(self.to_bytes()).digest())

    def leaf_hash(self) -> Hash:
        """The leaf that stands for the session in its batch."""
        return leaf_hash(SESSION_LEAF_PREFIX + self.sha256())


def from_json(value: object) -> Manifest:
    """Read a manifest from a JSON object.

    Raises:
        ManifestFormatError: a member is missing, unknown, of the wrong type, or contradicts another.
    """
    read = strict.Reader("manifest", value, _MEMBERS, ManifestFormatError)
    read.integer("version", 1, 1)
    count = read.integer("chunk_count", 0, MAX_CHUNK_INDEX + 1)
    try:
        name = session_id(read.text("session_id"))
    except CoreError as error:
        raise ManifestFormatError(str(error)) from error
    return Manifest(
        session_id=name,
        chunk_count=count,
        missing=_missing(read, count),
        plaintext_bytes=read.integer("plaintext_bytes"),
        envelope_bytes=read.integer("envelope_bytes"),
        root=Hash(read.hex("root", HASH_BYTES)),
        opened_at=read.timestamp("opened_at"),
        sealed_at=read.timestamp("sealed_at"),
        sealed_by=cast("SealedBy", read.one_of("sealed_by", ("recorder", "idle"))),
        metadata_sha256=Hash(read.hex("metadata_sha256", HASH_BYTES)),
    )


def from_bytes(data: bytes) -> Manifest:
    """Read a manifest from its canonical bytes; any other spelling of the same object is refused.

    Raises:
        ManifestFormatError: not a manifest, or not its canonical form.
    """
    manifest = from_json(strict.loads(data, "manifest", ManifestFormatError))
    if manifest.to_bytes() != data:
        raise ManifestFormatError("the manifest is not in its canonical form (RFC 8785)")
    return manifest


def _missing(read: strict.Reader, count: int) -> MissingRanges:
    gaps: list[tuple[int, int]] = []
    free = 0
    for gap in read.items("missing", MAX_MISSING_RANGES):
        if not (isinstance(gap, list) and [type(end) for end in gap] == [int, int]):
            raise read.fail("missing", "a list of [first, last]")
        first, last = gap
        if not free <= first <= last < count:
            raise read.fail("missing", "ascending ranges, apart from each other, below chunk_count")
        gaps.append((first, last))
        free = last + 2
    return tuple(gaps)


def canonical_metadata(metadata: Mapping[str, Any]) -> bytes:
    """The recorder's metadata object in canonical JSON (RFC 8785).

    Raises:
        ManifestFormatError: it holds a number or text that RFC 8785 cannot write.
    """
    try:
        return rfc8785.dumps(dict(metadata))
    except (rfc8785.CanonicalizationError, RecursionError, UnicodeEncodeError) as error:
        raise ManifestFormatError(f"the metadata has no canonical form: {error}") from error


def metadata_sha256(metadata: Mapping[str, Any]) -> Hash:
    """Hash of the recorder's metadata object, in canonical JSON.

    Raises:
        ManifestFormatError: see `canonical_metadata`.
    """
    return Hash(hashlib.sha256(canonical_metadata(metadata)).digest())
