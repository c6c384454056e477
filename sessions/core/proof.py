"""Chunk proof v1: that one envelope is a leaf of its session's tree."""

from dataclasses import dataclass
from typing import Any

from sessions.core import strict
from sessions.core.envelope import chunk_leaf_input
from sessions.core.errors import CoreError, ProofFormatError, VerificationError
from sessions.core.manifest import Manifest
from sessions.core.merkle import leaf_hash, verify_inclusion
from sessions.core.types import HASH_BYTES, MAX_CHUNK_INDEX, Hash, SessionId, session_id


@dataclass(frozen=True, slots=True, kw_only=True)
class ChunkProof:
    """That one envelope is a leaf of its session's tree; `path` is leaf to root."""

    session_id: SessionId
    index: int
    envelope_bytes: int
    envelope_sha256: Hash
    leaf_hash: Hash
    tree_size: int
    root: Hash
    path: tuple[Hash, ...]

    def to_json(self) -> dict[str, Any]:
        """The proof as a JSON object."""
        return {
            "version": 1,
            "session_id": self.session_id,
            "index": self.index,
            "envelope_bytes": self.envelope_bytes,
            "envelope_sha256": self.envelope_sha256.hex(),
            "leaf_hash": self.leaf_hash.hex(),
            "tree_size": self.tree_size,
            "root": self.root.hex(),
            "path": [node.hex() for node in self.path],
        }

    def verify(self) -> None:
        """Check the leaf against the envelope's hash, and the path against the root.

        A path fits trees of several sizes, so `tree_size` is not proven by this: `verify_in` is the whole check.

        Raises:
            VerificationError: it is not proven.
        """
        leaf = leaf_hash(chunk_leaf_input(self.session_id, self.index, self.envelope_bytes, self.envelope_sha256))
        if leaf != self.leaf_hash:
            raise VerificationError("the leaf hash is not the hash of this chunk's leaf input")
        verify_inclusion(leaf, self.index, self.tree_size, self.path, self.root)

    def verify_in(self, manifest: Manifest) -> None:
        """Check all of the proof: that the chunk is part of the session that the manifest states.

        Raises:
            VerificationError: it is not proven.
        """
        self.verify()
        if (self.session_id, self.tree_size, self.root) != (manifest.session_id, manifest.chunk_count, manifest.root):
            raise VerificationError("the chunk proof is for another session or tree than the manifest's")


def from_json(value: object) -> ChunkProof:
    """Read a chunk proof from a JSON object.

    Raises:
        ProofFormatError: a member is missing, unknown or of the wrong type.
    """
    members = ("version", *ChunkProof.__dataclass_fields__)
    read = strict.Reader("chunk proof", value, members, ProofFormatError)
    read.integer("version", 1, 1)
    try:
        name = session_id(read.text("session_id"))
    except CoreError as error:
        raise ProofFormatError(str(error)) from error
    return ChunkProof(
        session_id=name,
        index=read.integer("index", 0, MAX_CHUNK_INDEX),
        envelope_bytes=read.integer("envelope_bytes"),
        envelope_sha256=Hash(read.hex("envelope_sha256", HASH_BYTES)),
        leaf_hash=Hash(read.hex("leaf_hash", HASH_BYTES)),
        tree_size=read.integer("tree_size", 1, MAX_CHUNK_INDEX + 1),
        root=Hash(read.hex("root", HASH_BYTES)),
        path=tuple(map(Hash, read.hexes("path", HASH_BYTES))),
    )


def from_bytes(data: bytes | str) -> ChunkProof:
    """Read a chunk proof file.

    Raises:
        ProofFormatError: not a chunk proof.
    """
    return from_json(strict.loads(data, "chunk proof", ProofFormatError))
