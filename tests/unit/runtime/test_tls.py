"""TLS of a service, over real sockets of the loopback, and what is wrong with its files."""

import asyncio
import contextlib
import socket
import ssl
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import pytest
import structlog
from structlog.testing import capture_logs

from sessions.runtime import probe, server, tls
from sessions.runtime.http import connection
from sessions.runtime.settings import ConfigurationError, ServiceSettings
from tests.certificates import Authority, Pair
from tests.unit.processor.servers import quiet_server
from tests.unit.runtime.apps import app_of

_ELSEWHERE = "127.0.0.2"
"""An address of this machine that is not the server's: to the server, another host."""


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("tls"))


@pytest.fixture(scope="module")
def pair(authority: Authority) -> Pair:
    return authority.issue("service.example")


def _settings(cert: Path | None, key: Path | None) -> ServiceSettings:
    return ServiceSettings(service_name="x", port=0, tokens_file=Path("x"), tls_cert_file=cert, tls_key_file=key)


@asynccontextmanager
async def served(pair: Pair, client_ca: Path | None = None) -> AsyncIterator[int]:
    settings = _settings(pair.cert, pair.key)
    config = server.configuration(app_of(), settings, tls.server_context(settings, client_ca))
    async with quiet_server(config) as listening:
        yield listening.getsockname()[1]


def _trusting(authority: Path | None, shown: Pair | None = None) -> ssl.SSLContext:
    cert, key = (shown.cert, shown.key) if shown else (None, None)
    return tls.client_context(("CA", authority), ("CERT", cert), ("KEY", key))


async def _ask(port: int, context: ssl.SSLContext, source: str | None = None, scheme: str = "https") -> httpx.Response:
    transport = httpx.AsyncHTTPTransport(verify=context, local_address=source)
    async with httpx.AsyncClient(transport=transport) as client:
        return await client.get(f"{scheme}://127.0.0.1:{port}/livez")


async def test_a_service_speaks_tls_and_nothing_else(authority: Authority, pair: Pair) -> None:
    async with served(pair) as port:
        for source in (None, _ELSEWHERE):
            assert (await _ask(port, _trusting(authority.file), source)).json() == {"status": "ok"}
        with pytest.raises(httpx.HTTPError):
            await _ask(port, _trusting(authority.file), scheme="http")


async def test_whom_a_client_does_not_trust_it_does_not_ask(tmp_path: Path, pair: Pair, authority: Authority) -> None:
    elsewhere = authority.issue("elsewhere.example", "192.0.2.1")
    async with served(pair) as port:
        for trusted in (Authority(tmp_path).file, None):
            with pytest.raises(httpx.ConnectError, match="CERTIFICATE_VERIFY_FAILED"):
                await _ask(port, _trusting(trusted))
    async with served(elsewhere) as port:
        with pytest.raises(httpx.ConnectError, match="IP address mismatch"):
            await _ask(port, _trusting(authority.file))


async def test_old_versions_are_refused(authority: Authority, pair: Pair) -> None:
    context = _trusting(authority.file)
    assert context.minimum_version is ssl.TLSVersion.TLSv1_2
    old = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    old.load_verify_locations(authority.file)
    with pytest.warns(DeprecationWarning, match="is deprecated"):
        old.minimum_version, old.maximum_version = ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1
    async with served(pair) as port:
        with pytest.raises(httpx.ConnectError):
            await _ask(port, old)


async def test_mutual_tls(authority: Authority, pair: Pair, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "_log", structlog.get_logger())
    others = Authority(tmp_path, "others")
    async with served(pair, authority.file) as port:
        for _ in range(2):  # the second may resume the session of the first
            shown = _trusting(authority.file, authority.issue("processor"))
            assert (await _ask(port, shown, _ELSEWHERE)).status_code == 200
        with capture_logs() as events, pytest.raises(httpx.HTTPError):
            await _ask(port, _trusting(authority.file), _ELSEWHERE)
        assert events == [{"event": "client_certificate_missing", "log_level": "info", "client": _ELSEWHERE}]
        for source in (None, _ELSEWHERE):
            with pytest.raises(httpx.HTTPError):
                await _ask(port, _trusting(authority.file, others.issue("stranger")), source)
        # This host itself, where the health check has nothing to show.
        assert (await _ask(port, _trusting(authority.file))).status_code == 200


