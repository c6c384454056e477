"""session-storage away: no recorder sees an error, nothing acknowledged is lost, and the spool drains in order.

SPOOL_OUTAGE_SECONDS sets how long it is away (600 for ten minutes), by itself a few seconds, and SPOOL_PAUSE_SECONDS how
long each recorder pauses after a chunk.
"""

import os
import random
import signal
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, Self
from urllib.parse import urlsplit

import httpx
import pytest

from scripts.devstack.process import wait_until
from scripts.devstack.stack import Part, Stack
from sessions.core import merkle
from tests.conftest import Figure, own_stack
from tests.e2e.conftest import Api, session_name

RECORDERS = 16
OUTAGE_SECONDS = float(os.environ.get("SPOOL_OUTAGE_SECONDS", "3"))
PAUSE_SECONDS = float(os.environ.get("SPOOL_PAUSE_SECONDS", "0.05"))
DIRECT_SECONDS = 2.0


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """A stack of its own: its spool is filled, and its parts are killed."""
    yield from own_stack(tmp_path_factory)


@pytest.fixture(scope="module")
def api(stack: Stack) -> Iterator[Api]:
    one = Api(stack)
    yield one
    one.close()


@pytest.fixture(autouse=True)
def _whole(stack: Stack) -> Iterator[None]:
    yield
    for part, runs in stack.alive().items():
        if not runs:
            stack.resume(part)
    stack.kill("storage", signal.SIGCONT)


