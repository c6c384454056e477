"""`db.fsyncLock`, as some backups take it: MongoDB answers and writes nothing, and recorders go on."""

import time
from collections.abc import Iterator

import pytest
from pymongo import MongoClient

from scripts.devstack.process import wait_until
from scripts.devstack.stack import Stack
from tests.conftest import own_stack
from tests.e2e.conftest import Api, session_name

SPOOLED_SECONDS = 8.0
"""A chunk waits for session-storage for five seconds at most; the rest is the machine's."""


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """A stack of its own: its database is locked."""
    yield from own_stack(tmp_path_factory)


def test_chunks_are_spooled_while_the_database_is_locked_and_drained_after(stack: Stack) -> None:
    api = Api(stack)
    name = session_name("lock")
    assert api.put_chunk(name, 0, b"before").json()["durability"] == "stored"
    with MongoClient[dict[str, object]](stack.mongodb_url) as admin:
        admin.admin.command({"fsync": 1, "lock": True})
        try:
            for index in (1, 2):
                begun = time.monotonic()
                answer = api.put_chunk(name, index, b"locked")
                assert (answer.status_code, answer.json()["durability"]) == (201, "spooled")
                assert time.monotonic() - begun < SPOOLED_SECONDS
        finally:
            admin.admin.command("fsyncUnlock")

    def drained() -> bool:
        answer = api.storage("GET", f"/api/v1/sessions/{name}")
        return answer.status_code == 200 and answer.json()["chunk_count"] == 3

    assert wait_until(drained, 30)
    sealed = api.processor("POST", f"/api/v1/sessions/{name}/seal", json={"chunk_count": 3})
    assert sealed.status_code in (200, 202)
    assert wait_until(lambda: api.storage("GET", f"/api/v1/sessions/{name}").json()["status"] == "sealed", 30)
    api.close()
