"""Prepares a development chain (anvil): puts the contract onto it, and coins into the publisher's account.

python -m sessions.storage.provision.dev_chain

Safe to repeat. The node signs for accounts whose keys everybody knows, so such a chain proves nothing to anybody;
on a real chain there is no such node, and this program refuses it.
"""

import asyncio
import sys
import time
from pathlib import Path
from typing import Annotated, Final

from eth_account import Account
from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict

from sessions.core.anchor_contract import is_genuine
from sessions.runtime.settings import ConfigurationError, exit_with, load, read_secret
from sessions.storage.anchor import ChainMisconfiguredError, ChainUnavailableError
from sessions.storage.contract import artefact
from sessions.storage.rpc import Node

CHAIN_ID: Final = 31337
CONTRACT: Final = "0x700b6a60ce7eaaea56f065753d8dcb9653dbad35"
"""Where the first contract of the node's last account comes to lie: the same on every fresh development chain."""
_WANTED_WEI: Final = 100 * 10**18
_TIMEOUT_SECONDS: Final = 10.0
_POLL_SECONDS: Final = 0.5


class DevChainSettings(BaseSettings):
    """What this program is told: a part of session-storage's own settings."""

    model_config = SettingsConfigDict(frozen=True, extra="ignore", env_ignore_empty=True)

    chain_rpc_urls: str
    chain_contract: Annotated[str, Field(pattern=r"^0x[0-9A-Fa-f]{40}$")] = CONTRACT
    chain_key_file: Path
    wait_seconds: Annotated[float, Field(ge=0)] = 60


async def provision(node: Node, publisher: str, contract: str, wait_seconds: float) -> None:
    """Deploy and fund, as far as it was not done before.

    Args:
        node: The development node.
        publisher: Address that anchors, 0x and 40 hex digits.
        contract: Address that session-storage expects the contract at.
        wait_seconds: How long the node may take to come up, and a transaction to get into a block.

    Raises:
        ConfigurationError: names the setting that cannot work.
    """
    until = time.monotonic() + wait_seconds
    await _wait(node, until)
    accounts = await node.call("eth_accounts")
    if not is_genuine(await node.data("eth_getCode", contract, "latest")):
        await _send(node, until, {"from": accounts[-1], "data": artefact()["bytecode"]})
        if not is_genuine(await node.data("eth_getCode", contract, "latest")):
            raise ConfigurationError(
                "CHAIN_CONTRACT",
                f"should be {CONTRACT} on a development chain; if it is, the chain had another use: remove its volume",
            )
    if await node.number("eth_getBalance", publisher, "latest") < _WANTED_WEI:
        await _send(node, until, {"from": accounts[0], "to": publisher, "value": hex(_WANTED_WEI)})


async def _wait(node: Node, until: float) -> None:
    """Wait until the node answers, and see that it is one of development."""
    while True:
        try:
            chain_id = await node.number("eth_chainId")
            version = str(await node.call("web3_clientVersion"))
        except ChainUnavailableError as error:
            if time.monotonic() > until:
                raise ConfigurationError("CHAIN_RPC_URLS", str(error)) from None
            await asyncio.sleep(_POLL_SECONDS)
        else:
            break
    if chain_id != CHAIN_ID or not version.startswith("anvil/"):
        raise ConfigurationError(
            "CHAIN_RPC_URLS",
            f"names no development chain ({version.partition('/')[0]}, chain {chain_id}): "
            "take dev-chain out of COMPOSE_PROFILES",
        )


async def _send(node: Node, until: float, transaction: dict[str, str]) -> None:
    """Send a transaction of one of the node's own accounts, and wait for its block."""
    sent = await node.call("eth_sendTransaction", transaction)
    while await node.members("eth_getTransactionReceipt", sent) is None:
        if time.monotonic() > until:
            raise ConfigurationError("CHAIN_RPC_URLS", "the development chain makes no blocks")
        await asyncio.sleep(_POLL_SECONDS)


async def _run(settings: DevChainSettings) -> str:
    try:
        publisher = str(Account.from_key(read_secret("CHAIN_KEY_FILE", settings.chain_key_file)).address)
    except ConfigurationError:
        raise
    except Exception:  # noqa: BLE001 - the library raises many kinds, and some of them quote the key
        raise ConfigurationError("CHAIN_KEY_FILE", "does not hold a private key of 32 bytes in hex") from None
    try:
        node = Node(settings.chain_rpc_urls.split(",")[0].strip(), _TIMEOUT_SECONDS)
    except ChainMisconfiguredError as error:
        raise ConfigurationError(error.setting, error.problem) from None
    try:
        await provision(node, publisher, settings.chain_contract, settings.wait_seconds)
    except ChainUnavailableError as error:
        raise ConfigurationError("CHAIN_RPC_URLS", str(error)) from None
    finally:
        await node.close()
    return publisher


def main() -> int:
    """Do it once; the exit code."""
    try:
        settings = load(DevChainSettings)
        publisher = asyncio.run(_run(settings))
    except ConfigurationError as error:
        exit_with(error)
    print(f"contract {settings.chain_contract}, publisher {publisher}")  # noqa: T201 - for `docker compose logs`
    print("a development chain proves nothing to others: name a real one in .env")  # noqa: T201
    return 0


if __name__ == "__main__":
    sys.exit(main())
