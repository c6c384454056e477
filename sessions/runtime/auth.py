"""Authentication and authorization by bearer tokens, of which only the SHA-256 is known."""

import hashlib
import hmac
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import Final

import structlog
from fastapi import Request
from starlette.types import Scope

from sessions.core.audit import Action
from sessions.runtime.audit import ACTION, PRINCIPAL
from sessions.runtime.errors import DomainError
from sessions.runtime.limits import Failures, Limits, Usage
from sessions.runtime.middleware import WHEN_ANSWERED
from sessions.runtime.turns import Traffic, Turns

TOKEN_MAX_CHARACTERS: Final = 512
_UNLIMITED: Final = Limits()
_CHECKED: Final = "lucid.access"


class Role(StrEnum):
    """A permission of a token."""

    RECORD = "record"
    REPLAY = "replay"
    AUDIT = "audit"
    ADMIN = "admin"
    PROCESSOR = "processor"


@dataclass(frozen=True, slots=True)
class Principal:
    """The holder of a token: its name and permissions. The token itself is not kept.

    `sessions` is what the ids of its sessions begin with (empty: all); from `expires` on it is good for nothing.
    """

    name: str
    roles: frozenset[Role]
    sessions: str = ""
    expires: datetime | None = None

    def require_session(self, session_id: str | None) -> None:
        """Check that the token is good for a session; for None, what is asked for is not of one session.

        Raises:
            DomainError: `forbidden`, whether there is such a session or not.
        """
        if self.sessions and not (session_id or "").startswith(self.sessions):
            raise DomainError("forbidden", f"this token is only for sessions whose ids begin with {self.sessions}")


@dataclass(frozen=True, slots=True)
class _Account:
    """What the service keeps of one token."""

    usage: Usage
    turns: Turns


class Authenticator:
    """Knows the hashes of the tokens that are valid."""

    def __init__(self, entries: Iterable[tuple[bytes, Principal]], limits: Limits = _UNLIMITED) -> None:
        self._entries = tuple(entries)
        self._limits = limits
        self._accounts: dict[str, _Account] = {}
        self.traffic = Traffic()
        self._failures = Failures()

    def replace(self, entries: Iterable[tuple[bytes, Principal]]) -> None:
        """From now on these tokens are valid and no others; requests that were let in before are answered."""
        self._entries = tuple(entries)
        names = {principal.name for _, principal in self._entries}
        self._accounts = {name: account for name, account in self._accounts.items() if name in names}

    def authenticate(self, authorization: str | None) -> Principal:
        """Whose token an `Authorization` header holds.

        Raises:
            DomainError: `unauthorized`, whatever the reason, so that nothing is learnt from it; only who had the
                right token is told that it has expired. Of too many of those, `too-many-requests`.
        """
        scheme, _, token = (authorization or "").partition(" ")
        token = token.lstrip(" ")  # RFC 9110 section 11.4
        if scheme.lower() != "bearer" or not token or len(token) > TOKEN_MAX_CHARACTERS:
            raise self._failures.refusal("send the header Authorization: Bearer TOKEN")
        # All entries are compared, each in constant time, so the time tells nothing about which one came close.
        digest = hashlib.sha256(token.encode("utf-8", "surrogateescape")).digest()
        found: Principal | None = None
        for known, principal in self._entries:
            if hmac.compare_digest(known, digest):
                found = principal
        if found is None:
            raise self._failures.refusal("this token is not known here")
        if found.expires is not None and datetime.now(UTC) >= found.expires:
            raise self._failures.refusal("this token has expired; ask for a new one")
        return found

    def admit(self, principal: Principal, scope: Scope) -> None:
        """Count a request in until it has been answered, if its token may have one more.

        Raises:
            DomainError: `too-many-requests`.
        """
        scope[WHEN_ANSWERED].append(self._account(principal).usage.enter())

    def turns(self, principal: Principal) -> Turns | None:
        """Return the turns of a token's requests; None for a processor's token, which serves many recorders."""
        if Role.PROCESSOR in principal.roles:
            return None
        return self._account(principal).turns

    def _account(self, principal: Principal) -> _Account:
        account = self._accounts.get(principal.name)
        if account is None:
            account = self._accounts[principal.name] = _Account(Usage(self._limits), Turns(self.traffic))
        return account


def require(
    request: Request, authenticator: Authenticator, roles: Iterable[Role], *, session_in_body: bool = False
) -> Principal:
    """Check that a request's token is valid, has at least one of the roles, and is good for the session of its path.

    A token that is only for some sessions is refused where the path names none, so that a route that is forgotten here
    is closed to it; with `session_in_body` the caller has to `require_session` for what is in the body.

    Raises:
        DomainError: `unauthorized`, `too-many-requests` or `forbidden`.
    """
    principal = authenticator.authenticate(request.headers.get("authorization"))
    structlog.contextvars.bind_contextvars(principal=principal.name)
    request.scope[PRINCIPAL] = principal.name
    authenticator.admit(principal, request.scope)
    wanted = frozenset(roles)
    if not principal.roles & wanted:
        raise DomainError("forbidden", f"this needs a token with the role {' or '.join(sorted(wanted))}")
    if not session_in_body:
        principal.require_session(request.path_params.get("session_id"))
    return principal


class Access:
    """A FastAPI dependency that lets only these roles through, see `require`. The app's state has the authenticator.

    With `act` the route is for a privileged act: whatever refuses it leaves an audit event, and whoever serves it
    tells the `Audit` before it answers.
    """

    def __init__(self, roles: Iterable[Role], *, session_in_body: bool, act: Action | None) -> None:
        self._roles = frozenset(roles)
        self._session_in_body = session_in_body
        self._act = act

    async def __call__(self, request: Request) -> Principal:
        """Check a request, once: `JsonRoute` asks before the body is read, and FastAPI after it was."""
        checked = request.scope.setdefault(_CHECKED, {})
        if self not in checked:
            if self._act is not None:
                request.scope[ACTION] = self._act
            authenticator = request.app.state.authenticator
            checked[self] = require(request, authenticator, self._roles, session_in_body=self._session_in_body)
        principal: Principal = checked[self]
        return principal


def allow(*roles: Role, session_in_body: bool = False, act: Action | None = None) -> Access:
    """The dependency for a route of these roles."""
    return Access(roles, session_in_body=session_in_body, act=act)
