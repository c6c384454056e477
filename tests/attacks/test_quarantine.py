"""The quarantine: bounded for itself and for each token, seen and emptied over REST, and shredded with its sessions.

Findings M5, R11 and R15.
"""

import base64
import os
from collections.abc import Callable, Iterator

import pytest

from scripts.devstack.process import wait_until
from tests.attacks import loot
from tests.attacks.apart import SESSIONS, Apart, apart
from tests.e2e.conftest import session_name

MIB = 1024 * 1024
SPOOL_MIB = 32
FLOOD = 31
SHREDDED_SECONDS = 20.0
TAIL_BYTES = 48


@pytest.fixture(scope="module")
def one(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Apart]:
    processor = {"SPOOL_MAX_BYTES": str(SPOOL_MIB * MIB), "SPOOL_QUARANTINE_MAX_BYTES": str(SPOOL_MIB * MIB)}
    storage = {"PROCESSOR_WAIT_SECONDS": "5"}  # and then it seals without one that is cut off
    with apart(tmp_path_factory.mktemp("quarantine"), processor, storage) as stack:
        yield stack


@pytest.fixture(autouse=True)
def _whole(one: Apart) -> Iterator[None]:
    yield
    one.whole()


def _conflict(one: Apart, *sessions: str, role: str = "record") -> None:
    """Send other content for the first chunk of sessions while nobody can know that: it ends in quarantine."""
    for session in sessions:
        assert one.api.put_chunk(session, 0, b"first", role=role).json()["durability"] == "stored"
    with one.wire.cut():
        for session in sessions:
            answer = one.api.put_chunk(session, 0, b"other of " + session.encode(), role=role)
            assert (answer.status_code, answer.json().get("durability")) == (201, "spooled"), answer.text
    assert one.drained()


def _shred(one: Apart, session: str) -> None:
    """As another processor has it done."""
    one.sealed_at_storage(session)
    answer = one.api.storage("DELETE", f"{SESSIONS}/{session}", "admin")
    assert answer.status_code == 200, answer.text


def _wrapped_keys(one: Apart, session: str) -> dict[str, bytes]:
    keys = one.api.storage("GET", f"{SESSIONS}/{session}", "processor").json()["keys"]
    return {f"wrapped key {number}": base64.b64decode(key["wrapped"]) for number, key in enumerate(keys)}


def _tails(one: Apart, session: str) -> dict[str, bytes]:
    """The ends of all files of the spool that name a session, which are ends of envelopes."""
    files = [path for path in one.spool.rglob("*") if path.is_file()]
    contents = {path.name: path.read_bytes() for path in files}
    return {name: data[-TAIL_BYTES:] for name, data in contents.items() if session.encode() in data}


def _left(one: Apart, secrets: dict[str, bytes]) -> Callable[[], bool]:
    return lambda: loot.found(secrets, loot.file_blocks(one.spool)) != set()


def _is_gone(one: Apart, secrets: dict[str, bytes]) -> None:
    left = _left(one, secrets)
    assert wait_until(lambda: not left(), SHREDDED_SECONDS), loot.found(secrets, loot.file_blocks(one.spool))


def test_the_key_of_a_session_that_is_shredded_while_its_processor_is_cut_off(one: Apart) -> None:
    """R11: the session's wrapped key, and a chunk, stayed in three files that nobody deletes."""
    session = session_name("shredded")
    assert one.api.put_chunk(session, 0, b"chunk 0").json()["durability"] == "stored"
    keys = _wrapped_keys(one, session)
    with one.wire.cut():
        assert one.api.put_chunk(session, 1, b"chunk 1").json()["durability"] == "spooled"
        traces = keys | _tails(one, session)
        assert loot.found(traces, loot.file_blocks(one.spool)) == traces.keys()
        assert len(traces) > len(keys)
        _shred(one, session)
    assert one.drained()
    _is_gone(one, traces)
    assert one.api.put_chunk(session, 2, b"chunk 2").status_code == 410


