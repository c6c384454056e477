"""An error about one session harms no other: the others' chunks are stored, and their seals are done.

Findings C1, B25 and M4: an error or a slow answer about one session counted as "session-storage is away" for all, and an
entry that storage never takes kept all later ones, and all seals, in the spool for good.
"""

import json
import signal
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import pytest
from bson import Binary
from pymongo import MongoClient

from scripts.devstack.process import wait_until
from tests.attacks.apart import SESSIONS, Apart, apart, asked
from tests.attacks.between import RESET, SILENCE, Answer, problem
from tests.e2e.conftest import session_name

HTML = b"<html><body><h1>Sorry</h1></body></html>"
ERRORS = {
    "internal": problem(500, "internal"),
    "bare-500": Answer(500, HTML),
    "overloaded": problem(503, "overloaded", **{"retry-after": "1"}),
    "bare-503": Answer(503, HTML),
    "html-413": Answer(413, HTML),
    "bad-gateway": Answer(502, HTML),
    "html-200": Answer(200, HTML),
}
OTHERS_SECONDS = 10.0
"""Limit on what takes a few seconds, on a busy machine."""
QUARANTINE_SECONDS = 60.0
"""All tries of an entry that fails alone come within this."""
VICTIMS = 3
CHUNKS = 4


@pytest.fixture(scope="module")
def one(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Apart]:
    with apart(
        tmp_path_factory.mktemp("poison"), {"DEK_CACHE_SECONDS": "1", "SPOOL_DELIVERY_ATTEMPTS": "5"}, {}
    ) as stack:
        yield stack


@pytest.fixture(autouse=True)
def _whole(one: Apart) -> Iterator[None]:
    yield
    one.whole()


def _nested(levels: int) -> dict[str, Any]:
    value: list[Any] = []
    for _ in range(levels - 2):
        value = [value]
    return {"a": value}


def _record_others(one: Apart, durability: tuple[str, ...] = ("stored", "spooled")) -> list[str]:
    """Other recorders at work, for long enough that each try of what fails falls into it."""
    names = [session_name("victim") for _ in range(VICTIMS)]
    for index in range(CHUNKS):
        for name in names:
            answer = one.api.put_chunk(name, index, b"%d of %s" % (index, name.encode()))
            assert answer.status_code == 201, answer.text
            assert answer.json()["durability"] in durability, f"chunk {index} of {name}: {answer.text}"
        time.sleep(0.2)
    return names


def _are_sealed(one: Apart, names: list[str]) -> None:
    """All their chunks come to storage within seconds, and their seals, each ordered once, are done within seconds."""
    for name in names:
        ordered = one.seal(name, CHUNKS)
        assert ordered.status_code in (200, 202), ordered.text
    for name in names:
        assert wait_until(lambda name=name: one.status_at_storage(name) == "sealed", OTHERS_SECONDS), (
            f"{name}: {one.status_at_storage(name)} at storage, asked again: {one.seal(name, CHUNKS).text}"
        )
        assert one.content(name).content == b"".join(b"%d of %s" % (i, name.encode()) for i in range(CHUNKS))


def _spool(one: Apart, session: str, *chunks: bytes) -> None:
    """Chunks that were acknowledged in an outage, and wait for storage."""
    with one.wire.cut():
        for index, chunk in enumerate(chunks):
            answer = one.api.put_chunk(session, index, chunk)
            assert (answer.status_code, answer.json().get("durability")) == (201, "spooled"), answer.text


def _stays_open(one: Apart, session: str) -> None:
    """A session is at storage with one chunk."""
    assert one.api.put_chunk(session, 0, b"before").json()["durability"] == "stored"


def test_metadata_that_are_too_deep_to_be_served_are_refused(one: Apart) -> None:
    """C1: 300 levels were taken, and each question about the session was an outage for all."""
    session = session_name("mallory-deep")
    opened = one.api.processor("PUT", f"{SESSIONS}/{session}", json={"metadata": _nested(300)})
    _stays_open(one, session)
    names = []
    for _ in range(3):
        one.api.processor("GET", f"{SESSIONS}/{session}")
        names += _record_others(one, ("stored",))
    _are_sealed(one, names)
    assert (opened.status_code, opened.json().get("code")) == (400, "invalid-request")
    for levels, expected in ((60, 400), (16, 201)):
        name, body = session_name("nested"), {"metadata": _nested(levels)}
        assert one.api.processor("PUT", f"{SESSIONS}/{name}", json=body).status_code == expected
        at_storage = {**body, "key": one.new_key(name)}
        answer = one.api.storage("PUT", f"{SESSIONS}/{name}", "processor", json=at_storage)
        assert answer.status_code == (200 if expected == 201 else 400), answer.text


