"""The spool: chunks, openings and orders that were acknowledged during an outage of session-storage.

They are kept on disk until session-storage has them; only an index is in memory. Entries that arrive during an fsync
share the next one.
"""

import asyncio
from collections import Counter, deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Final, TypeVar

import structlog

from sessions.core.types import Buffer, SessionId
from sessions.processor.killpoints import Point
from sessions.processor.quarantine import QUARANTINED
from sessions.processor.recovered_entries import described
from sessions.processor.spool_disk import SpoolDisk
from sessions.processor.spool_erasing import Place
from sessions.processor.spool_format import Kind, entry_bytes
from sessions.processor.spool_index import Entry, SpoolIndex
from sessions.processor.spool_leftovers import Leftovers
from sessions.processor.spool_room import SpoolRoom
from sessions.processor.spool_segments import CorruptEntryError, Recovered, Segments
from sessions.processor.spool_writing import SPOOLED, WRITE_SECONDS, Waiting, refusal, take_group
from sessions.runtime.errors import DomainError
from sessions.runtime.killpoints import reach

T = TypeVar("T")
_WATCH_SECONDS: Final = 4.0
"""Pause between two looks at the disk, and between two turns of overwriting, in seconds."""
_log = structlog.get_logger()


class Spool:
    """Append, look up, read, and take out."""

    def __init__(self, segments: Segments, room: SpoolRoom) -> None:
        self._segments = segments
        self.room, self.quarantine = room, segments.quarantine
        self.disk = SpoolDisk(segments.folder)
        self._arriving: Counter[SessionId] = Counter()
        self._index = SpoolIndex(room.shares)
        self.sessions, self.fresh = self._index.sessions, self._index.fresh
        self._writing_bytes = self._writing_entries = 0
        self._queue: deque[Waiting] = deque()
        self._pending: dict[tuple[SessionId, int], asyncio.Future[Entry]] = {}
        self._writer: asyncio.Task[None] | None = None
        self._thread = ThreadPoolExecutor(1, "spool")
        self.leftovers = Leftovers(segments, self.in_thread)
        self.arrived = asyncio.Event()

    def open(self) -> None:
        """Take the folder, and read what an earlier process left. Blocking, before the service starts.

        Raises:
            SpoolFolderError: the folder cannot be used.
        """
        self._segments.open()
        known = self.quarantined
        for found in self._segments.recover():
            self._recovered(found)
        QUARANTINED.labels("damaged").inc(self.quarantined - known)
        self.leftovers.add(self._segments.leftovers)
        for number in self.unkept:
            self._index.hold(number)
        for number in list(self._segments.sizes):
            if not self._index.has(number):
                self._segments.drop(number)
                self.leftovers.forget(number)
        self.note(self._segments.free_bytes())
        if self.entries:
            _log.info("spool_recovered", entries=self.entries, sessions=len(self.sessions), bytes=self.used_bytes)
            self.arrived.set()
        if self.quarantined:
            _log.warning("spool_quarantine", entries=self.quarantined)

    async def close(self) -> None:
        """Finish pending writes, overwrite leftovers, and release the folder."""
        await self.written()
        with suppress(OSError):  # it is logged, and delivered again
            await self.leftovers.erase_all()
        self._thread.shutdown()
        self._segments.close()

    async def written(self) -> None:
        """Return when nothing is being written, and what that has emptied is gone."""
        while self._writer is not None:
            await asyncio.wait([self._writer])

    def _recovered(self, found: Recovered) -> None:
        try:
            said = described(found)
        except ValueError:
            self._segments.keep_damaged(found.place, self._segments.raw(found.place))
            return
        session = self._index.session(said.session_id)
        self._index.add(Entry(found.kind, session, said.chunk_index, found.place, said.plaintext_bytes, said.by))

    @property
    def entries(self) -> int:
        """The number of waiting entries."""
        return self._index.entries

    @property
    def seals(self) -> int:
        """The number of waiting orders to seal."""
        return self._index.seals

    @property
    def used_bytes(self) -> int:
        """Bytes on disk, not counting the quarantine."""
        return sum(tuple(self._segments.sizes.values())) + self._writing_bytes

    @property
    def quarantined(self) -> int:
        """The number of entries in the quarantine."""
        return len(self.quarantine.entries)

    @property
    def unkept(self) -> set[int]:
        """Return the segments with damaged bytes that the quarantine did not take; they stay until the next start."""
        return self._segments.unkept

    def holds(self, session_id: SessionId) -> bool:
        """Return whether the spool has, or is writing, any entry of a session other than an order to seal."""
        session = self.sessions.get(session_id)
        return (session is not None and session.holds) or session_id in self._arriving

    async def watch(self) -> None:
        """Check the disk and overwrite leftovers periodically, until cancelled."""
        while True:
            await self.in_thread(self.disk.look)
            self.note(await asyncio.to_thread(self._segments.free_bytes))
            await self.leftovers.turn()
            await asyncio.sleep(_WATCH_SECONDS)

    async def append(
        self,
        kind: Kind,
        session_id: SessionId,
        payload: Buffer,
        index: int = -1,
        *,
        plaintext_bytes: int = 0,
        by: str | None = None,
    ) -> tuple[Entry, bool]:
        """Write an entry to disk for the token named `by`.

        For an index that is there, or under way, return that one and False.

        Raises:
            DomainError: `spool-full`; or `storage-unavailable`, when the disk fails otherwise.
        """
        key = (session_id, index)
        if kind is Kind.ENVELOPE and (found := await self.find(session_id, index)) is not None:
            return found, False
        size = entry_bytes(payload, by)
        self.room.require(size, by)
        done: asyncio.Future[Entry] = asyncio.get_running_loop().create_future()
        done.add_done_callback(lambda future: future.exception())  # whoever waited may be gone
        if kind is Kind.ENVELOPE:
            self._pending[key] = done
        self._queue.append(Waiting(kind, session_id, index, payload, plaintext_bytes, by, size, done))
        if kind is not Kind.SEAL:
            self._arriving[session_id] += 1
        self.room.shares.take(by, size, order=kind is Kind.SEAL)
        self._writing_bytes += size
        self._writing_entries += 1
        self.note()
        if self._writer is None:
            self._writer = asyncio.create_task(self._write())
        return await asyncio.shield(done), True

    async def _write(self) -> None:
        try:
            while self._queue:
                await self._write_group(take_group(self._queue))
        finally:
            self._writer = None

    async def _write_group(self, group: list[Waiting]) -> None:
        loop = asyncio.get_running_loop()
        entries = [(one.kind, one.payload, one.by) for one in group]
        error: DomainError | None = None
        places: list[Place] = []
        free: int | None = None
        try:
            with WRITE_SECONDS.time():
                places = await loop.run_in_executor(self._thread, self._segments.append, entries)
            free = await loop.run_in_executor(self._thread, self._segments.free_bytes)
        except Exception as failure:  # noqa: BLE001 - each who waits is told; nothing was acknowledged
            self.disk.failed(failure)
            error = refusal(failure, self.room)
        for number, one in enumerate(group):
            self.room.shares.give(one.by, one.entry_bytes, order=one.kind is Kind.SEAL)
            self._writing_bytes -= one.entry_bytes
            self._writing_entries -= 1
            self._pending.pop((one.session_id, one.index), None)
            if one.kind is not Kind.SEAL:
                self._arriving[one.session_id] -= 1
                self._arriving += Counter()  # without those of zero
            if error is not None:
                one.done.set_exception(error)
                self._none_arrives(one.session_id)
                continue
            session = self._index.session(one.session_id)
            entry = Entry(one.kind, session, one.index, places[number], one.plaintext_bytes, one.by)
            self._index.add(entry)
            SPOOLED.labels(one.kind.name.lower()).inc()
            one.done.set_result(entry)
        if error is None:
            self.disk.wrote()
            self.note(free)
            self.arrived.set()
        try:
            await self._drop_emptied()  # the segment that was kept for this group was full, perhaps, or was given up
        except OSError as failure:  # what comes next does not wait for it; a start drops what is left
            _log.error("spool_drop_failed", error=failure.strerror, errno=failure.errno)

    def _none_arrives(self, session_id: SessionId) -> None:
        session = self.sessions.get(session_id)
        if session is not None and session_id not in self._arriving:
            self._index.finish(session)
            self._note_released()

    def _note_released(self) -> None:
        self.leftovers.add(self._index.released)
        self._index.released.clear()

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
            FileNotFoundError: it was delivered in the meantime, and its segment is gone, or it was overwritten.
        """
        try:
            return await asyncio.to_thread(self._segments.read, entry.place)
        except CorruptEntryError:
            if entry.gone:
                raise FileNotFoundError(entry.place.name) from None
            raise

    async def delivered(self, entries: list[Entry]) -> None:
        """Remove entries that were delivered or quarantined, and drop segments that have become empty."""
        for entry in entries:
            # What is on its way to the disk needs the key of an opening, also one that was delivered.
            self._index.delivered(entry, more=entry.session.session_id in self._arriving)
        self._note_released()
        await self._drop_emptied()
        if not self.entries:
            self.arrived.clear()

    async def _drop_emptied(self) -> None:
        # While something is being written the current segment may get more. That is asked before each: meanwhile
        # something may have come, and what comes after the answer is written after the drop, by the same thread.
        while (number := self._index.emptied(self._segments.current() if self._writing_entries else None)) is not None:
            await asyncio.get_running_loop().run_in_executor(self._thread, self._drop, number)
            self.leftovers.forget(number)
        self.note()

    def _drop(self, number: int) -> None:
        reach(Point.DRAIN_BEFORE_DROP)
        self._segments.drop(number)

    async def in_thread(self, work: Callable[[], T]) -> T:
        """Run blocking work on the spool's folder; one at a time is run."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, work)

    def raw(self, entry: Entry) -> bytes:
        """Return an entry's bytes as they lie in its segment; `FileNotFoundError` when they are gone. Blocking."""
        data = self._segments.raw(entry.place)
        if entry.gone:
            raise FileNotFoundError(entry.place.name)
        return data

    def note(self, free_bytes: int | None = None) -> None:
        """Bring room and metrics up to date, with the free bytes of the disk if they were looked up."""
        self.quarantine.show()
        self.room.note(self.used_bytes, self.entries + self._writing_entries, free_bytes, self._writing_bytes)
