"""Reports to session-storage what the spool holds, and answers its questions before sessions are sealed."""

import asyncio
import json
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from secrets import token_hex
from typing import Any, Final

import structlog

from sessions.core.types import SessionId
from sessions.processor.acknowledged import Acknowledged
from sessions.processor.files import write_durably
from sessions.processor.promises import OWN_PROMISE_SECONDS
from sessions.processor.spooling import Spooling
from sessions.processor.storage_answers import ReportAnswer
from sessions.processor.storage_client import StorageClient
from sessions.processor.storage_errors import RequestFailedError, UnheardError
from sessions.runtime.errors import DomainError

REPORT_SECONDS: Final = 1.0
_FIRST_SECONDS: Final = 0.1
"""Pause between reports until the first is taken, in seconds."""
MAX_LISTED: Final = 1000
"""Limit on the sessions in one list of a report."""
ASKS_AT_ONCE: Final = 200
"""Questions that session-storage puts into one answer at most."""
_NAME_FILE: Final = "processor.json"
_log = structlog.get_logger()


class Identity:
    """Who this spool is to session-storage: a name that stays with the folder, and whether the two have met."""

    def __init__(self, folder: Path, host: str) -> None:
        """Read the folder's name, or think of one that begins with the host's.

        Raises:
            OSError, ValueError: it cannot be read or written.
        """
        self._file = folder / _NAME_FILE
        self._host = host
        self.introduced = False
        if self._file.exists():
            try:
                known = json.loads(self._file.read_bytes())
                self.name, self.introduced = str(known["name"]), bool(known["introduced"])
            except (LookupError, TypeError) as error:
                raise ValueError(f"{_NAME_FILE} names no processor") from error
            return
        self.rename()

    def rename(self) -> None:
        """Take another name, which session-storage does not know yet."""
        kept = re.sub(r"[^A-Za-z0-9._-]", "", self._host).lstrip("._-")
        self.name = f"{kept[:100] or 'processor'}-{token_hex(4)}"
        self.introduced = False
        self._write()

    def introduce(self) -> None:
        """Note, for good, that session-storage knows this spool."""
        self.introduced = True
        self._write()

    def withdraw(self) -> None:
        """Note, for good, that session-storage may know this spool no more."""
        self.introduced = False
        self._write()

    def _write(self) -> None:
        write_durably(self._file, json.dumps({"name": self.name, "introduced": self.introduced}).encode())


