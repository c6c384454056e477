"""Entries that left the spool and did not reach session-storage: kept until somebody decides, within bounds of its own.

    SPOOL_DIR/quarantine/SEGMENT-OFFSET.entry   the entry, as it lay in the spool
    SPOOL_DIR/quarantine/SEGMENT-OFFSET.json    why, when, whose; with the wrapped key that opens an envelope

The facts are written first, so that an entry has them after a crash at any point. Entries of version 0.1.0 have none:
their own bytes say what they are. Memory holds only what is looked up often; detail and key are read from the file.
Blocking, and for one thread.
"""

import errno
import json
import os
import re
import sys
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from prometheus_client import Counter as Metric
from prometheus_client import Gauge

from sessions.core import envelope
from sessions.core.errors import CoreError
from sessions.core.types import SessionId, session_id
from sessions.processor.files import erase, sync_folder, write_durably
from sessions.processor.spool_format import HEADER_BYTES, Kind, read_header
from sessions.runtime.times import now, to_rfc3339

NAME_PATTERN: Final = r"^[0-9]{16}-[0-9]{12}$"
"""What an entry is called: its segment and its place there."""
_ENTRY: Final = re.compile(r"([0-9]{16})-[0-9]{12}\.entry")
_UNFINISHED: Final = re.compile(r"([0-9]{16}-[0-9]{12})\.(json|json\.part|entry\.part)")
LIMIT_BYTES: Final = Gauge(
    "lucid_spool_quarantine_limit_bytes", "SPOOL_QUARANTINE_MAX_BYTES: the most that the quarantine may take."
)
QUARANTINED = Metric("lucid_spool_quarantined_total", "Quarantined entries, by reason.", ("reason",))
REASONS: Final = ("damaged", "conflict", "left-out", "undeliverable", "metadata-refused", "envelope-corrupt")
for _reason in REASONS:
    QUARANTINED.labels(_reason)
SET_ASIDE = Gauge("lucid_spool_quarantine_entries", "Entries in the quarantine.")
SET_ASIDE_BYTES = Gauge("lucid_spool_quarantine_bytes", "Bytes that the quarantine's files take on the disk.")
CONFLICT: Final = "conflict"
"""Reason of an envelope whose index has other content at session-storage."""
_SHARES: Final = 4
"""One token may have this fraction of the quarantine."""
MAX_ENTRIES: Final = 131_072
"""Limit on the entries: each counts at least this fraction of the quarantine's bytes. Memory holds less than 1 KiB for
each (tests/unit/processor/test_quarantine.py measures it): 128 MiB at most."""
BLOCK_BYTES: Final = 4096
"""Unit in which a file takes space on the disk, in bytes. An entry has two files."""
_UNKNOWN: Final = "unknown"
_HEAD_BYTES: Final = 512
"""Of an envelope, what is read to tell its session: its header is shorter."""


@dataclass(frozen=True, slots=True)
class Quarantined:
    """An entry in the quarantine. `by` is the name of the token that sent it; None: not known.

    `disk_bytes` are what its two files take on the disk.
    """

    name: str
    entry_bytes: int
    disk_bytes: int
    kind: str = ""
    session_id: SessionId | None = None
    index: int | None = None
    reason: str = _UNKNOWN
    by: str | None = None
    quarantined_at: str | None = None

    def to_json(self, detail: str = "") -> dict[str, Any]:
        """Return the entry as the REST interface shows it."""
        return {
            "name": self.name,
            "kind": self.kind or None,
            "session_id": self.session_id,
            "index": self.index,
            "entry_bytes": self.entry_bytes,
            "reason": self.reason,
            "detail": detail,
            "by": self.by,
            "quarantined_at": self.quarantined_at,
        }


_FACTS: Final = (*(name for name in Quarantined.__dataclass_fields__ if name != "disk_bytes"), "detail", "key")
"""What the file beside an entry says."""


