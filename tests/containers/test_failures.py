"""What goes wrong at a first start: each is made to happen, and the operator is told what to do."""

import random
import socket
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.containers.deployment import (
    NETWORK,
    PROCESSOR_URL,
    Deployment,
    docker,
    overridden,
)

MIB = 1024 * 1024


@pytest.fixture(autouse=True)
def _nothing_stays(deployment: Deployment) -> Iterator[None]:
    yield
    deployment.down(volumes=True)


def secret(deployment: Deployment, name: str) -> Path:
    return deployment.folder / "secrets" / name


def test_before_the_first_start_the_check_says_how_to_start(deployment: Deployment) -> None:
    said = deployment.check(expect=1)
    assert "there are none" in said
    assert "docker compose -f docker-compose.pi.yml up -d --wait" in said


def test_a_missing_secret(deployment: Deployment) -> None:
    kek = secret(deployment, "kek")
    away = kek.rename(kek.with_name("kek-away"))
    try:
        said = deployment.compose("up", "-d", "--wait", expect=1)
        assert "secrets/kek" in said
        said = deployment.check(expect=1)
        assert "missing: kek" in said
        assert "sudo scripts/init-secrets" in said
    finally:
        away.rename(kek)


@pytest.mark.parametrize(
    ("name", "content", "setting"),
    [
        ("kek", "not a key\n", "KEK_FILE"),
        ("tokens", "nobody\n", "TOKENS_FILE"),
    ],
)
def test_a_garbled_secret(deployment: Deployment, name: str, content: str, setting: str) -> None:
    path = secret(deployment, name)
    before = path.read_bytes()
    path.write_text(content)
    try:
        deployment.compose("up", "-d", "--wait", expect=1)
        said = deployment.check(expect=1)
        assert f"configuration error: {setting}: /run/secrets/{name} line 1" in said
        assert "-> put this secret back from your backup" in said
    finally:
        path.write_bytes(before)


def test_a_port_that_is_taken(deployment: Deployment) -> None:
    with socket.create_server(("127.0.0.1", 8086)):
        said = deployment.compose("up", "-d", "--wait", expect=1)
        assert "8086" in said
        said = deployment.check(expect=1)
    assert "address already in use" in said or "port is already allocated" in said
    assert "another program has this port" in said


def test_a_network_that_is_there_already(deployment: Deployment) -> None:
    docker("network", "create", "--subnet", "172.20.0.0/16", NETWORK)
    try:
        deployment.compose("up", "-d", "--wait", expect=1)
        said = deployment.check(expect=1)
        assert "set LUCID_NETWORK_EXTERNAL=true in .env to join it" in said
        deployment.set(LUCID_NETWORK_EXTERNAL="true")
        deployment.up()
        assert "all is well" in deployment.check()
        deployment.down(volumes=True)
    finally:
        docker("network", "rm", NETWORK)
    said = deployment.check(expect=1)
    assert "is not there, and LUCID_NETWORK_EXTERNAL=true asks for it" in said
    deployment.set(LUCID_NETWORK_EXTERNAL="false")


def test_addresses_that_another_network_has(deployment: Deployment) -> None:
    docker("network", "create", "--subnet", "172.20.0.0/16", "somebody-elses")
    try:
        deployment.compose("up", "-d", "--wait", expect=1)
        said = deployment.check(expect=1)
        assert "172.20.0.0/16 are in somebody-elses" in said
    finally:
        docker("network", "rm", "somebody-elses")


def test_passwords_that_are_not_the_databases(deployment: Deployment) -> None:
    """First the administrator's, then session-storage's own."""
    deployment.up()
    deployment.down()  # the volume stays
    for name, setting in (("mongodb-admin-url", "MONGODB_ADMIN_URL_FILE"), ("mongodb-url", "MONGODB_URL")):
        path = secret(deployment, name)
        before = path.read_bytes()
        user, _, rest = before.decode().partition("@")
        path.write_text(f"{user[:-3]}xyz@{rest}")
        try:
            if name == "mongodb-admin-url":
                deployment.compose("up", "-d", "--wait", expect=1)
            else:  # as after a restart of the machine: the program that gives the user its password does not run
                deployment.compose("up", "-d", "--no-deps", "mongodb")
                deployment.wait_healthy("mongodb")
                # It is not healthy in this time; whether compose calls that a failure depends on the moment.
                deployment.compose(
                    "up", "-d", "--no-deps", "--wait", "--wait-timeout", "20", "session-storage", expect=None
                )
            said = deployment.check(expect=1)
            assert setting in said
            assert "MongoDB refuses this" in said
            assert "-> the secrets are not those that the database was made with" in said
        finally:
            path.write_bytes(before)
            deployment.compose("stop")
    deployment.up()  # and with the right ones all is well again
    assert "all is well" in deployment.check()


def fill(http: httpx.Client, url: str) -> tuple[httpx.Response, int]:
    """Record until it is refused; that answer, and how many chunks there are."""
    for index in range(200):
        answer = http.put(f"{url}/chunks/{index}", content=random.Random(index).randbytes(4 * MIB))
        if answer.status_code != 201:
            return answer, index
    raise AssertionError("it never fills")


def test_a_volume_that_fills(deployment: Deployment) -> None:
    """Recording stops with 507 before MongoDB does, and what was acknowledged can be sealed and read.

    Without a spool, which would take on what the database does not, on a disk of its own.
    """
    deployment.set(DATABASE_FREE_MIN_BYTES=str(150 * MIB), SPOOL="off")
    tmpfs = {"driver_opts": {"type": "tmpfs", "device": "tmpfs", "o": "size=520m,uid=999,gid=999"}}
    with overridden(deployment.folder, {"volumes": {"mongodb-data": tmpfs}}):
        deployment.up()
        url = f"{PROCESSOR_URL}/api/v1/sessions/filling"
        with deployment.http("record") as http:
            answer, index = fill(http, url)
            assert (answer.status_code, answer.json()["code"]) == (507, "storage-full")
            assert "make room or enlarge it" in answer.json()["detail"]
            assert answer.headers["retry-after"] == "30"
            assert http.post(f"{url}/seal", json={"chunk_count": index}).status_code == 200
        with deployment.http("replay") as http:
            last = http.get(f"{url}/chunks/{index - 1}")
            assert last.content == random.Random(index - 1).randbytes(4 * MIB)
        with deployment.http("record") as http:
            for attempt in range(10):  # MongoDB gives room back when it has written down what its journal holds
                fill(http, f"{url}-{attempt}")
                said = deployment.check(expect=None)
                if "-> the disk is full" in said:
                    break
        assert "nothing more is recorded: make room or enlarge it" in said
        assert "-> the disk is full" in said
        deployment.down(volumes=True)
    deployment.set(DATABASE_FREE_MIN_BYTES="", SPOOL="")
