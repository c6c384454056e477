"""Tokens and keys of a stack, in the services' own file formats. Made anew at each start; never for deployment."""

import base64
import hashlib
import os
import secrets
from pathlib import Path
from typing import Final

from scripts.devstack import leaks

ROLES: Final = ("record", "replay", "audit", "admin", "processor")


def write_private(path: Path, text: str) -> Path:
    """Write a file that only its owner can read, in one step: a reader sees all of it or nothing."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    new = path.with_name(path.name + ".new")
    new.unlink(missing_ok=True)
    with os.fdopen(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(text)
    new.replace(path)
    return path


def make_tokens(path: Path, operator_path: Path) -> dict[str, str]:
    """Write a TOKENS_FILE with one token a role, and give the tokens.

    One more, with all of a person's roles, for trying the command line, goes into the file `operator_path`.
    """
    tokens = {role: _new_token() for role in ROLES}
    operator = _new_token()
    lines = [_line(role, role, text) for role, text in tokens.items()]
    lines.append(_line("operator", "record,replay,audit,admin", operator))
    write_private(path, "# name, roles, SHA-256 of the token\n" + "\n".join(lines) + "\n")
    write_private(operator_path, operator + "\n")
    return tokens


def _new_token() -> str:
    token = "lucid_" + secrets.token_urlsafe(32)
    leaks.register("token", token)
    return token


def _line(name: str, roles: str, token: str) -> str:
    return f"stack-{name} roles={roles} sha256={hashlib.sha256(token.encode()).hexdigest()}"


def make_kek(path: Path) -> None:
    """Write a KEK_FILE with one random key."""
    kek = secrets.token_bytes(32)
    leaks.register("KEK", kek)
    write_private(path, f"stack-1:{base64.b64encode(kek).decode()}\n")
