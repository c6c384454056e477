"""The one-shot programs of a deployment, on a MongoDB that asks for passwords and on a development chain."""

import asyncio
import re
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

import pytest
from pymongo import DeleteOne, MongoClient
from pymongo.errors import OperationFailure

from scripts.devstack.anvil import Anvil
from scripts.devstack.mongod import Mongod
from sessions.runtime.settings import EXIT_CONFIGURATION, ConfigurationError
from sessions.runtime.times import now
from sessions.storage import (
    mongo_activity,
    mongo_audit,
    mongo_batches,
    mongo_due,
    mongo_key_rings,
    mongo_lease,
    mongo_sessions,
)
from sessions.storage.anchor import ChainMisconfiguredError
from sessions.storage.audit_trail import Trail, session_of
from sessions.storage.disk import free_bytes
from sessions.storage.evm import EvmChain
from sessions.storage.mongo import Readiness, connect, ensure_collections
from sessions.storage.mongo_audit import MongoEvents
from sessions.storage.mongo_lease import MongoLease
from sessions.storage.mongo_scrub import MongoFindings
from sessions.storage.mongo_sessions import MongoSessions
from sessions.storage.provision import database, dev_chain
from tests.contract.chains import answers, proxied, refuse
from tests.unit.storage.chunks import event

