"""What the OpenAPI documents promise, tried with requests that Schemathesis makes up from them."""

import hashlib
import os
import re
import secrets
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from pymongo import MongoClient

from scripts.devstack import leaks
from scripts.devstack.process import ROOT
from scripts.devstack.stack import Stack

SCHEMATHESIS = Path(sys.executable).with_name("schemathesis")
CONFIGURATION = Path(__file__).with_name("schemathesis.toml")
ROLES = "record,replay,audit,admin,processor"
MAX_EXAMPLES = 15


@pytest.fixture(scope="module")
def token(stack: Stack) -> Iterator[str]:
    """A token that may do everything, on a database without other tests' sessions: their ids would be tried, too."""
    text = "lucid_" + secrets.token_urlsafe(32)
    leaks.register("token", text)
    file = stack.folder / "secrets" / "tokens"
    before = file.read_text()
    identity = stack.folder / "spool" / "processor.json"
    known = identity.read_bytes()
    file.write_text(f"{before}openapi roles={ROLES} sha256={hashlib.sha256(text.encode()).hexdigest()}\n")
    name = stack.env["storage"]["MONGODB_DATABASE"]
    own = f"{name}_openapi"
    stack.restart("storage", {"MONGODB_DATABASE": own})
    stack.restart("processor")
    yield text
    file.write_text(before)
    stack.restart("storage", {"MONGODB_DATABASE": name})
    stack.kill("processor")
    # Reports that were made up in its name have made it take another; seals in the other database wait for this one.
    identity.write_bytes(known)
    stack.resume("processor")
    with MongoClient(stack.mongodb_url) as client:
        client.drop_database(own)


@pytest.mark.parametrize("service", ["processor", "storage"])
def test_the_service_does_what_its_document_says(stack: Stack, token: str, tmp_path: Path, service: str) -> None:
    ran = subprocess.run(
        [
            *(SCHEMATHESIS, "--config-file", CONFIGURATION, "--no-color", "run"),
            f"{getattr(stack, f'{service}_url')}/openapi.json",
            *("--phases", "examples,coverage,fuzzing", "--max-examples", str(MAX_EXAMPLES), "--warnings", "off"),
        ],
        cwd=tmp_path,
        env={**os.environ, "LUCID_OPENAPI_TOKEN": token},
        capture_output=True,
        text=True,
        timeout=360,
        check=False,
    )
    assert ran.returncode == 0, ran.stdout[-20_000:] + ran.stderr
    tried = re.search(r"(\d+) generated", ran.stdout)
    assert tried is not None
    print(f"{service}: {tried[1]} requests made up")
    assert int(tried[1]) > 400


@pytest.mark.parametrize("service", ["processor", "storage"])
def test_nothing_unexpected_was_logged(stack: Stack, service: str) -> None:
    """A request that nobody foresaw is logged as `request_failed`, whatever it was answered with."""
    lines = stack.log(service).read_text().splitlines()  # type: ignore[arg-type]
    assert [line for line in lines if "request_failed" in line or str(ROOT) in line] == []