def _content(session: str, index: int, largest: int) -> bytes:
    seeded = random.Random(f"{session} {index}")
    return seeded.randbytes(seeded.randrange(largest // 2, largest)) if index % 3 else b"text " * (largest // 8)


class Recorders:
    """Sixteen of them, each with a session, which never stop and never forgive an error."""

    def __init__(
        self, stack: Stack, largest: int = 20_000, pause: float = PAUSE_SECONDS, *, forgiving: bool = False
    ) -> None:
        self.stack = stack
        self.largest = largest
        self.pause = pause
        self.forgiving = forgiving  # of connections: what is answered is never forgiven
        self.names = [session_name(f"spool{number}") for number in range(RECORDERS)]
        self.acks: dict[str, list[dict[str, Any]]] = {name: [] for name in self.names}
        self.errors: list[str] = []
        self.slowest = 0.0
        self._done = threading.Event()
        self._pool = ThreadPoolExecutor(RECORDERS)

    def __enter__(self) -> Self:
        self._running = [self._pool.submit(self._record, name) for name in self.names]
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        self._done.set()
        for running in self._running:
            running.result()
        self._pool.shutdown()

    def count(self, durability: str | None = None) -> int:
        return sum(durability in (None, ack["durability"]) for acks in self.acks.values() for ack in list(acks))

    def _record(self, name: str) -> None:
        headers = {"Authorization": f"Bearer {self.stack.tokens['record']}"}
        url = f"{self.stack.processor_url}/api/v1/sessions/{name}/chunks"
        with httpx.Client(timeout=60, trust_env=False, headers=headers) as http:
            index = 0
            while not self._done.is_set():
                content = _content(name, index, self.largest)
                began = time.monotonic()
                try:
                    answer = http.put(f"{url}/{index}", content=content)
                except httpx.TransportError as error:
                    if not self.forgiving:
                        self.errors.append(repr(error))
                    time.sleep(0.1)
                    continue
                if answer.status_code not in (200, 201):
                    self.errors.append(f"{name} {index}: {answer.status_code} {answer.text}")
                    time.sleep(0.1)
                    continue
                self.slowest = max(self.slowest, time.monotonic() - began)
                self.acks[name].append(answer.json())
                index += 1
                time.sleep(self.pause)

    def check(self, api: Api) -> None:
        """Every byte is there, in order, and the root is that of what was acknowledged."""
        for name, acks in self.acks.items():
            answer = api.processor("POST", f"/api/v1/sessions/{name}/seal", json={"chunk_count": len(acks)})
            assert answer.status_code == 200, answer.text
            root = merkle.root([bytes.fromhex(ack["leaf_hash"]) for ack in acks])
            assert answer.json()["root"] == root.hex()
            whole = api.processor("GET", f"/api/v1/sessions/{name}/content", "replay")
            assert whole.content == b"".join(_content(name, index, self.largest) for index in range(len(acks)))


def _health(api: Api) -> dict[str, Any]:
    return api.processor("GET", "/health", None).json()


def _metric(api: Api, name: str) -> float:
    text = api.processor("GET", "/metrics", None).text
    return sum(float(line.rsplit(" ", 1)[1]) for line in text.splitlines() if line.split("{")[0].split(" ")[0] == name)


def _stored(recorders: Recorders, enough: int) -> bool:
    return recorders.count("stored") > enough


def _drained(api: Api, seconds: float = 60) -> bool:
    return wait_until(
        lambda: _metric(api, "lucid_spool_entries") == 0 and not _metric(api, "lucid_storage_away"), seconds
    )


def _direct_rate(stack: Stack) -> float:
    """Chunks a second that as many recorders get to session-storage when none of them pauses."""
    with Recorders(stack, pause=0) as recorders:
        assert wait_until(lambda: recorders.count("stored") > RECORDERS, 30)
        before, began = recorders.count("stored"), time.monotonic()
        time.sleep(DIRECT_SECONDS)
        return (recorders.count("stored") - before) / (time.monotonic() - began)


@pytest.mark.timeout(180 + 3 * OUTAGE_SECONDS)
@pytest.mark.parametrize("how", ["killed", "stopped"])
def test_storage_away_and_no_recorder_sees_an_error(stack: Stack, api: Api, how: str, figure: Figure) -> None:
    direct = _direct_rate(stack)
    spooled_before = _metric(api, "lucid_spooled_total")
    with Recorders(stack) as recorders:
        assert wait_until(lambda: recorders.count("stored") > 3 * RECORDERS, 30)
        stack.kill("storage", signal.SIGKILL if how == "killed" else signal.SIGSTOP)
        assert wait_until(lambda: recorders.count("spooled") > 3 * RECORDERS, 30)
        health = _health(api)
        assert health["checks"]["storage"]["status"] == "degraded"
        assert "go to the spool" in health["checks"]["storage"]["detail"]
        time.sleep(OUTAGE_SECONDS)
        if how == "killed":
            stack.resume("storage")
        else:
            stack.kill("storage", signal.SIGCONT)
        before = recorders.count("stored")
        began = time.monotonic()
        assert wait_until(lambda: recorders.count("stored") > before + 3 * RECORDERS, 60)
        assert _drained(api, 60 + OUTAGE_SECONDS)
        seconds = time.monotonic() - began
        entries = _metric(api, "lucid_spooled_total") - spooled_before
    figure(
        f"storage {how} for {OUTAGE_SECONDS:g} s: {entries:.0f} entries drained in {seconds:.1f} s, {entries / seconds:.0f}"
        f" a second beside what comes in; directly {direct:.0f} a second; slowest answer {recorders.slowest:.2f} s"
    )
    assert recorders.errors == []
    recorders.check(api)
    assert wait_until(lambda: _health(api)["status"] == "ok", 15)
    assert list((Path(stack.folder) / "spool").glob("*.seg")) == []


def test_mongodb_dies_under_load_again_and_again(stack: Stack, api: Api, figure: Figure) -> None:
    """A server by itself, as on a Pi, and chunks that are small enough to wait in memory for the journal."""
    with Recorders(stack, largest=2_000, pause=0) as recorders:
        for _ in range(5):
            enough = recorders.count("stored") + 10 * RECORDERS
            assert wait_until(partial(_stored, recorders, enough), 60)
            stack.kill("mongod")
            stack.resume("mongod")
        assert _drained(api)
    figure(f"a standalone MongoDB killed five times: {recorders.count()} chunks acknowledged, none lost")
    assert recorders.errors == []
    recorders.check(api)


def test_the_processor_is_killed_in_an_outage(stack: Stack, api: Api) -> None:
    with Recorders(stack, forgiving=True) as recorders:
        assert wait_until(lambda: recorders.count("stored") > RECORDERS, 30)
        stack.kill("storage")
        assert wait_until(lambda: recorders.count("spooled") > 5 * RECORDERS, 30)
        stack.kill("processor")
        stack.resume("processor")
        spooled = recorders.count("spooled")
        assert wait_until(lambda: recorders.count("spooled") > spooled + 5 * RECORDERS, 30)
        stack.resume("storage")
        assert _drained(api)
    assert recorders.errors == []
    recorders.check(api)


def test_a_repeat_is_compared_by_a_processor_that_was_restarted_in_an_outage(stack: Stack, api: Api) -> None:
    """Its session was opened at storage, which alone had the key."""
    session = session_name("repeat")
    assert api.put_chunk(session, 0, b"zero").json()["durability"] == "stored"
    stack.kill("storage")
    first = api.put_chunk(session, 1, b"one")
    assert (first.status_code, first.json()["durability"]) == (201, "spooled")
    stack.kill("processor")
    stack.resume("processor")
    again = api.put_chunk(session, 1, b"one")
    assert (again.status_code, again.json()) == (200, first.json())
    other = api.put_chunk(session, 1, b"two")
    assert (other.status_code, other.json()["code"]) == (409, "chunk-conflict")
    stack.resume("storage")
    assert _drained(api)
    sealed = api.processor("POST", f"/api/v1/sessions/{session}/seal", json={"chunk_count": 2})
    assert sealed.status_code == 200, sealed.text
    assert api.processor("GET", f"/api/v1/sessions/{session}/content", "replay").content == b"zeroone"


def test_a_whole_session_while_storage_is_away(stack: Stack, api: Api) -> None:
    session, other = session_name("away"), session_name("away")
    stack.kill("storage")
    url = f"/api/v1/sessions/{session}"
    opened = api.processor("PUT", url, json={"metadata": {"host": "desk"}})
    assert (opened.status_code, opened.json()["status"], opened.json()["next_index"]) == (201, "open", 0)
    assert api.processor("PUT", url, json={"metadata": {"host": "desk"}}).status_code == 200
    conflict = api.processor("PUT", url, json={"metadata": {"host": "other"}})
    assert (conflict.status_code, conflict.json()["code"]) == (409, "metadata-conflict")
    days = "/api/v1/sessions/lucid-audit-x"
    for method, path in (("PUT", days), ("PUT", f"{days}/chunks/0"), ("POST", f"{days}/seal")):
        refused = api.processor(method, path)
        assert (refused.status_code, refused.json()["code"]) == (403, "session-reserved")
    acks = []
    for index in (0, 1, 3):
        answer = api.put_chunk(session, index, b"chunk %d" % index)
        assert (answer.status_code, answer.json()["durability"]) == (201, "spooled"), answer.text
        acks.append(answer.json())
    again = api.put_chunk(session, 1, b"chunk 1")
    assert (again.status_code, again.json()) == (200, acks[1])
    assert api.put_chunk(session, 1, b"another").json()["code"] == "chunk-conflict"
    view = api.processor("GET", url).json()
    assert (view["next_index"], view["missing"], view["chunk_count"]) == (4, [[2, 2]], 3)
    assert view["plaintext_bytes"] == 3 * len(b"chunk 0")
    unrecorded = api.processor("GET", f"{url}/chunks/3", "replay")  # nobody reads without leaving an audit event
    assert (unrecorded.status_code, unrecorded.json()["code"]) == (503, "audit-unavailable")
    assert api.processor("GET", f"/api/v1/sessions/{other}").json()["code"] == "storage-unavailable"
    short = api.processor("POST", f"{url}/seal", json={"chunk_count": 3})
    assert (short.status_code, short.json()["code"]) == (409, "chunk-count-mismatch")
    assert api.put_chunk(session, 2, b"chunk 2").status_code == 201
    stack.kill("processor")
    stack.resume("processor")
    queued = api.processor("POST", f"{url}/seal", json={"chunk_count": 4})
    waits = {"status": "seal-queued", "chunk_count": 4, "spooled_chunks": 4, "waiting_for": []}
    expected = {"session_id": session, **waits}
    assert (queued.status_code, queued.json()) == (202, expected)
    assert api.processor("POST", f"{url}/seal", json={}).json() == {**expected, "chunk_count": None}
    beside = api.processor("POST", f"{url}/seal", json={"chunk_count": 5})  # a chunk 4 may be at another processor
    assert (beside.status_code, beside.json()) == (202, expected | {"chunk_count": 5})
    assert api.put_chunk(session, 4, b"late").status_code == 503
    assert api.put_chunk(session, 2, b"chunk 2").status_code == 200
    finalized = api.processor("POST", f"{url}/finalize")
    assert (finalized.status_code, finalized.json()["code"]) == (503, "storage-unavailable")
    stack.resume("storage")
    assert wait_until(lambda: api.storage("GET", url).json().get("status") == "sealed", 30)
    sealed = api.processor("POST", f"{url}/seal", json={"chunk_count": 4})
    assert sealed.status_code == 200
    assert api.processor("GET", f"{url}/content", "replay").content == b"".join(
        b"chunk %d" % index for index in range(4)
    )
    assert api.put_chunk(session, 4, b"late").json()["code"] == "session-sealed"


def test_an_order_that_storage_cannot_have_heard_keeps_no_chunk_out_of_the_spool(stack: Stack, api: Api) -> None:
    session = session_name("unheard")
    assert api.put_chunk(session, 0, b"0").status_code == 201
    stack.kill("storage")
    url = f"/api/v1/sessions/{session}"
    assert api.processor("POST", f"{url}/seal", json={"chunk_count": 3}).status_code == 202  # the first to meet it
    for index in (1, 2):
        answer = api.put_chunk(session, index, b"%d" % index)
        assert (answer.status_code, answer.json().get("durability")) == (201, "spooled"), answer.text
        stack.kill("processor")
        stack.resume("processor")
    stack.resume("storage")
    assert wait_until(lambda: api.storage("GET", url).json().get("status") == "sealed", 30)
    assert api.processor("GET", f"{url}/content", "replay").content == b"012"


def _answer_to_head(stack: Stack, session: str, length: int) -> bytes:
    """The first line of the answer to a chunk of which the head alone is sent."""
    address = urlsplit(stack.processor_url)
    head = f"PUT /api/v1/sessions/{session}/chunks/1000 HTTP/1.1\r\nHost: x\r\nContent-Length: {length}\r\n"
    head += f"Authorization: Bearer {stack.tokens['record']}\r\n\r\n"
    with socket.create_connection((address.hostname, address.port), timeout=10) as connection:
        connection.sendall(head.encode())
        return connection.makefile("rb").readline()


def test_the_spool_is_full_and_goes_on_after_draining(stack: Stack, api: Api) -> None:
    stack.restart("processor", {"SPOOL_MAX_BYTES": str(4 * 1024 * 1024)})
    session = session_name("full")
    try:
        stack.kill("storage")
        kept, refused = [], None
        for index in range(100):
            content = random.Random(index).randbytes(100_000)
            answer = api.put_chunk(session, index, content)
            if answer.status_code != 201:
                refused = answer
                break
            kept.append(content)
        assert refused is not None
        assert (refused.status_code, refused.json()["code"]) == (507, "spool-full")
        assert int(refused.headers["retry-after"]) > 0
        assert 30 < len(kept) < 42
        assert b" 507 " in _answer_to_head(stack, session, 100_000), "before a byte of the body"
        health = _health(api)
        assert (health["status"], health["checks"]["storage"]["status"]) == ("failed", "failed")
        assert _metric(api, "lucid_spool_state") == 3
        stack.resume("storage")
        assert _drained(api)
        assert api.put_chunk(session, len(kept), b"on").json()["durability"] == "stored"
        whole = api.processor("GET", f"/api/v1/sessions/{session}/content", "replay").content
        assert whole == b"".join(kept) + b"on"
        assert wait_until(lambda: _health(api)["status"] == "ok", 15)
    finally:
        stack.restart("processor", {"SPOOL_MAX_BYTES": ""})


def test_what_the_outage_hid_is_set_aside_and_told(stack: Stack, api: Api) -> None:
    """A chunk that storage has, sent with other content while that cannot be known: neither is lost."""
    session = session_name("hidden")
    api.record(session, [b"first", b"second"], seal=False)
    stack.kill("storage")
    assert api.put_chunk(session, 0, b"first").json()["durability"] == "spooled"
    assert api.put_chunk(session, 1, b"other").json()["durability"] == "spooled"
    stack.resume("storage")
    assert _drained(api)
    assert api.processor("GET", f"/api/v1/sessions/{session}/content", "replay").content == b"firstsecond"
    assert len(list((stack.folder / "spool" / "quarantine").glob("*.entry"))) == 1
    health = _health(api)
    assert (health["status"], health["checks"]["spool"]["status"]) == ("degraded", "degraded")
    assert "in quarantine" in health["checks"]["spool"]["detail"]
    for file in (stack.folder / "spool" / "quarantine").iterdir():
        file.unlink()
    stack.restart("processor")
    assert wait_until(lambda: _health(api)["status"] == "ok", 15)


def test_without_a_spool_the_answer_is_503(stack: Stack, api: Api) -> None:
    stack.restart("processor", {"SPOOL": "off"})
    session = session_name("strict")
    part: Part = "storage"
    try:
        stack.kill(part)
        answer = api.put_chunk(session, 0, b"x")
        assert (answer.status_code, answer.json()["code"]) == (503, "storage-unavailable")
        assert _health(api)["status"] == "failed"
        stack.resume(part)
        assert api.put_chunk(session, 0, b"x").status_code == 201
    finally:
        stack.restart("processor", {"SPOOL": "on"})
