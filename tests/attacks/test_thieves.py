"""Who carries off a disk, a dump or a host, and looks for recordings and keys in it."""

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import bson
import httpx
import pytest

from scripts.devstack.stack import Stack
from sessions.core.types import SessionId
from sessions.processor import crypt
from sessions.processor.keys import Dek
from sessions.storage.key_documents import key_of
from tests.attacks import loot
from tests.attacks.hands import Hands
from tests.e2e.conftest import Api, session_name

CHUNKS = 4


class Booty:
    """A recorded session, and what nobody but the processor may know of it."""

    def __init__(self, stack: Stack, api: Api, hands: Hands) -> None:
        self.name = session_name("booty")
        self.plain = {f"plaintext {index}": os.urandom(32) for index in range(CHUNKS)}
        self.chunks = [loot.marked(secret) for secret in self.plain.values()]
        api.record(self.name, self.chunks)
        self.document = hands.session(self.name)
        self.envelope = hands.body(self.name, 0)
        self.keys = {"DEK": loot.dek(stack, self.document), "KEK": loot.kek(stack)}
        self.secrets = self.plain | self.keys
        self.traces = {"envelope": self.envelope[-48:]}


@pytest.fixture(scope="module")
def booty(stack: Stack, api: Api, hands: Hands) -> Booty:
    return Booty(stack, api, hands)


def _dump(hands: Hands) -> dict[str, list[dict[str, Any]]]:
    """All documents of all collections."""
    return {name: list(hands.db[name].find()) for name in hands.db.list_collection_names()}


def _flushed(hands: Hands) -> None:
    hands.db.client.admin.command("fsync")


def test_a_disk_without_its_secrets(stack: Stack, api: Api, hands: Hands, booty: Booty) -> None:
    assert api.processor("GET", f"/api/v1/sessions/{booty.name}/content", "replay").status_code == 200
    _flushed(hands)
    disk = [path for path in stack.folder.iterdir() if path.name not in ("secrets", "stack.json")]
    assert {"mongo", "processor.log", "storage.log", "mongod.log"} <= {path.name for path in disk}
    tokens = {f"token {role}": token.encode() for role, token in stack.tokens.items()}
    publisher_key = bytes.fromhex(stack.anvil.accounts[1][1][2:])
    wanted = booty.secrets | booty.traces | tokens | {"chain key": publisher_key}
    # anvil's own files hold all its accounts, which is why it is for trying out.
    files = loot.file_blocks(*(path for path in disk if path.name not in ("chain", "anvil.log")))
    assert loot.found(wanted, files) == {"envelope"}  # which shows that the search finds


def test_a_disk_with_its_secrets(stack: Stack, hands: Hands, booty: Booty) -> None:
    """One Pi with one SSD: whoever has it reads."""
    (key,) = booty.document["keys"]
    opened = loot.wrapper(stack).unwrap(SessionId(booty.name), key_of(key))
    read = [crypt.open_envelope(opened, SessionId(booty.name), i, hands.body(booty.name, i)) for i in range(CHUNKS)]
    assert read == booty.chunks
    names = {path.name for path in (stack.folder / "secrets").iterdir()}
    assert {"kek", "publisher-key", "storage-token"} <= names


def test_a_dump_has_no_plaintext_and_no_key(hands: Hands, booty: Booty) -> None:
    documents = _dump(hands)
    assert {"sessions", "chunks", "bodies", "batches"} <= documents.keys()
    blocks = (bson.encode(document) for found in documents.values() for document in found)
    assert loot.found(booty.secrets | booty.traces, blocks) == {"envelope"}
    assert loot.opens(booty.keys["DEK"], booty.envelope)
    # All that could be a key: of bodies, which are many and long, those of this session are enough.
    documents["bodies"] = [one for one in documents["bodies"] if one["_id"]["s"] == booty.name]
    tried = {key for found in documents.values() for document in found for key in loot.candidates(document)}
    assert len(tried) > 1000
    assert bytes(booty.document["keys"][0]["wrapped"][21:53]) in tried
    assert [key.hex() for key in tried if loot.opens(key, booty.envelope)] == []


@contextmanager
def _serving(api: Api, booty: Booty) -> Iterator[None]:
    """Record and replay all the while."""
    over = threading.Event()
    errors: list[str] = []

    def work() -> None:
        one, busy, index = Api(api.stack), session_name("busy"), 0
        while not over.is_set():
            answers = [
                one.put_chunk(busy, index, os.urandom(1000)),
                one.processor("GET", f"/api/v1/sessions/{booty.name}/content", "replay"),
                one.storage("GET", f"/api/v1/sessions/{booty.name}/chunks/0/envelope"),
            ]
            errors.extend(answer.text for answer in answers if not answer.is_success)
            index += 1
        one.close()

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
    assert errors == []


def _own(stack: Stack, part: str) -> Iterator[bytes]:
    """Environment, command line and files that a service is given."""
    running = stack.services[part]
    for file in ("environ", "cmdline"):
        yield Path(f"/proc/{running.pid}/{file}").read_bytes()
    for setting, value in stack.env[part].items():
        if setting.endswith("_FILE"):
            yield Path(value).read_bytes()


def test_a_storage_host(stack: Stack, api: Api, hands: Hands, booty: Booty) -> None:
    assert loot.found(booty.secrets, _own(stack, "storage")) == set()
    running = stack.services["storage"]
    with _serving(api, booty):
        for _ in range(3):  # what is held for a moment only
            assert loot.found(booty.secrets, loot.memory_blocks(running.pid)) == set()
    # It is in this memory that its work is done.
    mark = {"wrapped": bytes(booty.document["keys"][0]["wrapped"]), "session": booty.name.encode()}
    with _serving(api, booty):
        assert "session" in loot.found(mark | booty.traces, loot.memory_blocks(running.pid))
    chain_key = bytes.fromhex(stack.anvil.accounts[1][1][2:])
    assert loot.found({"chain key": chain_key}, _own(stack, "storage")) == {"chain key"}


def test_a_processor_host(stack: Stack, api: Api, booty: Booty) -> None:
    """It has the keys, and the chunks that pass; but not the chain's key."""
    assert "KEK" in loot.found(booty.secrets, _own(stack, "processor"))
    running = stack.services["processor"]
    chain_key = {"chain key": bytes.fromhex(stack.anvil.accounts[1][1][2:])}
    assert loot.found(chain_key, _own(stack, "processor")) == set()
    seen: set[str] = set()
    with _serving(api, booty):
        for _ in range(10):  # a chunk is there for a moment only
            seen |= loot.found(booty.secrets | chain_key, loot.memory_blocks(running.pid))
            if "DEK" in seen and seen & booty.plain.keys():
                break
    assert "DEK" in seen
    assert seen & booty.plain.keys()
    assert "chain key" not in seen
    # What it has opens storage to it, and so all recordings.
    token = (stack.folder / "secrets" / "storage-token").read_text().strip()
    headers = {"authorization": f"Bearer {token}"}
    view = httpx.get(f"{stack.storage_url}/api/v1/sessions/{booty.name}", headers=headers).json()
    (key,) = view["keys"]
    assert key["kek_id"] == "stack-1"
    opened = Dek(crypt.envelope.parse(booty.envelope).header.dek_id, booty.keys["DEK"])
    assert crypt.open_envelope(opened, SessionId(booty.name), 0, booty.envelope) == booty.chunks[0]
