"""The contract: source against artefact, proofs on the chain against the core, and what it costs."""

import asyncio
import hashlib
import subprocess
import time

import pytest
from web3 import HTTPProvider, Web3
from web3.contract import Contract
from web3.exceptions import ContractLogicError

from scripts.devstack.anvil import Anvil
from scripts.devstack.process import ROOT as CHECKOUT
from sessions.core import merkle
from sessions.core.anchor_contract import encode_anchor_call
from sessions.storage.contract import artefact
from sessions.storage.contract.deploy import DeployError, Deployment, deploy
from tests.conftest import Figure
from tests.contract.chains import answers, proxied

BUILD = CHECKOUT / "sessions" / "storage" / "contract" / "build.mjs"
GAS_BOUND = 50_000


def leaves_of(size: int) -> list[bytes]:
    return [merkle.leaf_hash(b"%d of %d" % (index, size)) for index in range(size)]


@pytest.fixture(scope="module")
def deployment(anvil: Anvil) -> Deployment:
    return deploy(anvil.url, anvil.accounts[1][1])


@pytest.fixture(scope="module")
def contract(anvil: Anvil, deployment: Deployment) -> Contract:
    address = Web3.to_checksum_address(deployment.address)
    return Web3(HTTPProvider(anvil.url)).eth.contract(address=address, abi=artefact()["abi"])


def anchor(contract: Contract, publisher: str, root: bytes) -> dict:
    sent = contract.functions.anchor(root).transact({"from": Web3.to_checksum_address(publisher)})
    return contract.w3.eth.wait_for_transaction_receipt(sent, poll_latency=0.05)


def test_the_artefact_is_what_the_source_compiles_to() -> None:
    done = subprocess.run(["node", str(BUILD), "--check"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_the_check_sees_a_changed_artefact(tmp_path) -> None:
    for file in BUILD.parent.iterdir():
        if file.is_file():
            (tmp_path / file.name).write_bytes(file.read_bytes())
    (tmp_path / "node_modules").symlink_to(CHECKOUT / "node_modules")
    changed = tmp_path / "LucidAnchors.json"
    changed.write_text(changed.read_text().replace('"runs": 10000', '"runs": 10001'))
    done = subprocess.run(["node", str(tmp_path / "build.mjs"), "--check"], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "not what LucidAnchors.sol compiles to" in done.stderr


def test_deploy_gives_address_chain_and_gas(anvil: Anvil, deployment: Deployment, figure: Figure) -> None:
    assert deployment.chain_id == anvil.chain_id
    assert len(deployment.address) == 20
    assert len(deployment.transaction) == 32
    assert 0 < deployment.gas_used < 1_000_000
    figure(f"gas of deploying: {deployment.gas_used}")


def test_deploy_says_what_is_wrong(anvil: Anvil) -> None:
    with pytest.raises(DeployError, match="not 32 bytes of hex") as caught:
        deploy(anvil.url, "0xsecret")
    assert "secret" not in str(caught.value)
    with pytest.raises(DeployError, match="ConnectionError"):
        deploy("http://127.0.0.1:1", anvil.accounts[1][1])
    with pytest.raises(DeployError, match="insufficient funds on chain 31337: it holds 0 wei"):
        deploy(anvil.url, "0x" + "42" * 32)


async def test_deploy_does_not_trust_an_address_without_the_code(anvil: Anvil) -> None:
    async with proxied(anvil.url, answers("eth_getCode", "0x6000")) as url:
        with pytest.raises(DeployError, match="did not take the contract"):
            await asyncio.to_thread(deploy, url, anvil.accounts[6][1])


def test_first_anchor_counts_and_a_repeated_one_changes_nothing(
    anvil: Anvil, contract: Contract, figure: Figure
) -> None:
    publisher, root = anvil.accounts[2][0], hashlib.sha256(b"once").digest()
    first = anchor(contract, publisher, root)
    timestamp = contract.w3.eth.get_block(first["blockNumber"])["timestamp"]
    (event,) = contract.events.Anchored().process_receipt(first)
    assert event["args"] == {"publisher": Web3.to_checksum_address(publisher), "root": root, "timestamp": timestamp}
    time.sleep(1.1)  # so that the second one is at another block time
    second = anchor(contract, publisher, root)
    assert not second["logs"]
    assert contract.functions.anchoredAt(Web3.to_checksum_address(publisher), root).call() == timestamp
    assert contract.functions.anchoredAt(Web3.to_checksum_address(anvil.accounts[3][0]), root).call() == 0
    figure(f"gas of anchor: first {first['gasUsed']}, repeated {second['gasUsed']}")
    assert first["gasUsed"] < GAS_BOUND
    assert second["gasUsed"] < 25_000


def test_it_takes_no_money(anvil: Anvil, contract: Contract) -> None:
    publisher = Web3.to_checksum_address(anvil.accounts[2][0])
    call = {"from": publisher, "to": contract.address, "data": encode_anchor_call(bytes(32))}
    assert contract.w3.eth.call(call) == b""
    with pytest.raises(ContractLogicError, match="revert"):
        contract.w3.eth.call({**call, "value": 1})


@pytest.mark.parametrize("size", [1, 2, 3, 4, 5, 6, 7, 8, 9, 13, 16, 17, 33, 100, 257, 1000])
def test_verify_agrees_with_the_core(anvil: Anvil, contract: Contract, size: int) -> None:
    publisher = Web3.to_checksum_address(anvil.accounts[2][0])
    leaves = leaves_of(size)
    root = merkle.root(leaves)
    assert not contract.functions.verify(publisher, root, leaves[0], 0, size, merkle.inclusion_path(0, leaves)).call()
    anchor(contract, publisher, root)

    def verify(leaf: bytes, index: int, of: int, path: list[bytes], who: str = publisher) -> bool:
        return contract.functions.verify(who, root, leaf, index, of, path).call()

    for index in sorted({*range(min(size, 9)), size // 2, size - 1}):
        path: list[bytes] = list(merkle.inclusion_path(index, leaves))
        leaf = leaves[index]
        assert verify(leaf, index, size, path)
        assert not verify(merkle.leaf_hash(b"another"), index, size, path)
        assert not verify(leaf, index, size, [*path, bytes(32)])
        assert not verify(leaf, size, size, path)
        assert not verify(leaf, index, 0, path)
        assert not verify(leaf, index, size, path, Web3.to_checksum_address(anvil.accounts[3][0]))
        if path:
            assert not verify(leaf, index, size, path[:-1])
            assert not verify(leaf, index, size, [bytes(32), *path[1:]])
            assert not verify(leaf, index ^ 1, size, path)
    assert not verify(root, 0, 2**64 - 1, [])


def test_a_root_is_not_a_leaf_unless_the_tree_has_one(anvil: Anvil, contract: Contract) -> None:
    publisher = Web3.to_checksum_address(anvil.accounts[2][0])
    leaves = leaves_of(2)
    root = merkle.root(leaves)
    anchor(contract, publisher, root)
    # A tree of one leaf has its leaf as root; so who believes a size must take it from the receipt, as we do.
    assert contract.functions.verify(publisher, root, root, 0, 1, []).call()
    assert not contract.functions.verify(publisher, root, root, 0, 2, []).call()
