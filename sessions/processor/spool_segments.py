"""The spool on disk: numbered, append-only segments in one folder. Blocking; the writing half is for one thread.

    SPOOL_DIR/lock                   held by the one processor that uses the folder
    SPOOL_DIR/0000000000000001.seg   entries, see `spool_format`; goes when the last of them is at session-storage
    SPOOL_DIR/quarantine/            what could not be read or delivered, see `quarantine`

A start never appends to a segment that is there: it begins the next.
"""

import fcntl
import mmap
import os
import re
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final, NamedTuple

import structlog

from sessions.core.types import Buffer
from sessions.processor.files import sync_folder, write_all
from sessions.processor.killpoints import Point
from sessions.processor.quarantine import Quarantine
from sessions.processor.spool_erasing import Place, overwrite
from sessions.processor.spool_format import HEADER_BYTES, Erased, Found, Kind, header, payload_of, scan
from sessions.runtime.killpoints import reach

SEGMENT_BYTES: Final = 8 * 1024 * 1024
"""A segment is ended at the first entry behind so many. A start delivers again what is in one that it finds, so where
processes die often large ones would never be done with."""
_SEGMENT = re.compile(r"(\d{16})\.seg")
_HEAD_BYTES: Final = 512
"""Of a payload, what a start reads: an envelope's header is shorter."""
_log = structlog.get_logger()


class SpoolFolderError(Exception):
    """The folder cannot be used; says what to do."""


class CorruptEntryError(Exception):
    """An entry's bytes are not those that were written."""


class Recovered(NamedTuple):
    """An entry that was found at a start, and the beginning of its payload (all of it, but for envelopes)."""

    kind: Kind
    place: Place
    head: bytes
    by: str | None
    """Name of the token that sent it; None: the entry does not say."""


