"""Seals keep what was acknowledged, promise nothing that was refused, and say what is missing.

Findings R4, R12, R13 and R14.
"""

import signal
import time
from collections.abc import Iterator

import pytest

from scripts.devstack.process import wait_until
from tests.attacks.apart import SESSIONS, Apart, apart
from tests.e2e.conftest import session_name

IDLE_SECONDS = 6
SWEEP_SECONDS = 3
"""By then an idle session has been found, after IDLE_SECONDS."""
WAIT_SECONDS = 5
"""How long storage waits for a processor that it does not hear from, in this stack."""


@pytest.fixture(scope="module")
def patient(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Apart]:
    """Storage waits for processors as it does by default, and only some seconds for recorders."""
    storage = {"SESSION_IDLE_SEAL_SECONDS": str(IDLE_SECONDS)}
    with apart(tmp_path_factory.mktemp("patient"), {}, storage) as stack:
        yield stack


@pytest.fixture(scope="module")
def one(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Apart]:
    """Storage waits only some seconds for a processor."""
    with apart(tmp_path_factory.mktemp("hasty"), {}, {"PROCESSOR_WAIT_SECONDS": str(WAIT_SECONDS)}) as stack:
        yield stack


@pytest.fixture(autouse=True)
def _whole(request: pytest.FixtureRequest) -> Iterator[None]:
    yield
    for name in {"one", "patient"} & set(request.fixturenames):
        request.getfixturevalue(name).whole()


def _spool(one: Apart, session: str, *indexes: int) -> None:
    for index in indexes:
        answer = one.api.put_chunk(session, index, b"chunk %d" % index)
        assert (answer.status_code, answer.json().get("durability")) == (201, "spooled"), answer.text


def _record_for_a_while(one: Apart, session: str) -> None:
    """Two chunks, so far apart that storage has noted when the second came."""
    for index in range(2):
        assert one.api.put_chunk(session, index, b"chunk %d" % index).json()["durability"] == "stored"
        time.sleep(IDLE_SECONDS / 6)


def test_a_cut_shorter_than_idleness(patient: Apart) -> None:
    """R4: the recorder was there all the time, and its session was sealed as idle."""
    session = session_name("cut")
    _record_for_a_while(patient, session)
    began = time.monotonic()
    time.sleep(IDLE_SECONDS - 2)
    with patient.wire.cut():
        _spool(patient, session, 2)
        until = began + IDLE_SECONDS + SWEEP_SECONDS
        wait_until(lambda: patient.status_at_storage(session) == "sealed", until - time.monotonic())
    assert patient.drained()
    read = patient.chunk(session, 2)
    assert (read.status_code, read.content) == (200, b"chunk 2"), read.text
    assert wait_until(lambda: patient.seal(session).status_code == 200, 10)
    assert patient.seal(session).json()["manifest"]["chunk_count"] == 3
    assert patient.content(session).content == b"chunk 0chunk 1chunk 2"


def test_a_processor_that_dies_before_a_cut_ends(patient: Apart) -> None:
    """R4, and beyond: what is in its spool comes to storage only after its restart, and no idle seal comes before."""
    session = session_name("dies")
    _record_for_a_while(patient, session)
    with patient.wire.cut():
        _spool(patient, session, 2)
        patient.stack.kill("processor", signal.SIGKILL)
    sealed = wait_until(lambda: patient.status_at_storage(session) == "sealed", IDLE_SECONDS + SWEEP_SECONDS)
    patient.stack.resume("processor")
    assert patient.drained()
    read = patient.chunk(session, 2)
    assert (read.status_code, read.content) == (200, b"chunk 2"), read.text
    assert not sealed


@pytest.mark.parametrize("restarted", [True, False], ids=["restarted", "runs-on"])
def test_a_seal_of_what_is_not_all_that_was_acknowledged(one: Apart, restarted: bool) -> None:
    """R12: chunks came in too late for an idle seal; a seal without a count said that all was well."""
    session = session_name("late")
    assert one.api.put_chunk(session, 0, b"chunk 0").json()["durability"] == "stored"
    one.sealed_at_storage(session, by="idle")
    with one.wire.cut():
        if restarted:
            one.stack.restart("processor")
        late = [one.api.put_chunk(session, index, b"chunk %d" % index).status_code for index in (1, 2)]
        assert set(late) <= {201, 409, 503}
        assert one.seal(session).status_code in (202, 409, 503)
    assert one.drained()
    assert wait_until(lambda: one.seal(session).status_code != 202, 20)
    answer = one.seal(session)
    assert answer.status_code == (409 if 201 in late else 200), answer.text
    finalized = one.api.processor("POST", f"{SESSIONS}/{session}/finalize")
    assert finalized.is_error == (201 in late), finalized.text
    counted = one.seal(session, 3)
    assert (counted.status_code, counted.json()["code"]) == (409, "chunks-missing")
    assert one.content(session).content == b"chunk 0"


def test_a_finalize_that_was_refused_has_ordered_nothing(one: Apart) -> None:
    """R13: 503 promises nothing; the session was cut off where it was when session-storage came back."""
    session = session_name("finalize")
    assert one.api.put_chunk(session, 0, b"chunk 0").json()["durability"] == "stored"
    with one.wire.cut():
        _spool(one, session, 1)
        refused = one.api.processor("POST", f"{SESSIONS}/{session}/finalize")
        assert (refused.status_code, refused.json()["code"]) == (503, "storage-unavailable")
        _spool(one, session, 2)
    assert one.drained()
    assert one.status_at_storage(session) == "open"
    assert one.api.put_chunk(session, 3, b"chunk 3").status_code == 201
    done = wait_until(lambda: one.api.processor("POST", f"{SESSIONS}/{session}/finalize").status_code == 200, 20)
    assert done
    assert one.content(session).content == b"chunk 0chunk 1chunk 2chunk 3"


def test_a_finalize_that_was_refused_does_not_end_what_another_processor_records(one: Apart) -> None:
    """R13: nothing of the session is in the spool, and the recording goes on at storage."""
    session = session_name("finalize")
    assert one.api.put_chunk(session, 0, b"chunk 0").json()["durability"] == "stored"
    with one.wire.cut():
        assert one.api.processor("POST", f"{SESSIONS}/{session}/finalize").status_code == 503
    assert one.drained()
    sealed = wait_until(lambda: one.status_at_storage(session) == "sealed", 3)
    assert not sealed
    assert one.api.put_chunk(session, 1, b"chunk 1").status_code == 201


@pytest.mark.parametrize("at", ["processor", "storage"])
def test_a_count_beyond_what_a_sealed_session_has(one: Apart, at: str) -> None:
    """R14: with `chunk_count` the recorder hears that chunks are missing, before the seal and after it."""
    session = session_name("count")
    ask = one.seal if at == "processor" else one.seal_at_storage
    for index in range(2):
        assert one.api.put_chunk(session, index, b"chunk %d" % index).status_code == 201
    assert wait_until(lambda: ask(session, 2).status_code == 200, 20)
    assert ask(session, 2).status_code == 200
    more, fewer = ask(session, 3), ask(session, 1)
    assert (more.status_code, more.json()["code"]) == (409, "chunks-missing")
    assert (fewer.status_code, fewer.json()["code"]) == (409, "chunk-count-mismatch")
