"""Tokens that come and go while both services run."""

import hashlib
import secrets
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from scripts.devstack.stack import Stack

WITHIN_SECONDS = 2.0


@pytest.fixture
def file(stack: Stack) -> Iterator[Path]:
    path = stack.folder / "secrets" / "tokens"
    before = path.read_text()
    yield path
    path.write_text(before)
    for url in (stack.processor_url, stack.storage_url):
        _until(lambda url=url: _tokens_check(url) == "ok")


def _until(condition) -> None:
    deadline = time.monotonic() + WITHIN_SECONDS
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def _tokens_check(url: str) -> str:
    return httpx.get(f"{url}/health").json()["checks"]["tokens"]["status"]


def test_a_token_is_good_from_when_it_is_written_until_it_is_struck(stack: Stack, file: Path) -> None:
    token = "lucid_" + secrets.token_urlsafe(32)
    before = file.read_text()
    line = f"visitor roles=audit sessions=visit- sha256={hashlib.sha256(token.encode()).hexdigest()}\n"

    def statuses(name: str) -> set[int]:
        headers = {"authorization": f"Bearer {token}"}
        path = f"/api/v1/sessions/{name}"
        return {httpx.get(url + path, headers=headers).status_code for url in (stack.processor_url, stack.storage_url)}

    assert statuses("visit-1") == {401}
    file.write_text(before + line)
    _until(lambda: statuses("visit-1") == {404})
    assert statuses("other") == {403}
    file.write_text(before + line.replace("\n", " expires=2020-01-01T00:00:00Z\n"))
    _until(lambda: statuses("visit-1") == {401})
    file.write_text(before + line)
    _until(lambda: statuses("visit-1") == {404})
    file.write_text(before)
    _until(lambda: statuses("visit-1") == {401})


def test_a_file_that_has_become_wrong_changes_nothing_and_is_seen(stack: Stack, file: Path) -> None:
    file.write_text("recorder roles=king\n")
    for name, url in (("processor", stack.processor_url), ("storage", stack.storage_url)):
        _until(lambda url=url: _tokens_check(url) == "degraded")
        assert httpx.get(f"{url}/readyz").status_code == 200
        assert "tokens_not_reloaded" in stack.log(name).read_text()  # type: ignore[arg-type]
    headers = {"authorization": f"Bearer {stack.tokens['audit']}"}
    assert httpx.get(f"{stack.storage_url}/api/v1/sessions", headers=headers).status_code == 200