class Segments:
    """The folder. `sizes` has the bytes of each segment.

    `leftovers` are entries that a start found and that are needed no more: they are in the quarantine, or an earlier
    process did not finish erasing them. `unkept` has the segments with damaged bytes that the quarantine did not take.
    """

    def __init__(self, folder: Path, segment_bytes: int, quarantine: Quarantine) -> None:
        self.folder = self._folder = folder
        self._segment_bytes = segment_bytes
        self.quarantine = quarantine
        self.sizes: dict[int, int] = {}
        self.leftovers: list[Place] = []
        self.unkept: set[int] = set()
        self._file: int | None = None
        self._number = 0
        self._lock: int | None = None

    def open(self) -> None:
        """Take the folder.

        Raises:
            SpoolFolderError: it is not there or not ours, or another processor has it.
        """
        try:
            self._lock = os.open(self._folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self.quarantine.open()
            self._number = self.quarantine.last_segment
            for file in self._folder.iterdir():
                if found := _SEGMENT.fullmatch(file.name):
                    self.sizes[int(found[1])] = file.stat().st_size
        except BlockingIOError:
            self.close()
            raise SpoolFolderError(f"{self._folder} is in use by another processor: give each a folder") from None
        except OSError as error:
            self.close()
            reason = f"{self._folder} cannot be written: {error.strerror}"
            raise SpoolFolderError(f"{reason}; make it, owned by the user that the processor runs as") from None
        self._number = max([self._number, *self.sizes])

    def close(self) -> None:
        """Give the folder back."""
        for file in (self._file, self._lock):
            if file is not None:
                os.close(file)
        self._file = self._lock = None

    def recover(self) -> Iterator[Recovered]:
        """Return all entries, in order. Cut a torn tail off; set what is damaged aside and go on after it.

        An entry that the quarantine has is not returned: the process ended after it was moved. An opening is, as it may
        be needed still.
        """
        last = max(self.sizes, default=0)
        for number in sorted(self.sizes):
            if self.sizes[number]:
                yield from self._recover(number, last=number == last)
            else:
                self.drop(number)

    def _recover(self, number: int, *, last: bool) -> Iterator[Recovered]:
        cut = None
        with self._path(number).open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            entries = 0
            for found in scan(memoryview(data)):
                if isinstance(found, Erased):
                    self._finish_erasing(number, found, data)
                    continue
                if isinstance(found, Found):
                    start, end = found.offset + HEADER_BYTES, found.offset + found.header.entry_bytes
                    # What a power failure interrupts is in the last segment; of the others each is checked when read.
                    if last and not found.header.fits(data[start:end]):
                        self._set_aside(number, found.offset, data[found.offset : end])
                        continue
                    place = Place(number, found.offset, found.header.entry_bytes)
                    if found.header.kind is not Kind.OPENING and self._is_aside(place):
                        self.leftovers.append(place)
                        continue
                    entries += 1
                    by = found.header.sender(data[start : start + found.header.sender_bytes])
                    start += found.header.sender_bytes
                    if found.header.kind is Kind.ENVELOPE:
                        end = min(end, start + _HEAD_BYTES)
                    yield Recovered(found.header.kind, place, data[start:end], by)
                    continue
                # Not even the beginning of an entry was acknowledged: one is when all of it is on the disk.
                is_kept = (found.torn and last) or self._set_aside(number, found.start, data[found.start : found.end])
                if found.end == len(data) and is_kept:
                    cut = found.start
        if cut is not None:
            os.truncate(self._path(number), cut)
            sync_folder(self._path(number))
            self.sizes[number] = cut
            self.leftovers = [place for place in self.leftovers if place[:2] < (number, cut)]
        if not entries and number not in self.unkept:
            self.drop(number)

    def _set_aside(self, number: int, start: int, data: bytes) -> bool:
        """Quarantine damaged bytes; return False when they have to stay where they are."""
        found = data.lstrip(b"\0")
        if not found:  # a file system may have given room and not yet written: zeros hold nothing
            return True
        place = Place(number, start, len(data))
        if place.name in self.quarantine.entries and not self._is_aside(place):
            # The damage reaches further than what was erased before it, which has the name.
            place, data = Place(number, start + len(data) - len(found), len(found)), found
        return self.keep_damaged(place, data)

    def keep_damaged(self, place: Place, data: bytes) -> bool:
        """Quarantine an entry that makes no sense; return False when it has to stay where it is."""
        try:
            self.quarantine.keep(place.name, data, reason="damaged")
        except OSError as error:
            _log.error("spool_quarantine_failed", reason="damaged", error=error.strerror, errno=error.errno)
        if self._is_aside(place):
            self.leftovers.append(place)
            return True
        self.unkept.add(place.segment)
        return False

    def _is_aside(self, place: Place) -> bool:
        known = self.quarantine.entries.get(place.name)
        return known is not None and known.entry_bytes == place.entry_bytes

    def _finish_erasing(self, number: int, found: Erased, data: mmap.mmap) -> None:
        if data[found.offset + HEADER_BYTES : found.offset + found.header.entry_bytes].strip(b"\0"):
            self.leftovers.append(Place(number, found.offset, found.header.entry_bytes))

    def append(self, entries: Sequence[tuple[Kind, Buffer] | tuple[Kind, Buffer, str | None]]) -> list[Place]:
        """Write entries behind the last one, each with its sender; they are on the disk when this returns.

        Raises:
            OSError: none of them is in the spool. The same holds for any other exception.
        """
        if self._file is None or self.sizes[self._number] >= self._segment_bytes:
            self._begin()
        assert self._file is not None
        start = at = self.sizes[self._number]
        places: list[Place] = []
        try:
            for kind, payload, *by in entries:
                reach(Point.SPOOL_BEFORE_WRITE)
                size = write_all(self._file, (header(kind, payload, *by), payload))
                places.append(Place(self._number, at, size))
                at += size
            reach(Point.SPOOL_BEFORE_FSYNC)
            os.fdatasync(self._file)
        except BaseException:
            self._give_up(start)
            raise
        self.sizes[self._number] = at
        reach(Point.SPOOL_AFTER_FSYNC)
        return places

    def _begin(self) -> None:
        if self._file is not None:
            os.close(self._file)
            self._file = None
        self._number += 1
        path = self._path(self._number)
        file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC, 0o600)
        try:
            sync_folder(self._folder)
        except BaseException:  # its name may not outlive a power failure; the next start drops it, it is empty
            os.close(file)
            raise
        self._file, self.sizes[self._number] = file, 0
        reach(Point.SPOOL_SEGMENT_BEGUN)

    def _give_up(self, start: int) -> None:
        """After a failed write nothing is known of the file's end, and after a failed fsync nothing of its pages."""
        file, self._file = self._file, None
        assert file is not None
        try:
            os.ftruncate(file, start)
            os.fsync(file)
        except OSError:
            pass  # what is left of it is read at the next start, and session-storage knows it or takes it
        finally:
            os.close(file)
        if start == 0:
            self.drop(self._number)

    def drop_idle(self) -> None:
        """End the segment that is written to: all that is in it has been delivered."""
        if self._file is not None:
            os.close(self._file)
            self._file = None

    def current(self) -> int | None:
        """The segment that is written to."""
        return None if self._file is None else self._number

    def drop(self, number: int) -> None:
        """Delete a segment, of which nothing is needed any more."""
        if number == self.current():
            self.drop_idle()
        self._path(number).unlink(missing_ok=True)
        sync_folder(self._folder)
        self.sizes.pop(number, None)

    def read(self, place: Place) -> bytes:
        """An entry's payload. For any thread.

        Raises:
            CorruptEntryError: its bytes are not those that were written.
            FileNotFoundError: its segment is gone.
        """
        found = payload_of(self.raw(place))
        if found is None:
            raise CorruptEntryError(f"segment {place.segment}, byte {place.offset}")
        return found[1]

    def erase(self, places: Sequence[Place]) -> None:
        """Overwrite entries; skip those of segments that are gone. A start passes over them, also after a crash.

        Raises:
            OSError: they are perhaps still there.
        """
        for number in sorted({place.segment for place in places}):
            with suppress(FileNotFoundError):
                overwrite(self._path(number), [place for place in places if place.segment == number])

    def free_bytes(self) -> int:
        """Free space of the folder's disk, for us."""
        found = os.statvfs(self._folder)
        return found.f_bavail * found.f_frsize

    def raw(self, place: Place) -> bytes:
        """Return an entry's bytes as they lie there, its header included.

        Raises:
            FileNotFoundError: its segment is gone.
        """
        file = os.open(self._path(place.segment), os.O_RDONLY | os.O_CLOEXEC)
        try:
            return os.pread(file, place.entry_bytes, place.offset)
        finally:
            os.close(file)

    def _path(self, number: int) -> Path:
        return self._folder / f"{number:016d}.seg"
