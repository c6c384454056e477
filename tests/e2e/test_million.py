"""A session of very many chunks: sealed over HTTP, and one chunk of it proven by reading a few hundred hashes."""

import hashlib
import os
import struct
import time
from collections.abc import Sequence
from typing import Any

import bson
from bson import Binary, Int64
from bson.raw_bson import RawBSONDocument
from pymongo import MongoClient, WriteConcern

from scripts.devstack.stack import Stack
from sessions.core.manifest import Manifest
from sessions.core.manifest import from_bytes as manifest_from_bytes
from sessions.core.proof import ChunkProof
from sessions.core.proof import from_bytes as proof_from_bytes
from sessions.core.types import SessionId
from sessions.storage.evidence import Evidence
from sessions.storage.ledger import Ledger
from sessions.storage.mongo import connect
from sessions.storage.mongo_batches import MongoBatches
from sessions.storage.mongo_chunks import MongoChunks
from sessions.storage.mongo_sessions import MongoSessions, MongoTiles
from sessions.storage.progress import ProgressReader
from sessions.storage.retention import Terms
from sessions.storage.sealing import Sealer
from sessions.storage.store import ChunkRecord
from tests.e2e.conftest import Api, session_name

# In CI everything is measured for coverage, which makes the seal's inner loop several times slower.
CHUNKS = 300_000 if os.environ.get("CI") else 1_000_000
BATCH = 10_000
MAX_HASHES = 1_200
ENVELOPE_BYTES = 1_000
PLAINTEXT_BYTES = 900


def _template(session: str) -> tuple[bytes, list[int]]:
    """The record of a chunk as `MongoChunks` writes it, as BSON, and where index, digest and leaf hash are in it."""
    marks = [struct.pack("<q", 0x1122334455667788), b"d" * 32, b"l" * 32]
    document = {
        "_id": {"s": session, "i": Int64(0x1122334455667788)},
        "plaintext_bytes": Int64(PLAINTEXT_BYTES),
        "envelope_bytes": Int64(ENVELOPE_BYTES),
        "envelope_sha256": Binary(marks[1]),
        "leaf_hash": Binary(marks[2]),
    }
    data = bson.encode(document)
    return data, [data.index(mark) for mark in marks]


def _root(nodes: list[bytes]) -> bytes:
    """RFC 9162's root, level by level: the odd one at the end of a level goes up as it is."""
    while len(nodes) > 1:
        odd = nodes[-1:] if len(nodes) % 2 else []
        pairs = zip(nodes[::2], nodes[1::2], strict=False)
        nodes = [hashlib.sha256(b"\x01" + left + right).digest() for left, right in pairs] + odd
    return nodes[0]


def _fill(collection: Any, session: str) -> bytes:
    """Insert the records of all chunks; the root that they must be sealed with."""
    name, leaves = session.encode(), []
    prefix = b"\x00lucid/chunk/v1\x00" + struct.pack(">H", len(name)) + name
    template, (at_index, at_digest, at_leaf) = _template(session)
    for start in range(0, CHUNKS, BATCH):
        documents = []
        for index in range(start, start + BATCH):
            digest = hashlib.sha256(b"envelope %d" % index).digest()
            leaf = hashlib.sha256(prefix + struct.pack(">QQ", index, ENVELOPE_BYTES) + digest).digest()
            leaves.append(leaf)
            data = bytearray(template)
            struct.pack_into("<q", data, at_index, index)
            data[at_digest : at_digest + 32] = digest
            data[at_leaf : at_leaf + 32] = leaf
            documents.append(RawBSONDocument(bytes(data)))
        collection.insert_many(documents, ordered=False, bypass_document_validation=True)
    return _root(leaves)


class Counting:
    """`ChunkStore` and `TileStore`, counting the hashes that are read through them."""

    def __init__(self, chunks: MongoChunks, tiles: MongoTiles) -> None:
        self._chunks = chunks
        self._tiles = tiles
        self.hashes = 0

    async def page(self, session_id: SessionId, start: int, limit: int) -> list[ChunkRecord]:
        found = await self._chunks.page(session_id, start, limit)
        self.hashes += len(found)
        return found

    async def get(self, session_id: SessionId, attempt: str, level: int, number: int) -> bytes | None:
        found = await self._tiles.get(session_id, attempt, level, number)
        self.hashes += len(found or b"") // 32
        return found


def _check(proof: ChunkProof, manifest: Manifest, index: int) -> None:
    assert (proof.index, proof.tree_size, proof.root) == (index, CHUNKS, manifest.root)
    proof.verify_in(manifest)
    assert len(proof.path) <= 20


async def test_one_proof_reads_few_hashes(stack: Stack, api: Api) -> None:
    session = session_name("million")
    assert api.processor("PUT", f"/api/v1/sessions/{session}", json={}).status_code == 201
    assert api.storage("GET", f"/api/v1/sessions/{session}", "processor").json()["status"] == "open"
    name = stack.env["storage"]["MONGODB_DATABASE"]

    began = time.monotonic()
    with MongoClient(stack.mongodb_url) as client:
        root = _fill(client[name].get_collection("chunks", write_concern=WriteConcern(w=1, j=False)), session)
    filled = time.monotonic()

    sealed = api.storage(
        "POST", f"/api/v1/sessions/{session}/seal", "processor", json={"chunk_count": CHUNKS, "sealed_by": "recorder"}
    )
    seconds = time.monotonic() - filled
    assert sealed.status_code == 200, sealed.text
    print(f"{CHUNKS} records inserted in {filled - began:.1f} s, sealed in {seconds:.1f} s")
    assert sealed.json()["root"] == root.hex()
    manifest = manifest_from_bytes(api.storage("GET", f"/api/v1/sessions/{session}/manifest").content)
    assert manifest.chunk_count == CHUNKS
    assert manifest.envelope_bytes == CHUNKS * ENVELOPE_BYTES

    indexes: Sequence[int] = (
        0,
        255,
        256,
        65_535,
        65_536,
        CHUNKS // 2,
        CHUNKS - 1,
        int.from_bytes(os.urandom(4)) % CHUNKS,
    )
    for index in indexes:
        answer = api.storage("GET", f"/api/v1/sessions/{session}/chunks/{index}/proof")
        assert answer.status_code == 200, answer.text
        _check(proof_from_bytes(answer.content), manifest, index)

    mongo, db = connect(stack.mongodb_url, name)
    async with mongo:
        sessions, chunks, tiles = MongoSessions(db), MongoChunks(db), MongoTiles(db)
        ledger = Ledger(sessions, Sealer(sessions, chunks, tiles), ProgressReader(chunks), MongoBatches(db), Terms())
        most = 0
        for index in indexes:
            counting = Counting(chunks, tiles)
            proof = await Evidence(ledger, counting, chunks, counting).proof(SessionId(session), index)  # type: ignore[arg-type]
            _check(proof, manifest, index)
            most = max(most, counting.hashes)
    print(f"hashes read for one proof: at most {most}")
    assert most <= MAX_HASHES
