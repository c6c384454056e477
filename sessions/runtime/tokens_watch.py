"""Keeps the tokens that are valid those of the file: whoever is struck from it is out within two seconds."""

import asyncio
from pathlib import Path
from typing import Final, TypeAlias

import structlog

from sessions.core.audit import Action, Outcome
from sessions.runtime.audit import Audit
from sessions.runtime.auth import Authenticator
from sessions.runtime.health import Check
from sessions.runtime.limits import Limits
from sessions.runtime.settings import ConfigurationError
from sessions.runtime.tokens import Entries, load_tokens

_log = structlog.get_logger()
POLL_SECONDS: Final = 0.5

_Look: TypeAlias = tuple[int, ...] | None
"""How a file looks from outside; None when it cannot be looked at."""


def _look(path: Path) -> _Look:
    try:
        found = path.stat()
    except OSError:
        return None
    # The inode for a file that was put in its place; the time of change for one whose mode was, or whose mtime is kept.
    return found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns


class TokensWatch:
    """Reads the file again when it changes. One that has become wrong changes nothing but the health."""

    def __init__(self, path: Path, limits: Limits) -> None:
        """Read the file.

        Raises:
            ConfigurationError: see `load_tokens`.
        """
        self._path = path
        # Before it is read: a change in between is found at the next look.
        self._seen = _look(path)
        entries = load_tokens(path)
        self._names = _names(entries)
        self.authenticator = Authenticator(entries, limits)
        self._problem = ""

    async def run(self, audit: Audit) -> None:
        """Watch until cancelled."""
        while True:
            await asyncio.sleep(POLL_SECONDS)
            await self.look(audit)

    async def look(self, audit: Audit) -> None:
        """Look once, and read the file if it has changed; both in a thread, since a file may be on a slow disk.

        That it was read is noted for the audit trail, and waits for nothing: who was struck must be out at once.
        """
        try:
            changed = await asyncio.to_thread(self._changed)
        except ConfigurationError as error:
            self._problem = str(error)
            _log.error("tokens_not_reloaded", reason=self._problem, still_valid=self._names)
            audit.note(Action.TOKENS_RELOAD, Outcome.FAILED, "tokens-file-wrong")
            return
        if changed is None:
            return
        self._names, self._problem = _names(changed), ""
        self.authenticator.replace(changed)
        _log.info("tokens_reloaded", names=self._names)
        audit.note(Action.TOKENS_RELOAD, Outcome.ALLOWED, None)

    def _changed(self) -> Entries | None:
        look = _look(self._path)
        if look == self._seen:
            return None
        self._seen = look
        return load_tokens(self._path)

    def check(self) -> Check:
        """For `/health`: with a file that is wrong the old tokens stay valid, so it is degraded."""
        if not self._problem:
            return Check("ok")
        return Check("degraded", f"the tokens from before are still valid: {self._problem}")


def _names(entries: Entries) -> list[str]:
    return sorted(principal.name for _, principal in entries)
