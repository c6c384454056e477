"""Overwrites entries that are needed no more, in segments that stay."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Final, NamedTuple

from sessions.processor.spool_format import HEADER_BYTES, erased_mark, read_erased, read_header

_ZEROS: Final = memoryview(bytes(1024 * 1024))


class Place(NamedTuple):
    """Where an entry lies, its header included."""

    segment: int
    offset: int
    entry_bytes: int

    @property
    def name(self) -> str:
        """What the entry is called in the quarantine."""
        return f"{self.segment:016d}-{self.offset:012d}"


def overwrite(segment: Path, places: Sequence[Place]) -> None:
    """Mark entries of one segment as erased, and then overwrite their payloads with zeros; flush each step.

    The marks are on the disk before the first payload is changed, so a start takes none of them for damaged. What has
    no sound header is overwritten as a whole.

    Raises:
        FileNotFoundError: the segment is gone.
        OSError: they are perhaps still there.
    """
    file = os.open(segment, os.O_RDWR | os.O_CLOEXEC)
    try:
        whole = set()
        for place in places:
            head = os.pread(file, HEADER_BYTES, place.offset)
            found = read_header(head)
            if found is not None and found.entry_bytes == place.entry_bytes:
                at, mark = erased_mark(head, place.offset)
                os.pwrite(file, mark, place.offset + at)
            elif read_erased(head) is None:
                whole.add(place)
        os.fdatasync(file)
        for place in places:
            skipped = 0 if place in whole else HEADER_BYTES
            _zero(file, place.offset + skipped, place.entry_bytes - skipped)
        os.fdatasync(file)
    finally:
        os.close(file)


def _zero(file: int, start: int, count: int) -> None:
    while count > 0:
        written = os.pwrite(file, _ZEROS[:count], start)
        start, count = start + written, count - written