class Quarantine:
    """The folder, and what is in it."""

    def __init__(self, folder: Path, max_bytes: int) -> None:
        """Hold at most `max_bytes` and one entry; a token whose share is used up has to wait until room is made."""
        self._folder = folder
        self._least_bytes = max(2 * BLOCK_BYTES, max_bytes // MAX_ENTRIES)
        self.max_bytes = max_bytes
        LIMIT_BYTES.set(max_bytes)
        self.entries: dict[str, Quarantined] = {}
        self._of_session: dict[SessionId | None, dict[str, Quarantined]] = {}
        self._bytes_by: Counter[str | None] = Counter()
        self.used_bytes = 0
        self.last_segment = 0

    def open(self) -> None:
        """Read what is there, and delete what a crash left unfinished: its entry is in the spool still.

        Raises:
            OSError: the folder cannot be used.
        """
        self._folder.mkdir(mode=0o700, exist_ok=True)
        names = sorted(file.name for file in self._folder.iterdir())
        for name in names:
            if found := _ENTRY.fullmatch(name):
                self.last_segment = max(self.last_segment, int(found[1]))
                self._add(_read(self._folder / name))
        for name in names:
            found = _UNFINISHED.fullmatch(name)
            if found is not None and (found[2] != "json" or found[1] not in self.entries):
                erase(self._folder / name)

    def _add(self, one: Quarantined) -> None:
        self.entries[one.name] = one
        self._of_session.setdefault(one.session_id, {})[one.name] = one
        self._bytes_by[one.by] += self._counted(one)
        self.used_bytes += self._counted(one)

    def _counted(self, one: Quarantined) -> int:
        """Return the bytes that an entry counts: what it takes, and at least what bounds the number of entries."""
        return max(self._least_bytes, one.disk_bytes)

    def _remove(self, one: Quarantined) -> None:
        del self.entries[one.name]
        of_session = self._of_session[one.session_id]
        del of_session[one.name]
        if not of_session:
            del self._of_session[one.session_id]
        self._bytes_by[one.by] -= self._counted(one)
        self.used_bytes -= self._counted(one)
        if not self._bytes_by[one.by]:
            del self._bytes_by[one.by]

    def keep(
        self, name: str, data: bytes, *, detail: str = "", key: Mapping[str, Any] | None = None, **facts: Any
    ) -> Quarantined:
        """Keep an entry under a name; repeated, it changes nothing.

        Raises:
            OSError: it cannot be written, or the quarantine is full (`ENOSPC`); it is not in the quarantine then.
        """
        if (known := self.entries.get(name)) is not None:
            return known
        if self.used_bytes >= self.max_bytes:
            raise OSError(errno.ENOSPC, "the quarantine is full (SPOOL_QUARANTINE_MAX_BYTES)")
        described = {
            **dict.fromkeys(_FACTS),
            "name": name,
            "entry_bytes": len(data),
            "kind": "",
            "reason": _UNKNOWN,
            "quarantined_at": to_rfc3339(now()),
            "detail": detail,
            "key": key,
            **facts,
        }
        written = json.dumps(described).encode()
        self._folder.mkdir(mode=0o700, exist_ok=True)
        write_durably(self._folder / f"{name}.json", written)
        write_durably(self._folder / f"{name}.entry", data)
        one = _described(described, _on_disk(len(data), len(written)))
        self._add(one)
        return one

    def read(self, name: str) -> bytes:
        """Return an entry's bytes.

        Raises:
            FileNotFoundError: somebody took the file away.
        """
        return (self._folder / f"{name}.entry").read_bytes()

    def facts(self, name: str) -> dict[str, Any]:
        """Return what the file beside an entry says, with `detail` and `key`; empty when it cannot be read."""
        try:
            found = json.loads((self._folder / f"{name}.json").read_bytes())
        except (OSError, ValueError):
            return {}
        return found if isinstance(found, dict) else {}

    def drop(self, name: str) -> None:
        """Delete an entry for good.

        Raises:
            OSError: some of it may still be there; repeat it.
        """
        for suffix in (".entry", ".json"):  # the facts go last: an entry always has them
            erase(self._folder / f"{name}{suffix}")
        sync_folder(self._folder)
        if (one := self.entries.get(name)) is not None:
            self._remove(one)

    def show(self) -> None:
        """Bring the metrics up to date."""
        SET_ASIDE.set(len(self.entries))
        SET_ASIDE_BYTES.set(self.used_bytes)

    def of_session(self, name: SessionId) -> Iterator[Quarantined]:
        """Return a session's entries."""
        return iter(list(self._of_session.get(name, {}).values()))

    def is_full_for(self, by: str | None) -> bool:
        """Return whether a token's share is used up, or the whole and it has a part in that."""
        used = self._bytes_by.get(by, 0)
        return used > 0 and (used >= self.max_bytes // _SHARES or self.used_bytes >= self.max_bytes)

    def sessions(self) -> list[SessionId]:
        """Return the sessions that have an entry."""
        return [name for name in list(self._of_session) if name is not None]

    @property
    def has_left_out(self) -> bool:
        """Whether there is an envelope that session-storage has nothing for: a seal would leave it out."""
        return any(one.index is not None and one.reason != CONFLICT for one in list(self.entries.values()))

    def floor(self, name: SessionId) -> int:
        """Return the least number of chunks that a session has, by the envelopes here that nothing replaces."""
        left_out = (one.index for one in self.of_session(name) if one.index is not None and one.reason != CONFLICT)
        return max(left_out, default=-1) + 1


def _on_disk(*sizes: int) -> int:
    return sum(-(-size // BLOCK_BYTES) * BLOCK_BYTES for size in sizes)


def _described(facts: Mapping[str, Any], disk_bytes: int) -> Quarantined:
    """Keep of the facts what memory holds; texts that many entries share are held once."""
    kept = {name: facts[name] for name in Quarantined.__dataclass_fields__ if name != "disk_bytes"}
    for shared in ("kind", "reason", "by"):
        kept[shared] = sys.intern(kept[shared]) if kept[shared] is not None else None
    return Quarantined(disk_bytes=disk_bytes, **kept)


def _read(file: Path) -> Quarantined:
    """Read the facts of an entry."""
    name, size = file.name.removesuffix(".entry"), file.stat().st_size
    disk_bytes = _on_disk(size)
    try:
        written = file.with_suffix(".json").read_bytes()
        disk_bytes = _on_disk(size, len(written))
        facts = json.loads(written)
        if facts["session_id"] is not None:
            facts["session_id"] = session_id(facts["session_id"])
        if set(facts) <= set(_FACTS) and isinstance(facts["index"], int | None):
            return _described({**facts, "name": name, "entry_bytes": size}, disk_bytes)
    except (OSError, ValueError, LookupError, TypeError):
        pass
    return _of_itself(file, name, size, disk_bytes)


def _of_itself(file: Path, name: str, size: int, disk_bytes: int) -> Quarantined:
    """Read what an entry of version 0.1.0 says of itself; the reason is not known."""
    try:
        with file.open("rb") as opened:
            header = read_header(opened.read(HEADER_BYTES))
            if header is None:
                return Quarantined(name, size, disk_bytes)
            kind = header.kind.name.lower()
            opened.seek(header.sender_bytes, os.SEEK_CUR)
            if header.kind is Kind.ENVELOPE:
                read = envelope.read_header(opened.read(_HEAD_BYTES))
                return Quarantined(name, size, disk_bytes, kind, read.session_id, int(read.index))
            said = json.loads(opened.read(header.content_bytes))
            return Quarantined(name, size, disk_bytes, kind, session_id(said["session_id"]))
    except (OSError, CoreError, ValueError, LookupError, TypeError):
        return Quarantined(name, size, disk_bytes)
