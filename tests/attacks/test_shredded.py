"""After shredding: the plaintext and its key are nowhere; what proves the session is where it was.

Searched are all files of MongoDB, the logs and metrics of both services, and the memory of both. The same search finds
all of it where it is to be found before.
"""

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from bson import Int64
from pymongo import MongoClient

from scripts.devstack.mongod import Mongod
from scripts.devstack.stack import Stack
from tests.attacks import loot
from tests.attacks.conftest import attacked, fetch_envelopes, receipt_of
from tests.attacks.hands import Hands
from tests.conftest import Figure
from tests.e2e.conftest import Api
from tests.e2e.test_cli import Shell

NAME = "shredded-session"
MIB = 1024 * 1024
COLLECTIONS = ("sessions", "chunks", "bodies", "tiles", "batches")


@dataclass
class Shredded:
    """A session that was recorded, anchored, replayed and shredded, and what was seen on the way."""

    stack: Stack
    api: Api
    hands: Hands
    folder: Path
    secrets: dict[str, bytes]
    traces: dict[str, bytes]
    receipt: bytes
    chunks: dict[str, Any]
    envelopes: Path
    seen_before: dict[str, set[str]]
    left_in_files: dict[str, set[str]]

    def files(self) -> set[str]:
        """What MongoDB's files hold, after a checkpoint."""
        self.hands.db.client.admin.command("fsync")
        return loot.found(self.secrets | self.traces, loot.file_blocks(self.stack.folder / "mongo"))


@pytest.fixture(scope="module")
def shredded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shredded]:
    with attacked(tmp_path_factory.mktemp("shredded")) as stack, MongoClient(stack.mongodb_url) as client:
        api = Api(stack)
        hands = Hands(client[stack.env["storage"]["MONGODB_DATABASE"]])
        yield _shred(stack, api, hands, tmp_path_factory.mktemp("recorder"))
        api.close()


def _shred(stack: Stack, api: Api, hands: Hands, folder: Path) -> Shredded:
    plain = {f"plaintext {index}": os.urandom(32) for index in range(3)}
    # More than the sockets hold, so that a replay whose reader pauses has some in memory; and a small one.
    contents = [loot.marked(one) + os.urandom(MIB - 500) for _ in range(4) for one in plain.values()]
    contents[-1] = loot.marked(plain["plaintext 2"])
    (folder / "recording").write_bytes(b"".join(contents))
    opened = api.processor("PUT", f"/api/v1/sessions/{NAME}", json={"metadata": {"desk": "desk-17"}})
    assert opened.status_code == 201
    api.record(NAME, contents)
    document = hands.session(NAME)
    secrets = plain | {"DEK": loot.dek(stack, document)}
    traces = {
        "wrapped key": bytes(document["keys"][0]["wrapped"]),
        **{f"envelope {index}": hands.body(NAME, index)[-64:] for index in (0, 11)},
    }
    one = Shredded(stack, api, hands, folder, secrets, traces, b"", {}, folder, {}, {})
    one.receipt = receipt_of(api, NAME)
    one.envelopes = fetch_envelopes(api, NAME, 12, folder / "envelopes")
    one.chunks = api.storage("GET", f"/api/v1/sessions/{NAME}/chunks").json()
    one.seen_before = {
        "recorder's file": loot.found(secrets, loot.file_blocks(folder / "recording")),
        "processor": _replay(one),
        "files": one.files(),
    }
    assert api.processor("DELETE", f"/api/v1/sessions/{NAME}", "admin").status_code == 200
    one.left_in_files["shredded"] = one.files()
    stack.restart("processor")
    for collection in COLLECTIONS:
        hands.db.command("compact", collection)
    one.left_in_files["compacted"] = one.files()
    return one


def _replay(one: Shredded) -> set[str]:
    """Replay it once, and look into the processor's memory when it has begun to send."""
    url = f"{one.stack.processor_url}/api/v1/sessions/{NAME}/content"
    headers, got, seen = {"authorization": f"Bearer {one.api.token('replay')}"}, b"", set[str]()
    with httpx.stream("GET", url, headers=headers, timeout=60) as answer:
        for part in answer.iter_raw():
            got += part
            if not seen:
                seen = loot.found(one.secrets, loot.memory_blocks(one.stack.services["processor"].pid))
    assert got == (one.folder / "recording").read_bytes()
    return seen


