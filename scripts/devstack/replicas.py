"""Several replicas of a stack's services, and HAProxy before them as `deploy/haproxy.cfg` sets it up."""

import os
import re
import signal
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from scripts.devstack import process, services
from scripts.devstack.process import ROOT, Process
from scripts.devstack.services import Service
from scripts.devstack.stack import STACK_VARIABLE, Stack

_BALANCER_SECONDS: Final = 20.0
_ASK_SECONDS: Final = 10.0


@dataclass
class Replica:
    """One process of a service: the stack's own, or a further one with an environment of its own.

    Its process is in `stack.services` under `name`, so the stack stops it.
    """

    stack: Stack
    service: Service
    name: str
    env: dict[str, str]

    @classmethod
    def own(cls, stack: Stack, service: Service) -> "Replica":
        """Return the replica that the stack started."""
        return cls(stack, service, service, stack.env[service])

    @classmethod
    def further(cls, stack: Stack, service: Service, name: str, settings: Mapping[str, str]) -> "Replica":
        """Return another replica, not yet started. `settings` win over those of the stack's own replica.

        It gets a port of its own, and a processor gets a spool of its own.
        """
        env = {**stack.env[service], "PORT": str(process.free_port())}
        if service == "processor":
            env["SPOOL_DIR"] = str(stack.folder / f"spool-{name}")
        replica = cls(stack, service, name, {**env, **settings})
        if service == "processor":
            replica.spool.mkdir(mode=0o700, exist_ok=True)
        return replica

    @property
    def port(self) -> int:
        """Return the port that it listens on."""
        return int(self.env["PORT"])

    @property
    def url(self) -> str:
        """Return its address."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def log(self) -> Path:
        """Return the file that its output is appended to."""
        return self.stack.folder / f"{self.name}.log"

    @property
    def spool(self) -> Path:
        """Return the folder of a processor's spool."""
        return Path(self.env["SPOOL_DIR"])

    @property
    def process(self) -> Process:
        """Return its process, running or not."""
        return self.stack.services[self.name]

    def launch(self) -> None:
        """Start it, and do not wait."""
        marks = {STACK_VARIABLE: str(self.stack.folder)}
        self.stack.services[self.name] = services.launch(self.service, self.env, marks, self.log)

    def start(self) -> None:
        """Start it, and wait until it is ready.

        Raises:
            StartError: it does not come up.
        """
        self.launch()
        services.wait_ready(self.service, self.process, self.port, self.log)

    def kill(self, number: signal.Signals = signal.SIGKILL) -> bool:
        """Send a signal. If it is one that ends a process, wait for the end.

        Returns:
            Whether the process obeyed, and did not have to be killed.
        """
        if number in (signal.SIGSTOP, signal.SIGCONT):
            self.process.send(number)
            return True
        return self.process.stop(number)

    def restart(self, settings: Mapping[str, str] | None = None) -> bool:
        """Stop it by SIGTERM and start it again, with further settings.

        Returns:
            Whether it ended in time after SIGTERM.

        Raises:
            StartError: it does not come up.
        """
        ended = self.kill(signal.SIGTERM)
        self.env |= settings or {}
        self.start()
        return ended

    def metric(self, name: str) -> float:
        """Return a metric, summed over its labels."""
        with urllib.request.urlopen(f"{self.url}/metrics", timeout=_ASK_SECONDS) as answer:  # noqa: S310 - our own URL
            text = answer.read().decode()
        return sum(float(value) for value in re.findall(rf"^{name}(?:{{[^}}]*}})? ([0-9.e+-]+)$", text, re.MULTILINE))


@dataclass(frozen=True, slots=True)
class Balanced:
    """The addresses of a running HAProxy."""

    processors: str
    storages: str


@contextmanager
def balanced(stack: Stack, processors: Sequence[int], storages: Sequence[int]) -> Iterator[Balanced]:
    """Run HAProxy with `deploy/haproxy.cfg` before two ports of each kind; one port may be given twice.

    Raises:
        FileNotFoundError: HAProxy is not installed.
    """
    fronts = {"PROCESSORS": process.free_port(), "STORAGES": process.free_port()}
    backs = {f"PROCESSOR_{number}": port for number, port in enumerate(processors, 1)}
    backs |= {f"STORAGE_{number}": port for number, port in enumerate(storages, 1)}
    addresses = {name: f"127.0.0.1:{port}" for name, port in (fronts | backs).items()}
    environment = {**os.environ, STACK_VARIABLE: str(stack.folder), **addresses}
    command: list[str | Path] = ["haproxy", "-db", "-f", ROOT / "deploy" / "haproxy.cfg"]
    running = process.start(command, stack.folder / "haproxy.log", environment)
    try:
        yield Balanced(*(f"http://{addresses[name]}" for name in fronts))
    finally:
        running.stop()


def wait_balanced(balancer: Balanced) -> bool:
    """Wait until a processor answers through HAProxy; return whether one did."""
    return process.wait_until(lambda: services.answers(f"{balancer.processors}/readyz"), _BALANCER_SECONDS)
