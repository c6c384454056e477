"""`lucid-sessions shard-setup`, and both services on a cluster of two shards."""

import hashlib
import json
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import httpx
import pytest
from bson import MaxKey
from pymongo import MongoClient

from scripts.devstack.filling import fill
from scripts.devstack.mongod import Mongod
from scripts.devstack.stack import Stack
from sessions.core import receipt
from sessions.storage.provision.sharding import KEYS, ShardingError, shard
from tests.sharding.cluster import SHARDS, Cluster
from tests.sharding.conftest import DATABASE
from tests.sharding.router import OWN
from tests.unit.cli.conftest import Run, bare

__all__ = ["bare"]

SESSIONS = [f"20261126T2100{number:02}Z-growing" for number in range(8)]
"""Ids that begin with the time, as those do which the command line makes up."""
LONG = [f"20261126T2200{number:02}Z-long" for number in range(4)]
CHUNK = 70_000


def content(session: str, index: int) -> bytes:
    if index == 1:  # of two parts, and incompressible
        return hashlib.shake_256(session.encode()).digest(1_500_000)
    return f"{session} {index} ".encode() * (CHUNK // 30)


class Services:
    """Both services of a stack, over HTTP."""

    def __init__(self, stack: Stack, http: httpx.Client) -> None:
        self._stack, self._http = stack, http

    def ask(self, method: str, path: str, role: str, body: bytes = b"", *, storage: bool = False) -> httpx.Response:
        url = self._stack.storage_url if storage else self._stack.processor_url
        headers = {"authorization": f"Bearer {self._stack.tokens[role]}", "content-type": "application/json"}
        path = path if path.startswith("/") else f"/sessions/{path}"
        return self._http.request(method, f"{url}/api/v1{path}", content=body, headers=headers)


@pytest.fixture
def services(sharded_stack: Stack) -> Iterator[Services]:
    with httpx.Client(timeout=60) as http:
        yield Services(sharded_stack, http)


def queries(cluster: Cluster, database: str) -> dict[tuple[str, str], set[str]]:
    """What the services asked of the shards, by collection and condition: which shards were asked."""
    found: dict[tuple[str, str], set[str]] = {}
    for name in SHARDS:
        kinds = {"op": {"$in": ["query", "update", "remove", "command"]}, "command.comment": {"$ne": OWN}}
        for entry in cluster.client(name)[database]["system.profile"].find(kinds):
            command = entry["command"]
            condition = command.get("filter", command.get("q", command.get("query", command.get("pipeline"))))
            collection = entry["ns"].partition(".")[2]
            if condition is not None and collection in KEYS:  # what prepares a collection has none
                found.setdefault((collection, repr(condition)), set()).add(name)
    return found


def counts(cluster: Cluster, database: str, collection: str) -> list[int]:
    return [cluster.client(name)[database][collection].count_documents({}, comment=OWN) for name in SHARDS]


def long_session(stack: Stack, services: Services, session: str) -> None:
    """Seal a session of so many chunks that complete subtrees are stored."""
    assert services.ask("PUT", session, "record", b"{}").status_code == 201
    with MongoClient(stack.mongodb_url) as client:
        chunks = client[stack.env["storage"]["MONGODB_DATABASE"]].get_collection("chunks")
        root = fill(chunks, session, 300)
    sealed = services.ask("POST", f"{session}/seal", "record", b'{"chunk_count":300}')
    assert (sealed.status_code, sealed.json()["root"]) == (200, root.hex())
    assert services.ask("GET", f"{session}/chunks/299/proof", "audit", storage=True).json()["root"] == root.hex()


def test_a_database_is_sharded_and_recorded_to(mongos_url: str, bare: Run, tmp_path: Path) -> None:
    url_file = tmp_path / "url"
    url_file.write_text(mongos_url + "\n")
    command = ("shard-setup", "--mongodb-url-file", url_file, "--database", DATABASE)
    with MongoClient(mongos_url) as client:
        ours = {"_id": {"$regex": f"^{DATABASE}"}}
        tried = bare(*command, "--dry-run")
        assert (tried.code, tried.err) == (0, "")
        assert "chunks    to be sharded by {_id.s: hashed, _id.i: 1}, new" in tried.out
        assert client.config.collections.find(ours).to_list() == []
        assert "shards    shard-a, shard-b" in bare(*command).out
        present = {one["_id"].partition(".")[2]: one["key"] for one in client.config.collections.find(ours)}
        assert present == KEYS
    again = bare(*command).out
    assert "bodies    sharded already by {_id.s: hashed, _id.i: 1}, documents: 0" in again
    plan = json.loads(bare(*command, "--json").out)
    assert [step["done"] for step in plan["steps"]] == [True] * len(KEYS)


def test_both_services_on_two_shards(cluster: Cluster, sharded_stack: Stack, services: Services) -> None:
    for name in SHARDS:
        cluster.client(name)[DATABASE].command("profile", 2)
    for session in SESSIONS:
        for index in range(3):
            assert (
                services.ask("PUT", f"{session}/chunks/{index}", "record", content(session, index)).status_code == 201
            )
        assert services.ask("PUT", f"{session}/chunks/0", "record", content(session, 0)).status_code == 200
        assert services.ask("PUT", f"{session}/chunks/0", "record", b"other").status_code == 409
        assert services.ask("POST", f"{session}/seal", "record", b'{"chunk_count":3}').status_code == 200
        replayed = services.ask("GET", f"{session}/content", "replay").content
        assert replayed == b"".join(content(session, index) for index in range(3))
        assert services.ask("GET", f"{session}/chunks/2/proof", "audit", storage=True).status_code == 200
    for session in LONG:
        long_session(sharded_stack, services, session)
    spread = {name: counts(cluster, DATABASE, name) for name in KEYS}
    assert all(min(found) > 0 for found in spread.values()), spread
    assert sum(spread["chunks"]) == 3 * len(SESSIONS) + 300 * len(LONG)
    assert sum(spread["bodies"]) == 4 * len(SESSIONS)

    until = time.monotonic() + 60
    while True:
        done = services.ask("GET", f"{SESSIONS[0]}/receipt", "audit", storage=True).content
        if receipt.from_bytes(done).anchor.state == "confirmed" or time.monotonic() > until:
            break
        time.sleep(0.5)
    receipt.verify_batch(receipt.from_bytes(done))
    assert services.ask("DELETE", SESSIONS[1], "admin").status_code in (200, 204)
    assert services.ask("GET", f"{SESSIONS[1]}/content", "replay").status_code == 410
    listed = services.ask("GET", "/sessions?limit=5", "audit", storage=True).json()
    assert len(listed["sessions"]) == 5
    assert sum(counts(cluster, DATABASE, "bodies")) == 4 * (len(SESSIONS) - 1)

    asked = queries(cluster, DATABASE)
    named = {key: sum(name in key[1] for name in SESSIONS + LONG) for key in asked}
    of_one_session = {key: shards for key, shards in asked.items() if named[key] == 1}
    assert {key[0] for key in of_one_session} == set(KEYS)
    scattered = [key for key, shards in of_one_session.items() if len(shards) > 1]
    assert scattered == []
    # What is not of one session is looked for in the list of sessions, and nowhere else.
    of_many = [key for key, shards in asked.items() if len(shards) > 1]
    assert [key for key in of_many if key[0] != "sessions"] == []
    metrics = httpx.get(
        f"{sharded_stack.storage_url}/metrics", headers={"authorization": f"Bearer {sharded_stack.tokens['audit']}"}
    ).text
    assert "lucid_database_disk_free_bytes " in metrics
    assert "lucid_database_disk_free_bytes 0.0" not in metrics


def test_a_range_that_does_not_name_the_session_goes_to_all_shards(cluster: Cluster, sharded_stack: Stack) -> None:
    """The proof above could see it: the same page of chunks, asked for as it would be without a cluster."""
    session = SESSIONS[2]
    within: Mapping[str, Any] = {
        "_id": {"$gte": {"s": session, "i": 987_654_321}, "$lt": {"s": session, "i": MaxKey()}}
    }
    for condition in (within, {**within, "_id.s": session}):
        cluster.client(SHARDS[0])[DATABASE].command({"clusterFind": "chunks", "filter": condition})
    asked = {key[1]: shards for key, shards in queries(cluster, DATABASE).items() if "987654321" in key[1]}
    assert sorted(len(shards) for shards in asked.values()) == [1, len(SHARDS)]


def test_without_a_mongos_there_is_nothing_to_shard(
    mongod_standalone: Mongod, mongod_replset: Mongod, bare: Run, tmp_path: Path
) -> None:
    for server, what in ((mongod_standalone, "a single mongod"), (mongod_replset, "a replica set")):
        url_file = tmp_path / "url"
        url_file.write_text(server.url)
        refused = bare("shard-setup", "--mongodb-url-file", url_file)
        assert refused.code == 1
        assert refused.err == (f"error: this is {what}, not a mongos: nothing to shard (see docs/scaling.md)\n")


def test_another_key_is_left_as_it_is(mongos_url: str, database_name: str) -> None:
    with MongoClient(mongos_url) as client:
        for name in KEYS:
            client[database_name].create_collection(name)
        client.admin.command("shardCollection", f"{database_name}.tiles", key={"_id": 1})
        with pytest.raises(ShardingError, match=r"tiles is sharded by \{'_id': 1\} already") as refused:
            shard(mongos_url, database_name, dry_run=False)
        assert "reshardCollection" in refused.value.hint
        ours = client.config.collections.find({"_id": {"$regex": f"^{database_name}"}}).to_list()
        assert [one["_id"] for one in ours] == [f"{database_name}.tiles"]


def test_what_mongodb_refuses_is_told_and_can_be_repeated(mongos_url: str, database_name: str) -> None:
    with MongoClient(mongos_url) as client:
        for name in KEYS:
            client[database_name].create_collection(name)
        client[database_name]["bodies"].create_index("data", unique=True)  # not possible beside this key
        with pytest.raises(ShardingError, match=r"MongoDB refuses: .*unique") as refused:
            shard(mongos_url, database_name, dry_run=False)
        assert "stays" in refused.value.hint
        done = {step.collection: step.done for step in shard(mongos_url, database_name, dry_run=True).steps}
        assert done == {"sessions": True, "chunks": True, "bodies": False, "tiles": False}


def test_a_user_who_may_not(mongos_url: str, database_name: str) -> None:
    with pytest.raises(ShardingError, match="MongoDB refuses: Authentication failed") as refused:
        shard(mongos_url.replace("//", "//nobody:nothing@"), database_name, dry_run=True)
    assert "clusterManager" in refused.value.hint


@pytest.mark.parametrize(
    "url", ["mongodb://127.0.0.1:1/?connectTimeoutMS=100&serverSelectionTimeoutMS=200", "http://x"]
)
def test_nobody_there(url: str) -> None:
    with pytest.raises(ShardingError, match="MongoDB is not reached"):
        shard(url, "any", dry_run=True)
