"""A deployment of the compose file, in a checkout of its own, and what a test asks of it."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import yaml

from scripts.devstack import leaks
from scripts.devstack.process import ROOT

_PUBLIC = frozenset({"tokens", "recovery-public"})
"""Of the folder of secrets, what is none: hashes, and a public key."""
PROJECT = "lucid-test"
NETWORK = "lucid-pi-network"
OURS = {"chunk-processor": 8085, "session-storage": 8086}
PROCESSOR_URL, STORAGE_URL = "http://127.0.0.1:8085", "http://127.0.0.1:8086"
CLI = Path(sys.executable).with_name("lucid-sessions")


def run(*command: str | Path, expect: int | None = 0, timeout: float = 600, **options: Any) -> str:
    """Run a program and give what it said, both streams together."""
    done = subprocess.run(
        [str(word) for word in command],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=timeout,
        check=False,
        **options,
    )
    assert expect is None or done.returncode == expect, f"{command}: exit {done.returncode}\n{done.stdout[-6000:]}"
    return done.stdout


def docker(*arguments: str | Path, **options: Any) -> str:
    return run("docker", *arguments, **options)


def export_checkout(folder: Path) -> Path:
    """What a fresh clone of this working tree would hold."""
    names = run("git", "ls-files", "-z", "--cached", "--others", "--exclude-standard", cwd=ROOT).split("\0")
    for name in filter(None, names):
        source, target = ROOT / name, folder / name
        if source.is_file():
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source, target)
    return folder


@dataclass
class Deployment:
    """The compose file in `folder`; `platform` is what the engine shall run."""

    folder: Path
    images: dict[str, str]
    platform: str = "linux/amd64"
    environment: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith("LUCID_")},
            "COMPOSE_PROJECT_NAME": PROJECT,
            "DOCKER_DEFAULT_PLATFORM": self.platform,
        }

    def init(self, **settings: str) -> str:
        """As an operator does it first."""
        said = self.script("init-secrets")
        for path in filter(Path.is_file, (self.folder / "secrets").rglob("*")):
            if path.name not in _PUBLIC:
                text = path.read_text().strip()
                # ID:BASE64 of keys, the password of a URL, 0x and hex, or the secret itself
                secret = text.rpartition("@")[0] or text.removeprefix("0x")
                leaks.register(path.name, secret.rpartition(":")[2])
        self.set(**self.images, ANCHOR_INTERVAL_SECONDS="1", **settings)
        return said

    def set(self, **settings: str) -> None:
        """Set settings in .env."""
        path = self.folder / ".env"
        kept = [line for line in path.read_text().splitlines() if line.partition("=")[0] not in settings]
        path.write_text("\n".join([*kept, *(f"{name}={value}" for name, value in settings.items())]) + "\n")

    def script(self, name: str, *arguments: str | Path, expect: int | None = 0) -> str:
        return run(self.folder / "scripts" / name, *arguments, expect=expect, cwd=self.folder, env=self.environment)

    def check(self, *, expect: int | None = 0) -> str:
        """What `scripts/deploy-check` says, unfolded."""
        return " ".join(self.script("deploy-check", expect=expect).split())

    def compose(self, *arguments: str, expect: int | None = 0, timeout: float = 400) -> str:
        command = ["docker", "compose", "-f", "docker-compose.pi.yml", *arguments]
        return run(*command, expect=expect, timeout=timeout, cwd=self.folder, env=self.environment)

    def up(self, *, expect: int | None = 0, wait_seconds: int = 360) -> str:
        wait = ("--wait", "--wait-timeout", str(wait_seconds))
        return self.compose("up", "-d", *wait, expect=expect, timeout=wait_seconds + 60)

    def down(self, *, volumes: bool = False) -> None:
        (self.folder / "containers.log").write_text(self.compose("logs", "--no-color", *OURS, "mongodb", expect=None))
        self.compose("down", "--remove-orphans", *(["--volumes"] if volumes else []))

    def name(self, service: str) -> str:
        return f"{PROJECT}-{service}-1"

    def inspect(self, service: str) -> dict[str, Any]:
        found: list[dict[str, Any]] = json.loads(docker("inspect", self.name(service)))
        return found[0]

    def python(self, service: str, program: str, *options: str) -> Any:
        """Run Python within a container of ours, and read the JSON that it prints."""
        return json.loads(docker("exec", *options, self.name(service), "/usr/bin/python3", "-c", program))

    def pid(self, service: str) -> int:
        """Of the container's first process, as the host sees it."""
        number: int = self.inspect(service)["State"]["Pid"]
        assert number > 0, f"{service} does not run"  # 0 would be this whole process group
        return number

    def crash(self, service: str) -> None:
        """SIGKILL to the container's first process, as the kernel does it, not as `docker kill`.

        The engine takes the latter for a wish that the container be stopped, and starts it no more.
        """
        os.kill(self.pid(service), signal.SIGKILL)

    def wait_healthy(self, service: str, seconds: float = 60) -> None:
        until = time.monotonic() + seconds
        while True:
            state = self.inspect(service)["State"]
            if state["Running"] and (state.get("Health") or {"Status": "healthy"})["Status"] == "healthy":
                return
            assert time.monotonic() < until, f"{service}: {json.dumps(state)[:2000]}"
            time.sleep(0.1)

    def token(self, role: str) -> str:
        return (self.folder / "secrets" / "operator" / f"{role}-token").read_text().strip()

    def http(self, role: str) -> httpx.Client:
        return httpx.Client(headers={"authorization": f"Bearer {self.token(role)}"}, timeout=60, trust_env=False)

    def cli(self, role: str | None, *arguments: str | Path, expect: int | None = 0) -> str:
        """`lucid-sessions` from outside, with one token."""
        environment = {name: value for name, value in os.environ.items() if not name.startswith("LUCID_T")}
        environment |= {"LUCID_PROCESSOR_URL": PROCESSOR_URL, "LUCID_STORAGE_URL": STORAGE_URL}
        if role:
            environment["LUCID_TOKEN_FILE"] = str(self.folder / "secrets" / "operator" / f"{role}-token")
        return run(CLI, *arguments, expect=expect, env=environment)

    def chain_url(self) -> str:
        """The development chain as the host reaches it, without a port that is open to anybody else."""
        networks = self.inspect("dev-chain")["NetworkSettings"]["Networks"]
        return f"http://{networks[f'{PROJECT}_chain']['IPAddress']}:8545"

    def main_job(self, source: Path, work: Path, session: str) -> None:
        """Record, seal, anchor, verify apart from the services, replay, compare."""
        self.cli("record", "record", source, "--session", session)
        receipt, envelopes, back = work / f"{session}.json", work / f"{session}-envelopes", work / f"{session}.back"
        self.cli("audit", "receipt", session, "--wait", "60", "-o", receipt)
        self.cli("audit", "envelopes", session, envelopes)
        said = self.cli(
            None, "verify", receipt, "--recording-envelopes", envelopes, "--rpc", self.chain_url(), expect=None
        )
        assert "confirmed" in receipt.read_text(), said
        assert "[failed]" not in said.lower(), said
        self.cli("replay", "replay", session, "-o", back)
        assert back.read_bytes() == source.read_bytes()


def override(folder: Path, content: dict[str, Any]) -> Iterator[None]:
    """Change the compose file for a test, and put it back."""
    path = folder / "docker-compose.pi.yml"
    before = path.read_text()
    changed = yaml.safe_load(before)

    def merge(into: dict[str, Any], new: dict[str, Any]) -> None:
        for key, value in new.items():
            if isinstance(value, dict) and isinstance(into.get(key), dict):
                merge(into[key], value)
            else:
                into[key] = value

    merge(changed, content)
    path.write_text(yaml.safe_dump(changed))
    try:
        yield
    finally:
        path.write_text(before)


overridden = contextmanager(override)


def elf_machines(tar_names: Sequence[tuple[str, bytes]]) -> dict[str, int]:
    """Of each ELF file (name and first bytes), the machine it is for."""
    return {name: int.from_bytes(head[18:20], "little") for name, head in tar_names if head[:4] == b"\x7fELF"}