def test_metadata_that_are_too_deep_are_refused_while_storage_is_away(one: Apart) -> None:
    """C1: what the spool acknowledged, storage had to take."""
    session = session_name("mallory-deep")
    with one.wire.cut():
        refused = one.api.processor("PUT", f"{SESSIONS}/{session}", json={"metadata": _nested(300)})
    assert (refused.status_code, refused.json().get("code")) == (400, "invalid-request")


def test_deep_metadata_of_an_earlier_release_are_served(one: Apart) -> None:
    """C1: what 0.1.0 took can be asked for, and the question harms nobody."""
    session = session_name("old-deep")
    opened = one.api.processor("PUT", f"{SESSIONS}/{session}", json={"metadata": {"a": 1}})
    assert opened.status_code == 201
    deep = json.dumps(_nested(300), separators=(",", ":")).encode()
    with MongoClient(one.stack.mongodb_url) as client:
        sessions = client[one.stack.env["storage"]["MONGODB_DATABASE"]]["sessions"]
        assert sessions.update_one({"_id": session}, {"$set": {"metadata": Binary(deep)}}).modified_count == 1
    at_storage = one.api.storage("GET", f"{SESSIONS}/{session}")
    at_processor = one.api.processor("GET", f"{SESSIONS}/{session}")
    names = _record_others(one, ("stored",))
    assert at_storage.status_code == 200, at_storage.text
    assert at_storage.json()["metadata"] == _nested(300)
    assert at_processor.status_code == 200, at_processor.text
    _are_sealed(one, names)
    assert one.api.put_chunk(session, 0, b"content").json()["durability"] == "stored"
    assert one.seal(session, 1).status_code == 200
    assert one.content(session).content == b"content"


@pytest.mark.parametrize("error", ERRORS)
def test_a_question_that_fails(one: Apart, error: str) -> None:
    """C1: a recorder asks for the status of one session again and again, and storage cannot answer that."""
    session = session_name("poison")
    _stays_open(one, session)
    one.wire.poison(session, ERRORS[error], "GET")
    names = [session_name("victim") for _ in range(VICTIMS)]
    for index, name in ((index, name) for index in range(CHUNKS) for name in names):
        one.api.processor("GET", f"{SESSIONS}/{session}")
        answer = one.api.put_chunk(name, index, b"%d of %s" % (index, name.encode()))
        assert (answer.status_code, answer.json().get("durability")) == (201, "stored"), answer.text
    assert one.wire.met[session] >= VICTIMS * CHUNKS
    _are_sealed(one, names)


def test_a_question_that_takes_long(one: Apart) -> None:
    """M4: one status question of more than five seconds was an outage for all."""
    session = session_name("slow")
    _stays_open(one, session)
    one.wire.delay(session, 8, "GET")
    with ThreadPoolExecutor(1) as pool:
        asking = pool.submit(one.api.processor, "GET", f"{SESSIONS}/{session}")
        names = [name for _ in asked(7) for name in _record_others(one, ("stored",))]
        assert one.wire.met[session] == 1
        asking.result()
    _are_sealed(one, names)


@pytest.mark.parametrize("error", ERRORS)
def test_an_envelope_that_is_never_taken(one: Apart, error: str) -> None:
    """B25: its session had one chunk in the spool, and no other session was sealed any more."""
    session = session_name("poison")
    one.wire.poison(session, ERRORS[error], "POST")
    _spool(one, session, b"poison")
    _are_sealed(one, _record_others(one))
    assert one.wire.met[session] >= 1
    assert one.api.put_chunk(f"{session}-now", 0, b"poison").status_code in (201, 503)
    _are_sealed(one, _record_others(one))
    one.wire.heal()
    assert wait_until(lambda: one.seal(session, 1).status_code == 200, OTHERS_SECONDS)
    assert one.content(session).content == b"poison"


