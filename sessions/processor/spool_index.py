"""The spool's index: the place of each entry, and the number of live entries of each segment. Payloads are on disk."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import chain
from typing import Final

from sessions.core.types import DekId, SessionId
from sessions.processor.spool_erasing import Place
from sessions.processor.spool_format import Kind
from sessions.processor.spool_shares import Shares

WINDOW_ENTRIES: Final = 512
"""Limit on the envelopes that are delivered together."""


@dataclass(slots=True, eq=False)
class Entry:
    """One entry. `delivered`: session-storage has it. `index` is -1 unless it is an envelope.

    `by` is the name of the token that sent it; None: the entry does not say.
    `gone`: its bytes may be overwritten, as it has left the index or is being shredded.
    """

    kind: Kind
    session: "SpooledSession"
    index: int
    place: Place
    plaintext_bytes: int
    by: str | None = None
    delivered: bool = False
    gone: bool = False

    @property
    def sender(self) -> str | None:
        """Name of the token that sent it, or else of the one that opened its session here, as 0.1.0 noted it."""
        return self.by or next((opening.by for opening in self.session.openings if opening.by), None)


@dataclass(slots=True, eq=False)
class SpooledSession:
    """The entries of one session.

    Openings stay until nothing else is left: their keys open the envelopes, should these turn out to be conflicts.
    """

    session_id: SessionId
    openings: list[Entry] = field(default_factory=list)
    chunks: dict[int, Entry] = field(default_factory=dict)
    earlier: list[Entry] = field(default_factory=list)
    """Entries of chunks that came again: delivered before a restart that found them, or damaged so that they seem to be
    of this index."""
    seals: list[Entry] = field(default_factory=list)
    """Orders to seal it. Two that came at the same time may have the same chunk count."""
    kept_keys: set[DekId] = field(default_factory=set)
    """Keys that are known to be in one of the openings."""
    foreign: set[DekId] = field(default_factory=set)
    """Keys that session-storage does not have in the ring: envelopes under them are encrypted under another first."""
    brought_again: set[DekId] = field(default_factory=set)
    """Keys that session-storage had lost, and that were brought there again."""
    failures: int = 0
    """Deliveries in a row that failed while session-storage was reachable."""
    failing_since: float = 0.0
    retry_at: float = 0.0
    """Monotonic time before which nothing of it is delivered."""
    overloads: int = 0
    """Deliveries in a row that session-storage answered with `overloaded`."""
    contested: bool = False
    """Its last envelopes met others at session-storage. Such conflicts take long, so the next windows are short."""
    suspect: "Entry | None" = None
    """The entry whose delivery failed last, alone; failures are counted for it."""
    delivered: int = 0
    """Entries of it that were delivered or quarantined."""
    isolating: bool = False
    """A delivery of several entries failed: they go one by one, to find the one that is at fault."""

    @property
    def opening_waits(self) -> bool:
        """Whether session-storage lacks a key that envelopes may be sealed under."""
        return any(not opening.delivered for opening in self.openings)

    @property
    def holds(self) -> bool:
        """Whether session-storage lacks anything of it but the order to seal it."""
        return self.envelopes_wait or self.opening_waits

    @property
    def envelopes_wait(self) -> bool:
        """Whether there are envelopes to be delivered."""
        return bool(self.chunks or self.earlier)

    def window(self, max_bytes: int) -> list[Entry]:
        """Return which envelopes to deliver next: one alone while the one is looked for that fails."""
        window: list[Entry] = []
        size = 0
        for entry in chain(self.earlier, self.chunks.values()):
            if window and (self.isolating or size + entry.place.entry_bytes > max_bytes):
                break
            window.append(entry)
            size += entry.place.entry_bytes
            if len(window) == WINDOW_ENTRIES:
                break
        return window

    def waiting(self) -> Iterator[Entry]:
        """Return the entries that wait, in the order of delivery."""
        yield from (opening for opening in self.openings if not opening.delivered)
        yield from self.earlier
        yield from self.chunks.values()
        yield from self.seals


class SpoolIndex:
    """Sessions and their entries, in the order in which they came."""

    def __init__(self, shares: Shares) -> None:
        """Count in `shares` what each token has of the entries."""
        self._shares = shares
        self.sessions: dict[SessionId, SpooledSession] = {}
        self.fresh: dict[SessionId, None] = {}
        """Sessions that are new, or hold more than orders to seal again. The drainer takes them out."""
        self.entries = 0
        self.seals = 0
        self._live: dict[int, int] = {}
        self.released: list[Place] = []
        """Entries that have left the index and that nobody has taken to be overwritten yet."""

    def session(self, name: SessionId) -> SpooledSession:
        """A session, a new one if need be."""
        found = self.sessions.get(name)
        if found is None:
            found = self.sessions[name] = SpooledSession(name)
        return found

    def add(self, entry: Entry) -> None:
        """Note an entry behind all others."""
        session = entry.session
        if not session.holds:
            self.fresh[session.session_id] = None
        if entry.kind is Kind.OPENING:
            session.openings.append(entry)
        elif entry.kind is Kind.SEAL:
            session.seals.append(entry)
            self.seals += 1
        else:
            if (before := session.chunks.get(entry.index)) is not None:
                session.earlier.append(before)
            session.chunks[entry.index] = entry
        number = entry.place.segment
        self._live[number] = self._live.get(number, 0) + 1
        self.entries += 1
        self._shares.take(entry.by, entry.place.entry_bytes, order=entry.kind is Kind.SEAL)

    def delivered(self, entry: Entry, *, more: bool = False) -> None:
        """Take an entry out; an opening counts for as long as the session has others, or `more` are on their way."""
        if entry.delivered:
            return
        entry.delivered = True
        session = entry.session
        session.delivered += 1
        if entry.kind is Kind.ENVELOPE:
            self._take_out(entry)
            self._release(entry)
        elif entry.kind is Kind.SEAL:
            session.seals.remove(entry)
            self.seals -= 1
            self._release(entry)
        if not more:
            self.finish(session)

    def finish(self, session: SpooledSession) -> None:
        """Forget a session that nothing waits of."""
        if not session.envelopes_wait and not session.seals and not session.opening_waits:
            for opening in session.openings:
                self._release(opening)
            session.openings.clear()
            self.sessions.pop(session.session_id, None)

    def _take_out(self, entry: Entry) -> None:
        session = entry.session
        if session.chunks[entry.index] is not entry:
            session.earlier.remove(entry)
            return
        del session.chunks[entry.index]
        for before in reversed(session.earlier):
            if before.index == entry.index:
                session.chunks[entry.index] = before
                session.earlier.remove(before)
                return

    def _release(self, entry: Entry) -> None:
        self._live[entry.place.segment] -= 1
        self.entries -= 1
        self._shares.give(entry.by, entry.place.entry_bytes, order=entry.kind is Kind.SEAL)
        if not entry.gone:
            entry.gone = True
            self.released.append(entry.place)

    def hold(self, number: int) -> None:
        """Keep a segment for as long as this process runs."""
        self._live[number] = self._live.get(number, 0) + 1

    def has(self, number: int) -> bool:
        """Whether anything of a segment is still needed."""
        return self._live.get(number, 0) > 0

    def emptied(self, but: int | None) -> int | None:
        """Forget a segment of which nothing is needed any more, and give it; not this one. None when there is none."""
        for number, live in self._live.items():
            if live == 0 and number != but:
                del self._live[number]
                return number
        return None