def test_the_search_finds_what_is_there(shredded: Shredded) -> None:
    before = shredded.seen_before
    plain = shredded.secrets.keys() - {"DEK"}
    assert before["recorder's file"] == plain
    assert "DEK" in before["processor"]
    assert before["processor"] & plain
    # MongoDB's files had the ciphertext and the wrapped key, and never more.
    assert before["files"] == shredded.traces.keys()


def test_plaintext_and_key_are_in_no_file(shredded: Shredded) -> None:
    for found in (*shredded.left_in_files.values(), shredded.files()):
        assert found <= shredded.traces.keys()
    # Logs, and whatever else the services write; the secrets stay what they are.
    others = [path for path in shredded.stack.folder.iterdir() if path.name not in ("mongo", "secrets")]
    assert {path.name for path in others} >= {"processor.log", "storage.log", "mongod.log"}
    assert NAME in shredded.stack.log("processor").read_text()
    assert loot.found(shredded.secrets, loot.file_blocks(*others)) == set()


def test_plaintext_and_key_are_in_no_memory_and_no_metric(shredded: Shredded) -> None:
    # Work, so that what comes up again would be there.
    assert shredded.api.processor("GET", f"/api/v1/sessions/{NAME}/content", "replay").status_code == 410
    for part, running in shredded.stack.services.items():
        assert loot.found(shredded.secrets, loot.memory_blocks(running.pid)) == set(), part
    shown = [ask("GET", "/metrics", None).content for ask in (shredded.api.processor, shredded.api.storage)]
    assert all(b"lucid_" in one for one in shown)
    assert loot.found(shredded.secrets, shown) == set()


def test_the_collections_hold_no_ciphertext_and_no_wrapped_key(
    shredded: Shredded, tmp_path: Path, figure: Figure
) -> None:
    """What MongoDB's own files hold beyond that are free blocks and a journal: a copy of the collections has neither."""
    database = shredded.hands.db
    assert database["bodies"].count_documents({"_id.s": NAME}) == 0
    assert shredded.hands.session(NAME)["keys"] == []
    left = {when: sorted(found) for when, found in shredded.left_in_files.items()}
    figure(f"of ciphertext MongoDB's files still hold after shredding: {left}")
    fresh = Mongod(tmp_path / "mongo")
    fresh.start()
    try:
        with MongoClient(fresh.url) as client:
            for collection in COLLECTIONS:
                if documents := list(database[collection].find()):
                    client["copy"][collection].insert_many(documents)
            client.admin.command("fsync")
            mark = {"leaf hash": bytes(shredded.hands.record(NAME, 0)["leaf_hash"])}
            everything = shredded.secrets | shredded.traces | mark
            assert loot.found(everything, loot.file_blocks(tmp_path / "mongo")) == {"leaf hash"}
    finally:
        fresh.stop()


def test_what_proves_it_stays(shredded: Shredded, tmp_path: Path) -> None:
    stack, api, path = shredded.stack, shredded.api, f"/api/v1/sessions/{NAME}"
    assert api.storage("GET", f"{path}/receipt").content == shredded.receipt
    assert api.storage("GET", f"{path}/manifest").status_code == 200
    assert api.storage("GET", f"{path}/chunks").json() == shredded.chunks
    assert len(shredded.chunks["chunks"]) == 12
    assert bytes(shredded.hands.session(NAME)["metadata"]) == b'{"desk":"desk-17"}'
    file = tmp_path / "receipt.json"
    file.write_bytes(shredded.receipt)
    shown = Shell(stack)(
        *("verify", file, "--recording-envelopes", shredded.envelopes, "--rpc", stack.rpc_url),
        *("--publisher", stack.publisher, "--contract", stack.contract, "--json"),
        urls=False,
    )
    assert json.loads(shown.stdout)["verdict"] == "proven"
    for what in ("content", "chunks/0"):
        answer = api.processor("GET", f"{path}/{what}", "replay")
        assert (answer.status_code, answer.json()["code"]) == (410, "session-shredded")
        assert answer.json()["shredded_by"] == "stack-admin"
    answer = api.storage("GET", f"{path}/chunks/0/envelope")
    assert (answer.status_code, answer.json()["code"]) == (410, "session-shredded")
    assert shredded.hands.db["chunks"].count_documents({"_id.s": NAME, "_id.i": {"$gte": Int64(0)}}) == 12
