"""Puts LucidAnchors onto a chain. Anybody may do so once; every publisher can share one contract."""

from dataclasses import dataclass
from typing import Any, Final

from eth_account import Account
from web3 import HTTPProvider, Web3

from sessions.core.anchor_contract import is_genuine
from sessions.storage.contract import artefact

DEPLOY_TIMEOUT_SECONDS: Final = 300
RPC_TIMEOUT_SECONDS: Final = 20


class DeployError(Exception):
    """The contract is not on the chain, or not as it should be."""


@dataclass(frozen=True, slots=True)
class Deployment:
    """Where the contract is: `address` 20 bytes, `transaction` 32 bytes, `gas_used` in gas."""

    address: bytes
    chain_id: int
    transaction: bytes
    gas_used: int


def deploy(rpc_url: str, key: str, timeout_seconds: float = DEPLOY_TIMEOUT_SECONDS) -> Deployment:
    """Deploy the contract and wait until it is in a block.

    Args:
        rpc_url: HTTP(S) endpoint of a node.
        key: The private key that pays, 32 bytes in hex; it gets no rights over the contract.
        timeout_seconds: How long to wait for the block.

    Raises:
        DeployError: the key is no key, the node refuses or is away, or the block does not come in time.
    """
    try:
        account = Account.from_key(key.strip())
    except Exception:  # noqa: BLE001 - the library raises many kinds, and some of them quote the key
        raise DeployError("the key is not 32 bytes of hex") from None
    web3 = Web3(HTTPProvider(rpc_url, request_kwargs={"timeout": RPC_TIMEOUT_SECONDS}))
    try:
        return _deploy(web3, account, timeout_seconds)
    except DeployError:
        raise
    except Exception as error:
        raise DeployError(f"{type(error).__name__}: {error}") from error


def _deploy(web3: Web3, account: Any, timeout_seconds: float) -> Deployment:
    chain_id = web3.eth.chain_id
    gas = web3.eth.estimate_gas({"data": artefact()["bytecode"]})
    priority_fee = web3.eth.max_priority_fee
    # From the fee history, because proof-of-authority chains put more into a block than the library takes.
    base_fee = web3.eth.fee_history(1, "latest")["baseFeePerGas"][-1]
    fee = 2 * base_fee + priority_fee
    balance = web3.eth.get_balance(account.address)
    if balance < gas * fee:
        raise DeployError(
            f"{account.address} has insufficient funds on chain {chain_id}: it holds {balance} wei, "
            f"and deploying takes up to {gas * fee} wei"
        )
    transaction = {
        "chainId": chain_id,
        "nonce": web3.eth.get_transaction_count(account.address, "pending"),
        "data": artefact()["bytecode"],
        "value": 0,
        "gas": gas,
        "maxPriorityFeePerGas": priority_fee,
        "maxFeePerGas": fee,
    }
    signed = account.sign_transaction(transaction)
    transaction_hash = web3.eth.send_raw_transaction(signed.raw_transaction)
    receipt = web3.eth.wait_for_transaction_receipt(transaction_hash, timeout=timeout_seconds)
    address = receipt["contractAddress"]
    if receipt["status"] != 1 or address is None or not is_genuine(bytes(web3.eth.get_code(address))):
        raise DeployError(f"the chain did not take the contract (transaction 0x{bytes(transaction_hash).hex()})")
    return Deployment(
        address=bytes.fromhex(address[2:]),
        chain_id=chain_id,
        transaction=bytes(transaction_hash),
        gas_used=receipt["gasUsed"],
    )
