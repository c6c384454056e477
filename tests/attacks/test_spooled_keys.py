"""A chunk that was acknowledged keeps its key, also while others ask for seals that are refused.

Findings C2 and R7: the opening that held the only copy of a key was dropped because storage called a session sealed whose
seal was refused a moment later, or because the session's ring was full; the chunk was stored, and nobody could read it.
"""

import base64
import signal
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Self

import httpx
import pytest

from scripts.devstack.process import wait_until
from sessions.core.key_ring import MAX_KEYS
from sessions.processor.killpoints import Point as ProcessorPoint
from sessions.storage.killpoints import Point as StoragePoint
from tests.attacks.apart import SESSIONS, Apart, apart, ignoring_death
from tests.e2e.conftest import Api, session_name
from tests.e2e.killing import CHUNKS, arm, disarm, has_died, put_all

LATE = len(CHUNKS)
CACHE_SECONDS = 1
TOO_MANY = 1_000_000
DECIDED_SECONDS = 15.0
STRANGERS = 6
STORED = 600


@pytest.fixture(scope="module")
def one(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Apart]:
    with apart(tmp_path_factory.mktemp("keys"), {"DEK_CACHE_SECONDS": str(CACHE_SECONDS)}, {}) as stack:
        yield stack


@pytest.fixture(autouse=True)
def _whole(one: Apart) -> Iterator[None]:
    yield
    one.whole()


def _forget_keys() -> None:
    """The processor has no session's ring any more."""
    time.sleep(CACHE_SECONDS + 0.2)


def _half_sealed(one: Apart, name: str) -> str:
    """A session whose seal, which will be refused, was ordered when storage died; storage does not run."""
    session = session_name(name)
    arm(one.stack, "storage", StoragePoint.SEAL_ORDERED)
    put_all(one.api, session)
    _forget_keys()
    ignoring_death(one, session, TOO_MANY)
    has_died(one.stack, "storage")
    return session


def _decide(one: Apart, session: str) -> None:
    """A stranger asks for another seal: the one that was begun is decided first, and this one is refused, too."""

    def refused() -> bool:
        return one.seal_at_storage(session, TOO_MANY).status_code == 409

    assert wait_until(refused, DECIDED_SECONDS)


@dataclass
class _Late:
    """A chunk that was sent at a bad time: it was acknowledged, or refused for now."""

    session: str
    index: int = LATE
    acknowledged: bool = False

    @property
    def content(self) -> bytes:
        return b"late for " + self.session.encode()

    def put(self, one: Apart) -> Self:
        answer = one.api.put_chunk(self.session, self.index, self.content)
        assert answer.status_code in (200, 201, 503), answer.text
        self.acknowledged |= answer.is_success
        return self

    def is_readable(self, one: Apart) -> None:
        """What was acknowledged is read; what was refused is taken now."""
        assert one.drained(DECIDED_SECONDS)
        if not self.acknowledged:
            assert wait_until(lambda: self.put(one).acknowledged, DECIDED_SECONDS)
            assert one.drained(DECIDED_SECONDS)
        read = one.chunk(self.session, self.index)
        assert (read.status_code, read.content) == (200, self.content), read.text
        assert wait_until(lambda: one.seal(self.session, self.index + 1).status_code == 200, DECIDED_SECONDS)


def _is_whole(one: Apart, late: _Late) -> None:
    """The late chunk is readable, and the session is sealed with it."""
    late.is_readable(one)
    assert one.content(late.session).content == b"".join(CHUNKS) + late.content


@pytest.mark.parametrize("restarted", [False, True], ids=["runs-on", "restarted"])
def test_storage_dies_within_a_seal_that_will_be_refused(one: Apart, restarted: bool) -> None:
    """C2: for half a minute the session was taken for sealed, and an opening with its key for delivered."""
    session = _half_sealed(one, "begun")
    if restarted:
        one.stack.restart("processor")
    late = _Late(session).put(one)
    one.stack.resume("storage")
    time.sleep(3)  # the spool is drained as far as it can be
    _decide(one, session)
    _is_whole(one, late)


