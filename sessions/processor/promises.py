"""Sessions that this processor has promised to keep out of its spool, until their seals are decided.

A confirmation to session-storage, that the spool holds nothing of a session, has to stay true: a chunk that was
acknowledged into the spool afterwards would be left out of the sealed recording. Each promise is on the disk before the
confirmation or the order goes out, so it binds the process that comes after this one, too.
"""

import json
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Final

from sessions.core.types import SessionId, session_id
from sessions.processor.files import write_durably

OWN_PROMISE_SECONDS: Final = 60.0
"""Uptime of session-storage in seconds for which a promise binds whose request was given up; the request itself counts
for half of that time."""
MAX_PROMISES: Final = 10_000
"""Limit on the sessions that are promised at the same time; further questions wait."""


@dataclass(frozen=True, slots=True)
class Promise:
    """A promise: `ask_id` is the newest question at session-storage; None while it is not known whether there is one.

    It binds as long as there is a question, and until storage's uptime is beyond `until_seconds`: up to then a request
    of ours that was given up may still place an order.
    """

    ask_id: str | None
    until_seconds: float = 0.0


@dataclass(slots=True, eq=False)
class Requests:
    """The requests that stand by one promise.

    Attributes:
        unknown: How many have an outcome that is not known: in flight, or given up.
        heard: Whether session-storage may have heard one of them, and have an order of it.
    """

    unknown: int = 0
    heard: bool = False


class Promises:
    """The promises, in memory and in one file."""

    def __init__(self, file: Path | None) -> None:
        """Without a file they end with the process."""
        self._file = file
        self._promises: dict[SessionId, Promise] = {}
        self._saved: dict[SessionId, Promise] = {}
        self._requests: dict[SessionId, Requests] = {}

    def __contains__(self, name: object) -> bool:
        """Return whether a session is kept out of the spool."""
        return name in self._promises

    def load(self) -> None:
        """Read the file that an earlier process left. A damaged one is an error: its promises are not known.

        Raises:
            OSError, ValueError: it cannot be read.
        """
        if self._file is None or not self._file.exists():
            return
        try:
            saved = json.loads(self._file.read_bytes())
            self._saved = {session_id(name): _promise(*said) for name, said in saved.items()}
        except (AttributeError, TypeError) as error:
            raise ValueError(f"{self._file.name} holds no promises") from error
        self._promises = dict(self._saved)
        # The earlier process did not learn, or did not write down, what became of its requests.
        self._requests = {name: Requests(int(said.until_seconds > 0), heard=True) for name, said in self._saved.items()}

    def page(self, turn: int, limit: int) -> dict[SessionId, Promise]:
        """Return at most `limit` promises; other turns return others."""
        pages = max(1, -(-len(self._promises) // limit))
        start = turn % pages * limit
        return dict(islice(self._promises.items(), start, start + limit))

    def __len__(self) -> int:
        """Return how many there are."""
        return len(self._promises)

    @property
    def full(self) -> bool:
        """Whether no more can be made."""
        return len(self._promises) >= MAX_PROMISES

    def bind(self, name: SessionId, ask_id: str) -> None:
        """Promise a session for a question, or bind an earlier promise to it."""
        before = self._promises.get(name, Promise(None))
        self._promises[name] = Promise(ask_id, before.until_seconds)

    def hold(self, name: SessionId, until_seconds: float) -> None:
        """Promise a session for a request of ours, which may place an order until then."""
        before = self._promises.get(name, Promise(None))
        self._promises[name] = Promise(before.ask_id, max(before.until_seconds, until_seconds))

    def begin(self, name: SessionId) -> Requests:
        """Count a request of ours as in flight, until `end` says that its outcome is known."""
        requests = self._requests.setdefault(name, Requests()) if name in self._promises else Requests()
        requests.unknown += 1
        return requests

    def end(self, name: SessionId, requests: Requests, *, heard: bool = True) -> None:
        """Note that the outcome of a request is known.

        Once that is so of all that stand by the promise, only a question binds it. Until then it lapses with its time:
        a request that was given up may still place an order. A promise that was made since is another one. Release the
        promise when session-storage heard none of its requests, and has asked nothing.
        """
        requests.unknown -= 1
        requests.heard = requests.heard or heard
        if self._requests.get(name) is requests:
            before = self._promises[name]
            if not (requests.unknown or requests.heard or before.ask_id):
                self.release(name)
            else:
                self._promises[name] = Promise(before.ask_id, before.until_seconds if requests.unknown else 0.0)

    def settle(self, name: SessionId, reported: Promise, newest: str | None, uptime_seconds: float) -> None:
        """Release a promise that session-storage has no question for any more, or bind it to the newest question.

        Do nothing if it was changed since it was reported: the answer may be older than the change. A promise for a
        request binds for `OWN_PROMISE_SECONDS` of uptime at most, also when the database was set back by days.
        """
        if self._promises.get(name) is not reported:
            return
        latest = uptime_seconds + OWN_PROMISE_SECONDS
        if reported.until_seconds > latest:
            reported = self._promises[name] = Promise(reported.ask_id, latest)
        if newest is None and uptime_seconds >= reported.until_seconds:
            self.release(name)
        elif newest is not None and newest != reported.ask_id:
            self.bind(name, newest)

    def release(self, name: SessionId) -> None:
        """Release a promise: the session is sealed, or nothing binds it any more."""
        self._promises.pop(name, None)
        self._requests.pop(name, None)

    def save(self) -> None:
        """Write them to the file, if they changed. Blocking, for one thread; others may change them meanwhile.

        Raises:
            OSError: it cannot be written; then nothing may be confirmed or ordered.
        """
        wanted = self._promises.copy()
        if self._file is not None and wanted != self._saved:
            said = {name: (promise.ask_id, promise.until_seconds) for name, promise in wanted.items()}
            write_durably(self._file, json.dumps(said).encode())
            self._saved = wanted


def _promise(ask_id: str | None, until_seconds: float) -> Promise:
    return Promise(None if ask_id is None else str(ask_id), float(until_seconds))
