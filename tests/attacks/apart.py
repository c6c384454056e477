"""A stack whose two services are apart: a proxy between them can be cut, and can answer for session-storage."""

import hashlib
import secrets
import shutil
import signal
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from scripts.devstack import services
from scripts.devstack.process import Process, free_port, wait_until
from scripts.devstack.stack import Stack
from sessions.core.types import SessionId
from sessions.processor.keys import Dek
from sessions.processor.storage_client import key_json
from tests.attacks import loot
from tests.attacks.between import Between
from tests.e2e.conftest import Api
from tests.e2e.killing import disarm

SESSIONS = "/api/v1/sessions"
DRAIN_SECONDS = 20.0


@dataclass
class Apart:
    """The stack, plain HTTP to it, and the proxy between the services."""

    stack: Stack
    api: Api
    wire: Between
    others: list[Process] = field(default_factory=list)

    def seal(self, session: str, chunk_count: int | None = None) -> httpx.Response:
        return self.api.processor("POST", f"{SESSIONS}/{session}/seal", json={"chunk_count": chunk_count})

    def seal_at_storage(self, session: str, chunk_count: int | None = None, by: str = "recorder") -> httpx.Response:
        """As another processor asks for it, past the proxy."""
        order = {"chunk_count": chunk_count, "sealed_by": by}
        return self.api.storage("POST", f"{SESSIONS}/{session}/seal", "processor", json=order)

    def sealed_at_storage(self, session: str, chunk_count: int | None = None, by: str = "recorder") -> None:
        """Have another processor seal a session, and wait until it is done."""
        assert wait_until(lambda: self.seal_at_storage(session, chunk_count, by).status_code == 200, 20)

    def status_at_storage(self, session: str) -> str | None:
        return self.api.storage("GET", f"{SESSIONS}/{session}").json().get("status")

    def chunk(self, session: str, index: int) -> httpx.Response:
        return self.api.processor("GET", f"{SESSIONS}/{session}/chunks/{index}", "replay")

    def content(self, session: str) -> httpx.Response:
        return self.api.processor("GET", f"{SESSIONS}/{session}/content", "replay")

    def new_key(self, session: str) -> dict[str, Any]:
        """A key for a session, wrapped as the processor wraps it and written as storage takes it."""
        return key_json(loot.wrapper(self.stack).wrap(SessionId(session), Dek.generate()))

    def metric(self, name: str) -> float:
        lines = self.api.processor("GET", "/metrics", None).text.splitlines()
        return sum(float(line.rsplit(" ", 1)[1]) for line in lines if line.split("{")[0].split(" ")[0] == name)

    def drained(self, seconds: float = DRAIN_SECONDS) -> bool:
        """Wait until the spool is empty and storage answers; return whether that was in time."""
        return wait_until(
            lambda: self.metric("lucid_spool_entries") == 0 and not self.metric("lucid_storage_away"), seconds
        )

    @property
    def spool(self) -> Path:
        return Path(self.stack.env["processor"]["SPOOL_DIR"])

    def quarantine(self, session: str) -> list[dict[str, Any]]:
        """The entries of a session that are in the processor's quarantine, as its administrators see them."""
        answer = self.api.processor("GET", "/api/v1/spool", "admin")
        assert answer.status_code == 200, f"GET /api/v1/spool: {answer.status_code} {answer.text}"
        return [one for one in _objects(answer.json()) if one.get("session_id") == session and "name" in one]

    def quarantined(self, session: str, entries: int, seconds: float) -> list[dict[str, Any]]:
        """Those entries, once they are so many."""
        assert wait_until(lambda: len(self.quarantine(session)) >= entries, seconds), self.quarantine(session)
        return self.quarantine(session)

    def retry(self, entry: Mapping[str, Any]) -> httpx.Response:
        return self.api.processor("POST", f"/api/v1/spool/{entry['name']}/retry", "admin")

    def recorder(self, name: str) -> str:
        """A further token of the role `record`; gives the name that `Api` knows it by."""
        token = "lucid_" + secrets.token_urlsafe(32)
        digest = hashlib.sha256(token.encode()).hexdigest()
        with (self.stack.folder / "secrets" / "tokens").open("a") as file:
            file.write(f"{name} roles=record sha256={digest}\n")
        self.stack.tokens[name] = token
        unknown = f"{SESSIONS}/no-such-session"
        assert wait_until(lambda: self.api.processor("GET", unknown, name).status_code != 401, 10)
        return name

    def second_processor(self, folder: Path) -> str:
        """A further processor, with a spool of its own; gives its address."""
        folder.mkdir(parents=True)
        own = {**self.stack.env["processor"], "PORT": str(free_port()), "SPOOL_DIR": str(folder)}
        log = self.stack.folder / f"processor-{len(self.others) + 2}.log"
        running = services.launch("processor", own, self.stack.mongod.marks, log)
        self.others.append(running)
        services.wait_ready("processor", running, int(own["PORT"]), log)
        return f"http://127.0.0.1:{own['PORT']}"

    def whole(self) -> None:
        """Undo what a test did: drop all rules, start all parts, and wait until the spool is delivered."""
        self.wire.heal()
        self.stack.kill("storage", signal.SIGCONT)
        disarm(self.stack)
        self.drained()


def _objects(value: Any) -> Iterator[dict[str, Any]]:
    if isinstance(value, dict):
        yield value
        value = list(value.values())
    if isinstance(value, list):
        for one in value:
            yield from _objects(one)


@contextmanager
def apart(folder: Path, processor: Mapping[str, str], storage: Mapping[str, str]) -> Iterator[Apart]:
    """Such a stack; nothing is anchored."""
    port = free_port()
    with Between(port) as wire:
        settings = {
            "storage": {"PORT": str(port), "ANCHORING": "off", **storage},
            "processor": {"STORAGE_URL": wire.url, **processor},
        }
        stack = Stack(folder, settings=settings)
        stack.start()
        one = Apart(stack, Api(stack), wire)
        try:
            yield one
        finally:
            one.api.close()
            for running in one.others:
                running.stop()
            stack.stop()
            shutil.rmtree(folder / "mongo", ignore_errors=True)


def asked(seconds: float, step_seconds: float = 0.25) -> Iterator[float]:
    """Steps of time, for what a test does again and again."""
    end = time.monotonic() + seconds
    while (left := end - time.monotonic()) > 0:
        yield left
        time.sleep(step_seconds)


def ignoring_death(one: Apart, session: str, chunk_count: int) -> None:
    """Ask storage for a seal, of which it dies, perhaps before it answers."""
    with suppress(httpx.TransportError):
        one.seal_at_storage(session, chunk_count)
