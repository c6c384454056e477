"""Tokens that change while the service runs."""

import asyncio
import hashlib
import os
import time
from contextlib import suppress
from pathlib import Path

import pytest
import structlog
from structlog.testing import capture_logs

from sessions.runtime import tokens_watch
from sessions.runtime.audit import Audit
from sessions.runtime.errors import DomainError
from sessions.runtime.limits import Limits
from sessions.runtime.settings import ConfigurationError
from sessions.runtime.tokens_watch import TokensWatch
from tests.unit.runtime.apps import Written

AUDIT = Audit("small", Written())


def _line(name: str) -> str:
    return f"{name} roles=audit sha256={hashlib.sha256(name.encode()).hexdigest()}\n"


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(tokens_watch, "_log", structlog.get_logger())
    path = tmp_path / "tokens"
    path.write_text(_line("one"))
    return path


def _valid(watch: TokensWatch, name: str) -> bool:
    try:
        return watch.authenticator.authenticate(f"Bearer {name}").name == name
    except DomainError:
        return False


def test_a_file_that_is_wrong_at_the_start(path: Path) -> None:
    path.write_text("nobody\n")
    with pytest.raises(ConfigurationError, match=r"^TOKENS_FILE: .* line 1"):
        TokensWatch(path, Limits())


async def test_a_token_that_is_added_and_one_that_is_struck(path: Path) -> None:
    watch = TokensWatch(path, Limits())
    path.write_text(_line("one") + _line("two"))
    with capture_logs() as events:
        await watch.look(AUDIT)
        await watch.look(AUDIT)
    assert events == [{"event": "tokens_reloaded", "log_level": "info", "names": ["one", "two"]}]
    assert _valid(watch, "one")
    assert _valid(watch, "two")
    path.write_text(_line("two"))
    await watch.look(AUDIT)
    assert not _valid(watch, "one")
    assert _valid(watch, "two")


async def test_a_file_that_is_put_in_its_place_with_the_same_times_and_size(path: Path) -> None:
    watch = TokensWatch(path, Limits())
    fresh = path.with_name("fresh")
    fresh.write_text(_line("two"))
    times = path.stat()
    os.utime(fresh, ns=(times.st_atime_ns, times.st_mtime_ns))
    fresh.replace(path)
    await watch.look(AUDIT)
    assert _valid(watch, "two")
    assert not _valid(watch, "one")


@pytest.mark.parametrize("text", ["", "# nobody\n", _line("two") + "rest of a li", None])
async def test_a_file_that_has_become_wrong_keeps_the_old_tokens(path: Path, text: str | None) -> None:
    watch = TokensWatch(path, Limits())
    assert watch.check().status == "ok"
    if text is None:
        path.unlink()
    else:
        path.write_text(text)
    with capture_logs() as events:
        await watch.look(AUDIT)
        await watch.look(AUDIT)  # said once, not every half second
    (event,) = events
    assert (event["event"], event["still_valid"]) == ("tokens_not_reloaded", ["one"])
    assert event["reason"].startswith("TOKENS_FILE: ")
    assert "rest of a li" not in event["reason"]
    assert _valid(watch, "one")
    assert not _valid(watch, "two")
    assert watch.check().status == "degraded"
    assert event["reason"] in watch.check().detail
    path.write_text(_line("two"))
    await watch.look(AUDIT)
    assert watch.check().status == "ok"
    assert not _valid(watch, "one")


async def test_it_watches_by_itself_and_quickly(path: Path) -> None:
    watch = TokensWatch(path, Limits())
    running = asyncio.create_task(watch.run(AUDIT))
    path.write_text(_line("two"))
    started = time.monotonic()
    while _valid(watch, "one"):
        assert time.monotonic() - started < 2
        await asyncio.sleep(0.02)
    running.cancel()
    with suppress(asyncio.CancelledError):
        await running
    assert _valid(watch, "two")


async def test_the_audit_trail_is_told(path: Path) -> None:
    written = Written()
    audit, watch = Audit("small", written), TokensWatch(path, Limits())
    await watch.look(audit)
    for text in (_line("two"), "nobody\n"):
        path.write_text(text)
        await watch.look(audit)
    await audit.flush()
    assert written.told() == [
        (None, "tokens.reload", None, "allowed", None),
        (None, "tokens.reload", None, "failed", "tokens-file-wrong"),
    ]
