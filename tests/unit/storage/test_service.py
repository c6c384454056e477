"""session-storage's settings and wiring."""

import asyncio
import hashlib
import subprocess
import sys
from pathlib import Path

import pytest

from sessions.runtime.errors import DomainError
from sessions.runtime.settings import EXIT_CONFIGURATION, ConfigurationError
from sessions.storage import main
from sessions.storage.settings import StorageSettings
from tests.unit.runtime.apps import client_of
from tests.unit.storage.chunks import driver_may_drop_sockets


@pytest.fixture
def tokens(tmp_path: Path) -> Path:
    path = tmp_path / "tokens"
    path.write_text(f"x roles=audit sha256={hashlib.sha256(b't').hexdigest()}\n")
    return path


def _settings(tokens: Path, **values) -> StorageSettings:
    return StorageSettings(
        tokens_file=tokens, **{"anchoring": "off", "mongodb_url": "mongodb://127.0.0.1:1/", **values}
    )


def test_the_database_url_comes_from_one_place(tokens: Path, tmp_path: Path) -> None:
    file = tmp_path / "url"
    file.write_text("mongodb://from-file/\n")
    assert _settings(tokens).database_url() == "mongodb://127.0.0.1:1/"
    assert _settings(tokens, mongodb_url=None, mongodb_url_file=file).database_url() == "mongodb://from-file/"
    for values in ({"mongodb_url": None}, {"mongodb_url_file": file}):
        with pytest.raises(ConfigurationError, match=r"^MONGODB_URL: "):
            _settings(tokens, **values).database_url()
    assert "127.0.0.1:1" not in repr(_settings(tokens))


_CHAIN = {
    "anchoring": "on",
    "chain_rpc_urls": "http://127.0.0.1:1",
    "chain_id": 5,
    "chain_contract": "0x" + "ab" * 20,
    "chain_key_file": "key",
}


@pytest.mark.parametrize("name", ["chain_rpc_urls", "chain_id", "chain_contract", "chain_key_file"])
def test_anchoring_needs_its_settings(tokens: Path, name: str) -> None:
    values = {**_CHAIN, name: "" if name in ("chain_rpc_urls", "chain_contract") else None}
    with pytest.raises(ConfigurationError, match=f"^{name.upper()}: is required"):
        _settings(tokens, **values).require_chain()
    _settings(tokens, **_CHAIN).require_chain()


def test_a_url_that_is_none(tokens: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"^MONGODB_URL: "):
        main.build(_settings(tokens, mongodb_url="http://x/"))


async def test_without_a_database_it_runs_and_says_so(tokens: Path, monkeypatch) -> None:
    app = main.build(_settings(tokens))
    headers = {"authorization": "Bearer t"}
    async with driver_may_drop_sockets(), app.router.lifespan_context(app), client_of(app, headers=headers) as client:
        health = await client.get("/health")
        assert health.status_code == 503
        assert health.json()["checks"]["database"]["detail"].startswith("MONGODB_URL: ")
        assert health.json()["checks"]["chain"] == {"status": "ok", "detail": "anchoring is off"}
        assert (await client.get("/livez")).status_code == 200
        assert (await client.get("/api/v1/sessions")).json()["code"] == "database-unavailable"
        assert "lucid_inflight_limit_bytes" in (await client.get("/metrics")).text


class _Resumed:
    """Answers with what it is given, one after the other."""

    def __init__(self, *answers: int | DomainError) -> None:
        self.answers = list(answers)

    async def resume(self, limit: int) -> int:
        answer = self.answers.pop(0)
        if isinstance(answer, DomainError):
            raise answer
        return answer


class _Ready:
    ready = True


async def test_what_is_half_way_is_looked_for_now_and_then(monkeypatch) -> None:
    monkeypatch.setattr(main, "_RESUME_SECONDS", 0)
    resumed = _Resumed(2, DomainError("database-unavailable", "away"), 0, 1)
    with pytest.raises(IndexError):
        await asyncio.wait_for(main._resume("seals", resumed.resume, _Ready()), 5)
    assert resumed.answers == []


def test_clients_certificates_without_tls_end_the_start(tokens: Path, tmp_path: Path) -> None:
    environment = {
        "TOKENS_FILE": str(tokens),
        "ANCHORING": "off",
        "MONGODB_URL": "mongodb://127.0.0.1:1/",
        "TLS_CLIENT_CA_FILE": str(tmp_path / "ca"),
    }
    command = [sys.executable, "-m", "sessions.storage.main"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (EXIT_CONFIGURATION, "")
    assert done.stderr.startswith("configuration error: TLS_CLIENT_CA_FILE: needs TLS_CERT_FILE and TLS_KEY_FILE")
    assert done.stderr.count("\n") == 1


def test_the_chains_libraries_are_not_loaded_before_they_are_needed() -> None:
    """They are half of a start, in time and in memory; with ANCHORING=off nothing needs them."""
    asked = "import sys, sessions.storage.main; print({'web3', 'eth_account', 'aiohttp'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", asked], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"


def test_a_kill_point_without_leave_ends_the_start(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("LUCID_TEST_KILL_AT", "seal-ordered")
    with pytest.raises(SystemExit) as caught:
        main.main()
    assert caught.value.code == EXIT_CONFIGURATION
    assert "configuration error: LUCID_TEST_KILL_AT" in capsys.readouterr().err
