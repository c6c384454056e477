"""Entries that were delivered or moved, and that lie in segments that stay: overwritten in batches, within seconds."""

from collections.abc import Awaitable, Callable, Iterable
from typing import Final

import structlog

from sessions.processor.spool_erasing import Place
from sessions.processor.spool_segments import Segments

SLICE_BYTES: Final = 4 * 1024 * 1024
"""Bytes that are overwritten at a time; meanwhile no entry is appended."""
_log = structlog.get_logger()


class Leftovers:
    """What is to be overwritten. A segment that is deleted before its turn takes its leftovers along."""

    def __init__(self, segments: Segments, in_thread: Callable[[Callable[[], None]], Awaitable[None]]) -> None:
        self._segments = segments
        self._in_thread = in_thread
        self._places: dict[int, dict[int, Place]] = {}
        self._older: set[Place] = set()
        self.problem = ""
        """Why the last attempt failed; empty after one that succeeded."""

    def add(self, places: Iterable[Place]) -> None:
        """Have entries overwritten soon."""
        for place in places:
            self._places.setdefault(place.segment, {})[place.offset] = place

    def forget(self, number: int) -> None:
        """Note that a segment was deleted."""
        self._places.pop(number, None)

    async def turn(self) -> None:
        """Overwrite what was here at the last turn already. Most segments are deleted before that."""
        older = [place for place in self._older if self._has(place)]
        try:
            await self.erase(older)
        except OSError:
            pass  # it is logged, and tried again at the next turn
        else:
            self._older = {place for places in self._places.values() for place in places.values()}

    async def erase_all(self) -> None:
        """Overwrite everything at once.

        Raises:
            OSError: some of it is perhaps still there, and is tried again.
        """
        await self.erase([place for places in self._places.values() for place in places.values()])

    async def erase_named(self, names: Iterable[str]) -> None:
        """Overwrite those of these entries that are left over; others are needed still, or long gone.

        Raises:
            OSError: they are perhaps still there, and are tried again.
        """
        wanted = [tuple(map(int, name.split("-"))) for name in names]
        found = [self._places.get(number, {}).get(offset) for number, offset in wanted]
        await self.erase([place for place in found if place is not None])

    async def erase(self, places: Iterable[Place]) -> None:
        """Overwrite entries, in slices between which others are appended.

        Raises:
            OSError: they are perhaps still there, and are tried again.
        """
        left = sorted(places)
        self.add(left)
        while left:
            count = size = 0
            while count < len(left) and (count == 0 or size + left[count].entry_bytes <= SLICE_BYTES):
                size += left[count].entry_bytes
                count += 1
            await self._erase(left[:count])
            left = left[count:]

    async def _erase(self, places: list[Place]) -> None:
        try:
            await self._in_thread(lambda: self._segments.erase(places))
        except OSError as error:
            problem = error.strerror or type(error).__name__
            if problem != self.problem:
                _log.error("spool_erase_failed", error=problem, errno=error.errno)
            self.problem = problem
            raise
        self.problem = ""
        for place in places:
            of_segment = self._places.get(place.segment, {})
            of_segment.pop(place.offset, None)
            if not of_segment:
                self._places.pop(place.segment, None)

    def _has(self, place: Place) -> bool:
        return place.offset in self._places.get(place.segment, {})
