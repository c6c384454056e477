"""A real EVM node for tests and the demo: anvil, on a free loopback port, with funded accounts."""

import json
import os
import re
import shutil
import signal
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from scripts.devstack import process
from scripts.devstack.process import ROOT, Process, StartError

_MNEMONIC: Final = "test test test test test test test test test test test junk"
"""Known to everybody, so worthless outside a test chain: anvil's own default."""

_LISTENING = re.compile(r"Listening on 127\.0\.0\.1:(\d+)")


def find() -> Path:
    """The anvil program: the one on PATH, else the one in `node_modules`.

    Raises:
        StartError: there is none.
    """
    if on_path := shutil.which("anvil"):
        return Path(on_path)
    for program in sorted(ROOT.glob("node_modules/@foundry-rs/*/bin/anvil")):
        return program
    raise StartError("anvil", "there is none on PATH nor in node_modules: run scripts/setup")


@dataclass
class Anvil:
    """A chain of its own. `block_seconds` 0 makes a block for each transaction instead of one in so many seconds.

    Stopped by SIGTERM it writes its chain to `folder`, and goes on from there when started again, at the same port.
    """

    folder: Path
    block_seconds: int = 1
    chain_id: int = 31337
    extra: tuple[str, ...] = ()
    marks: Mapping[str, str] = field(default_factory=dict)
    port: int = 0
    process: Process | None = field(default=None)
    accounts: list[tuple[str, str]] = field(default_factory=list, repr=False)
    """Address and private key, both hex with 0x."""

    @property
    def url(self) -> str:
        """Its JSON-RPC address."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def log(self) -> Path:
        """Where its output goes: next to its data."""
        return self.folder.with_name("anvil.log")

    def start(self) -> None:
        """Start it, and wait until it answers.

        Raises:
            StartError: it does not come up.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        self.log.unlink(missing_ok=True)
        config = self.folder / "accounts.json"
        command: list[str | Path] = [find(), "--host", "127.0.0.1", "--port", str(self.port)]
        command += ["--chain-id", str(self.chain_id), "--mnemonic", _MNEMONIC, "--config-out", config]
        command += ["--state", self.folder / "state.json", "--preserve-historical-states"]
        command += ["--cache-path", self.folder / "cache"]
        if self.block_seconds:
            command += ["--block-time", str(self.block_seconds)]
        self.process = process.start([*command, *self.extra], self.log, {**os.environ, **self.marks})
        try:
            process.wait_ready("anvil", self.process, self.log, self._ready, process.START_SECONDS)
        except BaseException:
            self.stop()
            raise
        written = json.loads(config.read_text())
        self.accounts = list(zip(written["available_accounts"], written["private_keys"], strict=True))

    def _ready(self) -> bool:
        listening = _LISTENING.search(self.log.read_text(errors="replace"))
        if listening is None:
            return False
        self.port = int(listening.group(1))
        return bool(self.call("eth_chainId") == hex(self.chain_id))

    def call(self, method: str, *parameters: object) -> Any:
        """Make a JSON-RPC call.

        Raises:
            RuntimeError: the node answers with an error.
            OSError: it does not answer.
        """
        body = json.dumps({"jsonrpc": "2.0", "id": 1, "method": method, "params": parameters}).encode()
        request = urllib.request.Request(self.url, body, {"Content-Type": "application/json"})  # noqa: S310 - our own URL
        with urllib.request.urlopen(request, timeout=10) as answer:  # noqa: S310
            value = json.load(answer)
        if "error" in value:
            raise RuntimeError(f"{method}: {value['error'].get('message')}")
        return value["result"]

    def stop(self, number: signal.Signals = signal.SIGTERM) -> None:
        """Stop it."""
        if self.process is not None:
            self.process.stop(number)
            self.process = None
