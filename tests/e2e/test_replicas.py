"""Two of each service behind HAProxy, restarted one after the other while recorders write: nobody notices."""

import hashlib
import io
import os
import re
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import pytest
from pymongo import MongoClient

from scripts.devstack import process, services
from scripts.devstack.process import ROOT, Process
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
    """The services of a stack, a second one of each, and the addresses of the HAProxy before them."""

    stack: Stack
    processors: str = ""
    storages: str = ""
    environments: dict[str, dict[str, str]] = field(default_factory=dict)
    running: dict[str, Process] = field(default_factory=dict)

    def launch(self, name: str) -> None:
        """Start a replica, named like `processor-2`, and wait until it is ready."""
        service: Service = "processor" if name.startswith("processor") else "storage"
        own, log = self.environments[name], self.stack.folder / f"{name}.log"
        marks = self.stack.mongod.marks
        self.running[name] = services.launch(service, own, marks, log)
        services.wait_ready(service, self.running[name], int(own["PORT"]), log)

    def restart(self, name: str) -> None:
        """As a rolling update does it."""
        assert self.running[name].stop()
        self.launch(name)

    def metric(self, name: str, metric: str) -> float:
        """A counter of one replica."""
        text = httpx.get(f"http://127.0.0.1:{self.environments[name]['PORT']}/metrics", trust_env=False).text
        return sum(float(value) for value in re.findall(rf"^{metric}(?:{{[^}}]*}})? ([0-9.e+]+)$", text, re.MULTILINE))


@pytest.fixture(scope="module")
def replicas(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Replicas]:
    folder = tmp_path_factory.mktemp("replicas")
    stack = Stack(folder / "stack", "replset")
    stack.start()
    both = Replicas(stack)
    ports = {name: process.free_port() for name in ("processors", "storages")}
    both.processors, both.storages = (f"http://127.0.0.1:{ports[name]}" for name in ("processors", "storages"))
    balancer: Process | None = None
    try:
        for number in (1, 2):
            for service in ("storage", "processor"):
                own = dict(stack.env[service])
                own["PORT"] = str(process.free_port())
                if service == "processor":
                    own["STORAGE_URL"] = both.storages
                    own["SPOOL_DIR"] = str(folder / f"spool-{number}")
                    Path(own["SPOOL_DIR"]).mkdir()
                both.environments[f"{service}-{number}"] = own
        addresses = {name.upper(): f"127.0.0.1:{port}" for name, port in ports.items()} | {
            name.upper().replace("-", "_"): f"127.0.0.1:{own['PORT']}" for name, own in both.environments.items()
        }
        environment = {**os.environ, **stack.mongod.marks, **addresses}
        command = ["haproxy", "-db", "-f", ROOT / "deploy" / "haproxy.cfg"]
        balancer = process.start(command, folder / "haproxy.log", environment)
        for name in sorted(both.environments, reverse=True):  # storages first: processors are ready when these are
            both.launch(name)
        assert process.wait_until(lambda: services.answers(f"{both.processors}/readyz"), 20)
        yield both
    finally:
        for one in (*both.running.values(), *([balancer] if balancer else [])):
            one.stop()
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
                replicas.restart(name)
            time.sleep(2)
        finally:
            going = False
        names = [name for one in recording for name in one.result()]
    for name in ("processor-1", "processor-2"):  # since its last restart
        assert replicas.metric(name, "lucid_chunks_total") > 0
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
