"""The whole stack: mongod, anvil, the contract, and both services, all on free loopback ports."""

import contextlib
import json
import os
import signal
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Literal
from urllib.parse import urlsplit

from pymongo import MongoClient
from pymongo.errors import PyMongoError

from scripts.devstack import folder as folders
from scripts.devstack import process, services
from scripts.devstack.anvil import Anvil
from scripts.devstack.credentials import write_private
from scripts.devstack.mongod import Mode, Mongod
from scripts.devstack.process import ROOT, Process, StartError
from scripts.devstack.services import SERVICES, Secrets, Service

Part = Literal["mongod", "anvil", "processor", "storage"]
PARTS: Final[tuple[Part, ...]] = ("mongod", "anvil", "storage", "processor")

STACK_VARIABLE: Final = "LUCID_STACK"
"""In the environment of every process of a stack, with its folder: so none is lost, whatever becomes of the script."""

_FOREIGN_PREFIX: Final = "lucid_stack_"
_ATTEMPTS: Final = 3


@dataclass
class Stack:
    """A stack in `folder`, which holds its data, logs, secrets and `stack.json`.

    `settings` are further settings of each service; they win over the stack's own. `code` is the checkout that the
    services run from. After `start` the attributes that follow are set, as they are in `stack.json`.
    """

    folder: Path
    mode: Mode = "standalone"
    settings: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    test_commands: bool = False
    block_seconds: int = 1
    code: Path = ROOT
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
        self.mongod.marks = self.anvil.marks = self._marks

    @property
    def _marks(self) -> dict[str, str]:
        return {STACK_VARIABLE: str(self.folder)}

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
        with folders.hold(self.folder):
            self._end_strays()
            names = ["mongo", "chain", "spool", "secrets", "stack.json", *(self.log(part).name for part in PARTS)]
            folders.clear(self.folder, names)
            try:
                self._start()
            except BaseException:
                self._stop_all()
                raise

    def _start(self) -> None:
        # stack.json is written as parts come up, so that a start which is killed half-way can still be stopped.
        self.anvil.start()
        self._write()
        with ThreadPoolExecutor(1) as pool:  # the contract's block and mongod take a second each
            deployment = pool.submit(services.deploy_contract, self.anvil.url, self.anvil.accounts[0][1])
            self.mongod.start()
            self._write()
            self.contract = deployment.result()
        self.chain_id, (self.publisher, publisher_key) = self.anvil.chain_id, self.anvil.accounts[1]
        secrets = Secrets(self.folder / "secrets")
        self.tokens = secrets.make(publisher_key)
        # A server that is not ours may have a lucid_sessions of its own.
        database = "lucid_sessions" if self.mongod.folder else f"{_FOREIGN_PREFIX}{os.urandom(6).hex()}"
        self.start_services(secrets, database)

    def start_services(self, secrets: Secrets, database: str) -> None:
        """Start both services, on ports that are free, once MongoDB, the chain and the contract are there.

        Raises:
            StartError: a service did not start.
        """
        for attempt in range(1, _ATTEMPTS + 1):
            mongodb = self.mongod.url, database
            self.env = services.settings(secrets, mongodb, self.anvil, self.contract, self.settings)
            self.storage_url, self.processor_url = (f"http://127.0.0.1:{self._port(name)}" for name in SERVICES)
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

    def _port(self, service: Service) -> int:
        return int(self.env[service]["PORT"])

    def _launch(self, service: Service) -> None:
        self.services[service] = services.launch(service, self.env[service], self._marks, self.log(service), self.code)

    def _wait_ready(self, service: Service) -> None:
        services.wait_ready(service, self.services[service], self._port(service), self.log(service))

    def stop(self) -> None:
        """Stop everything, services first; nothing of it runs afterwards. Data and logs stay to be looked at."""
        with folders.hold(self.folder):
            self._stop_all()

    def _stop_all(self) -> None:
        self._stop_services()
        self.anvil.stop()
        self._drop_foreign_database()
        self.mongod.stop()
        self._end_strays()
        self.file.unlink(missing_ok=True)

    def _end_strays(self) -> None:
        """Stop what a script started and was killed before it wrote that down."""
        for stray in process.marked(STACK_VARIABLE, str(self.folder)):
            stray.stop()

    def _drop_foreign_database(self) -> None:
        """Leave somebody else's server as it was."""
        name = self.env.get("storage", {}).get("MONGODB_DATABASE", "")
        if self.mongod.folder is None and name.startswith(_FOREIGN_PREFIX):
            with contextlib.suppress(PyMongoError), MongoClient[dict[str, Any]](self.mongod.url) as client:
                client.drop_database(name)

    def _stop_services(self) -> None:
        # Processors first: they can still hand over what they have taken on. Further replicas were started last.
        for name in reversed(list(self.services)):
            self.services.pop(name).stop()

    def kill(self, part: Part, number: signal.Signals = signal.SIGKILL) -> None:
        """Send a signal to a part; for one that ends processes, wait for the end. SIGSTOP and SIGCONT work, too.

        Only SIGTERM lets anvil write its chain down: after SIGKILL it is as at the last SIGTERM, or empty.
        """
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
            if self.anvil.call("eth_getCode", self.contract, "latest") == "0x":
                # An empty chain gives the first contract of the same account the same address.
                self.contract = services.deploy_contract(self.anvil.url, self.anvil.accounts[0][1])
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
            stack.anvil.port = int(urlsplit(content["rpc_url"]).port or 0)
            own = stack.folder / "mongo" if "mongod" in processes else None
            stack.mongod = Mongod(own, stack.mode, url=content["mongodb_url"], marks=stack._marks)
            stack.mongod.port = int(urlsplit(stack.mongod.url).port or 0) if own else 0
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return None
        stack.mongod.process, stack.anvil.process = processes.get("mongod"), processes.get("anvil")
        stack.services = {name: processes[name] for name in SERVICES if name in processes}
        return stack