def test_an_envelope_that_ends_each_connection(one: Apart) -> None:
    """B25, and beyond: something between the services drops the requests that hold this session's envelopes."""
    session = session_name("poison")
    one.wire.poison(session, RESET, "POST")
    _spool(one, session, b"poison")
    _are_sealed(one, _record_others(one))


def test_an_envelope_that_is_never_answered(one: Apart) -> None:
    """M4, B25: the time-out of one session's request was an outage for all."""
    session = session_name("poison")
    one.wire.poison(session, SILENCE, "POST")
    with ThreadPoolExecutor(1) as pool:
        putting = pool.submit(one.api.put_chunk, session, 0, b"poison")
        assert wait_until(lambda: one.wire.met[session] > 0, 5)
        names = [name for _ in asked(7) for name in _record_others(one, ("stored",))]
        assert putting.result().status_code in (201, 503)
    _are_sealed(one, names)


@pytest.mark.parametrize("error", ["internal", "html-413", "bare-503"])
def test_an_opening_that_is_never_taken(one: Apart, error: str) -> None:
    """C1, B25: storage fails for the opening of a session, which then waits in the spool with its chunks."""
    session = session_name("poison")
    one.wire.poison(session, ERRORS[error], "PUT")
    _spool(one, session, b"poison", b"poison")
    _are_sealed(one, _record_others(one))
    one.wire.heal()
    assert wait_until(lambda: one.seal(session, 2).status_code == 200, OTHERS_SECONDS)
    assert one.content(session).content == b"poison" * 2


@pytest.mark.parametrize("error", ["internal", "html-413", "bare-503"])
def test_a_seal_that_is_never_done(one: Apart, error: str) -> None:
    """C1, B25: storage fails for the seal of one session, by the processor's own route and by the recorder's."""
    session = session_name("poison")
    _stays_open(one, session)
    one.wire.poison(session, ERRORS[error], "POST")
    for ask in (partial(one.seal, session, 1), partial(one.seal, session)):
        assert ask().status_code in (202, 503)
        _are_sealed(one, _record_others(one))
    assert one.api.processor("POST", f"{SESSIONS}/{session}/finalize").status_code == 503
    one.wire.heal()
    assert wait_until(lambda: one.seal(session, 1).status_code == 200, OTHERS_SECONDS)


def test_poison_in_the_spool_outlives_both_services_and_harms_nobody(one: Apart) -> None:
    """C1: after a restart of the processor, and of storage, all seals waited as before."""
    session = session_name("poison")
    one.wire.poison(session, ERRORS["internal"], "POST")
    _spool(one, session, b"poison")
    one.stack.kill("processor", signal.SIGKILL)
    one.stack.resume("processor")
    _are_sealed(one, _record_others(one))
    one.stack.restart("storage")
    _are_sealed(one, _record_others(one))


def test_poisons_end_in_quarantine_and_are_delivered_once_their_cause_is_gone(one: Apart) -> None:
    """B25, R15: several fail at once, each in another way; afterwards an administrator has them delivered."""
    kinds = {
        "envelope": ("html-413", "POST"),
        "other": ("internal", "POST"),
        "opening": ("bare-503", "PUT"),
    }
    names = {kind: session_name(f"poison-{kind}") for kind in kinds}
    for kind, (error, method) in kinds.items():
        one.wire.poison(names[kind], ERRORS[error], method)
    for kind, name in names.items():
        _spool(one, name, kind.encode())
    _are_sealed(one, _record_others(one))
    for name in names.values():
        one.quarantined(name, 1, QUARANTINE_SECONDS)
    assert one.drained()
    tries = {name: one.wire.met[name] for name in names.values()}
    time.sleep(2)
    assert {name: one.wire.met[name] for name in names.values()} == tries, "an entry in quarantine is tried no more"
    _are_sealed(one, _record_others(one, ("stored",)))
    one.wire.heal()
    for kind, name in names.items():
        for entry in one.quarantine(name):
            assert one.retry(entry).status_code in (200, 202, 204)
        assert wait_until(lambda name=name: one.chunk(name, 0).status_code == 200, OTHERS_SECONDS)
        assert one.chunk(name, 0).content == kind.encode()
        assert wait_until(lambda name=name: one.quarantine(name) == [], OTHERS_SECONDS)
        assert wait_until(lambda name=name: one.seal(name, 1).status_code == 200, OTHERS_SECONDS)
