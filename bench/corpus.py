"""What is recorded in a benchmark: made from a seed in three kinds, or a user's own files.

No piece comes twice, so that a tool that finds equal pieces has no other work to do than one that does not.
"""

import hashlib
import json
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

SEED: Final = 20261125
FILES: Final = 24
_BLOCK_BYTES: Final = 256 * 1024
_WORDS: Final = ("window", "focus", "key", "pointer", "clipboard", "title", "resize", "scroll", "paste", "button")
_TILE_PIECES: Final = 2048


def _events(draw: random.Random) -> bytes:
    """A log of what a user does, a JSON object a line."""
    lines, size = [], 0
    while size < _BLOCK_BYTES:
        event = {
            "time": draw.randrange(10**12, 2 * 10**12),
            "kind": draw.choice(_WORDS),
            "window": f"{draw.getrandbits(32):08x}",
            "x": draw.randrange(3840),
            "y": draw.randrange(2160),
            "text": " ".join(draw.choices(_WORDS, k=draw.randrange(6))),
        }
        lines.append(json.dumps(event) + "\n")
        size += len(lines[-1])
    return "".join(lines)[:_BLOCK_BYTES].encode()


def _screen(draw: random.Random) -> bytes:
    """Tiles of a screen: runs of one colour, letters that come again, and some noise."""
    letters = random.Random(SEED)
    pieces = [letters.randbytes(letters.choice((16, 24, 48))) for _ in range(_TILE_PIECES)]
    parts, size = [], 0
    while size < _BLOCK_BYTES:
        what = draw.random()
        if what < 0.25:  # noqa: PLR2004 - shares of a screen
            part = draw.randbytes(4) * draw.randrange(8, 200)
        elif what < 0.95:  # noqa: PLR2004
            part = b"".join(draw.choices(pieces, k=8))
        else:
            part = draw.randbytes(draw.randrange(64, 512))
        parts.append(part)
        size += len(part)
    return b"".join(parts)[:_BLOCK_BYTES]


def _video(draw: random.Random) -> bytes:
    """What a video encoder gives: nothing more to gain."""
    return draw.randbytes(_BLOCK_BYTES)


KINDS: Final[dict[str, Callable[[random.Random], bytes]]] = {"events": _events, "screen": _screen, "video": _video}


@dataclass(frozen=True, slots=True)
class Corpus:
    """Files in one folder, read whole into memory by who records them."""

    folder: Path
    files: tuple[Path, ...]
    size_bytes: int

    def content(self) -> bytes:
        """All of it, one file behind the other."""
        return b"".join(path.read_bytes() for path in self.files)


def make(folder: Path, mib: int, seed: int = SEED, told: Callable[[int], None] = lambda _: None) -> Corpus:
    """Make the corpus of a seed, a third of each kind, in blocks that take turns.

    `told` hears of the bytes that were made so far.
    """
    folder.mkdir(parents=True, exist_ok=True)
    blocks_each = mib * 1024 * 1024 // FILES // _BLOCK_BYTES
    kinds = list(KINDS.items())
    files, done = [], 0
    for number in range(FILES):
        path = folder / f"recording-{number:02}"
        with path.open("wb") as file:
            for block in range(blocks_each):
                name, kind = kinds[(number + block) % len(kinds)]
                done += file.write(kind(random.Random(f"{seed}/{name}/{number}/{block}")))
                told(done)
        files.append(path)
    return Corpus(folder, tuple(files), done)


def of_folder(folder: Path) -> Corpus:
    """A user's own files.

    Raises:
        ValueError: there is nothing in it.
    """
    files = tuple(sorted(path for path in folder.rglob("*") if path.is_file() and not path.is_symlink()))
    size = sum(path.stat().st_size for path in files)
    if not size:
        raise ValueError(f"{folder} holds no file with anything in it")
    return Corpus(folder, files, size)


def cut(content: bytes, chunk_bytes: int, sessions: int) -> list[list[memoryview]]:
    """The content as chunks, dealt to sessions: each gets a run of them, no byte comes twice."""
    view = memoryview(content)
    chunks = [view[start : start + chunk_bytes] for start in range(0, len(view), chunk_bytes)]
    share = -(-len(chunks) // sessions)
    return [chunks[start : start + share] for start in range(0, len(chunks), share)]


def digest(chunks: Iterator[memoryview] | list[memoryview]) -> str:
    """SHA-256 of chunks, one behind the other, in hex."""
    whole = hashlib.sha256()
    for chunk in chunks:
        whole.update(chunk)
    return whole.hexdigest()
