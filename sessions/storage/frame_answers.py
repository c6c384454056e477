"""What storage answers about each envelope that it is sent."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

from prometheus_client import Counter

from sessions.core.types import Hash

_ENVELOPES = Counter("lucid_envelopes_total", "Envelopes by what became of them.", ("result",))


class FrameResult(StrEnum):
    """What became of one envelope."""

    STORED = "stored"
    EXISTS = "exists"
    CONFLICT = "conflict"
    SEALED = "sealed"
    UNKNOWN_SESSION = "unknown-session"
    UNKNOWN_KEY = "unknown-key"
    """Its key is not in the session's ring: nobody could ever open it."""
    BUSY = "busy"
    """The session's seal is being decided; repeat it."""


ENVELOPES: Final = {result: _ENVELOPES.labels(result.value) for result in FrameResult}
"""The counter of each result."""


@dataclass(frozen=True, slots=True)
class FrameAnswer:
    """What became of it, and the SHA-256 of the envelope that is stored at its place (None where there is none)."""

    result: FrameResult
    envelope_sha256: Hash | None
    leaf_hash: Hash | None

    def to_json(self) -> dict[str, Any]:
        """The answer as a JSON object."""
        return {
            "result": self.result.value,
            "envelope_sha256": self.envelope_sha256 and self.envelope_sha256.hex(),
            "leaf_hash": self.leaf_hash and self.leaf_hash.hex(),
        }
