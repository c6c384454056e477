"""Very many chunks of a session, put into MongoDB at once: their records alone, which are all that a seal reads."""

import hashlib
import struct
from typing import Any, Final

import bson
from bson import Binary, Int64
from bson.raw_bson import RawBSONDocument

ENVELOPE_BYTES: Final = 1_000
PLAINTEXT_BYTES: Final = 900
_BATCH: Final = 10_000


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


def fill(collection: Any, session: str, count: int) -> bytes:
    """Insert the records of `count` chunks; the root that they must be sealed with."""
    name, leaves = session.encode(), []
    prefix = b"\x00lucid/chunk/v1\x00" + struct.pack(">H", len(name)) + name
    template, (at_index, at_digest, at_leaf) = _template(session)
    for start in range(0, count, _BATCH):
        documents = []
        for index in range(start, min(start + _BATCH, count)):
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