class Reporter:
    """Sends a report each second, and at once when there is something to answer."""

    def __init__(
        self,
        identity: Identity,
        spooling: Spooling,
        storage: StorageClient,
        acknowledged: Acknowledged,
        set_back: Sequence[Callable[[], None]] = (),
    ) -> None:
        """Call each of `set_back` when the database of session-storage was set back."""
        self.identity = identity
        self._spooling = spooling
        self._spool = spooling.spool
        self._storage = storage
        self._acknowledged = acknowledged
        self._set_back = set_back
        self._last: ReportAnswer | None = None
        self._confirmed: dict[SessionId, str] = {}
        self._after: SessionId | None = None
        self._turn = -1
        self._run = token_hex(8)
        self._first = asyncio.Event()
        self.urge: Callable[[SessionId], None] = lambda _: None
        """Called with each session that the spool holds and whose seal waits for it."""
        self.older = False
        """Whether session-storage is of a version that takes no reports."""

    def claims(self, session_id: SessionId, *, keep: bool, wait: bool) -> dict[str, Any]:
        """Return what to say with the order to seal a session that `promise_own` has promised."""
        if self.older:
            return {}
        return {
            "processor": self.identity.name,
            "floor": self.floor(session_id),
            "until_seconds": self._until_seconds - OWN_PROMISE_SECONDS / 2,
            "generation": self._last.generation if self._last is not None else None,
            "keep": keep,
            "wait": wait,
        }

    @property
    def _until_seconds(self) -> float:
        return (self._last.uptime_seconds if self._last is not None else 0.0) + OWN_PROMISE_SECONDS

    def floor(self, session_id: SessionId) -> int:
        """Return the least number of chunks that a session has, by what was acknowledged here."""
        return max(self._acknowledged.floor(session_id), self._spool.quarantine.floor(session_id))

    async def promise_own(self, session_id: SessionId) -> bool:
        """Promise for an order of our own to keep a session out of the spool; False when the spool holds some of it.

        Raises:
            RequestFailedError: session-storage has answered no report yet.
        """
        try:
            await asyncio.wait_for(self._first.wait(), 2 * REPORT_SECONDS)
        except TimeoutError:
            raise RequestFailedError("session-storage has not answered a report of this processor yet") from None
        if self._spool.holds(session_id):
            return False
        if self._last is not None:
            self._spooling.promises.hold(session_id, self._until_seconds)
        return True

    async def run(self) -> None:
        """Report until cancelled."""
        failed = ""
        while True:
            await self._spooling.watch.back.wait()
            again = False
            try:
                again = await self.report()
                failed = ""
            except DomainError as error:  # whether storage is away, recorders' requests find out
                if error.code != failed:
                    _log.warning("report_failed", code=error.code, detail=error.detail)
                failed = error.code
            await asyncio.sleep(0 if again else REPORT_SECONDS if self._spooling.introduced else _FIRST_SECONDS)

    async def leave(self) -> None:
        """Say that this processor ends: one that holds nothing is not waited for.

        The next process takes nothing into the spool until session-storage knows it again. One that has quarantined
        what a seal would leave out does not leave.

        Raises:
            DomainError, OSError: session-storage knows this processor still, or may do so.
        """
        busy = self._spool.entries or len(self._spooling.promises) or self._spool.quarantine.has_left_out
        if busy or self._spooling.watch.away or not self.identity.introduced:
            return
        self.identity.withdraw()
        try:
            await self._storage.say_goodbye(self.identity.name, {**self._report([]), "leaving": True})
        except UnheardError:
            self.identity.introduce()
            raise

    async def report(self) -> bool:
        """Report once; return whether there is something to answer at once.

        Raises:
            DomainError: session-storage did not take it.
        """
        self._turn += 1
        promised = self._spooling.promises.page(self._turn, MAX_LISTED)
        report = self._report(list(promised))
        try:
            answer = await self._spooling.watch.attempt(self._storage.report(self.identity.name, report))
        except DomainError as error:
            if error.code != "processor-replaced":
                raise
            return self._replaced()
        confirmed, self._confirmed = self._confirmed, {}
        if answer is None:
            self.older = True
            self._met()
            return False
        self.older = False
        self._note_set_back(answer)
        self._last = answer
        for name, promise in promised.items():
            self._spooling.promises.settle(name, promise, answer.asked.get(name), answer.uptime_seconds)
        self._promise(answer)
        if self._after is None:  # before it has seen all questions, a new processor takes nothing into its spool
            self._met()
        self._spooling.retain_days = answer.retain_days
        self._spooling.limit.heard(answer.chunk_max_bytes)
        for name in answer.shredded:
            await self._shred(name)
        return await self._save(confirmed) or not self._spooling.introduced

    def _replaced(self) -> bool:
        """Take another name: a process with a copy of this spool answers for the one that was ours."""
        before = self.identity.name
        self._spooling.introduced = False
        self.identity.rename()
        self._confirmed = {}
        _log.error("processor_renamed", before=before, name=self.identity.name)
        return True

    def _met(self) -> None:
        if not self._spooling.introduced or not self.identity.introduced:
            self.identity.introduce()
            self._spooling.introduced = True
        self._first.set()

    def _report(self, promised: list[SessionId]) -> dict[str, Any]:
        spool = self._spool
        aside = spool.quarantine.sessions()
        start = self._turn % max(1, -(-len(aside) // MAX_LISTED)) * MAX_LISTED
        return {
            "holdings": {
                "spooled_entries": spool.entries,
                "spooled_bytes": spool.used_bytes,
                "spooled_sessions": len(spool.sessions),
                "spooled_seals": spool.seals,
                "quarantined_entries": spool.quarantined,
            },
            "confirmed": [
                {"session_id": name, "ask_id": ask_id, "floor": self.floor(name)}
                for name, ask_id in self._confirmed.items()
                if name in self._spooling.promises and not spool.holds(name)
            ],
            "promised": promised,
            "quarantined": aside[start : start + MAX_LISTED],
            "after": self._after,
            "run": self._run,
            "chunk_max_bytes": self._spooling.limit.own_bytes,
        }

    def _promise(self, answer: ReportAnswer) -> None:
        """Promise what was asked for."""
        promises = self._spooling.promises
        for name, ask_id in answer.asks.items():
            if self._spool.holds(name):
                self.urge(name)
                continue
            if promises.full:
                continue
            promises.bind(name, ask_id)
            self._confirmed[name] = ask_id
        self._after = max(answer.asks) if len(answer.asks) >= ASKS_AT_ONCE else None

    async def _save(self, confirmed: dict[SessionId, str]) -> bool:
        """Save new promises, which the next report confirms; return whether it confirms more than the last one did."""
        fresh = {name: ask_id for name, ask_id in self._confirmed.items() if confirmed.get(name) != ask_id}
        if not self._confirmed:
            return False
        try:
            await self._spool.in_thread(self._spooling.promises.save)
        except OSError as error:
            _log.error("promises_not_saved", error=error.strerror)
            self._confirmed = {}
            return False
        return bool(fresh)

    def _note_set_back(self, answer: ReportAnswer) -> None:
        last = self._last
        if last is None or (last.generation == answer.generation and answer.uptime_seconds >= last.uptime_seconds):
            return
        _log.error("storage_set_back", uptime_seconds=answer.uptime_seconds, known_seconds=last.uptime_seconds)
        for act in self._set_back:
            act()

    async def _shred(self, session_id: SessionId) -> None:
        try:
            await self._spooling.quarantining.shred(session_id)
        except OSError as error:
            _log.error("spool_not_shredded", session_id=session_id, error=error.strerror)
