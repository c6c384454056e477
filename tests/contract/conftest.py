"""An EVM node that makes blocks when it is told to."""

from collections.abc import AsyncIterator, Iterator

import pytest

from scripts.devstack.anvil import Anvil
from sessions.storage.contract.deploy import deploy
from sessions.storage.evm import GWEI
from tests.contract.chains import AnvilRig


@pytest.fixture(scope="module")
def own_anvil(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Anvil, bytes]]:
    node = Anvil(tmp_path_factory.mktemp("own-anvil") / "chain", block_seconds=0, extra=("--slots-in-an-epoch", "1"))
    node.start()
    try:
        contract = deploy(node.url, node.accounts[5][1]).address
        node.call("evm_setAutomine", False)
        node.call("anvil_mine", hex(5))
        yield node, contract
    finally:
        node.stop()


@pytest.fixture
async def real(own_anvil: tuple[Anvil, bytes]) -> AsyncIterator[AnvilRig]:
    node, contract = own_anvil
    AnvilRig(node, contract).ask_for(GWEI)  # fees are outside of snapshots
    snapshot = node.call("evm_snapshot")
    rig = AnvilRig(node, contract)
    yield rig
    await rig.chain.close()
    node.call("anvil_dropAllTransactions")
    node.call("evm_revert", snapshot)
