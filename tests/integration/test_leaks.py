"""The search for secrets in all that a test run leaves: it finds what was planted, and the run fails."""

import base64
import os
import tempfile
from pathlib import Path
from urllib.parse import quote

import pytest

from scripts.devstack import leaks, run_tests
from scripts.devstack.leaks import Secret
from scripts.devstack.process import ROOT

VALUE = bytes(range(100, 132))
URL_SAFE = base64.urlsafe_b64encode(VALUE).decode()


@pytest.mark.parametrize(
    "told",
    [
        VALUE,
        VALUE.hex().encode(),
        VALUE.hex().upper().encode(),
        base64.b64encode(VALUE),
        URL_SAFE.encode(),
        quote(VALUE, safe="").encode(),
        quote(base64.b64encode(VALUE), safe="").encode(),
    ],
)
def test_a_secret_is_found_however_it_is_written(tmp_path: Path, told: bytes) -> None:
    log = tmp_path / "stack" / "storage.log"
    log.parent.mkdir()
    log.write_bytes(b'{"event": "x' + told + b'"}\n')
    (found,) = leaks.find([Secret("the key", VALUE), Secret("another", bytes(32))], leaks.logs(tmp_path))
    assert (found.name, found.path) == ("the key", log)
    assert VALUE.hex() not in repr(Secret("the key", VALUE))
    log.write_bytes(told[:-4])
    assert leaks.find([Secret("the key", VALUE)], leaks.logs(tmp_path)) == []


def test_files_that_hold_secrets_are_not_searched(tmp_path: Path) -> None:
    for name in leaks.NOT_SEARCHED:
        (tmp_path / name).mkdir()
        (tmp_path / name / "a.log").write_bytes(VALUE)
    (tmp_path / "tokens").write_bytes(VALUE)
    assert leaks.find([Secret("the key", VALUE)], leaks.logs(tmp_path)) == []


def test_registering(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(leaks.VARIABLE, raising=False)
    leaks.register("outside a run", VALUE)
    register = tmp_path / "register"
    monkeypatch.setenv(leaks.VARIABLE, str(register))
    assert leaks.registered(register) == []
    for _ in range(2):
        leaks.register("the key", VALUE)
    leaks.register("a token", URL_SAFE)
    assert leaks.registered(register) == [Secret("the key", VALUE), Secret("a token", URL_SAFE.encode())]
    assert register.stat().st_mode & 0o077 == 0
    with pytest.raises(ValueError, match="less than 16 bytes"):
        leaks.register("short", "secret")


@pytest.mark.parametrize("how", ["a log", "the output", "not at all"])
def test_a_planted_leak_fails_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], how: str
) -> None:
    lines = {
        "a log": "(tmp_path / 'service.log').write_text(base64.b64encode(secret).decode())",
        "the output": "os.write(2, secret.hex().encode() + b'\\n'); print(secret.hex(), file=sys.__stdout__)",
        "not at all": "(tmp_path / 'service.log').write_text('nothing')",
    }
    (tmp_path / "test_planted.py").write_text(
        "import base64, os, sys\nfrom scripts.devstack import leaks\n\n\ndef test_it(tmp_path):\n"
        f"    secret = bytes(range(32))\n    leaks.register('the planted one', secret)\n    {lines[how]}\n"
    )
    for variable in ("LUCID_TEST_RUN", leaks.VARIABLE, "COVERAGE_FILE"):
        monkeypatch.setenv(variable, os.environ.get(variable, ""))
    monkeypatch.delenv("CI", raising=False)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setattr(run_tests, "ROOT", tmp_path)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    status = run_tests.main(["-q", "-s", "test_planted.py"])
    said = capfd.readouterr().out
    kept = list(tmp_path.glob("lucid-test-*"))
    if how == "not at all":
        assert (status, kept) == (0, [])
        assert "a secret was told" not in said
        return
    assert status == 1
    assert "1 passed" in said
    where = "service.log" if how == "a log" else "pytest.log"
    assert f"test: FAILED: a secret was told: the planted one ({'base64' if how == 'a log' else 'hex'}) in " in said
    assert where in said.partition("a secret was told")[2].splitlines()[0]
    assert f"test: logs of this run: {kept[0]}" in said
