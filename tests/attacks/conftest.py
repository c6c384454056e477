"""A stack of their own for attackers, since they leave a database in ruins; and what they share."""

import hashlib
import json
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from pymongo import MongoClient

from scripts.devstack.mongod import Mongod
from scripts.devstack.stack import Stack
from sessions.client.verifying import Outcome, Report, Request, verify
from tests.attacks.hands import Hands
from tests.e2e.conftest import Api, session_name

PREFIX_TOKEN, EXPIRED_TOKEN = "lucid_" + "P" * 43, "lucid_" + "E" * 43
PREFIX = "prefix-desk-"
DEK_CACHE_SECONDS = 1


@contextmanager
def attacked(folder: Path, **processor: str) -> Iterator[Stack]:
    """A stack with a mongod of its own, whatever MONGODB_URL says: its files are looked into."""
    one = Stack(folder, settings={"processor": processor})
    one.mongod = Mongod(folder / "mongo", marks=one.mongod.marks)
    one.start()
    try:
        yield one
    finally:
        one.stop()
        shutil.rmtree(folder / "mongo", ignore_errors=True)


@pytest.fixture(scope="package")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    with attacked(tmp_path_factory.mktemp("attacked"), DEK_CACHE_SECONDS=str(DEK_CACHE_SECONDS)) as one:
        with (one.folder / "secrets" / "tokens").open("a") as file:
            for name, token, extra in (
                ("prefix", PREFIX_TOKEN, f"sessions={PREFIX}"),
                ("expired", EXPIRED_TOKEN, "expires=2020-01-01T00:00:00Z"),
            ):
                digest = hashlib.sha256(token.encode()).hexdigest()
                file.write(f"{name} roles=record,replay,audit,admin sha256={digest} {extra}\n")
        yield one


@pytest.fixture(scope="package")
def api(stack: Stack) -> Iterator[Api]:
    one = Api(stack)
    yield one
    one.close()


@pytest.fixture(scope="package")
def hands(stack: Stack) -> Iterator[Hands]:
    with MongoClient(stack.mongodb_url) as client:
        yield Hands(client[stack.env["storage"]["MONGODB_DATABASE"]])


@dataclass
class Kept:
    """A session, and what somebody else keeps of it: receipt, envelopes, and its chunks."""

    name: str
    chunks: list[bytes]
    receipt: bytes
    envelopes: Path

    def verify(self, stack: Stack, **changes) -> Report:
        """As an auditor does, who knows the operator's address."""
        expected = {"publisher": bytes.fromhex(stack.publisher[2:]), "contract": bytes.fromhex(stack.contract[2:])}
        return verify(Request(**{"receipt": self.receipt, "node_url": stack.rpc_url, **expected, **changes}))


def failures(report: Report) -> str:
    return "\n".join(step.text for step in report.steps if step.outcome is Outcome.FAILED)


def receipt_of(api: Api, name: str) -> bytes:
    """The receipt, once the anchor is confirmed."""
    end = time.monotonic() + 60
    while True:
        answer = api.storage("GET", f"/api/v1/sessions/{name}/receipt")
        if json.loads(answer.content)["anchor"]["state"] == "confirmed":
            return answer.content
        assert time.monotonic() < end, answer.text
        time.sleep(0.1)


def fetch_envelopes(api: Api, name: str, count: int, folder: Path) -> Path:
    """A folder with the envelopes as storage gives them now."""
    folder.mkdir(parents=True)
    for index in range(count):
        answer = api.storage("GET", f"/api/v1/sessions/{name}/chunks/{index}/envelope")
        if answer.status_code == 200:
            (folder / f"{index:012d}.lse").write_bytes(answer.content)
    return folder


def scrubbed(api: Api, name: str) -> list[tuple[str, str, int | None]]:
    """What a scrub finds in a session."""
    answer = api.storage("POST", "/api/v1/scrub", json={"session_id": name})
    assert answer.status_code == 200, answer.text
    assert answer.json()["next_cursor"] is None
    return [(one["kind"], one["part"], one["index"]) for one in answer.json()["findings"]]


@pytest.fixture(scope="package")
def kept(api: Api, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Kept]:
    """Some sessions that are anchored, each for one attacker; `sound` is left alone."""
    folder = tmp_path_factory.mktemp("kept")
    chunks = {kind: [f"{kind} chunk {index} ".encode() * 9 for index in range(5)] for kind in KINDS}
    names = {kind: session_name(kind) for kind in KINDS}
    for kind in KINDS:
        api.record(names[kind], chunks[kind])
    return {
        kind: Kept(
            names[kind],
            chunks[kind],
            receipt_of(api, names[kind]),
            fetch_envelopes(api, names[kind], 5, folder / kind),
        )
        for kind in KINDS
    }


KINDS = ("sound", "other", "truncated", "forged", "operator", "shredded")
