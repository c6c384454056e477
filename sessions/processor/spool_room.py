"""Room in the spool: bounded by bytes, by the free space of its disk, and by entries, which are what costs memory."""

from enum import StrEnum
from typing import Final

import structlog
from prometheus_client import Gauge

from sessions.processor.spool_shares import Shares
from sessions.runtime.errors import DomainError
from sessions.runtime.metrics import UNKNOWN

MAX_ENTRIES: Final = 250_000
"""The index has about 400 bytes for each (tests/unit/processor/test_spool.py measures it): 100 MB at most."""
RETRY_AFTER_SECONDS: Final = 30
_MIB: Final = 1024 * 1024

STATE = Gauge("lucid_spool_state", "Room in the spool: 0 ok, 1 low, 2 critical, 3 full.")
USED_BYTES = Gauge("lucid_spool_bytes", "Bytes of the spool's files, without the quarantine.")
LIMIT_BYTES = Gauge("lucid_spool_limit_bytes", "SPOOL_MAX_BYTES: the most that the spool may take.")
ENTRIES = Gauge("lucid_spool_entries", "Entries that wait for session-storage.")
FREE_BYTES = Gauge("lucid_spool_disk_free_bytes", "Free space on the spool's disk; NaN before it was measured.")
FREE_BYTES.set(UNKNOWN)
_log = structlog.get_logger()


class Room(StrEnum):
    """How much there is."""

    OK = "ok"
    LOW = "low"
    CRITICAL = "critical"
    FULL = "full"


_ORDER: Final = (Room.OK, Room.LOW, Room.CRITICAL, Room.FULL)
_REACHED: Final = {Room.LOW: 0.5, Room.CRITICAL: 0.8, Room.FULL: 0.95}
_LEFT: Final = {Room.LOW: 0.4, Room.CRITICAL: 0.7, Room.FULL: 0.9}
"""How full a state begins, and below which it ends: apart, so that recording does not stop and go."""


class SpoolRoom:
    """Keeps count, and refuses what would not fit."""

    def __init__(self, max_bytes: int, free_min_bytes: int, max_entries: int = MAX_ENTRIES) -> None:
        self._max_bytes = max_bytes
        self._free_min_bytes = free_min_bytes
        self._max_entries = max_entries
        self._used_bytes = 0
        self._entries = 0
        self._free_bytes: int | None = None
        self._writing_bytes = 0
        self.state = Room.OK
        self.shares = Shares()
        LIMIT_BYTES.set(max_bytes)

    def note(self, used_bytes: int, entries: int, free_bytes: int | None = None, writing_bytes: int = 0) -> None:
        """Note how it is now; what is being written counts as used, and is to come off what was last seen free."""
        self._used_bytes, self._entries, self._writing_bytes = used_bytes, entries, writing_bytes
        USED_BYTES.set(used_bytes)
        ENTRIES.set(entries)
        if free_bytes is not None:
            self._free_bytes = free_bytes
            FREE_BYTES.set(free_bytes)
        self._judge()

    def fill(self) -> float:
        """How full it is, by what is scarcest; 1 is full."""
        by_disk = 0.0
        if self._free_bytes is not None and self._free_min_bytes:
            by_disk = 1 - 0.4 * (self._free_bytes - self._free_min_bytes) / self._free_min_bytes
        return max(self._used_bytes / self._max_bytes, self._entries / self._max_entries, by_disk)

    def require(self, size_bytes: int, by: str | None = None) -> None:
        """Refuse an entry that does not fit. It changes nothing for others: only what is used makes the spool full.

        In a full spool a token still gets some of what is left, as long as it holds no more than that.

        Raises:
            DomainError: `spool-full`.
        """
        left = self._max_bytes - self._used_bytes
        if self._free_bytes is not None:
            left = min(left, self._free_bytes - self._writing_bytes - self._free_min_bytes)
        left_entries = self._max_entries - self._entries
        fits = size_bytes <= left and left_entries > 0
        if not fits or (self.state is Room.FULL and not self.shares.is_little(by, size_bytes, left, left_entries)):
            raise full(
                f"session-storage is away, and the spool is full ({self._used_bytes // _MIB} of"
                f" {self._max_bytes // _MIB} MiB, {self._entries} entries, {self._shown_free()} of its disk free)"
            )

    def written_over(self) -> None:
        """The disk said that it is full; the next look at it may know better."""
        self._free_bytes = 0
        self._enter(Room.FULL)

    def _judge(self) -> None:
        fill, state = self.fill(), Room.OK
        for candidate in _ORDER[1:]:
            held = _ORDER.index(self.state) >= _ORDER.index(candidate)
            if fill >= (_LEFT if held else _REACHED)[candidate]:
                state = candidate
        self._enter(state)

    def _enter(self, state: Room) -> None:
        before, self.state = self.state, state
        STATE.set(_ORDER.index(state))
        if state is not before:
            _log.warning(
                "spool_room",
                room=state.value,
                used_bytes=self._used_bytes,
                entries=self._entries,
                free_bytes=self._free_bytes,
            )

    def _shown_free(self) -> str:
        return "?" if self._free_bytes is None else f"{self._free_bytes // _MIB} MiB"


def full(detail: str) -> DomainError:
    """What is answered when nothing more fits."""
    return DomainError(
        "spool-full",
        f"{detail}: when session-storage is back it empties by itself; nothing acknowledged is lost",
        retry_after_seconds=RETRY_AFTER_SECONDS,
    )
