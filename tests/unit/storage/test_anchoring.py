"""Anchoring as the service runs it, from its settings."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from prometheus_client import REGISTRY

from scripts.devstack.anvil import Anvil
from sessions.runtime.settings import ConfigurationError
from sessions.storage import anchoring
from sessions.storage.anchoring import Off, On, check_configuration
from sessions.storage.contract.deploy import deploy
from sessions.storage.mongo import Database, Readiness, connect
from sessions.storage.mongo_batches import MongoBatches
from sessions.storage.settings import StorageSettings


@pytest.fixture(scope="module")
def contract(anvil: Anvil) -> str:
    return "0x" + deploy(anvil.url, anvil.accounts[3][1]).address.hex()


@pytest.fixture
async def db() -> AsyncIterator[Database]:
    """Of a server that is away: nothing here reads or writes."""
    client, db = connect("mongodb://127.0.0.1:1/", "x")
    yield db
    await client.close()


@pytest.fixture
def settings(anvil: Anvil, contract: str, tmp_path: Path) -> StorageSettings:
    key = tmp_path / "key"
    key.write_text(anvil.accounts[4][1])
    return StorageSettings(
        tokens_file=tmp_path / "tokens",
        chain_rpc_urls=f"http://127.0.0.1:1, {anvil.url},",
        chain_id=anvil.chain_id,
        chain_contract=contract,
        chain_key_file=key,
    )


async def test_off(settings: StorageSettings, db: Database) -> None:
    off = settings.model_copy(update={"anchoring": "off", "chain_rpc_urls": ""})
    await check_configuration(off)
    found = anchoring.build(off, db, MongoBatches(db))
    assert isinstance(found, Off)
    await found.run(Readiness(db))
    assert found.check().status == "ok"


async def test_the_right_chain(settings: StorageSettings) -> None:
    await check_configuration(settings)


async def test_a_chain_that_is_away_is_no_reason_not_to_start(settings: StorageSettings) -> None:
    await check_configuration(settings.model_copy(update={"chain_rpc_urls": "http://127.0.0.1:1"}))


@pytest.mark.parametrize(
    ("change", "setting"),
    [
        ({"chain_id": 5}, "CHAIN_ID"),
        ({"chain_contract": "0x" + "ab" * 20}, "CHAIN_CONTRACT"),
        ({"chain_rpc_urls": ""}, "CHAIN_RPC_URLS"),
        ({"chain_key_file": Path("/none")}, "CHAIN_KEY_FILE"),
    ],
)
async def test_a_chain_that_cannot_work_names_its_setting(settings, change: dict, setting: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        await check_configuration(settings.model_copy(update=change))
    assert caught.value.setting == setting
    assert str(caught.value).count(setting) == 1


async def test_a_key_that_is_none_is_not_shown(settings: StorageSettings, db: Database) -> None:
    assert settings.chain_key_file is not None
    settings.chain_key_file.write_text("0xsecret")
    with pytest.raises(ConfigurationError, match=r"^CHAIN_KEY_FILE: ") as caught:
        anchoring.build(settings, db, MongoBatches(db))
    assert "0xsecret" not in str(caught.value)


async def test_on_waits_for_the_database_and_says_how_it_is(settings: StorageSettings, db: Database) -> None:
    found = anchoring.build(settings, db, MongoBatches(db))
    assert isinstance(found, On)
    readiness = Readiness(db)
    running = asyncio.create_task(found.run(readiness))
    await asyncio.sleep(0.01)
    assert (found.check().status, found.check().detail) == ("ok", "not asked yet")
    status = found._anchorer.status
    for name, value, expected in (
        ("chain_ok", True, ("ok", "")),
        ("chain_ok", False, ("degraded", "anchors are delayed: CHAIN_RPC_URLS do not answer")),
        ("last_error", "boom", ("degraded", "anchors are delayed: boom")),
    ):
        setattr(status, name, value)
        check = found.check()
        assert (check.status, check.detail) == expected
    status.head_block = 7
    for status.leader, known in ((True, 7), (False, None)):
        assert found.head_block() == known
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    assert running.cancelled()


async def test_metrics_follow_the_anchorer(settings: StorageSettings, db: Database) -> None:
    def shown(name: str, labels: dict[str, str] | None = None) -> float | None:
        return REGISTRY.get_sample_value(f"lucid_anchor_{name}", labels)

    found = anchoring.build(settings.model_copy(update={"anchor_interval_seconds": 7}), db, MongoBatches(db))
    assert isinstance(found, On)
    assert (shown("enabled"), shown("interval_seconds"), shown("leader")) == (1, 7, 0)
    assert (str(shown("chain_up")), str(shown("balance_coins"))) == ("nan", "nan")  # no alert before it is known
    status = found._anchorer.status
    status.chain_ok, status.balance_wei, status.leader = False, 3 * 10**17, True
    status.batches_made, status.failures = 5, 2
    assert (shown("chain_up"), shown("balance_coins"), shown("leader")) == (0, 0.3, 1)
    assert (shown("batches_total", {"step": "made"}), shown("failures_total")) == (5, 2)
    anchoring.build(settings.model_copy(update={"anchoring": "off"}), db, MongoBatches(db))
    assert (shown("enabled"), shown("leader"), str(shown("interval_seconds"))) == (0, 0, "nan")
