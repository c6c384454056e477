"""The command line, run in this process against the fake services, or as a program of its own."""

import io
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass

import pytest

from sessions.cli.main import main
from tests.unit.client.conftest import fake, server
from tests.unit.client.fake import TOKEN, Fake

__all__ = ["fake", "server"]


@dataclass
class Result:
    code: int
    out: str
    err: str


Run = Callable[..., Result]


@pytest.fixture
def bare(monkeypatch: pytest.MonkeyPatch, capsysbinary: pytest.CaptureFixture[bytes]) -> Run:
    """Run `main` without any setting."""
    for name in list(os.environ):
        if name.startswith("LUCID_TOKEN") or name in ("LUCID_PROCESSOR_URL", "LUCID_STORAGE_URL"):
            monkeypatch.delenv(name)

    def run(*arguments: object, stdin: bytes = b"") -> Result:
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin)))
        code = main([str(argument) for argument in arguments])
        seen = capsysbinary.readouterr()
        return Result(code, seen.out.decode(), seen.err.decode())

    return run


@pytest.fixture
def run(bare: Run, fake: Fake, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run `main` with URLs and token of the fake services."""
    monkeypatch.setenv("LUCID_PROCESSOR_URL", fake.url)
    monkeypatch.setenv("LUCID_STORAGE_URL", fake.url)
    monkeypatch.setenv("LUCID_TOKEN", TOKEN)
    return bare


@pytest.fixture
def program(fake: Fake) -> Callable[..., subprocess.CompletedProcess[bytes]]:
    """Run the program itself."""

    def run(*arguments: object, **options) -> subprocess.CompletedProcess[bytes]:
        environment = {
            **os.environ,
            "LUCID_PROCESSOR_URL": fake.url,
            "LUCID_STORAGE_URL": fake.url,
            "LUCID_TOKEN": TOKEN,
        }
        command = [sys.executable, "-m", "sessions.cli.main", *map(str, arguments)]
        return subprocess.run(command, env=environment, capture_output=True, timeout=60, check=False, **options)

    return run
