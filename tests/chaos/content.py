"""What is recorded, and how: known from the seed alone, so that nothing has to be kept to compare with."""

import hashlib
import random
from dataclasses import dataclass
from typing import Any

_LARGEST_BYTES = 300 * 1024


@dataclass(frozen=True, slots=True)
class Plan:
    """One session to record.

    `counted`: the seal names the count. `metadata` are given once `opened_after` chunks are acknowledged; None: the
    session is opened by its first chunk alone.
    """

    session_id: str
    chunk_count: int
    counted: bool = True
    metadata: dict[str, Any] | None = None
    opened_after: int = 0

    def chunk(self, index: int) -> bytes:
        """The plaintext of a chunk: empty, text, or incompressible, of 0 to 300 KiB."""
        draw = random.Random(f"{self.session_id}/{index}")
        size = int(_LARGEST_BYTES * draw.random() ** 4)
        if draw.random() < 0.03:
            return b""
        if draw.random() < 0.4:
            line = f"{self.session_id} {index} {draw.random()} pointer moved\n".encode()
            return (line * (size // len(line) + 1))[:size]
        return hashlib.shake_256(f"{self.session_id}/{index}".encode()).digest(size)

    def whole(self) -> bytes:
        """The recording."""
        return b"".join(map(self.chunk, range(self.chunk_count)))

    @property
    def seal_body(self) -> dict[str, int]:
        """The body of the seal."""
        return {"chunk_count": self.chunk_count} if self.counted else {}

    @property
    def retain_days(self) -> int | None:
        """How long the metadata say that the session is kept."""
        return (self.metadata or {}).get("retention", {}).get("retain_days")


def plan(seed: int, recorder: int, number: int) -> Plan:
    """The session that a recorder records as its `number`-th."""
    draw = random.Random(f"{seed}/{recorder}/{number}")
    session_id = f"chaos-{seed}-{recorder}-{number}"
    # Of short ones the last chunk is often with the processor that the seal does not go to.
    chunk_count = draw.randrange(1, 120) if draw.random() < 0.6 else draw.randrange(1, 6)
    metadata: dict[str, Any] | None = {"seed": seed, "case": draw.randrange(10**6)}
    if draw.random() < 0.5:
        metadata = {**(metadata or {}), "retention": {"retain_days": draw.randrange(2, 3650)}}
    if draw.random() < 0.2:
        metadata = None
    # Most recorders open before their first chunk; some learn later what they record.
    opened_after = 0 if draw.random() < 0.7 else draw.randrange(1, chunk_count + 1)
    return Plan(session_id, chunk_count, draw.random() < 0.5, metadata, opened_after)
