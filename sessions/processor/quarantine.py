"""Entries that left the spool and did not reach session-storage: kept until somebody decides, within bounds of its own.

    SPOOL_DIR/quarantine/SEGMENT-OFFSET.entry   the entry, as it lay in the spool
    SPOOL_DIR/quarantine/SEGMENT-OFFSET.json    why, when, whose; with the wrapped key that opens an envelope

The facts are written first, so that an entry has them after a crash at any point. Entries of version 0.1.0 have none:
what they are is read from themselves. Blocking, and for one thread.
"""

import json
import os
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
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
SET_ASIDE_BYTES = Gauge("lucid_spool_quarantine_bytes", "Bytes of the entries in the quarantine.")
CONFLICT: Final = "conflict"
"""Reason of an envelope whose index has other content at session-storage."""
_SHARES: Final = 4
"""One token may have this fraction of the quarantine."""
_UNKNOWN: Final = "unknown"
_HEAD_BYTES: Final = 512
"""Of an envelope, what is read to tell its session: its header is shorter."""


@dataclass(frozen=True, slots=True)
class Quarantined:
    """An entry in the quarantine. `by` is the name of the token that sent it; None: not known."""

    name: str
    entry_bytes: int
    kind: str = ""
    session_id: SessionId | None = None
    index: int | None = None
    reason: str = _UNKNOWN
    by: str | None = None
    quarantined_at: str | None = None
    detail: str = ""
    key: Mapping[str, Any] | None = field(default=None, repr=False)

    def to_json(self) -> dict[str, Any]:
        """Return the entry as the REST interface shows it."""
        return {
            "name": self.name,
            "kind": self.kind or None,
            "session_id": self.session_id,
            "index": self.index,
            "entry_bytes": self.entry_bytes,
            "reason": self.reason,
            "detail": self.detail,
            "by": self.by,
            "quarantined_at": self.quarantined_at,
        }


class Quarantine:
    """The folder, and what is in it."""

    def __init__(self, folder: Path, max_bytes: int) -> None:
        """Hold at most about `max_bytes`; a token whose share is used up has to wait until room is made."""
        self._folder = folder
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
        files = sorted(self._folder.iterdir())
        for file in files:
            if found := _ENTRY.fullmatch(file.name):
                self.last_segment = max(self.last_segment, int(found[1]))
                self._add(_facts(file))
        for file in files:
            found = _UNFINISHED.fullmatch(file.name)
            if found is not None and (found[2] != "json" or found[1] not in self.entries):
                erase(file)

    def _add(self, one: Quarantined) -> None:
        self.entries[one.name] = one
        self._of_session.setdefault(one.session_id, {})[one.name] = one
        self._bytes_by[one.by] += one.entry_bytes
        self.used_bytes += one.entry_bytes

    def _remove(self, one: Quarantined) -> None:
        del self.entries[one.name]
        of_session = self._of_session[one.session_id]
        del of_session[one.name]
        if not of_session:
            del self._of_session[one.session_id]
        self._bytes_by[one.by] -= one.entry_bytes
        self.used_bytes -= one.entry_bytes

    def keep(self, name: str, data: bytes, **facts: Any) -> Quarantined:
        """Keep an entry under a name; repeated, it changes nothing.

        Raises:
            OSError: it cannot be written; nothing is in the quarantine then.
        """
        if (known := self.entries.get(name)) is not None:
            return known
        one = Quarantined(name, len(data), quarantined_at=to_rfc3339(now()), **facts)
        self._folder.mkdir(mode=0o700, exist_ok=True)
        described = {field: getattr(one, field) for field in Quarantined.__dataclass_fields__}
        write_durably(self._folder / f"{name}.json", json.dumps(described).encode())
        write_durably(self._folder / f"{name}.entry", data)
        self._add(one)
        return one

    def read(self, name: str) -> bytes:
        """Return an entry's bytes.

        Raises:
            FileNotFoundError: somebody took the file away.
        """
        return (self._folder / f"{name}.entry").read_bytes()

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


def _facts(file: Path) -> Quarantined:
    name, size = file.name.removesuffix(".entry"), file.stat().st_size
    try:
        facts = json.loads(file.with_suffix(".json").read_bytes())
        if facts["session_id"] is not None:
            facts["session_id"] = session_id(facts["session_id"])
        one = Quarantined(**{**facts, "name": name, "entry_bytes": size})
    except (OSError, ValueError, LookupError, TypeError):
        return _described(file, name, size)
    is_sound = isinstance(one.index, int | None) and isinstance(one.by, str | None)
    return one if is_sound else _described(file, name, size)


def _described(file: Path, name: str, size: int) -> Quarantined:
    """Read what an entry of version 0.1.0 says of itself; the reason is not known."""
    try:
        with file.open("rb") as opened:
            header = read_header(opened.read(HEADER_BYTES))
            if header is None:
                return Quarantined(name, size)
            kind = header.kind.name.lower()
            opened.seek(header.sender_bytes, os.SEEK_CUR)
            if header.kind is Kind.ENVELOPE:
                read = envelope.read_header(opened.read(_HEAD_BYTES))
                return Quarantined(name, size, kind, read.session_id, int(read.index))
            said = json.loads(opened.read(header.content_bytes))
            return Quarantined(name, size, kind, session_id(said["session_id"]))
    except (OSError, CoreError, ValueError, LookupError, TypeError):
        return Quarantined(name, size)
