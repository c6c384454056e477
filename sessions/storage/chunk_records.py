"""Chunks as they come in and as they are kept."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from sessions.core.envelope import Fingerprint
from sessions.core.types import Buffer, DekId, Hash, SessionId


@dataclass(frozen=True, slots=True)
class NewChunk:
    """An envelope on its way in."""

    session_id: SessionId
    index: int
    plaintext_bytes: int
    fingerprint: Fingerprint
    envelope: Buffer = field(repr=False)
    dek_id: DekId
    """Id of the key that the envelope is encrypted under, by its header."""

    @property
    def record(self) -> "ChunkRecord":
        """The record that makes it exist."""
        return ChunkRecord(self.index, self.plaintext_bytes, self.fingerprint)


@dataclass(frozen=True, slots=True)
class ChunkRecord:
    """The record of a stored chunk: unique on (session, index), it is what makes the chunk exist."""

    index: int
    plaintext_bytes: int
    fingerprint: Fingerprint

    def to_json(self) -> dict[str, Any]:
        """The record as a JSON object."""
        return {
            "index": self.index,
            "plaintext_bytes": self.plaintext_bytes,
            "envelope_bytes": self.fingerprint.envelope_bytes,
            "envelope_sha256": self.fingerprint.envelope_sha256.hex(),
            "leaf_hash": self.fingerprint.leaf_hash.hex(),
        }


class InsertOutcome(StrEnum):
    """What became of an insert."""

    STORED = "stored"
    EXISTS = "exists"
    CONFLICT = "conflict"


@dataclass(frozen=True, slots=True)
class Leaves:
    """Of some records what a tree is made of, their indexes (ascending) and leaf hashes, and their sums in bytes."""

    indexes: Sequence[int]
    hashes: Sequence[Hash]
    plaintext_bytes: int
    envelope_bytes: int


def leaves_of(records: Sequence[ChunkRecord]) -> Leaves:
    """The leaves of records that are at hand."""
    return Leaves(
        [record.index for record in records],
        [record.fingerprint.leaf_hash for record in records],
        sum(record.plaintext_bytes for record in records),
        sum(record.fingerprint.envelope_bytes for record in records),
    )
