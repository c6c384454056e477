"""A chunk that is durable: what its recorder is told, and what is counted of it."""

from dataclasses import dataclass
from typing import Any, Final, Literal

from prometheus_client import Counter, Histogram

from sessions.core.types import SessionId
from sessions.processor.crypt import SealedChunk
from sessions.processor.killpoints import Point
from sessions.runtime.errors import DomainError
from sessions.runtime.killpoints import reach
from sessions.runtime.metrics import SIZE_BUCKETS

CHUNKS = Counter("lucid_chunks_total", "Chunks by outcome.", ("outcome",))
PLAINTEXT_BYTES = Counter("lucid_chunk_plaintext_bytes_total", "Bytes of chunks that were stored.")
SEALED_BYTES = Counter("lucid_chunk_envelope_bytes_total", "Bytes of the envelopes of chunks that were stored.")
CHUNK_SIZE = Histogram("lucid_chunk_size_bytes", "Sizes of chunks that were stored.", buckets=SIZE_BUCKETS)
ENVELOPE_SIZE = Histogram(
    "lucid_envelope_size_bytes", "Sizes of the envelopes of chunks that were stored.", buckets=SIZE_BUCKETS
)
for _outcome in ("repeated", "conflict"):
    CHUNKS.labels(_outcome)
_DURABLE: Final = {durability: CHUNKS.labels(durability) for durability in ("stored", "spooled")}


@dataclass(frozen=True, slots=True)
class Recorded:
    """A chunk that is durable. `created`: now, by this request."""

    session_id: SessionId
    index: int
    plaintext_bytes: int
    envelope_bytes: int
    envelope_sha256: str
    leaf_hash: str
    created: bool
    durability: Literal["stored", "spooled"] = "stored"

    def to_json(self) -> dict[str, Any]:
        """The answer to the recorder."""
        return {
            "session_id": self.session_id,
            "index": self.index,
            "plaintext_bytes": self.plaintext_bytes,
            "envelope_bytes": self.envelope_bytes,
            "envelope_sha256": self.envelope_sha256,
            "leaf_hash": self.leaf_hash,
            "durability": self.durability,
        }


def recorded(
    session_id: SessionId, index: int, sealed: SealedChunk, durability: Literal["stored", "spooled"]
) -> Recorded:
    """A chunk that is durable from now on, as it is answered and counted."""
    ours = sealed.fingerprint
    _DURABLE[durability].inc()
    PLAINTEXT_BYTES.inc(sealed.plaintext_bytes)
    SEALED_BYTES.inc(ours.envelope_bytes)
    CHUNK_SIZE.observe(sealed.plaintext_bytes)
    ENVELOPE_SIZE.observe(ours.envelope_bytes)
    return Recorded(
        session_id=session_id,
        index=index,
        plaintext_bytes=sealed.plaintext_bytes,
        envelope_bytes=ours.envelope_bytes,
        envelope_sha256=ours.envelope_sha256.hex(),
        leaf_hash=ours.leaf_hash.hex(),
        created=True,
        durability=durability,
    )


def acknowledged(session_id: SessionId, index: int, sealed: SealedChunk, stored_sha256: str | None) -> Recorded:
    """Return a chunk that session-storage has acknowledged, if it acknowledged these very bytes.

    Raises:
        DomainError: `storage-unavailable`.
    """
    ours = sealed.fingerprint
    if stored_sha256 != ours.envelope_sha256.hex():
        raise DomainError(
            "storage-unavailable",
            "session-storage acknowledged other bytes than were sent; repeat the request",
            retry_after_seconds=1,
        )
    reach(Point.CHUNK_STORED)
    return recorded(session_id, index, sealed, "stored")
