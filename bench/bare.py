"""The bare loop: what must be done to a chunk in any case, from threads, without HTTP, sessions, indexes or proofs.

zstd level 3, AES-256-GCM, SHA-256, one journaled insert into MongoDB. `python -m bench.bare`, told in JSON on standard
input what to do.
"""

import hashlib
import itertools
import json
import os
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final

import zstandard
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from pymongo import MongoClient, WriteConcern

from bench import corpus

_DATABASE: Final = "lucid_bench_bare"


def _collection(client: "MongoClient[dict[str, Any]]") -> Any:
    return client[_DATABASE].get_collection("chunks", write_concern=WriteConcern(w=1, j=True))


def full(client: "MongoClient[dict[str, Any]]", content: bytes, chunk_bytes: int, sessions: int) -> dict[str, Any]:
    """All chunks, in as many threads as there are sessions, one chunk of each at a time."""
    collection, key = _collection(client), AESGCM(os.urandom(32))
    shares = corpus.cut(content, chunk_bytes, sessions)

    def session(number: int, chunks: list[memoryview]) -> list[float]:
        compressor, taken = zstandard.ZstdCompressor(level=3), []
        for index, chunk in enumerate(chunks):
            began = time.perf_counter()
            nonce = os.urandom(12)
            body = nonce + key.encrypt(nonce, compressor.compress(chunk), None)
            document = {"_id": {"s": number, "i": index}, "sha256": hashlib.sha256(body).digest(), "body": body}
            collection.insert_one(document)
            taken.append(time.perf_counter() - began)
        return taken

    began = time.perf_counter()
    with ThreadPoolExecutor(len(shares)) as pool:
        taken = list(itertools.chain.from_iterable(pool.map(session, range(len(shares)), shares)))
    return {"seconds": time.perf_counter() - began, "bytes": len(content), "chunks": len(taken), "latencies": taken}


def paced(client: "MongoClient[dict[str, Any]]", content: bytes, chunk_bytes: int, plan: Any) -> dict[str, Any]:
    """Nothing but the insert, of bytes that are there already, so many a second, one after the other."""
    collection, taken = _collection(client), []
    gap, begin = 1 / plan["per_second"], time.perf_counter()
    for number in range(int(plan["seconds"] * plan["per_second"])):
        time.sleep(max(0.0, begin + number * gap - time.perf_counter()))
        at = number * 4096 % (len(content) - chunk_bytes)
        body = content[at : at + chunk_bytes]
        began = time.perf_counter()
        collection.insert_one({"_id": {"s": "paced", "i": number}, "body": body})
        taken.append(time.perf_counter() - began)
    return {"seconds": time.perf_counter() - begin, "chunks": len(taken), "latencies": taken}


def main() -> None:
    """Read what to do, do it on an empty collection, print what it took."""
    order = json.load(sys.stdin)
    content = b"".join(Path(path).read_bytes() for path in order["files"])
    with MongoClient[dict[str, Any]](order["mongodb_url"]) as client:
        client.drop_database(_DATABASE)
        client[_DATABASE].create_collection(
            "chunks", storageEngine={"wiredTiger": {"configString": "block_compressor=none"}}
        )
        if order.get("plan"):
            outcome = paced(client, content, order["chunk_bytes"], order["plan"])
        else:
            outcome = full(client, content, order["chunk_bytes"], order["sessions"])
        client.drop_database(_DATABASE)
    json.dump(outcome, sys.stdout)


if __name__ == "__main__":
    main()
