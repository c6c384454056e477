"""A session of very many chunks: sealed over HTTP, and one chunk of it proven by reading a few hundred hashes."""

import os
import time
from collections.abc import Collection, Mapping, Sequence

from pymongo import MongoClient, WriteConcern

from scripts.devstack.filling import ENVELOPE_BYTES, fill
from scripts.devstack.stack import Stack
from sessions.core.manifest import Manifest
from sessions.core.manifest import from_bytes as manifest_from_bytes
from sessions.core.proof import ChunkProof
from sessions.core.proof import from_bytes as proof_from_bytes
from sessions.core.tiles import Place
from sessions.core.types import SessionId
from sessions.storage import replicas
from sessions.storage.chunk_records import ChunkRecord, Leaves
from sessions.storage.evidence import Evidence
from sessions.storage.ledger import Ledger
from sessions.storage.mongo import connect
from sessions.storage.mongo_batches import MongoBatches
from sessions.storage.mongo_chunks import MongoChunks
from sessions.storage.mongo_sessions import MongoSessions
from sessions.storage.mongo_tiles import MongoTiles
from sessions.storage.progress import ProgressReader
from sessions.storage.retention import Terms
from sessions.storage.sealing import Sealer
from tests.e2e.conftest import Api, session_name

# In CI everything is measured for coverage, which makes the seal's inner loop several times slower.
CHUNKS = 300_000 if os.environ.get("CI") else 1_000_000
MAX_HASHES = 1_200


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

    async def leaves(self, session_id: SessionId, start: int, limit: int) -> Leaves:
        found = await self._chunks.leaves(session_id, start, limit)
        self.hashes += len(found.hashes)
        return found

    async def get(self, session_id: SessionId, attempt: str, places: Collection[Place]) -> Mapping[Place, bytes]:
        found = await self._tiles.get(session_id, attempt, places)
        self.hashes += sum(len(hashes) for hashes in found.values()) // 32
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
        root = fill(client[name].get_collection("chunks", write_concern=WriteConcern(w=1, j=False)), session, CHUNKS)
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
        sealer = Sealer(sessions, chunks, tiles)
        desk = replicas.build(db, sessions, sealer, 0, 3600).desk
        ledger = Ledger(sessions, sealer, desk, ProgressReader(chunks), batches=MongoBatches(db), terms=Terms())
        most = 0
        for index in indexes:
            counting = Counting(chunks, tiles)
            proof = await Evidence(ledger, counting, chunks, counting).proof(SessionId(session), index)  # type: ignore[arg-type]
            _check(proof, manifest, index)
            most = max(most, counting.hashes)
    print(f"hashes read for one proof: at most {most}")
    assert most <= MAX_HASHES
