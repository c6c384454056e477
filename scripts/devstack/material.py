"""What the demo records when it is given no file: a terminal, and a stream that looks like a screen's."""

import fcntl
import json
import os
import pty
import random
import struct
import subprocess
import termios
import time
from pathlib import Path
from typing import BinaryIO, Final

from scripts.devstack.process import ROOT

COLUMNS: Final = 80
ROWS: Final = 24
_COMMANDS: Final = (
    "uname -srm",
    "date -u",
    "ls -l sessions",
    "wc -l sessions/core/*.py",
    "head -c 400 README.md",
    "for i in 1 2 3; do echo frame $i; sleep 0.1; done",
)

WIDTH: Final = 640
HEIGHT: Final = 360
FRAMES: Final = 46
_PIXEL_BYTES: Final = 4
_TILE_WIDTH: Final = 160
_TILE_HEIGHT: Final = 90
_TILES: Final = 6
_SEED: Final = 20261123


def record_terminal(path: Path) -> int:
    """Run a few commands in a pseudo-terminal and write what appeared, as asciicast v2.

    Returns:
        How many commands that were.
    """
    header = {"version": 2, "width": COLUMNS, "height": ROWS, "timestamp": int(time.time()), "env": {"TERM": "xterm"}}
    script = "\n".join(f"printf '$ %s\\n' '{command}'; {command}" for command in _COMMANDS)
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", ROWS, COLUMNS, 0, 0))
    environment = os.environ | {"TERM": "xterm", "LC_ALL": "C"}
    began = time.monotonic()
    with path.open("w") as cast, os.fdopen(ours, "rb", buffering=0) as screen:
        shell = subprocess.Popen(
            ["sh", "-c", script], stdin=theirs, stdout=theirs, stderr=theirs, env=environment, cwd=ROOT
        )
        os.close(theirs)
        cast.write(json.dumps(header) + "\n")
        while output := _read(screen):
            seconds = round(time.monotonic() - began, 6)
            cast.write(json.dumps([seconds, "o", output.decode(errors="replace")]) + "\n")
        shell.wait()
    return len(_COMMANDS)


def _read(screen: BinaryIO) -> bytes:
    try:
        return screen.read(4096)
    except OSError:  # EIO: the last program that had the terminal ended
        return b""


def draw_screen(path: Path) -> int:
    """Write raw frames (BGRA) with tiles that move: most of it repeats, one tile is noise, as a video would be.

    The same bytes each time.

    Returns:
        How many frames that were.
    """
    dice = random.Random(_SEED)  # noqa: S311 - the same picture each time is the point
    row_bytes, tile_bytes = WIDTH * _PIXEL_BYTES, _TILE_WIDTH * _PIXEL_BYTES
    background = bytearray()
    for y in range(HEIGHT):
        shade = 255 * y // HEIGHT
        background += bytes((shade, 96, 255 - shade, 255)) * WIDTH
    tiles = [dice.randbytes(tile_bytes * _TILE_HEIGHT) for _ in range(_TILES)]
    with path.open("wb") as stream:
        for number in range(FRAMES):
            frame = bytearray(background)
            tiles[0] = dice.randbytes(tile_bytes * _TILE_HEIGHT)
            for place, tile in enumerate(tiles):
                left = (place * 97 + number * (3 + 2 * place)) % (WIDTH - _TILE_WIDTH) * _PIXEL_BYTES
                top = (place * 61 + number * (2 + place)) % (HEIGHT - _TILE_HEIGHT)
                for y in range(_TILE_HEIGHT):
                    at = (top + y) * row_bytes + left
                    frame[at : at + tile_bytes] = tile[y * tile_bytes : (y + 1) * tile_bytes]
            stream.write(frame)
    return FRAMES
