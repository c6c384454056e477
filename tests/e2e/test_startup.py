"""Settings that cannot work end the start with one line; what is merely away does not."""

import json
import os
import re
import secrets
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from scripts.devstack import leaks, process
from scripts.devstack.mongod import Mongod
from scripts.devstack.process import ROOT, free_port, wait_until
from scripts.devstack.stack import Stack
from tests.e2e.conftest import service_environment

CONFIGURATION, FAILED = 78, 1
START_SECONDS = 60
Environment = dict[str, str]
P, S = "processor", "storage"


def _command(service: str) -> list[str]:
    return [sys.executable, "-m", f"sessions.{service}.main"]


def _secrets(stack: Stack) -> list[str]:
    """Every secret of the stack, as text."""
    found = [*stack.tokens.values(), stack.anvil.accounts[1][1].removeprefix("0x")]
    found.append((stack.folder / "secrets" / "kek").read_text().strip().partition(":")[2])
    return found


@contextmanager
def _running(service: str, environment: Environment, log: Path) -> Iterator[process.Process]:
    one = process.start(_command(service), log, service_environment(environment))
    try:
        yield one
    finally:
        assert one.stop(), "SIGTERM did not end it"


# What each case changes: the service, the setting that the line names, and a change of the environment.
Change = Callable[[Environment, Path], None]


def _file(name: str, content: bytes | str) -> Change:
    def change(environment: Environment, folder: Path) -> None:
        path = folder / "file"
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        environment[name] = str(path)

    return change


def _set(name: str, value: str) -> Change:
    return lambda environment, _folder: environment.update({name: value})


def _without(name: str) -> Change:
    return lambda environment, _folder: environment.pop(name) and None


SECRET = secrets.token_urlsafe(33)
"""Stands in garbled files in the place of key material; it must not come out."""
SHA = "0" * 64

