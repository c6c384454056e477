"""A session as it lies after recording: envelopes, key ring, and an export of the database, all in files."""

import json
from dataclasses import dataclass
from pathlib import Path

import bson
import pytest
from bson import Binary, Int64

from sessions.core import key_ring, merkle
from sessions.core.envelope import missing_leaf_input
from sessions.core.key_ring import KeyRing
from sessions.core.manifest import Manifest, metadata_sha256
from sessions.core.types import ChunkIndex, SessionId
from sessions.processor import crypt, recovery
from sessions.processor.crypt import SealedChunk
from sessions.processor.keys import Dek, FileKeyWrapper
from sessions.processor.recovery import Recipient, RecoverableWrapper
from sessions.storage.key_documents import key_document

WHEN = "2026-01-31T10:00:00.000Z"


@dataclass
class Recorded:
    """Three chunks of session `s`, sealed."""

    name: SessionId
    chunks: list[bytes]
    sealed: dict[int, SealedChunk]
    ring: KeyRing
    manifest: Manifest
    private: Path
    envelopes: Path
    ring_file: Path
    dump: Path


def manifest_of(name: SessionId, sealed: dict[int, SealedChunk], count: int) -> Manifest:
    """The manifest of these chunks; those up to `count` that are not there are missing."""
    leaves = [
        sealed[index].fingerprint.leaf_hash if index in sealed else merkle.leaf_hash(missing_leaf_input(name, index))
        for index in range(count)
    ]
    return Manifest(
        session_id=name,
        chunk_count=count,
        missing=tuple((index, index) for index in range(count) if index not in sealed),
        plaintext_bytes=sum(one.plaintext_bytes for one in sealed.values()),
        envelope_bytes=sum(one.fingerprint.envelope_bytes for one in sealed.values()),
        root=merkle.root(leaves),
        opened_at=WHEN,
        sealed_at=WHEN,
        sealed_by="recorder",
        metadata_sha256=metadata_sha256({}),
    )


def documents(recorded: Recorded, manifest: bytes | None, status: str = "sealed") -> dict[str, list[dict]]:
    """The documents of all collections; another session's lie around them."""
    session = {"_id": recorded.name, "status": status, "keys": [key_document(key) for key in recorded.ring.keys]}
    if manifest is not None:
        session["manifest"] = Binary(manifest)
    chunks, bodies = [], []
    for index, one in sorted(recorded.sealed.items(), reverse=True):
        digest, half = one.fingerprint.envelope_sha256, len(one.envelope) // 2
        chunks.append({"_id": {"s": recorded.name, "i": Int64(index)}, "envelope_sha256": Binary(digest)})
        key = {"s": recorded.name, "i": Int64(index), "e": Binary(digest[:16])}
        bodies.append({"_id": {**key, "p": 1}, "data": Binary(one.envelope[half:])})
        bodies.append({"_id": {**key, "p": 0}, "data": Binary(one.envelope[:half])})
        bodies.append({"_id": {**key, "e": Binary(bytes(16)), "p": 0}, "data": Binary(b"of one that came second")})
        bodies.append({"_id": {**key, "s": "other", "p": 0}, "data": Binary(b"of another session")})
    others = [{"_id": "other", "status": "open", "keys": []}]
    return {"sessions": [*others, session], "chunks": chunks, "bodies": bodies, "anchors": [{"_id": 1}]}


def write_dump(recorded: Recorded, manifest: bytes | None) -> None:
    """An export as mongodump makes it."""
    for name, found in documents(recorded, manifest).items():
        (recorded.dump / f"{name}.bson").write_bytes(b"".join(map(bson.encode, found)))


def make(folder: Path) -> Recorded:
    """Record it into files."""
    name, chunks = SessionId("s"), [b"first ", b"second ", b"last"]
    private, public = recovery.generate()
    wrapper = RecoverableWrapper(FileKeyWrapper({"k": bytes(32)}), Recipient(public))
    deks = [Dek.generate(), Dek.generate()]
    ring = KeyRing(name, tuple(wrapper.wrap(name, dek) for dek in deks))
    # As after a restore of the database to before the session: the second key sealed what came later.
    sealed = {
        index: crypt.seal(deks[index == 2], name, ChunkIndex(index), chunk, 3) for index, chunk in enumerate(chunks)
    }
    manifest = manifest_of(name, sealed, len(chunks))
    one = Recorded(
        name,
        chunks,
        sealed,
        ring,
        manifest,
        folder / "private",
        folder / "envelopes",
        folder / "ring.json",
        folder / "dump",
    )
    one.private.write_text(private + "\n")
    one.ring_file.write_text(json.dumps(key_ring.to_json(ring)))
    one.envelopes.mkdir()
    for index, chunk in sealed.items():
        (one.envelopes / f"{index:012d}.lse").write_bytes(chunk.envelope)
    (one.envelopes / "leaf-hashes.txt").write_text("")
    one.dump.mkdir()
    write_dump(one, manifest.to_bytes())
    return one


@pytest.fixture
def recorded(tmp_path: Path) -> Recorded:
    folder = tmp_path / "recorded"
    folder.mkdir()
    return make(folder)
