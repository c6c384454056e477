"""Where the services are and which token opens them: from options, else from the environment."""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from sessions.cli.exits import CommandError, ExitCode

if TYPE_CHECKING:
    from sessions.client.sync import Client

PROCESSOR_URL_DEFAULT: Final = "http://127.0.0.1:8085"
STORAGE_URL_DEFAULT: Final = "http://127.0.0.1:8086"
QUESTION_RETRY_SECONDS: Final = 5.0
"""For a question somebody waits for."""
TRANSFER_RETRY_SECONDS: Final = 120.0
"""For a recording, which should outlast a restart of the service."""

Json = Annotated[bool, typer.Option("--json", help="Print one JSON document on stdout.")]


@dataclass(frozen=True, slots=True)
class Settings:
    """Settings of one run. `retry_seconds` None takes what suits the command.

    The token is read when a service is asked: not every command needs one.
    """

    processor_url: str
    storage_url: str
    token_file: Path | None = None
    retry_seconds: float | None = None

    @contextmanager
    def client(self, retry_seconds: float = QUESTION_RETRY_SECONDS) -> Iterator["Client"]:
        """A client of both services, closed at the end."""
        from sessions.client.retry import RetryPolicy
        from sessions.client.sync import Client

        token = read_token(os.environ.get("LUCID_TOKEN"), self.token_file)
        budget = retry_seconds if self.retry_seconds is None else self.retry_seconds
        with Client(
            self.processor_url, self.storage_url, token=token, retry=RetryPolicy(budget_seconds=budget)
        ) as client:
            yield client


def read_token(token: str | None, token_file: Path | None) -> str | None:
    """The token of LUCID_TOKEN, else of a file that holds it alone.

    Raises:
        CommandError: the file cannot be read, or is no such file.
    """
    if token:
        return token.strip()
    if token_file is None:
        return None
    lines = [line.strip() for line in read_text(token_file, "token file").splitlines()]
    found = [line for line in lines if line and not line.startswith("#")]
    if len(found) != 1 or " " in found[0]:
        raise CommandError(f"{token_file} should hold one token and nothing else", code=ExitCode.USAGE)
    return found[0]


def read_text(path: Path, what: str) -> str:
    """A small text file.

    Raises:
        CommandError: it cannot be read, or is not text.
    """
    try:
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise CommandError(f"cannot read the {what} {path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise CommandError(f"the {what} {path} is not text") from error


def metadata_object(text: str | None) -> dict[str, Any] | None:
    """The JSON object of `--metadata`, given as such or as `@FILE`.

    Raises:
        CommandError: it is not a JSON object.
    """
    if text is None:
        return None
    source = read_text(Path(text[1:]), "metadata file") if text.startswith("@") else text
    try:
        value = json.loads(source)
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, dict):
        raise CommandError(
            "--metadata is not a JSON object", 'give \'{"name": "value"}\' or @FILE', code=ExitCode.USAGE
        )
    return value


def of(context: typer.Context) -> Settings:
    """The settings of this run."""
    settings = context.find_object(Settings)
    assert settings is not None
    return settings
