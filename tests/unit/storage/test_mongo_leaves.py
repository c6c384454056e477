"""Leaves out of raw BSON, by layout and the long way."""

import os

import bson
import pytest
from bson import Binary, Int64

from sessions.core.types import MAX_CHUNK_INDEX, SessionId
from sessions.storage import mongo_leaves
from sessions.storage.chunk_records import Leaves
from sessions.storage.mongo_chunks import MongoChunks
from tests.unit.storage.chunks import new_chunk


def _batch(*indexes: int, session: str = "a", **changes: object) -> bytes:
    documents = []
    for index in indexes:
        document = MongoChunks._document(new_chunk(session, index, bytes(index % 50)))
        del document["envelope_sha256"]
        documents.append(document | changes)
    return b"".join(map(bson.encode, documents))


def _expected(*indexes: int, session: str = "a") -> Leaves:
    chunks = [new_chunk(session, index, bytes(index % 50)) for index in indexes]
    return Leaves(
        list(indexes),
        [chunk.fingerprint.leaf_hash for chunk in chunks],
        sum(chunk.plaintext_bytes for chunk in chunks),
        sum(len(chunk.envelope) for chunk in chunks),
    )


@pytest.mark.parametrize("session", ["a", "long" * 32, "sealing-0-1000000"])
def test_what_we_write_is_read_by_its_layout(session: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mongo_leaves, "_decoded", None)
    batches = [_batch(0, 1, 2, session=session), _batch(7, MAX_CHUNK_INDEX, session=session)]
    found = mongo_leaves.leaves(SessionId(session), batches)
    assert found == _expected(0, 1, 2, 7, MAX_CHUNK_INDEX, session=session)


@pytest.mark.parametrize(
    "odd",
    [
        _batch(3, plaintext_bytes=3),  # a number of 32 bits
        _batch(3, more=1),
        _batch(3, leaf_hash=Binary(new_chunk("a", 3, bytes(3)).fingerprint.leaf_hash, 5)),  # as long, of another kind
        bson.encode({"leaf_hash": b"", **bson.decode(_batch(3))}),  # in another order
    ],
)
def test_what_is_laid_out_otherwise_is_read_all_the_same(odd: bytes) -> None:
    assert mongo_leaves.leaves(SessionId("a"), [_batch(2) + odd, _batch(4)]) == _expected(2, 3, 4)


def test_bytes_that_look_like_a_mark_are_what_they_are() -> None:
    document = {
        "_id": {"s": "a", "i": Int64(5)},
        "plaintext_bytes": Int64(mongo_leaves._NUMBERS[0]),
        "envelope_bytes": Int64(mongo_leaves._NUMBERS[1]),
        "leaf_hash": Binary(leaf := os.urandom(32)),
    }
    found = mongo_leaves.leaves(SessionId("a"), [bson.encode(document)])
    assert found == Leaves([5], [leaf], mongo_leaves._NUMBERS[0], mongo_leaves._NUMBERS[1])


def test_nothing() -> None:
    assert mongo_leaves.leaves(SessionId("a"), []) == Leaves([], [], 0, 0)
    assert mongo_leaves.leaves(SessionId("a"), [b""]) == Leaves([], [], 0, 0)