CASES: list[tuple[str, str, str, Change]] = [
    *(
        case
        for service in (P, S)
        for case in (
            (service, "TOKENS_FILE", "garbled", _file("TOKENS_FILE", f"one roles=record {SECRET}\n")),
            (service, "TOKENS_FILE", "role", _file("TOKENS_FILE", f"one roles=root sha256={SHA}\n")),
            (service, "TOKENS_FILE", "hash", _file("TOKENS_FILE", f"one roles=record sha256={SECRET}\n")),
            (service, "TOKENS_FILE", "twice", _file("TOKENS_FILE", f"one roles=record sha256={SHA}\n" * 2)),
            (service, "TOKENS_FILE", "empty", _file("TOKENS_FILE", "# nothing\n")),
            (service, "TOKENS_FILE", "binary", _file("TOKENS_FILE", b"\xff\xfe" + os.urandom(64))),
            (service, "TOKENS_FILE", "not there", _set("TOKENS_FILE", "/nonexistent/tokens")),
            (service, "TOKENS_FILE", "folder", _set("TOKENS_FILE", "/")),
            (service, "TOKENS_FILE", "missing", _without("TOKENS_FILE")),
            (service, "TOKENS_FILE", "blank", _set("TOKENS_FILE", "")),
            (service, "PORT", "word", _set("PORT", "http")),
            (service, "PORT", "range", _set("PORT", "70000")),
            (service, "LOG_LEVEL", "word", _set("LOG_LEVEL", "LOUD")),
            (service, "CHUNK_MAX_BYTES", "range", _set("CHUNK_MAX_BYTES", str(2**40))),
        )
    ),
    (
        P,
        "RECOVERY_PUBLIC_KEY_FILE",
        "private",
        _file("RECOVERY_PUBLIC_KEY_FILE", f"lucid-recovery-private-v1:{SECRET}"),
    ),
    (P, "RECOVERY_PUBLIC_KEY_FILE", "base64", _file("RECOVERY_PUBLIC_KEY_FILE", f"lucid-recovery-public-v1:{SECRET}*")),
    (P, "RECOVERY_PUBLIC_KEY_FILE", "empty", _file("RECOVERY_PUBLIC_KEY_FILE", "")),
    (P, "DEK_CACHE_SECONDS", "zero", _set("DEK_CACHE_SECONDS", "0")),
    (P, "KEK_FILE", "missing", _without("KEK_FILE")),
    (P, "KEK_FILE", "garbled", _file("KEK_FILE", f"no colon {SECRET}\n")),
    (P, "KEK_FILE", "base64", _file("KEK_FILE", f"one:{SECRET}*\n")),
    (P, "KEK_FILE", "short", _file("KEK_FILE", f"one:{SECRET[:40]}\n")),
    (P, "KEK_FILE", "binary", _file("KEK_FILE", os.urandom(32) + b"\xff")),
    (P, "KEK_FILE", "not there", _set("KEK_FILE", "/nonexistent/kek")),
    (P, "STORAGE_URL", "missing", _without("STORAGE_URL")),
    (P, "STORAGE_URL", "no address", _set("STORAGE_URL", "storage")),
    (P, "STORAGE_TOKEN_FILE", "missing", _without("STORAGE_TOKEN_FILE")),
    (P, "STORAGE_TOKEN_FILE", "not there", _set("STORAGE_TOKEN_FILE", "/nonexistent/token")),
    (P, "STORAGE_TOKEN_FILE", "two lines", _file("STORAGE_TOKEN_FILE", f"{SECRET}\n{SECRET}\n")),
    (S, "MONGODB_URL", "missing", _without("MONGODB_URL")),
    (S, "MONGODB_URL", "no address", _set("MONGODB_URL", f"http://{SECRET}")),
    (S, "MONGODB_URL", "bad option", _set("MONGODB_URL", f"mongodb://user:{SECRET}@127.0.0.1/?tls=maybe&ssl=no")),
    (S, "MONGODB_URL", "password", _set("MONGODB_URL", f"mongodb://user:{SECRET}@127.0.0.1:port/")),
    *(
        (S, "MONGODB_URL", option, _set("MONGODB_URL", f"mongodb://user:{SECRET}@127.0.0.1/?{option}=true"))
        for option in ("directConnection", "tlsInsecure", "tlsAllowInvalidCertificates", "tlsAllowInvalidHostnames")
    ),
    (S, "MONGODB_DATABASE", "name", _set("MONGODB_DATABASE", "a.b")),
    (S, "CHAIN_RPC_URLS", "missing", _without("CHAIN_RPC_URLS")),
    (S, "CHAIN_RPC_URLS", "no address", _set("CHAIN_RPC_URLS", "node")),
    (S, "CHAIN_ID", "missing", _without("CHAIN_ID")),
    (S, "CHAIN_ID", "word", _set("CHAIN_ID", "mainnet")),
    (S, "CHAIN_ID", "another chain", _set("CHAIN_ID", "1")),
    (S, "CHAIN_CONTRACT", "missing", _without("CHAIN_CONTRACT")),
    (S, "CHAIN_CONTRACT", "no address", _set("CHAIN_CONTRACT", "0x1234")),
    (S, "CHAIN_CONTRACT", "no code there", _set("CHAIN_CONTRACT", "0x" + "12" * 20)),
    (S, "CHAIN_KEY_FILE", "missing", _without("CHAIN_KEY_FILE")),
    (S, "CHAIN_KEY_FILE", "no key", _file("CHAIN_KEY_FILE", f"{SECRET}\n")),
    (S, "CHAIN_KEY_FILE", "not there", _set("CHAIN_KEY_FILE", "/nonexistent/key")),
    (S, "ANCHOR_CONFIRMATIONS", "word", _set("ANCHOR_CONFIRMATIONS", "many")),
    (S, "ANCHORING", "word", _set("ANCHORING", "perhaps")),
]


# Importing takes a second and more: one process starts the service's main again and again, for all cases.
_RUNNER = """
import contextlib, importlib, io, json, os, sys
main = importlib.import_module(f"sessions.{sys.argv[1]}.main").main
results = []
for environment in json.load(sys.stdin):
    os.environ.clear()
    os.environ.update(environment)
    said, complained = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(complained):
        try:
            code = main()
        except SystemExit as error:
            code = error.code
        except BaseException as error:
            code = repr(error)
    results.append([code, said.getvalue(), complained.getvalue()])
json.dump(results, sys.stdout)
"""
Ended = tuple[int, str, str]
Case = tuple[str, str, str, Change]


@pytest.fixture(scope="module")
def ended(stack: Stack, tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, ...], Ended]:
    """How each case ends: exit code, stdout, stderr."""
    found: dict[tuple[str, ...], Ended] = {}
    for service in (P, S):
        cases = [case for case in CASES if case[0] == service]
        environments = [_environment(stack, case, tmp_path_factory.mktemp("case")) for case in cases]
        ran = subprocess.run(
            [sys.executable, "-c", _RUNNER, service],
            input=json.dumps(environments),
            env=service_environment({}),
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=90,
            check=True,
        )
        found |= {case[:3]: tuple(result) for case, result in zip(cases, json.loads(ran.stdout), strict=True)}
    return found


def _environment(stack: Stack, case: Case, folder: Path) -> Environment:
    service, _, _, change = case
    environment = {**stack.env[service], "PORT": str(free_port())}
    change(environment, folder)
    return service_environment(environment)


