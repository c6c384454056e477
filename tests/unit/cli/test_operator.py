"""tokens, deploy-contract."""

import hashlib
import json
import stat
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest

from scripts.devstack.anvil import Anvil
from sessions.cli import operator_commands
from sessions.runtime import auth
from sessions.runtime.tokens import load_tokens
from sessions.storage.contract import artefact
from tests.unit.cli.conftest import Run


def test_a_token(bare: Run) -> None:
    done = bare("tokens", "new", "--name", "r1", "--role", "record", "--role", "replay", "--role", "record")
    token = done.out.strip()
    assert token.startswith("lucid_")
    assert len(token) == 49
    assert done.err == f"r1 roles=record,replay sha256={hashlib.sha256(token.encode()).hexdigest()}\n"


def test_tokens_in_a_file_are_known_to_the_services(bare: Run, tmp_path: Path) -> None:
    path = tmp_path / "tokens"
    first = bare("tokens", "new", "--name", "r1", "--role", "record", "--append", path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert first.err == ""
    path.write_text("# ours\n" + path.read_text().rstrip("\n"))
    second = json.loads(bare("tokens", "new", "--name", "a1", "--role", "audit", "--append", path, "--json").out)
    assert second["line"] in path.read_text().splitlines()
    assert bare("tokens", "new", "--name", "a1", "--role", "audit", "--append", path).code == 6
    assert len(path.read_text().splitlines()) == 3
    entries = [line.split() for line in path.read_text().splitlines()[1:]]
    assert entries[0][2] == "sha256=" + hashlib.sha256(first.out.strip().encode()).hexdigest()
    assert bare("tokens", "new", "--name", "a2", "--role", "audit", "--append", tmp_path / "no" / "f").code == 1


def test_a_token_for_some_sessions_and_some_time(bare: Run, tmp_path: Path) -> None:
    path = tmp_path / "tokens"
    limits = ("--sessions", "desk-17-", "--expires", "2027-01-31T00:00:00Z")
    done = json.loads(bare("tokens", "new", "--name", "d", "--role", "record", *limits, "--append", path, "--json").out)
    assert (done["sessions"], done["expires"]) == ("desk-17-", "2027-01-31T00:00:00Z")
    assert done["line"].endswith(" sessions=desk-17- expires=2027-01-31T00:00:00Z")
    ((_, principal),) = load_tokens(path)
    assert (principal.sessions, principal.expires) == ("desk-17-", datetime(2027, 1, 31, tzinfo=UTC))


@pytest.mark.parametrize(
    "arguments",
    [
        ("--name", "a b", "--role", "audit"),
        ("--name", "a", "--role", "king"),
        ("--name", "a"),
        *(("--name", "a", "--role", "audit", "--sessions", prefix) for prefix in ("", "-a", "a b", "a/b")),
        *(("--name", "a", "--role", "audit", "--expires", time) for time in ("", "soon", "2027-02-30T00:00:00Z")),
    ],
)
def test_tokens_that_cannot_be(bare: Run, arguments) -> None:
    assert bare("tokens", "new", *arguments).code == 2


def test_roles_are_those_of_the_services() -> None:
    assert {role.value for role in operator_commands.Role} == {role.value for role in auth.Role}


def test_deploying(bare: Run, anvil: Anvil, tmp_path: Path) -> None:
    key = tmp_path / "key"
    key.write_text(anvil.accounts[5][1] + "\n")
    done = bare("deploy-contract", "--rpc", anvil.url, "--key-file", key, "--json")
    assert done.code == 0
    answer = json.loads(done.out)
    assert anvil.call("eth_getCode", answer["contract"], "latest")[2:] == artefact()["deployedBytecode"].removeprefix(
        "0x"
    )
    shown = bare("deploy-contract", "--rpc", anvil.url, "--key-file", key)
    assert "contract     0x" in shown.out
    key.write_text("nonsense")
    refused = bare("deploy-contract", "--rpc", anvil.url, "--key-file", key)
    assert refused.code == 1
    assert "nonsense" not in refused.err
    assert bare("deploy-contract", "--rpc", anvil.url, "--key-file", tmp_path / "none").code == 1


@pytest.mark.parametrize(
    ("arguments", "library", "what", "extra"),
    [
        (["deploy-contract", "--rpc", "http://127.0.0.1:1", "--key-file", "none"], "web3", "deploying", "chain"),
        (["shard-setup", "--mongodb-url-file", "none"], "pymongo", "sharding", "sharding"),
    ],
)
def test_without_the_library(arguments: list[str], library: str, what: str, extra: str) -> None:
    code = f"""
import sys
sys.modules["{library}"] = None
from sessions.cli.main import main
sys.exit(main({arguments}))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr == (
        f"error: {what} needs a library that is not installed ({library}) (pip install 'lucid-sessions[{extra}]')\n"
    )