DATABASE = "lucid_provision"


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Host and port of a MongoDB with an administrator `root`, password `secret`."""
    server = Mongod(tmp_path_factory.mktemp("guarded") / "mongo", extra=("--auth",))
    server.start()
    host = f"127.0.0.1:{server.port}"
    with MongoClient(f"mongodb://{host}/") as client:
        client.admin.command("createUser", "root", pwd="secret", roles=["root"])
    yield host
    server.stop()


def _urls(host: str, own: str = "own:pass@") -> tuple[str, str]:
    return f"mongodb://root:secret@{host}/?authSource=admin", f"mongodb://{own}{host}/?authSource=admin"


async def test_the_user_it_makes_may_do_what_storage_does_and_nothing_else(guarded: str) -> None:
    admin, url = _urls(guarded)
    assert database.provision(admin, url, DATABASE, 10) == "own"
    client, db = connect(url, DATABASE)
    await ensure_collections(db)
    await ensure_collections(db)
    with pytest.raises(OperationFailure, match="not authorized"):
        await client["other"]["things"].insert_one({})
    await client.close()


async def test_the_user_reads_and_inserts_audit_events_and_can_do_no_more_to_them(guarded: str) -> None:
    admin, url = _urls(guarded)
    database.provision(admin, url, DATABASE, 10)
    client, db = connect(url, DATABASE)
    await ensure_collections(db)
    for _ in range(2):
        await mongo_audit.ensure_collection(db)
    trail = Trail(MongoEvents(db), MongoSessions(db), "storage")
    await trail.write([event()])
    await trail.close(session_of(now().date()))
    events = db[mongo_audit.AUDIT_EVENTS]
    before = await events.find().to_list()
    assert len(before) == 2
    one = {"_id": before[0]["_id"]}
    for attack in (
        lambda: events.update_one(one, {"$set": {"event": b"x"}}),
        lambda: events.replace_one(one, {"event": b"x"}),
        lambda: events.find_one_and_delete(one),
        lambda: events.delete_many({}),
        lambda: events.bulk_write([DeleteOne(one)]),
        lambda: events.create_index("event", expireAfterSeconds=1),
        events.drop,
        lambda: events.rename("other"),
        lambda: db["sessions"].rename(mongo_audit.AUDIT_EVENTS, dropTarget=True),
        lambda: db["sessions"].aggregate([{"$out": mongo_audit.AUDIT_EVENTS}]),
        lambda: db["sessions"].aggregate([{"$merge": {"into": mongo_audit.AUDIT_EVENTS}}]),
        lambda: db.command({"collMod": mongo_audit.AUDIT_EVENTS, "validator": {}}),
        lambda: db.command({"convertToCapped": mongo_audit.AUDIT_EVENTS, "size": 4096}),
        lambda: client.drop_database(DATABASE),
        lambda: db.command({"updateUser": "own", "roles": ["readWrite"]}),
        lambda: db.command({"updateRole": database.ROLE, "roles": ["readWrite"]}),
    ):
        with pytest.raises(OperationFailure, match=r"(?i)not authorized"):
            await attack()
    assert await events.find().to_list() == before
    await client.close()


async def test_the_user_may_do_all_that_the_service_prepares(guarded: str) -> None:
    admin, url = _urls(guarded)
    database.provision(admin, url, "lucid_whole", 10)
    client, db = connect(url, "lucid_whole")
    parts = (mongo_sessions, mongo_activity, mongo_due, mongo_batches, mongo_key_rings)
    readiness = Readiness(db, *(part.ensure_indexes for part in parts), mongo_audit.ensure_collection)
    await asyncio.wait_for(readiness.establish(), 20)
    assert await MongoLease(db, "audit", "x", 30).acquire() == 1
    await MongoFindings(db).move(None)
    assert await free_bytes(db)
    await client.close()


def test_every_collection_that_the_service_uses_is_one_that_its_user_may_use() -> None:
    names = {"sessions", "chunks", "bodies", "tiles", mongo_batches.BATCHES, mongo_lease.LEASES}
    for path in Path(mongo_audit.__file__).parent.glob("*.py"):
        text = path.read_text()
        names |= set(re.findall(r'\b(?:db|database)\["(\w+)"\]', text))
        constants = re.findall(r"\b(?:db|database)\[([A-Z_]+)\]", text)
        module = import_module(f"sessions.storage.{path.stem}") if constants else None
        names |= {getattr(module, constant) for constant in constants}
    assert names == {*database.CHANGED, mongo_audit.AUDIT_EVENTS}


async def test_it_may_be_repeated_and_brings_a_new_password(guarded: str) -> None:
    admin, old = _urls(guarded)
    for _ in range(2):
        database.provision(admin, old, DATABASE, 10)
    _, new = _urls(guarded, "own:another@")
    database.provision(admin, new, DATABASE, 10)
    client, db = connect(old, DATABASE)
    with pytest.raises(OperationFailure, match="Authentication failed"):
        await db["x"].find_one()
    await client.close()
    client, db = connect(new, DATABASE)
    await db["x"].find_one()
    await client.close()


async def test_storage_says_what_to_do_when_its_password_is_refused(guarded: str) -> None:
    client, db = connect(_urls(guarded, "nobody:x@")[1], DATABASE)
    readiness = Readiness(db)
    trying = asyncio.create_task(readiness.establish())
    while "refuses" not in readiness.reason:
        await asyncio.sleep(0.01)
    trying.cancel()
    assert "MongoDB refuses this user or password" in (await readiness.ping() or "")
    await client.close()


@pytest.mark.parametrize(
    ("admin", "url", "setting", "said"),
    [
        (
            "mongodb://root:wrong@{}/?authSource=admin",
            "mongodb://own:pass@{}/",
            "MONGODB_ADMIN_URL_FILE",
            "first start",
        ),
        (
            "mongodb://weak:weak@{}/?authSource=admin",
            "mongodb://own:pass@{}/",
            "MONGODB_ADMIN_URL_FILE",
            "may not make",
        ),
        ("mongodb://{}/", "mongodb://own:pass@{}/", "MONGODB_ADMIN_URL_FILE", "authentication"),
        ("http://{}/", "mongodb://own:pass@{}/", "MONGODB_ADMIN_URL_FILE", "is no MongoDB URL"),
        ("mongodb://root:secret@{}/?authSource=admin", "mongodb://{}/", "MONGODB_URL_FILE", "NAME:PASSWORD"),
        ("mongodb://root:secret@{}/?authSource=admin", "nonsense", "MONGODB_URL_FILE", "MongoDB URL"),
        (
            "mongodb://root:secret@{}/?authSource=admin",
            "mongodb://own:pass@127.0.0.1:1/?serverSelectionTimeoutMS=100",
            "MONGODB_URL_FILE",
            "does not work for the user just made",
        ),
    ],
)
def test_what_is_wrong_is_named(guarded: str, admin: str, url: str, setting: str, said: str) -> None:
    with MongoClient(_urls(guarded)[0]) as client:
        if not client.admin.command("usersInfo", "weak")["users"]:
            rights = [{"role": "clusterMonitor", "db": "admin"}]
            client.admin.command("createUser", "weak", pwd="weak", roles=rights)
    with pytest.raises(ConfigurationError, match=f"^{setting}: .*{said}"):
        database.provision(admin.format(guarded), url.format(guarded), DATABASE, 10)


def test_a_server_that_does_not_come(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(database, "_SELECT_SERVER_MS", 50)
    monkeypatch.setattr(database, "_POLL_SECONDS", 0.01)
    with pytest.raises(ConfigurationError, match="MongoDB does not answer"):
        database.provision(*_urls("127.0.0.1:1"), DATABASE, 0.1)


def test_the_database_program(
    guarded: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    admin, url = _urls(guarded)
    (tmp_path / "admin").write_text(admin)
    (tmp_path / "url").write_text(url)
    monkeypatch.setenv("MONGODB_ADMIN_URL_FILE", str(tmp_path / "admin"))
    monkeypatch.setenv("MONGODB_URL_FILE", str(tmp_path / "url"))
    monkeypatch.setenv("MONGODB_DATABASE", "")
    assert database.main() == 0
    assert "own may use the database lucid_sessions" in capsys.readouterr().out
    (tmp_path / "admin").write_text(admin.replace("secret", "wrong"))
    with pytest.raises(SystemExit) as ended:
        database.main()
    assert ended.value.code == EXIT_CONFIGURATION
    said = capsys.readouterr().err
    assert said.startswith("configuration error: MONGODB_ADMIN_URL_FILE: MongoDB refuses this password")
    assert "wrong" not in said


@pytest.fixture
def chain(tmp_path: Path) -> Iterator[Anvil]:
    """A development chain as the compose file starts it: a block for each transaction, and no other."""
    node = Anvil(tmp_path / "chain", block_seconds=0)
    node.start()
    yield node
    node.stop()


@pytest.fixture
def chain_settings(chain: Anvil, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    key = tmp_path / "chain-key"
    key.write_text("0x" + "5a" * 32 + "\n")
    monkeypatch.setenv("CHAIN_RPC_URLS", chain.url)
    monkeypatch.setenv("CHAIN_KEY_FILE", str(key))
    monkeypatch.setenv("WAIT_SECONDS", "2")
    return key


async def test_the_chain_is_ready_for_storage(
    chain: Anvil, chain_settings: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for _ in range(2):  # as at every `up`
        assert await asyncio.to_thread(dev_chain.main) == 0
    assert "proves nothing to others" in capsys.readouterr().out
    assert chain.call("eth_blockNumber") == "0x2"
    adapter = EvmChain(
        rpc_urls=[chain.url],
        chain_id=dev_chain.CHAIN_ID,
        contract=bytes.fromhex(dev_chain.CONTRACT[2:]),
        key=chain_settings.read_text(),
    )
    await adapter.check()
    await adapter.close()


def _refused(capsys: pytest.CaptureFixture[str]) -> str:
    with pytest.raises(SystemExit) as ended:
        dev_chain.main()
    assert ended.value.code == EXIT_CONFIGURATION
    return capsys.readouterr().err.removeprefix("configuration error: ")


def test_a_chain_that_had_another_use(chain: Anvil, chain_settings: Path, capsys: pytest.CaptureFixture[str]) -> None:
    last = chain.call("eth_accounts")[-1]
    chain.call("eth_sendTransaction", {"from": last, "to": last, "value": "0x1"})
    assert _refused(capsys).startswith("CHAIN_CONTRACT: ")


def test_a_chain_without_blocks(chain: Anvil, chain_settings: Path, capsys: pytest.CaptureFixture[str]) -> None:
    chain.call("evm_setAutomine", False)
    assert "makes no blocks" in _refused(capsys)


async def test_a_chain_that_is_none_of_development(
    chain: Anvil, chain_settings: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    async with proxied(chain.url, answers("web3_clientVersion", "Geth/v1.16")) as url:
        monkeypatch.setenv("CHAIN_RPC_URLS", url)
        assert "take dev-chain out of COMPOSE_PROFILES" in await asyncio.to_thread(_refused, capsys)
    async with proxied(chain.url, refuse("eth_accounts", -32601, "no")) as url:
        monkeypatch.setenv("CHAIN_RPC_URLS", url)
        assert (await asyncio.to_thread(_refused, capsys)).startswith("CHAIN_RPC_URLS: ")


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ("http://127.0.0.1:1", "CHAIN_RPC_URLS: 127.0.0.1:1"),
        ("ftp://x", "CHAIN_RPC_URLS: each is an http"),
        ("/nowhere", "CHAIN_KEY_FILE: cannot read /nowhere"),
        ("0x12", "CHAIN_CONTRACT: "),
    ],
)
def test_what_is_wrong_with_the_chain_is_named(
    chain_settings: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    value: str,
    said: str,
) -> None:
    monkeypatch.setenv("WAIT_SECONDS", "0.2")
    monkeypatch.setenv(said.partition(":")[0], value)
    assert _refused(capsys).startswith(said)


def test_a_key_that_is_none(chain_settings: Path, capsys: pytest.CaptureFixture[str]) -> None:
    chain_settings.write_text("secret-but-no-key\n")
    said = _refused(capsys)
    assert said.startswith("CHAIN_KEY_FILE: does not hold a private key")
    assert "secret-but" not in said


def test_a_misconfigured_chain_says_what_apart_from_where() -> None:
    error = ChainMisconfiguredError("CHAIN_ID", "is another")
    assert (error.setting, error.problem, str(error)) == ("CHAIN_ID", "is another", "CHAIN_ID: is another")
