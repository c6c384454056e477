"""The whole stack: mongod, anvil, the contract, and both services, all on free loopback ports."""

import contextlib
import fcntl
import json
import os
import shutil
import signal
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Literal

from pymongo import MongoClient
from pymongo.errors import PyMongoError

from scripts.devstack import process
from scripts.devstack.anvil import Anvil
from scripts.devstack.credentials import make_kek, make_tokens, write_private
from scripts.devstack.mongod import Mode, Mongod
from scripts.devstack.process import Process, StartError

Service = Literal["processor", "storage"]
Part = Literal["mongod", "anvil", "processor", "storage"]
SERVICES: Final[tuple[Service, Service]] = ("storage", "processor")
PARTS: Final[tuple[Part, ...]] = ("mongod", "anvil", "storage", "processor")

# What a service's process gets besides its settings: how to run, and how to measure coverage.
_PASSED_ON: Final = ("PATH", "HOME", "LANG", "TMPDIR", "TZ", "LUCID_TEST_RUN")
_MARKER: Final = ".lucid-stack"
_FOREIGN_PREFIX: Final = "lucid_stack_"
_ATTEMPTS: Final = 3


class BusyError(RuntimeError):
    """The folder cannot be used for a stack: somebody else's files, or another start at work."""


@dataclass
class Stack:
    """A stack in `folder`, which holds its data, logs, secrets and `stack.json`.

    `settings` are further settings of each service; they win over the stack's own. After `start` the attributes that
    follow are set, as they are in `stack.json`.
    """

    folder: Path
    mode: Mode = "standalone"
    settings: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    test_commands: bool = False
    block_seconds: int = 1
    processor_url: str = ""
    storage_url: str = ""
    chain_id: int = 0
    contract: str = ""
    publisher: str = ""
    tokens: dict[str, str] = field(default_factory=dict, repr=False)
    env: dict[str, dict[str, str]] = field(default_factory=dict, repr=False)
    mongod: Mongod = field(init=False, repr=False)
    anvil: Anvil = field(init=False, repr=False)
    services: dict[str, Process] = field(init=False, default_factory=dict)

    def __post_init__(self) -> None:
        self.folder = self.folder.absolute()
        self.mongod = Mongod.from_environment(self.folder / "mongo", self.mode, test_commands=self.test_commands)
        self.anvil = Anvil(self.folder / "chain", self.block_seconds)

    @property
    def mongodb_url(self) -> str:
        """URL of the MongoDB server."""
        return self.mongod.url

    @property
    def rpc_url(self) -> str:
        """URL of the chain's JSON-RPC endpoint."""
        return self.anvil.url

    @property
    def file(self) -> Path:
        """`stack.json`."""
        return self.folder / "stack.json"

    def log(self, part: Part) -> Path:
        """The log of a part."""
        return self.folder / f"{part}.log"

    def start(self) -> None:
        """Start everything, from empty; returns when both services are ready.

        Raises:
            StartError: a part did not start; then none is left running.
            BusyError: the folder cannot be used.
        """
        with self._alone():
            self._clear()
            try:
                self._start()
            except BaseException:
                self._stop_all()
                raise

    def _start(self) -> None:
        # stack.json is written as parts come up, so that a start which is killed half-way can still be stopped.
        self.mongod.start()
        self._write()
        self.anvil.start()
        self._write()
        self.contract = _deploy(self.anvil.url, self.anvil.accounts[0][1])
        self.chain_id, (self.publisher, publisher_key) = self.anvil.chain_id, self.anvil.accounts[1]
        secrets = self.folder / "secrets"
        self.tokens = make_tokens(secrets / "tokens")
        make_kek(secrets / "kek")
        write_private(secrets / "storage-token", self.tokens["processor"] + "\n")
        write_private(secrets / "publisher-key", publisher_key + "\n")
        for attempt in range(1, _ATTEMPTS + 1):
            self._choose_ports(secrets)
            try:
                for service in SERVICES:
                    self._launch(service)
                self._write()
                for service in SERVICES:
                    self._wait_ready(service)
            except StartError:
                taken = any(process.port_was_taken(self.log(service)) for service in SERVICES)
                if attempt == _ATTEMPTS or not taken:
                    raise
                self._stop_services()
                for service in SERVICES:
                    self.log(service).unlink()
            else:
                return

    def _choose_ports(self, secrets: Path) -> None:
        ports = {service: self._setting(service, "PORT") or str(process.free_port()) for service in SERVICES}
        self.storage_url, self.processor_url = (f"http://127.0.0.1:{ports[service]}" for service in SERVICES)
        both = {"HOST": "127.0.0.1", "LOG_LEVEL": "INFO", "TOKENS_FILE": str(secrets / "tokens")}
        self.env = {
            "processor": both
            | {
                "SERVICE_NAME": "chunk-processor",
                "PORT": ports["processor"],
                "KEK_FILE": str(secrets / "kek"),
                "STORAGE_URL": self.storage_url,
                "STORAGE_TOKEN_FILE": str(secrets / "storage-token"),
            }
            | dict(self.settings.get("processor", {})),
            "storage": both
            | {
                "SERVICE_NAME": "session-storage",
                "PORT": ports["storage"],
                "MONGODB_URL": self.mongod.url,
                # A server that is not ours may have a lucid_sessions of its own.
                "MONGODB_DATABASE": "lucid_sessions"
                if self.mongod.folder
                else f"{_FOREIGN_PREFIX}{os.urandom(6).hex()}",
                "ANCHORING": "on",
                "CHAIN_RPC_URLS": self.anvil.url,
                "CHAIN_ID": str(self.anvil.chain_id),
                "CHAIN_CONTRACT": self.contract,
                "CHAIN_KEY_FILE": str(secrets / "publisher-key"),
                "ANCHOR_INTERVAL_SECONDS": "1",
                "ANCHOR_CONFIRMATIONS": "2",
            }
            | dict(self.settings.get("storage", {})),
        }

    def _setting(self, service: Service, name: str) -> str:
        return self.settings.get(service, {}).get(name, "")

    def _launch(self, service: Service) -> None:
        command = [sys.executable, "-m", f"sessions.{service}.main"]
        passed_on = {
            name: value
            for name, value in os.environ.items()
            if name in _PASSED_ON or name.startswith(("COVERAGE_", "LC_"))
        }
        environment = passed_on | {"PYTHONUNBUFFERED": "1"} | self.env[service]
        self.services[service] = process.start(command, self.log(service), environment)

    def _wait_ready(self, service: Service) -> None:
        url = self.storage_url if service == "storage" else self.processor_url
        port, running = int(url.rpartition(":")[2]), self.services[service]

        def ready() -> bool:
            return process.listens(running, port) and answers(f"{url}/readyz")

        process.wait_ready(service, running, self.log(service), ready, process.START_SECONDS)

    def stop(self) -> None:
        """Stop everything, services first; nothing of it runs afterwards. Data and logs stay to be looked at."""
        with self._alone():
            self._stop_all()

    def _stop_all(self) -> None:
        self._stop_services()
        self.anvil.stop()
        self._drop_foreign_database()
        self.mongod.stop()
        self.file.unlink(missing_ok=True)

    def _drop_foreign_database(self) -> None:
        """Leave somebody else's server as it was."""
        name = self.env.get("storage", {}).get("MONGODB_DATABASE", "")
        if self.mongod.folder is None and name.startswith(_FOREIGN_PREFIX):
            with contextlib.suppress(PyMongoError), MongoClient[dict[str, Any]](self.mongod.url) as client:
                client.drop_database(name)

    def _stop_services(self) -> None:
        # The processor first: what it has taken on it can still hand over.
        for service in reversed(SERVICES):
            if running := self.services.pop(service, None):
                running.stop()

    def kill(self, part: Part, number: signal.Signals = signal.SIGKILL) -> None:
        """Send a signal to a part; for one that ends processes, wait for the end. SIGSTOP and SIGCONT work, too."""
        running = self.process(part)
        assert running is not None, f"{part} does not run, or is not ours"
        if number in (signal.SIGSTOP, signal.SIGCONT):
            running.send(number)
        else:
            running.stop(number)

    def resume(self, part: Part) -> None:
        """Start a part again after `kill`, with the same port, data and settings, and wait until it is ready.

        Raises:
            StartError: it does not come up.
        """
        if part == "mongod":
            self.mongod.start()
        elif part == "anvil":
            self.anvil.start()
        else:
            self._launch(part)
            self._wait_ready(part)
        self._write()

    def restart(self, part: Part, settings: Mapping[str, str] | None = None) -> None:
        """Stop a part by SIGTERM and start it again; a service may get further settings.

        Raises:
            StartError: it does not come up.
        """
        self.kill(part, signal.SIGTERM)
        if part in self.env:
            self.env[part] |= settings or {}
        self.resume(part)

    def process(self, part: Part) -> Process | None:
        """The process of a part; None when it was not started here."""
        if part == "mongod":
            return self.mongod.process
        return self.anvil.process if part == "anvil" else self.services.get(part)

    def alive(self) -> dict[Part, bool]:
        """Which parts run. A foreign MongoDB counts as running."""
        found: dict[Part, bool] = {}
        for part in PARTS:
            running = self.process(part)
            found[part] = running.alive if running else part == "mongod" and self.mongod.folder is None
        return found

    def _write(self) -> None:
        processes = {part: running for part in PARTS if (running := self.process(part))}
        content = {
            "processor_url": self.processor_url,
            "storage_url": self.storage_url,
            "mongodb_url": self.mongodb_url,
            "rpc_url": self.rpc_url,
            "chain_id": self.chain_id,
            "contract": self.contract,
            "publisher": self.publisher,
            "tokens": self.tokens,
            "env": self.env,
            "pids": {part: running.pid for part, running in processes.items()},
            "started": {part: running.started for part, running in processes.items()},
            "mode": self.mode,
        }
        write_private(self.file, json.dumps(content, indent=2) + "\n")

    @classmethod
    def load(cls, folder: Path) -> "Stack | None":
        """The stack that a `stack.json` tells of, running or not; None when there is none, or it cannot be read."""
        try:
            content: dict[str, Any] = json.loads((folder / "stack.json").read_text())
            stack = cls(folder, content["mode"])
            processes = {part: Process(pid, content["started"][part]) for part, pid in content["pids"].items()}
            for name in ("processor_url", "storage_url", "chain_id", "contract", "publisher", "tokens", "env"):
                setattr(stack, name, content[name])
            stack.anvil.port = int(content["rpc_url"].rpartition(":")[2])
            stack.mongod = Mongod(folder / "mongo" if "mongod" in processes else None, stack.mode)
            stack.mongod.url = content["mongodb_url"]
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return None
        stack.mongod.process, stack.anvil.process = processes.get("mongod"), processes.get("anvil")
        stack.services = {name: processes[name] for name in SERVICES if name in processes}
        return stack

    @contextlib.contextmanager
    def _alone(self) -> Iterator[None]:
        """Hold the folder, so that two scripts do not start or stop in it at once."""
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        with (self.folder / ".lock").open("w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise BusyError(f"another start or stop is at work in {self.folder}") from None
            yield

    def _clear(self) -> None:
        """Remove what an earlier stack left here, and nothing of anybody else's."""
        ours = [self.folder / name for name in ("mongo", "chain", "secrets", "stack.json")]
        ours += [self.log(part) for part in PARTS]
        marker = self.folder / _MARKER
        if not marker.exists() and (found := [path.name for path in ours if path.exists()]):
            raise BusyError(f"{self.folder} has {', '.join(found)} of somebody else: name another folder")
        marker.touch()
        for path in ours:
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)


def _deploy(rpc_url: str, key: str) -> str:
    """Deploy the contract, and give its address, 0x and 40 hex digits."""
    from sessions.storage.contract.deploy import DeployError, deploy  # it takes a second to import

    try:
        return "0x" + deploy(rpc_url, key).address.hex()
    except DeployError as error:
        raise StartError("contract", str(error)) from error


def answers(url: str, seconds: float = 5.0) -> bool:
    """Whether a GET is answered with 200."""
    try:
        with urllib.request.urlopen(url, timeout=seconds) as answer:  # noqa: S310 - our own URL
            return bool(answer.status == 200)  # noqa: PLR2004
    except (urllib.error.URLError, OSError):
        return False
