"""The processor's way to session-storage over TLS, and the processor itself, as a process, over TLS."""

import asyncio
import base64
import hashlib
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from scripts.devstack.process import free_port
from sessions.core.types import SessionId
from sessions.processor.settings import ProcessorSettings
from sessions.processor.storage_client import StorageClient
from sessions.runtime import server, tls
from sessions.runtime.errors import DomainError
from sessions.runtime.settings import EXIT_CONFIGURATION, ConfigurationError, ServiceSettings
from tests.certificates import Authority, Pair
from tests.unit.processor.servers import TOKEN, quiet_server, storage_app
from tests.unit.storage.chunks import House


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("tls"))


@asynccontextmanager
async def _storage(pair: Pair, client_ca: Path | None = None) -> AsyncIterator[str]:
    settings = ServiceSettings(
        service_name="x", port=0, tokens_file=Path("x"), tls_cert_file=pair.cert, tls_key_file=pair.key
    )
    config = server.configuration(storage_app(House()), settings, tls.server_context(settings, client_ca))
    async with quiet_server(config) as listening:
        yield f"https://127.0.0.1:{listening.getsockname()[1]}"


def _settings(url: str, **files: Path | None) -> ProcessorSettings:
    values: dict[str, Any] = {"storage_url": url, **files}
    return ProcessorSettings(tokens_file=Path("x"), kek_file=Path("x"), storage_token_file=Path("x"), **values)


def _client(settings: ProcessorSettings) -> StorageClient:
    return StorageClient(str(settings.storage_url), TOKEN, 5, settings.storage_tls())


async def test_storage_over_mutual_tls(authority: Authority) -> None:
    shown = authority.issue("processor")
    async with _storage(authority.issue("storage"), authority.file) as url:
        files = {"storage_client_cert_file": shown.cert, "storage_client_key_file": shown.key}
        async with _client(_settings(url, storage_ca_file=authority.file, **files)) as client:
            assert await client.reachable() is None
            with pytest.raises(DomainError) as caught:
                await client.session(SessionId("a"))
            assert caught.value.code == "session-not-found"


async def test_a_storage_that_is_not_trusted(authority: Authority, tmp_path: Path) -> None:
    async with _storage(authority.issue("storage")) as url:
        for settings in (_settings(url), _settings(url, storage_ca_file=Authority(tmp_path).file)):
            async with _client(settings) as client:
                problem = await client.reachable()
                assert problem is not None
                assert "its certificate is not trusted, " in problem
                assert "check STORAGE_CA_FILE" in problem
                with pytest.raises(DomainError, match="certificate is not trusted") as caught:
                    await client.session(SessionId("a"))
                assert caught.value.code == "storage-unavailable"


@pytest.mark.parametrize("name", ["STORAGE_CA_FILE", "STORAGE_CLIENT_CERT_FILE", "STORAGE_CLIENT_KEY_FILE"])
def test_files_for_tls_without_tls(name: str) -> None:
    assert _settings("http://x").storage_tls() is None
    with pytest.raises(ConfigurationError, match=f"^{name}: is for TLS, and STORAGE_URL is without"):
        _settings("http://x", **{name.lower(): Path("x")}).storage_tls()


def test_files_that_cannot_work(authority: Authority, tmp_path: Path) -> None:
    pair = authority.issue("processor")
    with pytest.raises(ConfigurationError, match=r"^STORAGE_CLIENT_KEY_FILE: is required"):
        _settings("https://x", storage_client_cert_file=pair.cert).storage_tls()
    with pytest.raises(ConfigurationError, match=r"^STORAGE_CA_FILE: cannot read"):
        _settings("https://x", storage_ca_file=tmp_path / "none").storage_tls()


def _environment(folder: Path, storage_url: str, authority: Authority, **further: str) -> dict[str, str]:
    (folder / "tokens").write_text(f"r roles=record sha256={hashlib.sha256(b'r').hexdigest()}")
    (folder / "kek").write_text(f"k:{base64.b64encode(bytes(range(32))).decode()}")
    (folder / "token").write_text(TOKEN)
    pair = authority.issue("processor")
    return {
        "HOST": "127.0.0.1",
        "PORT": str(free_port()),
        "TOKENS_FILE": str(folder / "tokens"),
        "KEK_FILE": str(folder / "kek"),
        "STORAGE_TOKEN_FILE": str(folder / "token"),
        "STORAGE_URL": storage_url,
        "STORAGE_CA_FILE": str(authority.file),
        "STORAGE_CLIENT_CERT_FILE": str(pair.cert),
        "STORAGE_CLIENT_KEY_FILE": str(pair.key),
        "SPOOL": "off",
        "TLS_CERT_FILE": str(pair.cert),
        "TLS_KEY_FILE": str(pair.key),
        **further,
    }


async def _start(environment: dict[str, str]) -> asyncio.subprocess.Process:
    pipe = asyncio.subprocess.PIPE
    command = (sys.executable, "-m", "sessions.processor.main")
    return await asyncio.create_subprocess_exec(*command, env=environment, stdout=pipe, stderr=pipe)


async def test_a_chunk_goes_from_recorder_to_storage_over_tls(authority: Authority, tmp_path: Path) -> None:
    async with _storage(authority.issue("storage"), authority.file) as storage_url:
        environment = _environment(tmp_path, storage_url, authority)
        process = await _start(environment)
        try:
            context = tls.client_context(("CA", authority.file), ("CERT", None), ("KEY", None))
            transport = httpx.AsyncHTTPTransport(verify=context)
            url = f"https://127.0.0.1:{environment['PORT']}"
            headers = {"authorization": "Bearer r"}
            async with httpx.AsyncClient(transport=transport, base_url=url, headers=headers) as client:
                for _ in range(200):
                    try:
                        health = await client.get("/health")
                        break
                    except httpx.ConnectError:
                        await asyncio.sleep(0.1)
                assert (health.status_code, health.json()["status"]) == (200, "ok")
                assert (await client.put("/api/v1/sessions/a/chunks/0", content=b"x")).status_code == 201
        finally:
            process.terminate()
            output, errors = await process.communicate()
        assert (process.returncode, errors) == (0, b""), output


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("TLS_KEY_FILE", "", "TLS_KEY_FILE: is required, since TLS_CERT_FILE is set"),
        ("STORAGE_URL", "http://127.0.0.1:1", "STORAGE_CA_FILE: is for TLS, and STORAGE_URL is without"),
    ],
)
async def test_what_cannot_work_ends_the_start(
    authority: Authority, tmp_path: Path, name: str, value: str, message: str
) -> None:
    process = await _start(_environment(tmp_path, "https://127.0.0.1:1", authority, **{name: value}))
    output, errors = await process.communicate()
    assert (process.returncode, output) == (EXIT_CONFIGURATION, b"")
    assert errors.decode().startswith(f"configuration error: {message}")
    assert errors.count(b"\n") == 1