def test_the_processor_dies_while_it_delivers_into_such_a_seal(one: Apart) -> None:
    """C2: between the opening, which holds the key, and the envelope."""
    session = _half_sealed(one, "begun-twice")
    late = _Late(session).put(one)
    arm(one.stack, "processor", ProcessorPoint.DRAIN_BEFORE_POST)
    late.put(one)  # should it have been refused before
    one.stack.resume("storage")
    running = one.stack.process("processor")
    assert running is not None
    if wait_until(lambda: not running.alive, 4):
        has_died(one.stack, "processor")
        one.stack.resume("processor")
        time.sleep(3)
        _decide(one, session)
    else:  # it waits for the decision, or took nothing into its spool
        _decide(one, session)
        if late.acknowledged:
            has_died(one.stack, "processor")
            one.stack.resume("processor")
        else:
            disarm(one.stack)
    _is_whole(one, late)


def test_a_recorder_hears_of_no_seal_before_it_is_decided(one: Apart) -> None:
    """C2: a recorder that hears `session-sealed` gives up its session, and this one is open again in a moment."""
    session = _half_sealed(one, "not-sealed")
    one.stack.resume("storage")
    assert one.drained()
    late = _Late(session)
    with ThreadPoolExecutor(1) as pool:
        putting = pool.submit(late.put, one)
        time.sleep(1)
        _decide(one, session)
        putting.result()
    _is_whole(one, late)


def _record_many(one: Apart, session: str) -> None:
    """So many chunks that a seal takes a while."""
    chunks = [
        {"chunk_id": f"{session}-{index}", "chunk_data_base64": base64.b64encode(b"%d" % index).decode()}
        for index in range(STORED)
    ]
    answer = one.api.processor("POST", "/api/v1/chunks/process-batch", json={"session_id": session, "chunks": chunks})
    assert answer.json()["successful_chunks"] == STORED, answer.text


@contextmanager
def _strangers(one: Apart, sessions: list[str]) -> Iterator[None]:
    """Ask at storage for seals that are refused, again and again."""
    done = threading.Event()

    def ask(number: int) -> None:
        api = Api(one.stack)
        session = sessions[number % len(sessions)]
        order = {"chunk_count": TOO_MANY, "sealed_by": "recorder"}
        while not done.is_set():
            with suppress(httpx.TransportError):
                api.storage("POST", f"{SESSIONS}/{session}/seal", "processor", json=order)
        api.close()

    with ThreadPoolExecutor(STRANGERS) as pool:
        for number in range(STRANGERS):
            pool.submit(ask, number)
        try:
            yield
        finally:
            done.set()


def test_storage_stands_still_while_strangers_ask_for_seals(one: Apart) -> None:
    """C2, as it was found: without a crash. The strangers' seals come through another processor."""
    sessions = [session_name("stalled") for _ in range(3)]
    for session in sessions:
        _record_many(one, session)
    _forget_keys()
    one.stack.kill("storage", signal.SIGSTOP)
    late = [_Late(session, STORED) for session in sessions]
    with _strangers(one, sessions), ThreadPoolExecutor(len(sessions)) as pool:
        for putting in [pool.submit(chunk.put, one) for chunk in late]:
            putting.result()
        one.stack.kill("storage", signal.SIGCONT)
        time.sleep(4)
    for chunk in late:
        chunk.is_readable(one)


def _outage(one: Apart, session: str, index: int) -> None:
    """A chunk in an outage that begins when the processor has no key of its session any more."""
    _forget_keys()
    with one.wire.cut():
        answer = one.api.put_chunk(session, index, b"chunk %d" % index)
        assert (answer.status_code, answer.json().get("durability")) == (201, "spooled"), answer.text
    assert one.drained()


def test_more_outages_than_a_ring_has_places(one: Apart) -> None:
    """R7: each outage brought a key; in the sixty-fourth the ring was full, and its chunks were lost to the recording."""
    session, outages = session_name("outages"), 4
    assert one.api.put_chunk(session, 0, b"chunk 0").status_code == 201
    for _ in range(MAX_KEYS - 2):
        added = one.api.storage("POST", f"{SESSIONS}/{session}/keys", "processor", json=one.new_key(session))
        assert added.status_code == 200, added.text
    for index in range(1, outages + 1):
        _outage(one, session, index)
    for index in range(outages + 1):
        read = one.chunk(session, index)
        assert (read.status_code, read.content) == (200, b"chunk %d" % index), f"chunk {index}: {read.text}"
    assert wait_until(lambda: one.seal(session, outages + 1).status_code == 200, DECIDED_SECONDS)
    assert one.content(session).content == b"".join(b"chunk %d" % index for index in range(outages + 1))
