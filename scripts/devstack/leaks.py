"""Secrets of a test run: each is registered when it is made, and no log or output of the run may hold one.

`scripts/test` names the register in the environment, so what a test starts registers its secrets there, too. What is
searched are the logs (`*.log`) under the run's folder, pytest's output among them. Not searched are files that hold
secrets by their nature: those in folders named `secrets` and `offline`, and a database's own in `mongo` and `chain`.
"""

import base64
import json
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final
from urllib.parse import quote

VARIABLE: Final = "LUCID_TEST_SECRETS"
LEAST_BYTES: Final = 16
"""Shorter secrets would be found where they are not."""
NOT_SEARCHED: Final = frozenset({"secrets", "offline", "mongo", "chain"})
# The development chain prints the keys of its accounts, which everybody knows, when it starts.
_PRINTED_BY_ITSELF: Final = frozenset({("publisher key", "anvil.log")})


@dataclass(frozen=True, slots=True)
class Secret:
    """Something that must not be told; `name` may be."""

    name: str
    value: bytes = field(repr=False)

    def forms(self) -> dict[str, bytes]:
        """How it may be written: as it is, in hex, in base64 of both alphabets (without what pads it), in a URL."""
        url, plain = base64.urlsafe_b64encode(self.value), base64.b64encode(self.value)
        return {
            "raw": self.value,
            "hex": self.value.hex().encode(),
            "HEX": self.value.hex().upper().encode(),
            "base64": plain.rstrip(b"="),
            "base64url": url.rstrip(b"="),
            "url-quoted": quote(self.value, safe="").encode(),
            "url-quoted base64": quote(plain.rstrip(b"="), safe="").encode(),
        }


@dataclass(frozen=True, slots=True)
class Leak:
    """A secret that was found, and in which file and form."""

    name: str
    form: str
    path: Path

    def __str__(self) -> str:
        return f"{self.name} ({self.form}) in {self.path}"


def register(name: str, value: str | bytes) -> None:
    """Note a secret of this run; without a run, nothing."""
    if not (path := os.environ.get(VARIABLE)):
        return
    data = value.encode() if isinstance(value, str) else value
    if len(data) < LEAST_BYTES:
        raise ValueError(f"the secret {name} has less than {LEAST_BYTES} bytes")
    line = json.dumps([name, base64.b64encode(data).decode()]) + "\n"
    # One write at the end of the file: several processes register at once.
    descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    try:
        os.write(descriptor, line.encode())
    finally:
        os.close(descriptor)


def registered(path: Path) -> list[Secret]:
    """The secrets of a register, each once."""
    if not path.exists():
        return []
    lines = (json.loads(line) for line in path.read_text().splitlines())
    return list({value: Secret(name, base64.b64decode(value)) for name, value in lines}.values())


def logs(folder: Path) -> Iterator[Path]:
    """The files to search."""
    for path in sorted(folder.rglob("*.log")):
        if path.is_file() and NOT_SEARCHED.isdisjoint(path.relative_to(folder).parts):
            yield path


def find(secrets: Iterable[Secret], paths: Iterable[Path]) -> list[Leak]:
    """Every secret in every file, in its first form."""
    wanted = [(secret, tuple(secret.forms().items())) for secret in secrets]
    found: list[Leak] = []
    for path in paths:
        data = path.read_bytes()
        for secret, forms in wanted:
            if (secret.name, path.name) in _PRINTED_BY_ITSELF:
                continue
            form = next((name for name, text in forms if text in data), None)
            if form is not None:
                found.append(Leak(secret.name, form, path))
    return found
