"""The database is set back while the services run: what is acknowledged afterwards can be read.

Finding R5: two processors, and one of them had the key of the session that was there before. It was stored with chunks that
nobody could open, sealed, and anchored.
"""

import base64
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from pymongo import MongoClient
from pymongo.database import Database

from scripts.devstack.process import wait_until
from sessions.core import envelope as envelopes
from tests.attacks.apart import SESSIONS, Apart, apart
from tests.attacks.between import problem
from tests.e2e.conftest import session_name

Copy = dict[str, list[dict[str, Any]]]


@pytest.fixture(scope="module")
def one(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Apart]:
    with apart(tmp_path_factory.mktemp("set-back"), {}, {}) as stack:
        yield stack


@pytest.fixture(scope="module")
def urls(one: Apart, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """The addresses of two processors."""
    return [one.stack.processor_url, one.second_processor(tmp_path_factory.mktemp("second") / "spool")]


@pytest.fixture(scope="module")
def database(one: Apart) -> Iterator[Database]:
    with MongoClient(one.stack.mongodb_url) as client:
        yield client[one.stack.env["storage"]["MONGODB_DATABASE"]]


@pytest.fixture(autouse=True)
def _whole(one: Apart) -> Iterator[None]:
    yield
    one.whole()


def _copied(database: Database) -> Copy:
    return {name: list(database[name].find()) for name in database.list_collection_names()}


def _set_back(database: Database, copy: Copy) -> None:
    for name in database.list_collection_names():
        database[name].delete_many({})
        if copy.get(name):
            database[name].insert_many(copy[name])


def _put(one: Apart, url: str, session: str, index: int, data: bytes) -> httpx.Response:
    return one.api._send(url, "PUT", f"{SESSIONS}/{session}/chunks/{index}", "record", {"content": data})


def _ring(one: Apart, session: str) -> set[str]:
    return {
        base64.b64decode(key["dek_id"]).hex()
        for key in one.api.storage("GET", f"{SESSIONS}/{session}", "processor").json()["keys"]
    }


def _are_readable(one: Apart, urls: list[str], session: str, chunks: list[bytes]) -> None:
    """Each chunk's key is in the ring, each processor gives its content, and so it is when the session is sealed."""
    assert one.drained()
    ring = _ring(one, session)
    for index, chunk in enumerate(chunks):
        stored = one.api.storage("GET", f"{SESSIONS}/{session}/chunks/{index}/envelope")
        assert stored.status_code == 200, stored.text
        dek_id = envelopes.parse(stored.content).header.dek_id.hex()
        assert dek_id in ring, f"the key of chunk {index} is not in the ring"
        for url in urls:
            path = f"{SESSIONS}/{session}/chunks/{index}"
            read = one.api._send(url, "GET", path, "replay", {})
            assert (read.status_code, read.content) == (200, chunk), read.text
    assert wait_until(lambda: one.seal(session, len(chunks)).status_code == 200, 20)
    assert one.content(session).content == b"".join(chunks)


def _chunks(session: str, count: int = 6) -> list[bytes]:
    return [b"%d of %s" % (index, session.encode()) for index in range(count)]


def test_to_before_a_session_that_is_recorded_again(one: Apart, urls: list[str], database: Database) -> None:
    """R5: the recorder begins again, as docs/recorders.md says, with both processors in turn."""
    session = session_name("again")
    chunks, copy = _chunks(session), _copied(database)
    for index, chunk in enumerate(chunks):
        assert _put(one, urls[index % 2], session, index, chunk).status_code == 201
    _set_back(database, copy)
    for index, chunk in enumerate(chunks):
        answer = _put(one, urls[index % 2], session, index, chunk)
        assert (answer.status_code, answer.json().get("durability")) == (201, "stored"), answer.text
    _are_readable(one, urls, session, chunks)


def test_to_before_a_session_that_goes_on_through_the_other_processor(
    one: Apart, urls: list[str], database: Database
) -> None:
    """R5: both know the old key; one opens the session again, and then the other alone records."""
    session = session_name("other")
    chunks, copy = _chunks(session), _copied(database)
    for url in urls:
        assert _put(one, url, session, 0, chunks[0]).status_code in (200, 201)
    assert _put(one, urls[1], session, 1, chunks[1]).status_code == 201
    _set_back(database, copy)
    assert _put(one, urls[0], session, 0, chunks[0]).status_code == 201
    for index, chunk in enumerate(chunks[1:], 1):
        assert _put(one, urls[1], session, index, chunk).status_code == 201
    _are_readable(one, urls, session, chunks)


def test_to_before_a_session_whose_chunks_are_in_a_spool(one: Apart, urls: list[str], database: Database) -> None:
    """R5: the spool has delivered the key, the database is set back, and the chunks under that key come after it."""
    session = session_name("spooled")
    chunks, copy = _chunks(session), _copied(database)
    for index in range(2):
        assert _put(one, urls[0], session, index, chunks[index]).status_code == 201
    one.wire.poison(session, problem(503, "overloaded", **{"retry-after": "1"}), "POST")
    with one.wire.cut():
        for index in range(2, 4):
            answer = _put(one, urls[0], session, index, chunks[index])
            assert (answer.status_code, answer.json().get("durability")) == (201, "spooled"), answer.text
    assert wait_until(lambda: one.wire.met[session] > 0, 10)  # storage has the opening, and not the chunks
    _set_back(database, copy)
    opened = {"metadata": None, "key": one.new_key(session)}
    assert one.api.storage("PUT", f"{SESSIONS}/{session}", "processor", json=opened).status_code == 201
    one.wire.heal()
    assert one.drained()
    for index, chunk in enumerate(chunks):
        answer = _put(one, urls[1], session, index, chunk)
        assert answer.status_code in (200, 201), f"chunk {index}: {answer.text}"
    _are_readable(one, urls, session, chunks)
