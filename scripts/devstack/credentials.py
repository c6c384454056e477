"""Tokens and keys of a stack, in the services' own file formats. Made anew at each start; never for deployment."""

import base64
import hashlib
import os
import secrets
from pathlib import Path
from typing import Final

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


def make_tokens(path: Path) -> dict[str, str]:
    """Write a TOKENS_FILE with one token a role, and give the tokens."""
    tokens = {role: "lucid_" + secrets.token_urlsafe(32) for role in ROLES}
    lines = [
        f"stack-{role} roles={role} sha256={hashlib.sha256(text.encode()).hexdigest()}" for role, text in tokens.items()
    ]
    write_private(path, "# name, roles, SHA-256 of the token\n" + "\n".join(lines) + "\n")
    return tokens


def make_kek(path: Path) -> None:
    """Write a KEK_FILE with one random key."""
    write_private(path, f"stack-1:{base64.b64encode(secrets.token_bytes(32)).decode()}\n")
