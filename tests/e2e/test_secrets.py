"""Secrets at work: what both services say while they record, refuse and fail holds none of them, nor has an object's repr."""

import base64
import traceback
from collections.abc import Iterator
from pathlib import Path
from secrets import token_hex

import pytest
from bson import Binary
from pymongo import MongoClient

from scripts.devstack import leaks
from scripts.devstack.leaks import Secret
from scripts.devstack.stack import Stack
from sessions.client import Client
from sessions.core.types import SessionId
from sessions.processor import recovery
from sessions.processor.key_files import load_keks
from sessions.processor.keys import Dek
from sessions.processor.settings import ProcessorSettings
from sessions.runtime.errors import DomainError
from sessions.runtime.tokens import load_tokens
from sessions.storage.settings import StorageSettings
from tests.altering import altered_end
from tests.e2e.conftest import Api, session_name


@pytest.fixture(scope="module")
def planted(stack: Stack) -> list[Secret]:
    """The stack's secrets, and a recording that nobody but its reader may see."""
    kek = base64.b64decode((stack.folder / "secrets" / "kek").read_text().partition(":")[2])
    publisher = bytes.fromhex((stack.folder / "secrets" / "publisher-key").read_text().strip().removeprefix("0x"))
    made = [Secret(f"token of {role}", token.encode()) for role, token in stack.tokens.items()]
    made += [Secret("KEK", kek), Secret("publisher key", publisher)]
    made.append(Secret("recorded plaintext", f"marked-{token_hex(16)}".encode()))
    for one in made:
        leaks.register(one.name, one.value)
    return made


@pytest.fixture
def altered(stack: Stack) -> Iterator[MongoClient]:
    with MongoClient(stack.mongodb_url) as client:
        yield client[stack.env["storage"]["MONGODB_DATABASE"]]


def test_recording_refusing_and_failing(stack: Stack, api: Api, altered, planted: list[Secret], tmp_path: Path) -> None:
    marked, name = planted[-1].value, session_name("marked")
    lucid = {"session_id": name, "chunk_id": f"{name}-chunk-x", "chunk_data_base64": base64.b64encode(marked).decode()}
    path = f"/api/v1/sessions/{name}"
    token = stack.tokens["record"]
    assert api.put_chunk(name, 0, marked).status_code == 201
    assert api.put_chunk(name, 1, marked * 100).status_code == 201
    said = [
        api.put_chunk(name, 0, marked),
        api.put_chunk(name, 0, marked + b"!"),
        api.put_chunk(name, 2, marked, headers={"content-digest": "sha-256=:AAAA:"}),
        api.processor("POST", "/api/v1/chunks/process", json=lucid),
        api.processor("POST", "/api/v1/chunks/process", json={**lucid, "chunk_data_base64": marked.decode()}),
        api.processor("POST", "/api/v1/chunks/process", content=marked),
        api.processor("PUT", path, content=marked, headers={"content-type": "application/json"}),
        api.processor("POST", f"{path}/seal", json={"chunk_count": 9}),
        api.processor("PUT", path, None, headers={"authorization": f"Basic {token}"}),
        api.processor("PUT", path, None, headers={"authorization": f"Bearer {token}x"}),
        api.processor("DELETE", path, "record"),
        api.storage("GET", path, "record"),
        api.storage("POST", "/api/v1/envelopes", "processor", content=marked),
    ]
    (body,) = altered["bodies"].find({"_id.s": name, "_id.i": 1})
    altered["bodies"].update_one({"_id": body["_id"]}, {"$set": {"data": Binary(altered_end(body["data"]))}})
    said += [
        api.processor("GET", f"{path}/chunks/1", "replay"),
        api.processor("GET", "/metrics", None),
        api.storage("GET", "/metrics", None),
        api.processor("GET", "/health", None),
        api.storage("GET", "/health", None),
        api.processor("GET", "/api/v1/keys", "admin"),
    ]
    assert {answer.status_code for answer in said} >= {200, 400, 401, 403, 409}
    log = tmp_path / "said.log"
    log.write_bytes(b"\n".join(str(answer.headers).encode() + answer.content for answer in said))
    assert leaks.find(planted, [log, stack.log("processor"), stack.log("storage"), stack.log("mongod")]) == []
    assert api.processor("GET", f"{path}/chunks/0", "replay").content == marked


def test_what_objects_say_of_themselves(stack: Stack, planted: list[Secret], tmp_path: Path) -> None:
    private, public = recovery.generate()
    dek, folder, other = Dek.generate(), stack.folder / "secrets", SessionId("other")
    wrapper = load_keks(folder / "kek")
    environment = {name: {key.lower(): value for key, value in own.items()} for name, own in stack.env.items()}
    password = token_hex(16)
    environment["storage"]["mongodb_url"] = f"mongodb://lucid:{password}@127.0.0.1:1/"
    own = [
        Secret("recovery private key", base64.b64decode(private.partition(":")[2])),
        Secret("DEK", dek.key),
        Secret("database password", password.encode()),
    ]
    for one in own:
        leaks.register(one.name, one.value)
    wrapped = recovery.RecoverableWrapper(wrapper, recovery.Recipient(public)).wrap(SessionId("a"), dek)
    with Client(stack.processor_url, stack.storage_url, token=stack.tokens["record"]) as client:
        objects = [
            *(
                stack,
                stack.env and stack.mongod,
                stack.anvil,
                client,
                vars(client),
                wrapper,
                vars(wrapper),
                dek,
                wrapped,
            ),
            *(recovery.RecoveryKey(private), recovery.Recipient(public), load_tokens(folder / "tokens")),
            ProcessorSettings(**environment["processor"]),  # type: ignore[arg-type]
            StorageSettings(**environment["storage"]),  # type: ignore[arg-type]
        ]
        text = "\n".join(f"{one!r} {one}" for one in objects)
    for fails in (
        lambda: wrapper.unwrap(other, wrapped),
        lambda: recovery.RecoveryKey(private).open(other, wrapped),
        lambda: recovery.private_key(private[:-3]),
        lambda: recovery.public_key(private),
    ):
        with pytest.raises((DomainError, recovery.RecoveryKeyError)) as caught:
            fails()
        text += "".join(traceback.format_exception(caught.value)) + repr(caught.value)
    log = tmp_path / "reprs.log"
    log.write_text(text)
    assert leaks.find([*planted, *own], [log]) == []
