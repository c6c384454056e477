"""The file of tokens, which holds only their SHA-256.

# name  roles  hash of the token, and if need be: which sessions it is for, and until when
recorder-1 roles=record sha256=9f86d0…
desk-17 roles=record,replay sha256=60303a… sessions=desk-17- expires=2027-01-31T00:00:00Z
"""

import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from sessions.core.types import SESSION_ID_PATTERN
from sessions.runtime.auth import Principal, Role
from sessions.runtime.settings import ConfigurationError, content_lines

SETTING: Final = "TOKENS_FILE"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_SESSIONS = re.compile(SESSION_ID_PATTERN)
_RFC3339 = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]{1,6})?(Z|[+-][0-9]{2}:[0-9]{2})")
_REQUIRED: Final = frozenset({"roles", "sha256"})
_KNOWN: Final = _REQUIRED | {"sessions", "expires"}

Entries = tuple[tuple[bytes, Principal], ...]


def load_tokens(path: Path) -> Entries:
    """Read a tokens file: each token's SHA-256, and whose it is.

    Raises:
        ConfigurationError: a line is not `NAME roles=… sha256=… [sessions=…] [expires=…]`, or a name or hash is there
            twice.
    """
    entries: dict[bytes, Principal] = {}
    names: set[str] = set()
    for number, line in content_lines(SETTING, path):
        where = f"{path} line {number}"
        digest, principal = _entry(where, line)
        if principal.name in names or digest in entries:
            raise ConfigurationError(SETTING, f"{where}: this name or hash is there twice")
        names.add(principal.name)
        entries[digest] = principal
    return tuple(entries.items())


def _entry(where: str, line: str) -> tuple[bytes, Principal]:
    name, *fields = line.split()
    values = dict(field.partition("=")[::2] for field in fields)
    if not _NAME.fullmatch(name) or len(values) != len(fields) or not _REQUIRED <= values.keys() <= _KNOWN:
        form = "NAME roles=ROLE,… sha256=HEX [sessions=PREFIX] [expires=TIME]"
        raise ConfigurationError(SETTING, f"{where} is not '{form}'")
    try:
        roles = frozenset(Role(role) for role in values["roles"].split(","))
    except ValueError:
        raise ConfigurationError(SETTING, f"{where}: the roles are {', '.join(Role)}") from None
    if not _SHA256.fullmatch(values["sha256"]):
        raise ConfigurationError(SETTING, f"{where}: sha256 is 64 lower-case hex digits")
    sessions = values.get("sessions")
    # An empty prefix would be every session, which a line says by leaving the field out.
    if sessions is not None and not _SESSIONS.fullmatch(sessions):
        raise ConfigurationError(SETTING, f"{where}: sessions is what session ids begin with, as in sessions=desk-17-")
    expires = _time(where, values["expires"]) if "expires" in values else None
    return bytes.fromhex(values["sha256"]), Principal(name, roles, sessions or "", expires)


def _time(where: str, text: str) -> datetime:
    try:
        if not _RFC3339.fullmatch(text):
            raise ValueError(text)
        return datetime.fromisoformat(text).astimezone(UTC)
    except (ValueError, OverflowError):
        problem = "expires is a time as RFC 3339 writes it, 2027-01-31T00:00:00Z"
        raise ConfigurationError(SETTING, f"{where}: {problem}") from None
