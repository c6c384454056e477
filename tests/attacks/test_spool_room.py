"""The spool's room while session-storage is away: one token does not take it from the others."""

import os
import socket
from collections.abc import Iterator
from urllib.parse import urlsplit

import pytest

from scripts.devstack.process import wait_until
from sessions.processor.kept_orders import MAX_UNKNOWN_ORDERS
from tests.attacks.apart import SESSIONS, Apart, apart
from tests.e2e.conftest import session_name

MIB = 1024 * 1024
SPOOL_BYTES = 4 * MIB
CHUNK_BYTES = 32 * 1024
HEADS = 20


@pytest.fixture(scope="module")
def one(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Apart]:
    processor = {"SPOOL_MAX_BYTES": str(SPOOL_BYTES), "SPOOL_QUARANTINE_MAX_BYTES": str(SPOOL_BYTES)}
    with apart(tmp_path_factory.mktemp("spool-room"), processor, {}) as stack:
        yield stack


@pytest.fixture(autouse=True)
def _whole(one: Apart) -> Iterator[None]:
    yield
    one.whole()


def _head(one: Apart, session: str, length: int) -> bytes:
    """The first line of the answer to a chunk of which only the head is sent."""
    address = urlsplit(one.stack.processor_url)
    head = f"PUT {SESSIONS}/{session}/chunks/0 HTTP/1.1\r\nHost: x\r\nContent-Length: {length}\r\n"
    head += f"Authorization: Bearer {one.stack.tokens['record']}\r\n\r\n"
    with socket.create_connection((address.hostname, address.port), timeout=10) as connection:
        connection.sendall(head.encode())
        return connection.makefile("rb").readline()


def _spooled(one: Apart, session: str, index: int, content: bytes, role: str) -> bool:
    """Send a chunk; return whether it was taken, else it has to be for lack of room."""
    answer = one.api.put_chunk(session, index, content, role=role)
    assert answer.status_code in (201, 507), answer.text
    return answer.status_code == 201


@pytest.mark.parametrize(("length", "status"), [(10**12, b" 413 "), (2 * SPOOL_BYTES, b" 507 ")])
def test_a_head_without_a_body_closes_the_spool_to_nobody(one: Apart, length: int, status: bytes) -> None:
    """Each used to make the spool full for all, until the disk was looked at again."""
    victim = session_name("victim")
    with one.wire.cut():
        for index in range(HEADS):
            assert _spooled(one, victim, index, b"%d" % index, "record")
            assert status in _head(one, session_name("evil"), length)
    assert one.drained()
    assert one.seal(victim, HEADS).status_code in (200, 202)


def test_a_token_that_fills_the_spool(one: Apart) -> None:
    evil, victim, other = session_name("evil"), session_name("victim"), one.recorder("victim")
    chunks = [b"chunk %d" % index for index in range(3)]
    with one.wire.cut():
        limit = SPOOL_BYTES // CHUNK_BYTES
        taken = next(
            index for index in range(limit) if not _spooled(one, evil, index, os.urandom(CHUNK_BYTES), "record")
        )
        assert taken > 0.9 * limit, "alone it gets nearly all of it"
        for index, chunk in enumerate(chunks):
            assert _spooled(one, victim, index, chunk, other)
        sealed = one.api.processor("POST", f"{SESSIONS}/{victim}/seal", other, json={"chunk_count": 3})
        assert sealed.status_code == 202, sealed.text
        assert not _spooled(one, evil, taken, os.urandom(CHUNK_BYTES), "record")
    assert one.drained()
    assert wait_until(lambda: one.seal(victim, 3).status_code == 200, 20)
    assert one.content(victim).content == b"".join(chunks)


def test_a_token_that_orders_seals_of_sessions_that_are_nowhere(one: Apart) -> None:
    """Each order is an entry, and costs the one that gives it next to nothing."""
    other, prefix = one.recorder("orders"), session_name("nowhere")

    def order(name: str, role: str) -> int:
        path = f"{SESSIONS}/{prefix}-{name}/seal"
        return one.api.processor("POST", path, role, json={"chunk_count": 1}).status_code

    with one.wire.cut():
        answers = [order(str(number), "record") for number in range(MAX_UNKNOWN_ORDERS + 5)]
        assert answers == [202] * MAX_UNKNOWN_ORDERS + [507] * 5
        assert order("of-another-processor", other) == 202
        assert _spooled(one, f"{prefix}-opened", 0, b"x", "record")
        assert order("opened", "record") == 202, "of a session that this processor has"
    assert one.drained(60)


def test_conflicts_in_the_session_of_another(one: Apart) -> None:
    """They used up the share of the token that had opened the session in the spool."""
    session, evil = session_name("shared"), one.recorder("evil")
    assert one.api.put_chunk(session, 0, b"first").json()["durability"] == "stored"
    with one.wire.cut():
        assert _spooled(one, session, 1, b"second", "record")
        assert _spooled(one, session, 0, b"other", evil)
        one.stack.restart("processor")
    assert one.drained()
    (entry,) = one.quarantined(session, 1, 10)
    assert (entry["reason"], entry["by"]) == ("conflict", "evil")
