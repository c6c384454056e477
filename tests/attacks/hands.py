"""Somebody with a hand in the database, who knows the formats as well as we do."""

from dataclasses import dataclass, replace
from typing import Any

from bson import Binary, Int64
from pymongo.database import Database

from sessions.core import manifest as manifests
from sessions.core.envelope import fingerprint
from sessions.core.manifest import Manifest
from sessions.core.merkle import root
from sessions.core.types import ChunkIndex, Hash, SessionId
from sessions.processor import crypt
from sessions.processor.keys import Dek
from sessions.storage.mongo_lists import summary_document
from sessions.storage.seal_summary import summary_of


@dataclass
class Hands:
    """Writes to the collections directly, past session-storage. Bodies have one part here."""

    db: Database

    def session(self, name: str) -> dict[str, Any]:
        document = self.db["sessions"].find_one({"_id": name})
        assert document is not None
        return document

    def record(self, name: str, index: int) -> dict[str, Any]:
        document = self.db["chunks"].find_one({"_id": {"s": name, "i": Int64(index)}})
        assert document is not None
        return document

    def body(self, name: str, index: int) -> bytes:
        digest = Binary(self.record(name, index)["envelope_sha256"][:16])
        document = self.db["bodies"].find_one({"_id": {"s": name, "i": Int64(index), "e": digest, "p": 0}})
        assert document is not None
        return bytes(document["data"])

    def overwrite(self, name: str, index: int, data: bytes) -> None:
        """Change the bytes of a body and nothing else."""
        changed = self.db["bodies"].update_one({"_id.s": name, "_id.i": index}, {"$set": {"data": Binary(data)}})
        assert changed.modified_count == 1

    def drop(self, name: str, index: int, *collections: str) -> None:
        for collection in collections or ("chunks", "bodies"):
            assert self.db[collection].delete_many({"_id.s": name, "_id.i": index}).deleted_count == 1

    def alter(self, name: str, index: int, **fields: Any) -> None:
        """Change fields of a record."""
        changed = self.db["chunks"].update_one({"_id": {"s": name, "i": Int64(index)}}, {"$set": fields})
        assert changed.modified_count == 1

    def put(self, name: str, index: int, data: bytes, plaintext_bytes: int) -> None:
        """Put an envelope in the place of another, with a record that fits it."""
        marks = fingerprint(SessionId(name), index, data)
        self.drop(name, index)
        place = {"s": name, "i": Int64(index)}
        self.db["chunks"].insert_one(
            {
                "_id": place,
                "plaintext_bytes": Int64(plaintext_bytes),
                "envelope_bytes": Int64(marks.envelope_bytes),
                "envelope_sha256": Binary(marks.envelope_sha256),
                "leaf_hash": Binary(marks.leaf_hash),
            }
        )
        key = {**place, "e": Binary(marks.envelope_sha256[:16]), "p": 0}
        self.db["bodies"].insert_one({"_id": key, "data": Binary(data)})

    def forge(self, name: str, index: int, key: Dek, plaintext: bytes) -> bytes:
        """With the session's key: put a chunk of one's own in the place of another; gives its envelope."""
        sealed = crypt.seal(key, SessionId(name), ChunkIndex(index), plaintext, 3)
        self.put(name, index, sealed.envelope, len(plaintext))
        return sealed.envelope

    def manifest(self, name: str) -> Manifest:
        return manifests.from_bytes(bytes(self.session(name)["manifest"]))

    def agree(self, name: str, **fields: Any) -> Manifest:
        """Make manifest and batch agree with the records: all in the database is consistent then."""
        records = list(self.db["chunks"].find({"_id.s": name}).sort("_id", 1))
        assert len(records) < 256  # so there are no tiles
        forged = replace(
            self.manifest(name),
            chunk_count=len(records),
            plaintext_bytes=sum(int(one["plaintext_bytes"]) for one in records),
            envelope_bytes=sum(int(one["envelope_bytes"]) for one in records),
            root=root([Hash(bytes(one["leaf_hash"])) for one in records]),
            **fields,
        )
        batch_root = Binary(forged.leaf_hash())
        batch = self.session(name)["batch"] | {"root": batch_root, "size": 1, "index": 0, "path": []}
        summary = summary_document(summary_of(forged))
        document = {"manifest": Binary(forged.to_bytes()), "seal_summary": summary, "batch": batch}
        self.db["sessions"].update_one({"_id": name}, {"$set": document})
        members = {"root": batch_root, "size": 1, "sessions": [name], "leaves": batch_root}
        self.db["batches"].update_one({"_id": batch["sequence"]}, {"$set": members})
        return forged