def _check_end(stack: Stack, setting: str, end: Ended) -> None:
    code, said, complained = end
    assert code == CONFIGURATION, said + complained
    lines = complained.strip().splitlines()
    assert len(lines) == 1, complained
    assert lines[0].startswith(f"configuration error: {setting}")
    assert said == ""
    for secret in (SECRET, SECRET[:20], *_secrets(stack)):
        assert secret not in complained


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case[0]}-{case[1]}-{case[2]}")
def test_a_setting_that_cannot_work(stack: Stack, ended: dict[tuple[str, ...], Ended], case: Case) -> None:
    _check_end(stack, case[1], ended[case[:3]])


AS_PROCESSES = [
    case
    for case in CASES
    if case[:3]
    in {
        (P, "TOKENS_FILE", "garbled"),
        (P, "KEK_FILE", "garbled"),
        (P, "STORAGE_URL", "missing"),
        (S, "MONGODB_URL", "password"),
        (S, "MONGODB_URL", "tlsInsecure"),
        (S, "CHAIN_ID", "another chain"),
        (S, "CHAIN_CONTRACT", "no code there"),
    }
]


@pytest.mark.parametrize("case", AS_PROCESSES, ids=lambda case: f"{case[0]}-{case[1]}-{case[2]}")
def test_the_same_as_an_operator_sees_it(stack: Stack, tmp_path: Path, case: Case) -> None:
    ran = subprocess.run(
        _command(case[0]),
        env=_environment(stack, case, tmp_path),
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=START_SECONDS,
        check=False,
    )
    _check_end(stack, case[1], (ran.returncode, ran.stdout, ran.stderr))


@pytest.mark.parametrize("service", [P, S])
def test_an_unreadable_file(stack: Stack, tmp_path: Path, service: str) -> None:
    own = tmp_path / "tokens"
    own.write_text(f"one roles=record sha256={SHA}\n")
    own.chmod(0o000)
    environment = {**stack.env[service], "PORT": str(free_port()), "TOKENS_FILE": str(own)}
    # Root reads everything: without that right, it is an owner who may not.
    command = _command(service)
    if os.geteuid() == 0:
        command = ["setpriv", "--bounding-set=-all", "--inh-caps=-all", *command]
    ended = subprocess.run(
        command,
        env=service_environment(environment),
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=START_SECONDS,
        check=False,
    )
    assert ended.returncode == CONFIGURATION, ended.stdout + ended.stderr
    assert ended.stderr == f"configuration error: TOKENS_FILE: cannot read {own}: Permission denied\n"


@pytest.mark.parametrize("service", [P, S])
def test_a_port_in_use(stack: Stack, service: str) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        ended = subprocess.run(
            _command(service),
            env=service_environment({**stack.env[service], "PORT": str(port)}),
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=START_SECONDS,
            check=False,
        )
    assert ended.returncode == FAILED, ended.stdout + ended.stderr
    assert ended.stderr == f"cannot listen: PORT: 127.0.0.1:{port}: Address already in use\n"
    assert ended.stdout == ""


def _get(port: int, path: str) -> httpx.Response | None:
    try:
        return httpx.get(f"http://127.0.0.1:{port}{path}", timeout=10, trust_env=False)
    except httpx.HTTPError:
        return None


def _status(port: int, path: str) -> int:
    answer = _get(port, path)
    return 0 if answer is None else answer.status_code


def test_a_database_that_comes_later(stack: Stack, tmp_path: Path) -> None:
    port, password = free_port(), secrets.token_urlsafe(24)
    later = Mongod(tmp_path / "mongo", port=free_port())
    url = f"mongodb://127.0.0.1:{later.port}/"
    environment = {**stack.env[S], "PORT": str(port), "MONGODB_URL": url, "ANCHORING": "off"}
    log = tmp_path / "storage.log"
    try:
        with _running(S, environment, log):
            assert wait_until(lambda: _status(port, "/livez") == 200, START_SECONDS)
            for path in ("/readyz", "/health"):
                answer = _get(port, path)
                assert answer is not None
                assert answer.status_code == 503
                assert answer.json()["status"] == "failed"
                assert "MONGODB_URL" in answer.json()["checks"]["database"]["detail"]
            token = {"Authorization": f"Bearer {stack.tokens['audit']}"}
            refused = httpx.get(f"http://127.0.0.1:{port}/api/v1/sessions", headers=token, trust_env=False)
            assert (refused.status_code, refused.json()["code"]) == (503, "database-unavailable")
            assert int(refused.headers["retry-after"]) > 0
            assert wait_until(lambda: "database_not_ready" in log.read_text(), 30)
            later.start()
            assert wait_until(lambda: _status(port, "/readyz") == 200, 30)
            assert _status(port, "/health") == 200
            found = httpx.get(f"http://127.0.0.1:{port}/api/v1/sessions", headers=token, trust_env=False)
            assert found.json() == {"sessions": [], "next_cursor": None}
    finally:
        later.stop()
    _check_log(stack, log, password)


