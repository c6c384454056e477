"""Who may do what: bearer tokens from a file that holds only their SHA-256.

# name  roles  hash of the token
recorder-1 roles=record sha256=9f86d0…
"""

import hashlib
import hmac
import re
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Final

import structlog
from fastapi import Request

from sessions.runtime.errors import DomainError
from sessions.runtime.settings import ConfigurationError, content_lines

_SETTING: Final = "TOKENS_FILE"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_SHA256 = re.compile(r"[0-9a-f]{64}")
TOKEN_MAX_CHARACTERS: Final = 512


class Role(StrEnum):
    """What a token may be used for."""

    RECORD = "record"
    REPLAY = "replay"
    AUDIT = "audit"
    ADMIN = "admin"
    PROCESSOR = "processor"


@dataclass(frozen=True, slots=True)
class Principal:
    """Whoever holds a token: its name and roles. The token itself is not kept."""

    name: str
    roles: frozenset[Role]


class Authenticator:
    """Knows the hashes of the tokens that are valid."""

    def __init__(self, entries: Iterable[tuple[bytes, Principal]]) -> None:
        self._entries = tuple(entries)

    def authenticate(self, authorization: str | None) -> Principal:
        """Whose token an `Authorization` header holds.

        Raises:
            DomainError: `unauthorized`, whatever the reason, so that nothing is learnt from it.
        """
        scheme, _, token = (authorization or "").partition(" ")
        if scheme.lower() != "bearer" or not token or len(token) > TOKEN_MAX_CHARACTERS:
            raise DomainError("unauthorized", "send the header Authorization: Bearer TOKEN")
        # All entries are compared, each in constant time, so the time tells nothing about which one came close.
        digest = hashlib.sha256(token.encode("utf-8", "surrogateescape")).digest()
        found: Principal | None = None
        for known, principal in self._entries:
            if hmac.compare_digest(known, digest):
                found = principal
        if found is None:
            raise DomainError("unauthorized", "this token is not known here")
        return found


def require(request_authorization: str | None, authenticator: Authenticator, roles: Iterable[Role]) -> Principal:
    """Check that a token is valid and has at least one of the roles.

    Raises:
        DomainError: `unauthorized` or `forbidden`.
    """
    principal = authenticator.authenticate(request_authorization)
    structlog.contextvars.bind_contextvars(principal=principal.name)
    wanted = frozenset(roles)
    if not principal.roles & wanted:
        raise DomainError("forbidden", f"this needs a token with the role {' or '.join(sorted(wanted))}")
    return principal


def allow(*roles: Role) -> Callable[[Request], Awaitable[Principal]]:
    """A FastAPI dependency that lets only these roles through. The app's state holds the authenticator."""

    async def check(request: Request) -> Principal:
        return require(request.headers.get("authorization"), request.app.state.authenticator, roles)

    return check


def load_tokens(path: Path) -> Authenticator:
    """Read a tokens file.

    Raises:
        ConfigurationError: a line is not `NAME roles=… sha256=…`, or a name or hash is there twice.
    """
    entries: dict[bytes, Principal] = {}
    names: set[str] = set()
    for number, line in content_lines(_SETTING, path):
        where = f"{path} line {number}"
        name, *fields = line.split()
        values = dict(field.partition("=")[::2] for field in fields)
        if not _NAME.fullmatch(name) or len(values) != len(fields) or values.keys() != {"roles", "sha256"}:
            raise ConfigurationError(_SETTING, f"{where} is not 'NAME roles=ROLE,… sha256=HEX'")
        try:
            roles = frozenset(Role(role) for role in values["roles"].split(","))
        except ValueError:
            raise ConfigurationError(_SETTING, f"{where}: the roles are {', '.join(Role)}") from None
        if not _SHA256.fullmatch(values["sha256"]):
            raise ConfigurationError(_SETTING, f"{where}: sha256 is 64 lower-case hex digits")
        digest = bytes.fromhex(values["sha256"])
        if name in names or digest in entries:
            raise ConfigurationError(_SETTING, f"{where}: this name or hash is there twice")
        names.add(name)
        entries[digest] = Principal(name, roles)
    return Authenticator(entries.items())
