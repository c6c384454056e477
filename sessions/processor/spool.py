"""The spool: what was acknowledged while session-storage was away, durable here until it is there.

In memory there is an index only; payloads are on disk. What arrives while an fsync is under way shares the next one.
"""

import asyncio
import errno
import json
from collections import deque
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, Final

import structlog
from prometheus_client import Counter, Gauge

from sessions.core import envelope
from sessions.core.errors import CoreError
from sessions.core.types import Buffer, SessionId, session_id
from sessions.processor.spool_format import HEADER_BYTES, Kind
from sessions.processor.spool_room import SpoolRoom, full
from sessions.processor.spool_segments import CorruptEntryError, Place, Recovered, Segments
from sessions.runtime.errors import DomainError
from sessions.runtime.killpoints import Point, reach

GROUP_BYTES: Final = 16 * 1024 * 1024
_WATCH_SECONDS: Final = 5.0
SPOOLED = Counter("lucid_spooled_total", "Entries that were written to the spool.", ("kind",))
QUARANTINED = Counter("lucid_spool_quarantined_total", "Entries that were set aside, by why.", ("reason",))
SET_ASIDE = Gauge("lucid_spool_quarantine_entries", "Entries that lie in the quarantine now.")
_log = structlog.get_logger()


@dataclass(slots=True, eq=False)
class Entry:
    """One entry. `delivered`: session-storage has it. `index` is -1 for what is no envelope."""

    kind: Kind
    session: "SpooledSession"
    index: int
    place: Place
    plaintext_bytes: int
    delivered: bool = False


@dataclass(slots=True, eq=False)
class SpooledSession:
    """What the spool has of a session.

    Openings stay until nothing else is left: their keys open the envelopes, should these turn out to be conflicts.
    """

    session_id: SessionId
    openings: list[Entry] = field(default_factory=list)
    chunks: dict[int, Entry] = field(default_factory=dict)
    seal: Entry | None = None
    refused: bool = False
    """session-storage did not take an opening: what is set aside of it needs the key in there."""
    keyless: bool = False
    """session-storage has not its key: an envelope under it must not go there, it could not be read."""

    @property
    def opening_waits(self) -> bool:
        """Whether session-storage lacks a key that envelopes may be sealed under."""
        return any(not opening.delivered for opening in self.openings)

    def waiting(self) -> Iterator[Entry]:
        """What is to be delivered, in the order in which it has to be."""
        yield from (opening for opening in self.openings if not opening.delivered)
        yield from self.chunks.values()
        if self.seal is not None:
            yield self.seal


@dataclass(frozen=True, slots=True)
class _Waiting:
    kind: Kind
    session_id: SessionId
    index: int
    payload: Buffer = field(repr=False)
    plaintext_bytes: int
    done: "asyncio.Future[Entry]"


