"""The wheel, in an environment that holds nothing else: what a recorder or an auditor installs."""

import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from scripts.devstack.process import ROOT
from scripts.devstack.services import Secrets
from scripts.devstack.stack import Stack
from tests.e2e.conftest import session_name

EXAMPLE = ROOT / "examples" / "record_screen.py"
DRIVERS = ("fastapi", "uvicorn", "pymongo", "web3", "cryptography", "zstandard")


def _run(*command: str | Path, cwd: Path, **environment: str) -> str:
    clean = {
        name: value for name, value in os.environ.items() if not name.startswith(("LUCID_", "PYTHON", "COVERAGE_"))
    }
    ran = subprocess.run(
        command, cwd=cwd, env={**clean, **environment}, capture_output=True, text=True, timeout=150, check=False
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    return ran.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built by what is installed here, so that no network is needed."""
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "--no-index"]
    _run(*command, "--wheel-dir", "dist", ROOT, cwd=folder)
    (built,) = (folder / "dist").iterdir()
    return built


@pytest.fixture(scope="module")
def environment(wheel: Path) -> Path:
    """An empty environment with the wheel and what it asks for, of the wheels that `scripts/setup` keeps."""
    folder = wheel.parent.parent / "environment"
    _run(sys.executable, "-m", "venv", "--without-pip", folder, cwd=wheel.parent)
    command = [sys.executable, "-m", "pip", "--python", folder, "install", "--quiet", "--no-index", "--no-compile"]
    _run(*command, "--find-links", ROOT / ".venv" / "wheels", wheel, cwd=wheel.parent)
    return folder


def test_the_wheel_holds_the_package_and_nothing_of_the_images(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    assert {"sessions/py.typed", "sessions/client/sync.py", "sessions/core/FORMAT.md"} <= set(names)
    assert [
        name for name in names if "Dockerfile" in name or name.endswith(("requirements.txt", ".dockerignore"))
    ] == []


def test_what_is_installed_works_by_itself(environment: Path, stack: Stack, tmp_path: Path) -> None:
    program, session = environment / "bin" / "lucid-sessions", session_name("wheel")
    where = {
        "LUCID_PROCESSOR_URL": stack.processor_url,
        "LUCID_STORAGE_URL": stack.storage_url,
        "LUCID_TOKEN_FILE": str(Secrets(stack.folder / "secrets").operator_token),
    }
    assert "record" in _run(program, "--help", cwd=tmp_path)
    (tmp_path / "recording").write_bytes(os.urandom(100_000))
    done = _run(program, "record", "recording", "--session", session, "--json", cwd=tmp_path, **where)
    assert json.loads(done)["plaintext_bytes"] == 100_000
    _run(program, "receipt", session, "--wait", "60", "-o", "receipt.json", cwd=tmp_path, **where)
    _run(program, "envelopes", session, "envelopes", cwd=tmp_path, **where)
    command = [program, "verify", "receipt.json", "--recording-envelopes", "envelopes", "--rpc", stack.rpc_url]
    assert "verdict: proven" in _run(*command, cwd=tmp_path)


def test_the_client_brings_no_driver_of_the_servers(environment: Path, tmp_path: Path) -> None:
    question = (
        f"import importlib.util as u, sessions; print(sessions.__file__, [n for n in {DRIVERS!r} if u.find_spec(n)])"
    )
    said = _run(environment / "bin" / "python", "-c", question, cwd=tmp_path)
    assert said.startswith(str(environment))
    assert said.rstrip().endswith("[]")


def test_it_is_typed_for_whoever_uses_it(environment: Path, tmp_path: Path) -> None:
    """Mypy sees the types of what is installed, and the example has none that are wrong."""
    python = environment / "bin" / "python"
    wrong = tmp_path / "wrong.py"
    wrong.write_text("from sessions.client import Client\n\nClient(8085)\n")
    command = [sys.executable, "-m", "mypy", "--config-file=", "--strict", "--no-error-summary", "--cache-dir=cache"]
    command += [f"--python-executable={python}", str(EXAMPLE), str(wrong)]
    ran = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    (found,) = ran.stdout.splitlines()
    assert found.startswith("wrong.py:3: ")
    assert found.endswith("[arg-type]")
    assert "--display" in _run(python, EXAMPLE, "--help", cwd=tmp_path)
