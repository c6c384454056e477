"""Frames: how envelopes travel together. Each frame is a u32 big-endian length and as many bytes."""

import struct
from collections.abc import Iterable, Iterator
from typing import Final

from sessions.core.errors import FrameFormatError
from sessions.core.types import Buffer

_LENGTH: Final = struct.Struct(">I")
LENGTH_BYTES: Final = _LENGTH.size


def pieces(payloads: Iterable[Buffer]) -> list[Buffer]:
    """Payloads (each below 4 GiB) as frames, the bytes of which follow one another in these pieces."""
    parts: list[Buffer] = []
    for payload in payloads:
        parts += (_LENGTH.pack(memoryview(payload).nbytes), payload)
    return parts


def join(payloads: Iterable[Buffer]) -> bytes:
    """Payloads as frames, in one."""
    return b"".join(pieces(payloads))


def split(data: Buffer) -> Iterator[memoryview]:
    """The payloads of a sequence of frames, as views into `data`.

    Raises:
        FrameFormatError: the bytes end within a frame.
    """
    view = memoryview(data).cast("B").toreadonly()
    at = 0
    while at < len(view):
        if len(view) - at < LENGTH_BYTES:
            raise FrameFormatError(f"the length of the frame at byte {at} is cut off")
        (size,) = _LENGTH.unpack_from(view, at)
        at += LENGTH_BYTES
        if size > len(view) - at:
            raise FrameFormatError(f"the frame at byte {at} should have {size} bytes and has {len(view) - at}")
        yield view[at : at + size]
        at += size