@pytest.mark.parametrize("mutual", [False, True])
async def test_the_probe_asks_over_tls(
    authority: Authority,
    pair: Pair,
    mutual: bool,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    async with served(pair, authority.file if mutual else None) as port:
        environment = {"HOST": "0.0.0.0", "PORT": str(port), "TLS_CERT_FILE": str(pair.cert)}
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        assert await asyncio.to_thread(probe.main) == 0
        assert '"status":"ok"' in capsys.readouterr().out
        command = [sys.executable, "-I", "-S", str(Path(probe.__file__))]
        alone = await asyncio.create_subprocess_exec(*command, env=environment, stdout=asyncio.subprocess.PIPE)
        output, _ = await alone.communicate()
        assert (alone.returncode, b'"status":"ok"' in output) == (0, True)
        monkeypatch.setenv("TLS_CERT_FILE", "")
        assert await asyncio.to_thread(probe.main) == 1


def test_without_a_certificate_there_is_no_tls() -> None:
    assert tls.server_context(_settings(None, None)) is None


def test_half_of_a_pair(pair: Pair) -> None:
    with pytest.raises(ConfigurationError, match=r"^TLS_KEY_FILE: is required, since TLS_CERT_FILE is set$"):
        tls.server_context(_settings(pair.cert, None))
    with pytest.raises(ConfigurationError, match=r"^TLS_CERT_FILE: is required, since TLS_KEY_FILE is set$"):
        tls.server_context(_settings(None, pair.key))


def test_clients_certificates_without_tls(authority: Authority) -> None:
    with pytest.raises(ConfigurationError, match=r"^TLS_CLIENT_CA_FILE: needs TLS_CERT_FILE and TLS_KEY_FILE"):
        tls.server_context(_settings(None, None), authority.file)


def test_files_that_cannot_work(authority: Authority, pair: Pair, tmp_path: Path) -> None:
    none, nonsense = tmp_path / "none", tmp_path / "nonsense"
    nonsense.write_text("-----BEGIN CERTIFICATE-----\nc3BhbQ==\n-----END CERTIFICATE-----\n")
    empty = tmp_path / "empty"
    empty.write_text("")
    locked = authority.issue("locked", password=b"secret")
    cases: list[tuple[Path, Path, Path | None, str]] = [
        (none, pair.key, None, "TLS_CERT_FILE: cannot read"),
        (nonsense, pair.key, None, "TLS_CERT_FILE: .* is no certificate in PEM"),
        (empty, pair.key, None, "TLS_CERT_FILE: .* is no certificate in PEM"),
        (pair.key, pair.key, None, "TLS_CERT_FILE: .* is no certificate in PEM"),
        (pair.cert, none, None, "TLS_KEY_FILE: cannot read"),
        (pair.cert, nonsense, None, "TLS_KEY_FILE: .* is not the key of TLS_CERT_FILE"),
        (pair.cert, locked.key, None, "TLS_KEY_FILE: .* is not the key of TLS_CERT_FILE"),
        (locked.cert, locked.key, None, "TLS_KEY_FILE: .* without a password"),
        (pair.cert, pair.key, none, "TLS_CLIENT_CA_FILE: cannot read"),
        (pair.cert, pair.key, nonsense, "TLS_CLIENT_CA_FILE: .* is no certificate in PEM"),
    ]
    for cert, key, client_ca, message in cases:
        with pytest.raises(ConfigurationError, match=f"^{message}") as caught:
            tls.server_context(_settings(cert, key), client_ca)
        assert str(caught.value).count("\n") == 0


@pytest.mark.parametrize("begun", [b"", b"\x16\x03\x01"])
async def test_a_handshake_has_a_deadline(pair: Pair, begun: bytes) -> None:
    """Without one a thousand connections that say nothing hold a thousand files for a minute each."""
    settings = _settings(pair.cert, pair.key)
    config = server.configuration(app_of(), settings, tls.server_context(settings, None))
    config.lifespan = "off"
    running = server.Server(config, handshake_seconds=0.3)
    config.load()
    with socket.create_server(("127.0.0.1", 0)) as listening:
        running.lifespan = config.lifespan_class(config)
        await running.startup([listening])
        reader, writer = await asyncio.open_connection(*listening.getsockname())
        writer.write(begun)
        async with asyncio.timeout(5):
            with contextlib.suppress(ConnectionError):
                assert await reader.read() == b""
        writer.close()
        await running.shutdown([listening])
