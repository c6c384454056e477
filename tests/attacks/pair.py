"""Two processors before one storage, each with a spool of its own and a wire to storage that a test can cut."""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from scripts.devstack.mongod import Mongod
from scripts.devstack.process import free_port, wait_until
from scripts.devstack.replicas import Replica
from scripts.devstack.stack import Stack
from tests.chaos.wire import Condition, HeldWire, held_wires
from tests.e2e.conftest import session_name

PATIENCE_SECONDS = 20.0
"""How long anything may take that happens without being asked for."""


@dataclass
class Processor:
    """A processor, as recorders and admins reach it."""

    replica: Replica
    wire: HeldWire
    http: httpx.Client

    def ask(self, method: str, path: str, role: str = "record", **options: Any) -> httpx.Response:
        """Send a request with the token of a role."""
        headers = {"authorization": f"Bearer {self.replica.stack.tokens[role]}"}
        return self.http.request(method, f"{self.replica.url}/api/v1{path}", headers=headers, **options)

    def send(self, session: str, index: int) -> httpx.Response:
        """Send a chunk, and return what is answered."""
        return self.ask("PUT", f"/sessions/{session}/chunks/{index}", content=chunk(session, index))

    def put(self, session: str, indices: Sequence[int], durability: str) -> None:
        """Send chunks that are acknowledged as stored or as spooled."""
        for index in indices:
            answer = self.send(session, index)
            assert (answer.status_code, answer.json().get("durability")) == (201, durability), answer.text

    def seal(self, session: str, chunk_count: int | None = None) -> httpx.Response:
        """Ask once for the seal."""
        body = {} if chunk_count is None else {"chunk_count": chunk_count}
        return self.ask("POST", f"/sessions/{session}/seal", json=body)

    def sealed(self, session: str, chunk_count: int | None = None) -> dict[str, Any]:
        """Ask until the session is sealed, and return the manifest."""
        last: list[httpx.Response] = []

        def done() -> bool:
            last[:] = [self.seal(session, chunk_count)]
            return last[0].status_code not in (202, 503)

        wait_until(done, PATIENCE_SECONDS)
        assert last[0].status_code == 200, last[0].text
        return last[0].json()["manifest"]

    def cut(self) -> None:
        """Cut it off from storage."""
        self.wire.become(Condition.CUT)

    def mend(self) -> None:
        """Let it reach storage again."""
        self.wire.become(Condition.WHOLE)

    def reaches_storage(self) -> bool:
        """Return whether it knows that storage is there."""
        return self.replica.metric("lucid_storage_away") == 0

    def drained(self) -> bool:
        """Return whether its spool holds nothing that waits."""
        return self.replica.metric("lucid_spool_entries") == 0


@dataclass
class Pair:
    """The two, and what is before and behind them."""

    stack: Stack
    a: Processor
    b: Processor
    http: httpx.Client

    def turns(self, number: int) -> tuple[Processor, Processor]:
        """Return both, in turn one or the other first: what drains first after an outage is chance."""
        return (self.a, self.b) if number % 2 else (self.b, self.a)

    def storage(self, method: str, path: str, role: str = "audit", **options: Any) -> httpx.Response:
        """Ask session-storage itself."""
        headers = {"authorization": f"Bearer {self.stack.tokens[role]}"}
        return self.http.request(method, f"{self.stack.storage_url}/api/v1{path}", headers=headers, **options)

    def status(self, session: str) -> str:
        """Return the state of a session at storage."""
        answer = self.storage("GET", f"/sessions/{session}")
        return str(answer.json()["status"]) if answer.status_code == 200 else ""

    def until_sealed(self, *sessions: str) -> list[str]:
        """Wait, and do not ask for it, until sessions are sealed; return those that are not."""
        left = list(sessions)

        def done() -> bool:
            left[:] = [one for one in left if self.status(one) != "sealed"]
            return not left

        wait_until(done, PATIENCE_SECONDS)
        return left

    def recorded(self, session: str) -> bytes:
        """Return what is read out of a sealed session."""
        answer = self.a.ask("GET", f"/sessions/{session}/content", "replay")
        return answer.content if answer.status_code == 200 else answer.text.encode()

    def chunk_count(self, session: str) -> int:
        """Return how many chunks a sealed session has by its manifest."""
        return int(self.storage("GET", f"/sessions/{session}/manifest").json()["chunk_count"])

    def processors(self) -> list[dict[str, Any]]:
        """Return the processors that storage knows; nothing where it knows of none."""
        answer = self.storage("GET", "/processors")
        return answer.json()["processors"] if answer.status_code == 200 else []

    def heal(self) -> None:
        """Mend both wires, and wait until nothing waits and nobody is missing."""

        def healed() -> bool:
            present = all(one["state"] == "present" for one in self.processors())
            drained = self.a.drained() and self.b.drained()
            return present and drained and self.a.reaches_storage() and self.b.reaches_storage()

        self.a.mend()
        self.b.mend()
        wait_until(healed, PATIENCE_SECONDS)

    def noticed(self) -> None:
        """Wait until both know that storage is back."""
        assert wait_until(lambda: self.a.reaches_storage() and self.b.reaches_storage(), PATIENCE_SECONDS)

    @contextmanager
    def storage_killed(self) -> Iterator[None]:
        """Kill storage, and start it again afterwards."""
        self.stack.kill("storage")
        try:
            yield
        finally:
            self.stack.resume("storage")

    @contextmanager
    def storage_with(self, **settings: str) -> Iterator[None]:
        """Run storage with these settings for a while."""
        before = dict(self.stack.env["storage"])
        self.stack.restart("storage", settings)
        self.noticed()
        try:
            yield
        finally:
            self.stack.env["storage"].clear()
            self.stack.restart("storage", before)
            self.heal()


def chunk(session: str, index: int) -> bytes:
    """Return the content of a chunk."""
    return f"chunk {index} of {session}\n".encode() * 3


def whole(session: str, count: int) -> bytes:
    """Return the content of a session."""
    return b"".join(chunk(session, index) for index in range(count))


def names(prefix: str, count: int) -> list[str]:
    """Return ids that no other test uses."""
    return [session_name(prefix) for _ in range(count)]


def seen(true: Callable[[], bool], seconds: float) -> bool:
    """Look at something again and again for all that time; return whether it was true each time."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if not true():
            return False
        time.sleep(0.2)
    return True


@contextmanager
def paired(folder: Path, **storage: str) -> Iterator[Pair]:
    """Run a stack with two processors. `storage` are further settings of session-storage."""
    port = free_port()
    with held_wires(port, port) as (wire_a, wire_b), httpx.Client(timeout=60, trust_env=False) as http:
        settings = {"processor": {"STORAGE_URL": wire_a.url}, "storage": {"PORT": str(port), **storage}}
        stack = Stack(folder, settings=settings)
        stack.mongod = Mongod(folder / "mongo", marks=stack.mongod.marks)
        stack.start()
        try:
            second = Replica.further(stack, "processor", "processor-2", {"STORAGE_URL": wire_b.url})
            second.start()
            first = Replica.own(stack, "processor")
            pair = Pair(stack, Processor(first, wire_a, http), Processor(second, wire_b, http), http)
            pair.heal()  # a spool that storage has not heard of yet takes nothing
            yield pair
        finally:
            stack.stop()
