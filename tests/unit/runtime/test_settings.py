import subprocess
import sys
from pathlib import Path

import pytest

from sessions.runtime import settings
from sessions.runtime.settings import (
    EXIT_CONFIGURATION,
    SECRET_FILE_MAX_BYTES,
    ConfigurationError,
    ServiceSettings,
    content_lines,
    exit_with,
    load,
    read_file,
    read_secret,
)

_REQUIRED = {"SERVICE_NAME": "x", "PORT": "1", "TOKENS_FILE": "/tokens"}


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    for name in ServiceSettings.model_fields:
        monkeypatch.delenv(name.upper(), raising=False)
    for name, value in _REQUIRED.items():
        monkeypatch.setenv(name, value)
    return monkeypatch


def test_defaults(environment: pytest.MonkeyPatch) -> None:
    environment.setenv("LOG_LEVEL", "")
    found = load(ServiceSettings)
    assert (found.host, found.log_level, found.debug) == ("0.0.0.0", "INFO", False)
    assert (found.chunk_max_bytes, found.tokens_file) == (16 * settings.MIB, Path("/tokens"))


def test_they_are_frozen(environment: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match="frozen"):
        load(ServiceSettings).port = 5  # type: ignore[misc]


@pytest.mark.parametrize("name", _REQUIRED)
def test_what_is_missing_is_named(environment: pytest.MonkeyPatch, name: str) -> None:
    environment.delenv(name)
    with pytest.raises(ConfigurationError, match=f"^{name}: is required$") as caught:
        load(ServiceSettings)
    assert caught.value.setting == name


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("PORT", "65536"),
        ("PORT", "http"),
        ("LOG_LEVEL", "LOUD"),
        ("DEBUG", "perhaps"),
        ("CHUNK_MAX_BYTES", "0"),
        ("CHUNK_MAX_BYTES", str(64 * settings.MIB + 1)),
        ("INFLIGHT_MAX_BYTES", "1"),
        ("SHUTDOWN_SECONDS", "0"),
        ("SERVICE_NAME", "x" * 65),
    ],
)
def test_what_is_wrong_is_named_and_not_shown(environment: pytest.MonkeyPatch, name: str, value: str) -> None:
    environment.setenv(name, value)
    with pytest.raises(ConfigurationError, match=f"^{name}: "):
        load(ServiceSettings)


def test_origins(environment: pytest.MonkeyPatch) -> None:
    assert load(ServiceSettings).origins() == []
    environment.setenv("CORS_ORIGINS", "https://desk.example, http://127.0.0.1:8000,http://[::1]:5")
    assert load(ServiceSettings).origins() == ["https://desk.example", "http://127.0.0.1:8000", "http://[::1]:5"]


@pytest.mark.parametrize(
    "text", ["*", "https://desk.example/", "desk.example", "https://Desk.example", "null", ",", "http://a,"]
)
def test_origins_that_are_none(environment: pytest.MonkeyPatch, text: str) -> None:
    environment.setenv("CORS_ORIGINS", text)
    with pytest.raises(ConfigurationError, match=r"^CORS_ORIGINS: give origins"):
        load(ServiceSettings).origins()


def test_a_rule_over_all_settings_is_named_as_such(environment: pytest.MonkeyPatch) -> None:
    from pydantic import model_validator

    class Ruled(ServiceSettings):
        @model_validator(mode="after")
        def rule(self) -> "Ruled":
            raise ValueError("these do not go together")

    with pytest.raises(ConfigurationError, match=r"^settings: .*do not go together$"):
        load(Ruled)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"^X_FILE: cannot read .*none: No such file"):
        read_file("X_FILE", tmp_path / "none")


def test_a_folder_is_not_a_file(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="cannot read"):
        read_file("X_FILE", tmp_path)


def test_a_file_that_is_not_text(tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigurationError, match="is not text"):
        read_file("X_FILE", tmp_path / "f")


def test_a_file_may_have_a_mebibyte(tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"x" * SECRET_FILE_MAX_BYTES)
    assert len(read_file("X_FILE", tmp_path / "f")) == SECRET_FILE_MAX_BYTES
    (tmp_path / "f").write_bytes(b"x" * (SECRET_FILE_MAX_BYTES + 1))
    with pytest.raises(ConfigurationError, match="larger than"):
        read_file("X_FILE", tmp_path / "f")


def test_a_secret_is_one_word(tmp_path: Path) -> None:
    (tmp_path / "f").write_text(" s3cret \n")
    assert read_secret("X_FILE", tmp_path / "f") == "s3cret"


@pytest.mark.parametrize("text", ["", "\n \n", "two words", "two\nlines"])
def test_a_secret_that_is_none(tmp_path: Path, text: str) -> None:
    (tmp_path / "f").write_text(text)
    with pytest.raises(ConfigurationError, match="one line with the secret") as caught:
        read_secret("X_FILE", tmp_path / "f")
    assert not text.strip() or text not in str(caught.value)


def test_content_lines_are_numbered_as_in_the_file(tmp_path: Path) -> None:
    (tmp_path / "f").write_text("# note\n\n one \n  # more\ntwo")
    assert content_lines("X_FILE", tmp_path / "f") == [(3, "one"), (5, "two")]


@pytest.mark.parametrize("text", ["", "\n\n", "# only a note\n"])
def test_a_file_without_content(tmp_path: Path, text: str) -> None:
    (tmp_path / "f").write_text(text)
    with pytest.raises(ConfigurationError, match="has no entry"):
        content_lines("X_FILE", tmp_path / "f")


def test_the_end_for_the_operator(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        exit_with(ConfigurationError("PORT", "is required"))
    assert caught.value.code == EXIT_CONFIGURATION
    assert capsys.readouterr().err == "configuration error: PORT: is required\n"


@pytest.mark.parametrize("service", ["processor", "storage"])
def test_a_service_without_settings_ends_with_one_line(service: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", f"sessions.{service}.main"], env={}, capture_output=True, text=True, check=False
    )
    assert done.returncode == EXIT_CONFIGURATION
    assert done.stderr == "configuration error: TOKENS_FILE: is required\n"
    assert done.stdout == ""
