"""The spool's files: how entries lie in a segment. Bytes only.

    magic "LSP1" | kind u8 | 3 zero bytes | payload length u32 | SHA-256 of the payload 32 | CRC-32 of all before u32
    | payload

Big-endian. The header has a checksum of its own, so that its length can be trusted where the payload cannot: what is
damaged costs itself, and not what comes after it.
"""

import hashlib
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from enum import IntEnum
from typing import Final

from sessions.core.types import Buffer

MAGIC: Final = b"LSP1"
_HEAD: Final = struct.Struct(">4sB3sI32s")
_CRC: Final = struct.Struct(">I")
HEADER_BYTES: Final = _HEAD.size + _CRC.size


class Kind(IntEnum):
    """What an entry holds."""

    OPENING = 1
    ENVELOPE = 2
    SEAL = 3


@dataclass(frozen=True, slots=True)
class Header:
    """An entry's header. `payload_bytes` follow it."""

    kind: Kind
    payload_bytes: int
    sha256: bytes

    @property
    def entry_bytes(self) -> int:
        """Header and payload."""
        return HEADER_BYTES + self.payload_bytes

    def fits(self, payload: Buffer) -> bool:
        """Whether this is the payload that was written."""
        return memoryview(payload).nbytes == self.payload_bytes and hashlib.sha256(payload).digest() == self.sha256


def header(kind: Kind, payload: Buffer) -> bytes:
    """The header of an entry."""
    head = _HEAD.pack(MAGIC, kind, bytes(3), memoryview(payload).nbytes, hashlib.sha256(payload).digest())
    return head + _CRC.pack(zlib.crc32(head))


def read_header(data: Buffer, offset: int = 0) -> Header | None:
    """The header at this place; None when there is none that is whole and sound."""
    view = memoryview(data)[offset : offset + HEADER_BYTES]
    if len(view) < HEADER_BYTES:
        return None
    magic, kind, zero, payload_bytes, sha256 = _HEAD.unpack_from(view)
    if magic != MAGIC or any(zero) or kind not in Kind.__members__.values():
        return None
    if zlib.crc32(view[: _HEAD.size]) != _CRC.unpack_from(view, _HEAD.size)[0]:
        return None
    return Header(Kind(kind), payload_bytes, sha256)


@dataclass(frozen=True, slots=True)
class Found:
    """An entry in a segment. Its payload was not looked at."""

    offset: int
    header: Header


@dataclass(frozen=True, slots=True)
class Damage:
    """Bytes [start, end) that are no entry. `torn`: the beginning of one at the segment's end, as a crash leaves it."""

    start: int
    end: int
    torn: bool


def scan(data: Buffer) -> Iterator[Found | Damage]:
    """What a segment holds, in order and without a gap."""
    view = memoryview(data)
    size, at = len(view), 0
    while at < size:
        read = read_header(view, at)
        if read is None:
            following = _next_header(view, at + 1)
            yield Damage(at, size if following is None else following, torn=size - at < HEADER_BYTES)
            at = size if following is None else following
        elif at + read.entry_bytes > size:
            yield Damage(at, size, torn=True)
            at = size
        else:
            yield Found(at, read)
            at += read.entry_bytes


def _next_header(view: memoryview, start: int) -> int | None:
    """Where the next sound header begins: what comes after a damaged one is found again."""
    step, overlap = 1024 * 1024, len(MAGIC) - 1
    while start < len(view):
        at = bytes(view[start : start + step + overlap]).find(MAGIC)
        if at < 0:
            start += step
        elif read_header(view, start + at) is not None:
            return start + at
        else:
            start += at + 1
    return None