class Spool:
    """Append, look up, read, and take out."""

    def __init__(self, segments: Segments, room: SpoolRoom) -> None:
        self._segments = segments
        self.room = room
        self.sessions: dict[SessionId, SpooledSession] = {}
        self._order: dict[int, deque[Entry]] = {}
        self._live: dict[int, int] = {}
        self._entries = 0
        self._writing_bytes = 0
        self._queue: deque[_Waiting] = deque()
        self._pending: dict[tuple[SessionId, int], asyncio.Future[Entry]] = {}
        self._writer: asyncio.Task[None] | None = None
        self._thread = ThreadPoolExecutor(1, "spool")
        self.arrived = asyncio.Event()

    def open(self) -> None:
        """Take the folder, and read what an earlier process left. Blocking, before the service starts.

        Raises:
            SpoolFolderError: the folder cannot be used.
        """
        self._segments.open()
        known = self._segments.quarantined
        for found in self._segments.recover():
            self._recovered(found)
        QUARANTINED.labels("damaged").inc(self._segments.quarantined - known)
        for number in list(self._segments.sizes):
            if not self._live.get(number):
                self._segments.drop(number)
        self._note(self._segments.free_bytes())
        if self._entries:
            _log.info("spool_recovered", entries=self._entries, sessions=len(self.sessions), bytes=self.used_bytes)
            self.arrived.set()
        if self._segments.quarantined:
            _log.warning("spool_quarantine", entries=self._segments.quarantined)

    async def close(self) -> None:
        """Finish what is being written, and give the folder back."""
        while self._writer is not None:
            await asyncio.wait([self._writer])
        self._thread.shutdown()
        self._segments.close()

    def _recovered(self, found: Recovered) -> None:
        try:
            if found.kind is Kind.ENVELOPE:
                header = envelope.read_header(found.head)
                name, index, size = header.session_id, int(header.index), header.plaintext_bytes
            else:
                name, index, size = session_id(json.loads(found.head)["session_id"]), -1, 0
        except (CoreError, ValueError, LookupError, TypeError):
            self._segments.quarantine(found.place)
            return
        self._add(Entry(found.kind, self._session(name), index, found.place, size))

    @property
    def entries(self) -> int:
        """How many wait."""
        return self._entries

    @property
    def used_bytes(self) -> int:
        """Bytes on disk."""
        return sum(tuple(self._segments.sizes.values())) + self._segments.quarantined_bytes + self._writing_bytes

    @property
    def quarantined(self) -> int:
        """How many entries are set aside."""
        return self._segments.quarantined

    async def watch(self) -> None:
        """Look at the disk now and then, until cancelled: others fill it and make room, too."""
        while True:
            self._note(await asyncio.to_thread(self._segments.free_bytes))
            await asyncio.sleep(_WATCH_SECONDS)

    async def append(
        self, kind: Kind, session_id: SessionId, payload: Buffer, index: int = -1, plaintext_bytes: int = 0
    ) -> tuple[Entry, bool]:
        """Have an entry on the disk. For an index that is there, or under way, gives that one, and False.

        Raises:
            DomainError: `spool-full`; or `storage-unavailable`, when the disk fails otherwise.
        """
        key = (session_id, index)
        if kind is Kind.ENVELOPE and (found := await self.find(session_id, index)) is not None:
            return found, False
        size = HEADER_BYTES + memoryview(payload).nbytes
        self.room.require(size)
        done: asyncio.Future[Entry] = asyncio.get_running_loop().create_future()
        done.add_done_callback(lambda future: future.exception())  # whoever waited may be gone
        if kind is Kind.ENVELOPE:
            self._pending[key] = done
        self._queue.append(_Waiting(kind, session_id, index, payload, plaintext_bytes, done))
        self._writing_bytes += size
        self._note()
        if self._writer is None:
            self._writer = asyncio.create_task(self._write())
        return await asyncio.shield(done), True

    async def _write(self) -> None:
        try:
            while self._queue:
                group = [self._queue.popleft()]
                size = len(group[0].payload)
                while self._queue and size + len(self._queue[0].payload) <= GROUP_BYTES:
                    group.append(self._queue.popleft())
                    size += len(group[-1].payload)
                await self._write_group(group)
        finally:
            self._writer = None

    async def _write_group(self, group: list[_Waiting]) -> None:
        loop = asyncio.get_running_loop()
        entries = [(one.kind, one.payload) for one in group]
        error: DomainError | None = None
        places: list[Place] = []
        try:
            places = await loop.run_in_executor(self._thread, self._segments.append, entries)
            free = await loop.run_in_executor(self._thread, self._segments.free_bytes)
        except OSError as failure:
            free = await loop.run_in_executor(self._thread, self._segments.free_bytes)
            error = self._failed(failure, free)
        for number, one in enumerate(group):
            self._writing_bytes -= HEADER_BYTES + len(one.payload)
            self._pending.pop((one.session_id, one.index), None)
            if error is not None:
                one.done.set_exception(error)
                continue
            session = self._session(one.session_id)
            entry = Entry(one.kind, session, one.index, places[number], one.plaintext_bytes)
            self._add(entry)
            SPOOLED.labels(one.kind.name.lower()).inc()
            one.done.set_result(entry)
        if error is None:
            self._note(free)
            self.arrived.set()

    def _failed(self, failure: OSError, free: int) -> DomainError:
        _log.error("spool_write_failed", error=failure.strerror, errno=failure.errno, free_bytes=free)
        if failure.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            self.room.written_over(free)
            return full("session-storage is away, and the spool's disk is full")
        detail = f"session-storage is away, and the spool cannot be written: {failure.strerror}; repeat the request"
        return DomainError("storage-unavailable", detail, retry_after_seconds=5)

    def _session(self, name: SessionId) -> SpooledSession:
        found = self.sessions.get(name)
        if found is None:
            found = self.sessions[name] = SpooledSession(name)
        return found

    def _add(self, entry: Entry) -> None:
        session = entry.session
        if entry.kind is Kind.OPENING:
            session.openings.append(entry)
        elif entry.kind is Kind.SEAL:
            session.seal = entry
        else:
            session.chunks[entry.index] = entry
        self._order.setdefault(entry.place.segment, deque()).append(entry)
        self._live[entry.place.segment] = self._live.get(entry.place.segment, 0) + 1
        self._entries += 1

    async def find(self, session_id: SessionId, index: int) -> Entry | None:
        """The entry of a chunk, on the disk."""
        session = self.sessions.get(session_id)
        if session is not None and index in session.chunks:
            return session.chunks[index]
        writing = self._pending.get((session_id, index))
        return None if writing is None else await asyncio.shield(writing)

    async def read(self, entry: Entry) -> bytes:
        """An entry's payload.

        Raises:
            CorruptEntryError: its bytes are not those that were written.
            FileNotFoundError: it was delivered in the meantime, and its segment is gone.
        """
        return await asyncio.to_thread(self._segments.read, entry.place)

    def oldest(self, max_bytes: int, max_entries: int) -> list[Entry]:
        """What to deliver next, oldest first."""
        found: list[Entry] = []
        size = 0
        for number in sorted(self._order):
            queue = self._order[number]
            while queue and queue[0].delivered:
                queue.popleft()
            for entry in queue:
                if entry.delivered:
                    continue
                if found and (size + entry.place.entry_bytes > max_bytes or len(found) == max_entries):
                    return found
                found.append(entry)
                size += entry.place.entry_bytes
        return found

    async def delivered(self, entries: list[Entry]) -> None:
        """Take out what session-storage has, or what was set aside; segments that nothing is left of go."""
        for entry in entries:
            if entry.delivered:
                continue
            entry.delivered = True
            session = entry.session
            if entry.kind is Kind.ENVELOPE:
                if session.chunks.get(entry.index) is entry:
                    del session.chunks[entry.index]
                self._release(entry)
            elif entry.kind is Kind.SEAL:
                if session.seal is entry:
                    session.seal = None
                self._release(entry)
            if not session.chunks and session.seal is None and not session.opening_waits:
                for opening in session.openings:
                    self._release(opening)
                session.openings.clear()
                self.sessions.pop(session.session_id, None)
        for number in [number for number, live in self._live.items() if live == 0]:
            # While something is being written the current segment may get more.
            if self._writer is not None and number == self._segments.current():
                continue
            del self._order[number], self._live[number]
            await asyncio.get_running_loop().run_in_executor(self._thread, self._drop, number)
        self._note()
        if not self._entries:
            self.arrived.clear()

    def _drop(self, number: int) -> None:
        reach(Point.DRAIN_BEFORE_DROP)
        self._segments.drop(number)

    def _release(self, entry: Entry) -> None:
        self._live[entry.place.segment] -= 1
        self._entries -= 1

    async def quarantine(self, entry: Entry, reason: str, **facts: Any) -> None:
        """Set an entry aside, in a file of its own that is never deleted from here, and take it out."""
        await self.set_aside(entry, reason, **facts)
        await self.delivered([entry])

    async def set_aside(self, entry: Entry, reason: str, **facts: Any) -> None:
        """Write an entry to a file of its own, which is never deleted from here; it stays in the spool, too."""
        try:
            name = await asyncio.to_thread(self._segments.quarantine, entry.place)
        except FileNotFoundError:
            return
        QUARANTINED.labels(reason).inc()
        _log.error(
            "spool_entry_quarantined",
            reason=reason,
            file=name,
            kind=entry.kind.name.lower(),
            session_id=entry.session.session_id,
            index=entry.index,
            **facts,
        )

    def _note(self, free_bytes: int | None = None) -> None:
        SET_ASIDE.set(self._segments.quarantined)
        self.room.note(self.used_bytes, self._entries, free_bytes)


__all__ = ["CorruptEntryError", "Entry", "Spool", "SpooledSession"]
