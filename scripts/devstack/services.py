"""Both services' settings in a stack, and how their processes are started."""

import os
import sys
import urllib.error
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from scripts.devstack import leaks, process
from scripts.devstack.anvil import Anvil
from scripts.devstack.credentials import make_kek, make_tokens, write_private
from scripts.devstack.process import ROOT, Process, StartError

Service = Literal["processor", "storage"]
SERVICES: Final[tuple[Service, Service]] = ("storage", "processor")

# What a service's process gets besides its settings: how to run, and how to measure coverage.
_PASSED_ON: Final = ("PATH", "HOME", "LANG", "TMPDIR", "TZ", "LUCID_TEST_RUN")
_OK: Final = 200


@dataclass(frozen=True, slots=True)
class Secrets:
    """The stack's files with tokens and keys, in one folder."""

    folder: Path

    @property
    def operator_token(self) -> Path:
        """The file with a token for all that a person does."""
        return self.folder / "operator-token"

    @property
    def spool(self) -> Path:
        """The processor's folder of what session-storage does not have yet."""
        return self.folder.parent / "spool"

    def make(self, publisher_key: str) -> dict[str, str]:
        """Write them all, make the spool, and give the tokens by role."""
        tokens = make_tokens(self.folder / "tokens", self.operator_token)
        self.spool.mkdir(mode=0o700)
        make_kek(self.folder / "kek")
        write_private(self.folder / "storage-token", tokens["processor"] + "\n")
        leaks.register("publisher key", bytes.fromhex(publisher_key.removeprefix("0x")))
        write_private(self.folder / "publisher-key", publisher_key + "\n")
        return tokens


def settings(
    secrets: Secrets,
    mongodb: tuple[str, str],
    chain: Anvil,
    contract: str,
    further: Mapping[str, Mapping[str, str]],
) -> dict[str, dict[str, str]]:
    """The environment of each service, on ports that are free now.

    Args:
        secrets: Where tokens and keys are.
        mongodb: URL and database name.
        chain: The EVM node.
        contract: Its address, 0x and 40 hex digits.
        further: Settings that win over these, by service.
    """
    ports = {name: further.get(name, {}).get("PORT") or str(process.free_port()) for name in SERVICES}
    both = {"HOST": "127.0.0.1", "LOG_LEVEL": "INFO", "TOKENS_FILE": str(secrets.folder / "tokens")}
    processor = {
        "SERVICE_NAME": "chunk-processor",
        "PORT": ports["processor"],
        "KEK_FILE": str(secrets.folder / "kek"),
        "STORAGE_URL": f"http://127.0.0.1:{ports['storage']}",
        "STORAGE_TOKEN_FILE": str(secrets.folder / "storage-token"),
        "SPOOL_DIR": str(secrets.spool),
        # So that the console, which storage serves, may replay.
        "CORS_ORIGINS": f"http://127.0.0.1:{ports['storage']}",
    }
    storage = {
        "SERVICE_NAME": "session-storage",
        "PORT": ports["storage"],
        "MONGODB_URL": mongodb[0],
        "MONGODB_DATABASE": mongodb[1],
        "CONSOLE_PROCESSOR_URL": f"http://127.0.0.1:{ports['processor']}",
        "ANCHORING": "on",
        "CHAIN_RPC_URLS": chain.url,
        "CHAIN_ID": str(chain.chain_id),
        "CHAIN_CONTRACT": contract,
        "CHAIN_KEY_FILE": str(secrets.folder / "publisher-key"),
        "ANCHOR_INTERVAL_SECONDS": "1",
        "ANCHOR_CONFIRMATIONS": "2",
    }
    return {
        "processor": {**both, **processor, **further.get("processor", {})},
        "storage": {**both, **storage, **further.get("storage", {})},
    }


def launch(service: Service, own: Mapping[str, str], marks: Mapping[str, str], log: Path, code: Path = ROOT) -> Process:
    """Start the process of a service with its settings `own`, and nothing of our environment that it could read.

    `code` is the checkout that the service runs from.
    """
    passed_on = {
        name: value for name, value in os.environ.items() if name in _PASSED_ON or name.startswith(("COVERAGE_", "LC_"))
    }
    environment = {**passed_on, "PYTHONUNBUFFERED": "1", **marks, **own}
    return process.start([sys.executable, "-m", f"sessions.{service}.main"], log, environment, code)


def wait_ready(service: Service, running: Process, port: int, log: Path) -> None:
    """Wait until `/readyz` of this very process answers 200.

    Raises:
        StartError: it ended, or does not become ready.
    """

    def ready() -> bool:
        # Whose port it is, is a look at all connections of the machine: once there is an answer, and not before.
        return answers(f"http://127.0.0.1:{port}/readyz") and process.listens(running, port)

    process.wait_ready(service, running, log, ready, process.START_SECONDS)


def deploy_contract(rpc_url: str, key: str) -> str:
    """Deploy the contract, and give its address, 0x and 40 hex digits.

    Raises:
        StartError: the chain did not take it.
    """
    from sessions.storage.contract.deploy import DeployError, deploy  # it takes a second to import

    try:
        return "0x" + deploy(rpc_url, key, process.START_SECONDS).address.hex()
    except DeployError as error:
        raise StartError("contract", str(error)) from error


def answers(url: str, seconds: float = 5.0) -> bool:
    """Whether a GET is answered with 200."""
    try:
        with urllib.request.urlopen(url, timeout=seconds) as answer:  # noqa: S310 - our own URL
            return bool(answer.status == _OK)
    except urllib.error.HTTPError as refused:
        refused.close()
    except OSError:
        pass
    return False
