"""HAProxy's own answers are problems in the services' form, and our clients know what they mean."""

import socket
import threading
from collections.abc import Iterator
from contextlib import closing
from urllib.parse import urlsplit

import pytest

from scripts.devstack import process
from scripts.devstack.replicas import Balanced, balanced
from scripts.devstack.stack import Stack
from sessions.processor.storage_calls import answered
from sessions.processor.storage_errors import is_away
from sessions.processor.wire import Answer as WireAnswer
from sessions.runtime.errors import DomainError
from tests.conformance.conftest import Doors
from tests.conformance.test_table import check_problem
from tests.conformance.wire import Answer, converse

pytestmark = pytest.mark.replicas


@pytest.fixture(scope="module")
def broken() -> Iterator[int]:
    """The port of a server that is ready, and closes every other connection without an answer."""

    def serve() -> None:
        while True:
            try:
                connection, _ = listening.accept()
            except OSError:
                return
            with connection:
                if b"/readyz" in connection.recv(4096):
                    connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")

    with closing(socket.create_server(("127.0.0.1", 0))) as listening:
        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield listening.getsockname()[1]
        listening.shutdown(socket.SHUT_RDWR)
    thread.join()


@pytest.fixture(scope="module")
def alone(doors: Doors, broken: int) -> Iterator[Balanced]:
    """HAProxy, with broken processors behind it and no storage."""
    stack: Stack = doors.stack
    with balanced(stack, [broken] * 2, [1] * 2) as balancer:
        assert process.wait_until(lambda: _ask(balancer.storages, "/livez").status == 503, 10)
        yield balancer


def _ask(url: str, path: str) -> Answer:
    address = urlsplit(url)
    assert address.hostname is not None
    assert address.port is not None
    try:
        request = f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode()
        (answer,) = converse((address.hostname, address.port), [request], 1, probed=False)
    except OSError:
        return Answer(0, "", (), b"")  # it does not listen yet
    return answer


def test_a_request_that_no_storage_takes_means_that_storage_is_away(alone: Balanced) -> None:
    found = _ask(alone.storages, "/api/v1/envelopes")
    check_problem(found, head=False)
    assert (found.status, found.one("retry-after")) == (503, "1")


async def test_the_processor_takes_it_for_an_outage(alone: Balanced) -> None:
    found = _ask(alone.storages, "/api/v1/envelopes")

    async def exchange() -> WireAnswer:
        return WireAnswer(found.status, dict(found.fields), found.content)

    with pytest.raises(DomainError) as caught:
        await answered(exchange)
    assert is_away(caught.value)


def test_a_replica_that_gives_no_answer(alone: Balanced) -> None:
    found = _ask(alone.processors, "/api/v1/sessions/a")
    check_problem(found, head=False)
    assert (found.status, found.one("retry-after")) == (502, "1")
