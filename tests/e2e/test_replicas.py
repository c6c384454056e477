"""Two of each service behind HAProxy, restarted one after the other while recorders write: nobody notices."""

import hashlib
import io
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from pymongo import MongoClient

from scripts.devstack.replicas import Replica, balanced, wait_balanced
from scripts.devstack.services import Service
from scripts.devstack.stack import Stack
from sessions.client.sync import Client
from tests.conftest import Figure
from tests.e2e.conftest import session_name

pytestmark = pytest.mark.replicas
_CHUNK_BYTES = 16 * 1024
_RECORDERS = 4


@dataclass
class Replicas:
    """Two of each service beside those of a stack, and the addresses of the HAProxy before them."""

    stack: Stack
    all: dict[str, Replica] = field(default_factory=dict)
    processors: str = ""
    storages: str = ""


@pytest.fixture(scope="module")
def replicas(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Replicas]:
    stack = Stack(tmp_path_factory.mktemp("replicas") / "stack", "replset")
    stack.start()
    both = Replicas(stack)
    services: tuple[Service, Service] = ("storage", "processor")
    try:
        for service in services:  # storages first: processors are ready when these are
            for number in (1, 2):
                name = f"{service}-{number}"
                both.all[name] = Replica.further(stack, service, name, {})
        ports = {service: [one.port for one in both.all.values() if one.service == service] for service in services}
        with balanced(stack, ports["processor"], ports["storage"]) as balancer:
            both.processors, both.storages = balancer.processors, balancer.storages
            for one in both.all.values():
                if one.service == "processor":
                    one.env["STORAGE_URL"] = both.storages
                one.start()
            assert wait_balanced(balancer)
            yield both
    finally:
        stack.stop()


def _content(name: str) -> bytes:
    return hashlib.shake_256(name.encode()).digest(40 * _CHUNK_BYTES + 17)


def test_a_rolling_restart_fails_no_request_of_a_client_that_retries(
    replicas: Replicas, figure: Figure, tmp_path: Path
) -> None:
    going = True

    def record(number: int) -> list[str]:
        names, tokens = [], replicas.stack.tokens
        with (
            Client(replicas.processors, replicas.storages, token=tokens["record"]) as recorder,
            Client(replicas.processors, replicas.storages, token=tokens["replay"]) as player,
        ):
            while going:
                names.append(name := session_name(f"rolling-{number}"))
                done = recorder.record(io.BytesIO(_content(name)), name, chunk_bytes=_CHUNK_BYTES)
                assert done.chunk_count == 41
                player.replay(name, tmp_path / name)
                assert (tmp_path / name).read_bytes() == _content(name)
                (tmp_path / name).unlink()
        return names

    with ThreadPoolExecutor(_RECORDERS) as pool:
        recording = [pool.submit(record, number) for number in range(_RECORDERS)]
        try:
            for name in ("storage-1", "processor-1", "storage-2", "processor-2"):
                time.sleep(1)
                assert replicas.all[name].restart()
            time.sleep(2)
        finally:
            going = False
        names = [name for one in recording for name in one.result()]
    for name in ("processor-1", "processor-2"):  # since its last restart
        assert replicas.all[name].metric("lucid_chunks_total") > 0
    with MongoClient(replicas.stack.mongodb_url) as database:
        chunks = database[replicas.stack.env["storage"]["MONGODB_DATABASE"]]["chunks"]
        assert chunks.count_documents({"_id.s": {"$in": names}}) == 41 * len(names)
    figure(f"rolling restart of 2 x 2 replicas: {len(names)} sessions recorded and replayed, none failed")


def test_all_replicas_anchor_and_each_session_once(replicas: Replicas) -> None:
    with Client(replicas.processors, replicas.storages, token=replicas.stack.tokens["audit"]) as client:
        listed = [one.session_id for one in client.list_sessions(status="sealed")]
        assert listed
        for name in listed:
            assert client.receipt(name, wait_seconds=60).anchor.state.value == "confirmed"
        batches = [client.anchor(one.root) for one in client.anchors()]
    anchored = [session for batch in batches for session in batch.sessions]
    assert sorted(anchored) == sorted(listed)