def test_the_key_of_a_session_that_was_opened_in_the_spool_and_is_shredded_then(one: Apart) -> None:
    """R11, and beyond: storage has its own ring of the session, and the spool another key, also after a restart."""
    session = session_name("shredded")
    with one.wire.cut():
        assert one.api.put_chunk(session, 1, b"chunk 1").json()["durability"] == "spooled"
        traces = _tails(one, session)
        assert traces
        opened = {"metadata": None, "key": one.new_key(session)}
        assert one.api.storage("PUT", f"{SESSIONS}/{session}", "processor", json=opened).status_code == 201
        _shred(one, session)
        one.stack.restart("processor")
    assert one.drained()
    _is_gone(one, traces)


def test_what_is_in_quarantine_is_shredded_with_its_session(one: Apart) -> None:
    """R11: a conflict of it was in quarantine before the session was sealed and shredded."""
    session, other = session_name("shredded"), session_name("kept")
    _conflict(one, session, other)
    traces = _tails(one, session)
    assert traces
    _shred(one, session)
    _is_gone(one, traces)
    assert _tails(one, other)


def test_the_routes_of_the_quarantine(one: Apart) -> None:
    """R15: list, show, retry and drop; for administrators alone."""
    session = session_name("listed")
    _conflict(one, session)
    (entry,) = one.quarantined(session, 1, 10)
    path = f"/api/v1/spool/{entry['name']}"
    shown = one.api.processor("GET", path, "admin")
    assert (shown.status_code, session in shown.text) == (200, True), shown.text
    for role in ("record", "replay", "audit"):
        for method, route in (("GET", "/api/v1/spool"), ("GET", path), ("POST", f"{path}/retry"), ("DELETE", path)):
            assert one.api.processor(method, route, role).status_code == 403, (role, method, route)
    assert one.api.processor("GET", path, None).status_code == 401
    assert one.retry(entry).status_code in (200, 202, 204, 409)  # its cause is not gone
    assert one.drained()
    (entry,) = one.quarantined(session, 1, 10)
    path = f"/api/v1/spool/{entry['name']}"
    assert one.api.processor("DELETE", path, "admin").status_code in (200, 204)
    assert one.quarantine(session) == []
    assert one.api.processor("GET", path, "admin").status_code == 404
    assert one.retry(entry).status_code == 404
    assert _tails(one, session) == {}
    assert one.chunk(session, 0).content == b"first"


@pytest.mark.parametrize("name", ["..%2F..%2Fsecrets%2Fkek", "lock", "..", "%2e%2e", "0" * 300])
def test_a_name_that_is_none_of_the_quarantines(one: Apart, name: str) -> None:
    """R15: a name is no path."""
    assert one.api.processor("GET", "/api/v1/spool", "admin").status_code == 200
    for method, path in (("GET", name), ("DELETE", name), ("POST", f"{name}/retry")):
        answer = one.api.processor(method, f"/api/v1/spool/{path}", "admin")
        assert answer.status_code in (400, 404, 405), (method, path, answer.text)
    assert (one.spool / "lock").exists()
    assert (one.stack.folder / "secrets" / "kek").exists()


def test_a_token_that_fills_the_quarantine(one: Apart) -> None:
    """M5: conflicts of one token took the spool's place for good, and the next outage was 507 for all."""
    session, other = session_name("flood"), one.recorder("other-desk")
    for index in range(FLOOD):
        assert one.api.put_chunk(session, index, b"%d" % index).status_code == 201
    with one.wire.cut():
        flood = [one.api.put_chunk(session, index, os.urandom(MIB)).status_code for index in range(FLOOD)]
        assert set(flood) <= {201, 409, 507}
    assert one.drained(30)
    victim, conflicting = session_name("victim"), session_name("conflicting")
    assert one.api.put_chunk(conflicting, 0, b"first", role=other).status_code == 201
    chunks = [os.urandom(MIB // 2) for _ in range(SPOOL_MIB // 2)]
    with one.wire.cut():
        for index, chunk in enumerate(chunks):
            answer = one.api.put_chunk(victim, index, chunk, role=other)
            assert (answer.status_code, answer.json().get("durability")) == (201, "spooled"), answer.text
        answer = one.api.put_chunk(conflicting, 0, b"other", role=other)
        assert (answer.status_code, answer.json().get("durability")) == (201, "spooled"), answer.text
    assert one.drained()
    assert wait_until(lambda: one.seal(victim, len(chunks)).status_code == 200, 20)
    assert one.content(victim).content == b"".join(chunks)
    assert len(one.quarantined(conflicting, 1, 10)) == 1
