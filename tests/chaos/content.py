"""What is recorded: known from the seed alone, so that nothing has to be kept to compare with."""

import hashlib
import random
from dataclasses import dataclass

_LARGEST_BYTES = 300 * 1024


@dataclass(frozen=True, slots=True)
class Plan:
    """One session to record."""

    session_id: str
    chunk_count: int

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


def plan(seed: int, recorder: int, number: int) -> Plan:
    """The session that a recorder records as its `number`-th."""
    draw = random.Random(f"{seed}/{recorder}/{number}")
    return Plan(f"chaos-{seed}-{recorder}-{number}", draw.randrange(1, 120))
