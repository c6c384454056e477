"""What a scrub reads, finds and remembers, and the ports to it.

Twins: `memory_scrub.py`; the real thing: `mongo_scrub.py`.
"""

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any, Protocol

from sessions.core.types import SessionId
from sessions.runtime.times import to_rfc3339


class Kind(StrEnum):
    """What is wrong."""

    MISSING = "missing"
    """It should be there, and is not."""
    ALTERED = "altered"
    """It is not what was stored."""
    TRUNCATED = "truncated"
    """A part of it is gone."""
    ORPHANED = "orphaned"
    """Nothing that is there accounts for it."""
    FOREIGN = "foreign"
    """It belongs to another place."""


class Part(StrEnum):
    """What it is wrong with."""

    SESSION = "session"
    KEYS = "keys"
    MANIFEST = "manifest"
    BATCH = "batch"
    TREE = "tree"
    RECORD = "record"
    BODY = "body"


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is wrong; without an index it is about the session as a whole."""

    kind: Kind
    part: Part
    session_id: SessionId
    index: int | None
    detail: str

    @property
    def name(self) -> str:
        """Tells it from other findings; the same in every scrub. A session id has no slash in it."""
        return f"{self.session_id}/{'' if self.index is None else self.index}/{self.part}/{self.kind}"

    def to_json(self) -> dict[str, Any]:
        """The finding as a JSON object."""
        return {
            "kind": self.kind.value,
            "part": self.part.value,
            "session_id": self.session_id,
            "index": self.index,
            "detail": self.detail,
        }


@dataclass(frozen=True, slots=True)
class KeptFinding:
    """A finding, and when it was found."""

    finding: Finding
    first_seen: datetime
    last_seen: datetime

    def to_json(self) -> dict[str, Any]:
        """The finding as a JSON object."""
        times = {"first_seen": to_rfc3339(self.first_seen), "last_seen": to_rfc3339(self.last_seen)}
        return {**self.finding.to_json(), **times}


@dataclass(frozen=True, slots=True)
class Position:
    """Where a scrub goes on: the next chunk index to look at, in a session."""

    session_id: SessionId
    start: int = 0


@dataclass(frozen=True, slots=True)
class BodyKey:
    """Under what a body is stored: its index, and the beginning of the envelope's SHA-256."""

    index: int
    digest: bytes


class BodyScan(Protocol):
    """Bodies as they lie there, whatever the records say."""

    async def next_session(self, after: SessionId | None) -> SessionId | None:
        """The first id behind this one that any session, chunk record or body has."""

    async def next_index(self, session_id: SessionId, start: int) -> int | None:
        """The first index from `start` on that any record or body of this session has."""

    async def keys(self, session_id: SessionId, start: int, end: int) -> set[BodyKey]:
        """Under what the bodies from `start` up to `end` are stored."""

    def parts(self, session_id: SessionId, key: BodyKey) -> AsyncIterator[bytes]:
        """The bytes of a body, in order, as far as they are there."""


class FindingStore(Protocol):
    """Findings that were made, each once; and how far the scrub in the background has come."""

    async def keep(self, findings: Sequence[Finding], now: datetime) -> None:
        """Keep findings; one that is there was seen once more."""

    async def page(self, limit: int, after: str | None, only: SessionId | None = None) -> list[KeptFinding]:
        """Findings by their names, those behind one of them; `only` those of a session."""

    async def position(self) -> Position | None:
        """Where the scrub in the background goes on; None: at the beginning."""

    async def move(self, position: Position | None) -> None:
        """Remember where it goes on."""
