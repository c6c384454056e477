"""What session-storage answers, as the processor uses it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sessions.core import key_ring
from sessions.core.key_ring import WrappedDek
from sessions.core.types import SessionId


@dataclass(frozen=True, slots=True)
class FrameAnswer:
    """What storage did with one envelope.

    `stored`, `exists`, `conflict`, `sealed`, `unknown-session`, `unknown-key` or `busy`.
    """

    result: str
    envelope_sha256: str | None
    leaf_hash: str | None


@dataclass(frozen=True, slots=True)
class StoredChunk:
    """The record of a chunk at storage. Sizes in bytes, hashes in hex."""

    index: int
    plaintext_bytes: int
    envelope_bytes: int
    envelope_sha256: str
    leaf_hash: str


Keys = tuple[WrappedDek, ...]


@dataclass(frozen=True, slots=True)
class KeyCounts:
    """How many key rings each KEK and each recovery recipient has (None: none); the first sessions without one."""

    keks: Mapping[str, int]
    recipients: Mapping[str | None, int]
    unsealed: Sequence[str]


@dataclass(frozen=True, slots=True)
class Replacement:
    """A key that was wrapped anew, for the place of the one that it was made of."""

    session_id: SessionId
    old: WrappedDek
    new: WrappedDek

    def to_json(self) -> dict[str, Any]:
        """As storage takes it."""
        expected = key_json(self.old)["wrapped"]
        return {"session_id": self.session_id, "expected": expected, "key": key_json(self.new)}


@dataclass(frozen=True, slots=True)
class SealAnswer:
    """A sealed session's manifest with its hashes; or None, and the names of the processors that the seal waits for."""

    sealed: dict[str, Any] | None
    waiting_for: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class ReportAnswer:
    """What storage answers to a report: sessions with a question each, and facts about itself.

    `asks` are questions to confirm, `asked` the newest about what was promised, `shredded` are sessions whose
    quarantined entries are to be deleted.
    """

    asks: Mapping[SessionId, str]
    asked: Mapping[SessionId, str]
    shredded: Sequence[SessionId]
    uptime_seconds: float
    generation: str
    retain_days: int
    chunk_max_bytes: int | None = None


def key_json(key: WrappedDek) -> dict[str, Any]:
    """A key as storage takes it: without the members that are null, which an older storage does not know."""
    return {name: value for name, value in key_ring.key_to_json(key).items() if value is not None}


def read_keys(keys: list[dict[str, Any]]) -> Keys:
    """The keys of an answer; members that are not known yet are passed over."""
    known = ("dek_id", "kek_id", "wrapped", "recovery")
    return tuple(key_ring.key_from_json({name: key[name] for name in known if name in key}) for key in keys)
