"""Kill points on a stack: arm one, see the process die of it, start it again, and look at what is left."""

import signal
from enum import StrEnum

from scripts.devstack.process import wait_until
from scripts.devstack.services import SERVICES, Service
from scripts.devstack.stack import Stack
from sessions.core import merkle
from sessions.runtime.killpoints import ALLOW, AT
from tests.e2e.conftest import Api

CHUNKS = [b"chunk %d " % index * 3000 for index in range(4)]


def arm(stack: Stack, service: Service, point: StrEnum, at_pass: int = 1) -> None:
    """Start a service so that it dies at a point, when it comes there the `at_pass`th time; stop it before, if it runs."""
    if stack.alive()[service]:
        stack.kill(service, signal.SIGTERM)
    stack.env[service] |= {ALLOW: "allowed", AT: f"{point}:{at_pass}"}
    stack.resume(service)


def launch_armed(stack: Stack, service: Service, point: StrEnum) -> None:
    """Start a service that does not run. Nobody waits for it: it may die before it answers."""
    stack.env[service] |= {ALLOW: "allowed", AT: point}
    stack._launch(service)


def has_died(stack: Stack, service: Service) -> None:
    """Wait until the armed service has died by its own hand."""
    running = stack.process(service)
    assert running is not None
    assert wait_until(lambda: running.exit_status() == -9, 30)
    running.stop()
    stack.env[service].pop(AT)


def disarm(stack: Stack) -> None:
    """Whatever a test left, all parts run afterwards, and none of them dies."""
    for service in SERVICES:
        if stack.env[service].pop(AT, None) and stack.alive()[service]:  # it did not strike
            stack.restart(service)
    for part, runs in stack.alive().items():
        if not runs:
            stack.resume(part)


def put_all(api: Api, session: str, first: int = 0, chunks: list[bytes] = CHUNKS) -> list[str]:
    """Record the chunks from `first` on; gives their leaf hashes."""
    answers = [api.put_chunk(session, index, chunks[index]) for index in range(first, len(chunks))]
    assert [answer.status_code for answer in answers] == [201] * len(answers)
    return [answer.json()["leaf_hash"] for answer in answers]


def check(api: Api, session: str, leaves: list[str], chunks: list[bytes] = CHUNKS) -> None:
    """The session can be sealed, with the root of these leaves, and gives back these bytes; the processor is well."""
    url, count = f"/api/v1/sessions/{session}/seal", {"chunk_count": len(chunks)}
    assert wait_until(lambda: api.processor("POST", url, json=count).status_code == 200, 30)
    sealed = api.processor("POST", url, json=count)
    assert sealed.json()["root"] == merkle.root(list(map(bytes.fromhex, leaves))).hex()
    assert api.processor("GET", f"/api/v1/sessions/{session}/content", "replay").content == b"".join(chunks)
    assert wait_until(lambda: api.processor("GET", "/health", None).json()["status"] == "ok", 15)