def test_the_password_of_a_database_that_is_away_is_not_told(stack: Stack, tmp_path: Path) -> None:
    port, password = free_port(), secrets.token_urlsafe(24)
    leaks.register("database password", password)
    environment = {
        **stack.env[S],
        "PORT": str(port),
        "MONGODB_URL": f"mongodb://user:{password}@127.0.0.1:{free_port()}/",
        "ANCHORING": "off",
        "LOG_LEVEL": "DEBUG",
        "DEBUG": "true",
    }
    log = tmp_path / "storage.log"
    with _running(S, environment, log):
        assert wait_until(lambda: "database_not_ready" in (log.read_text() if log.exists() else ""), 30)
        said = [answer.text for path in ("/health", "/readyz", "/metrics") if (answer := _get(port, path))]
    assert len(said) == 3
    assert password not in "".join(said)
    _check_log(stack, log, password)


@pytest.mark.parametrize("away", ["refuses", "is silent"])
def test_a_chain_that_is_away(stack: Stack, tmp_path: Path, away: str) -> None:
    """A node that takes the connection and says nothing must not hold up the start either."""
    port, log = free_port(), tmp_path / "storage.log"
    with socket.socket() as node:
        node.bind(("127.0.0.1", 0))
        if away == "is silent":
            node.listen(64)
        url = f"http://127.0.0.1:{node.getsockname()[1]}"
        environment = {
            **stack.env[S],
            "PORT": str(port),
            "CHAIN_RPC_URLS": url,
            "MONGODB_DATABASE": f"lucid_test_{secrets.token_hex(8)}",
        }
        began = time.monotonic()
        with _running(S, environment, log):
            assert wait_until(lambda: _status(port, "/readyz") == 200, START_SECONDS)
            assert time.monotonic() - began < START_SECONDS

            def degraded() -> bool:
                answer = _get(port, "/health")
                assert answer is not None
                assert answer.status_code == 200
                return bool(answer.json()["status"] == "degraded")

            assert wait_until(degraded, 30)
            answer = _get(port, "/health")
            assert answer is not None
            checks = answer.json()["checks"]
            assert checks["database"]["status"] == "ok"
            assert checks["chain"]["status"] == "degraded"
            assert "CHAIN_RPC_URLS" in checks["chain"]["detail"]
    _check_log(stack, log)


def test_a_storage_that_is_away(stack: Stack, tmp_path: Path) -> None:
    port, log = free_port(), tmp_path / "processor.log"
    environment = {**stack.env[P], "PORT": str(port), "STORAGE_URL": f"http://127.0.0.1:{free_port()}"}
    with _running(P, environment, log):
        assert wait_until(lambda: _status(port, "/livez") == 200, START_SECONDS)
        answer = _get(port, "/readyz")
        assert answer is not None
        assert answer.status_code == 503
        assert "STORAGE_URL" in answer.json()["checks"]["storage"]["detail"]
    _check_log(stack, log)


def test_the_running_stack_tells_no_secret(stack: Stack) -> None:
    for part in ("processor", "storage"):
        _check_log(stack, stack.log(part))


def _check_log(stack: Stack, log: Path, *further: str) -> None:
    """One JSON object a line, no traceback, no secret."""
    text = log.read_text()
    assert text
    for line in text.splitlines():
        assert re.fullmatch(r"\{.*\}", line), line
    assert "Traceback" not in text
    for secret in (*_secrets(stack), *further):
        assert secret not in text


@pytest.mark.parametrize("service", [P, S])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_well(stack: Stack, tmp_path: Path, service: str, number: signal.Signals) -> None:
    port, log = free_port(), tmp_path / "log"
    environment = {**stack.env[service], "PORT": str(port)}
    if service == S:
        environment |= {"ANCHORING": "off"}
    one = process.start(_command(service), log, service_environment(environment))
    try:
        assert wait_until(lambda: _status(port, "/readyz") == 200, START_SECONDS)
        one.send(number)
        assert wait_until(lambda: not one.alive, 10)
        assert one.exit_status() == 0
    finally:
        one.stop()
    assert "service_stopped" in log.read_text()
    _check_log(stack, log)
