"""The spool's files: how entries lie in a segment. Bytes only.

    magic "LSP1" | kind u8 | sender length u8 | 2 zero bytes | content length u32 | SHA-256 of the content 32
    | CRC-32 of all before u32 | content: sender | payload

Big-endian. The sender is the name of the token that sent the entry, in UTF-8. Entries of version 0.1.0 have none: its
length is 0. The header has a checksum of its own, so that its length can be trusted where the content cannot: what is
damaged costs itself, and not what comes after it.

An erased entry keeps its header, with eight bytes of the SHA-256 changed by XOR. They lie within one sector of the
disk, so a crash leaves the header as it was or changed, never half changed. Its payload is zeros, or will be.
"""

import hashlib
import struct
import sys
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from enum import IntEnum
from typing import Final

from sessions.core.types import Buffer

MAGIC: Final = b"LSP1"
_HEAD: Final = struct.Struct(">4sBB2sI32s")
_CRC: Final = struct.Struct(">I")
HEADER_BYTES: Final = _HEAD.size + _CRC.size
MAX_SENDER_BYTES: Final = 255
"""Limit on the bytes of a sender's name in an entry; a longer one is cut off."""
_SECTOR_BYTES: Final = 512
_MARK: Final = bytes.fromhex("a5c31e7f96d2084b")
_MARK_OFFSETS: Final = (12, 20)
"""Where the mark of an erased entry may lie in its header; one of the two is always within a sector."""


class Kind(IntEnum):
    """What an entry holds."""

    OPENING = 1
    ENVELOPE = 2
    SEAL = 3


@dataclass(frozen=True, slots=True)
class Header:
    """An entry's header. `content_bytes` follow it, the first `sender_bytes` of which are the sender's name."""

    kind: Kind
    sender_bytes: int
    content_bytes: int
    sha256: bytes

    @property
    def entry_bytes(self) -> int:
        """Header and content."""
        return HEADER_BYTES + self.content_bytes

    def fits(self, content: Buffer) -> bool:
        """Return whether this is the content that was written."""
        return memoryview(content).nbytes == self.content_bytes and hashlib.sha256(content).digest() == self.sha256

    def sender(self, content: bytes) -> str | None:
        """Return the sender's name, by the beginning of the content; None when the entry has none."""
        name = content[: self.sender_bytes].decode(errors="replace")
        return sys.intern(name) if name else None  # one string for all entries of a token


def header(kind: Kind, payload: Buffer, by: str | None = None) -> bytes:
    """Return what an entry has before its payload: its header, and its sender's name."""
    sender = (by or "").encode()[:MAX_SENDER_BYTES]
    content = hashlib.sha256(sender)
    content.update(payload)
    size = len(sender) + memoryview(payload).nbytes
    head = _HEAD.pack(MAGIC, kind, len(sender), bytes(2), size, content.digest())
    return head + _CRC.pack(zlib.crc32(head)) + sender


def entry_bytes(payload: Buffer, by: str | None) -> int:
    """Return the size of an entry."""
    return HEADER_BYTES + len((by or "").encode()[:MAX_SENDER_BYTES]) + memoryview(payload).nbytes


def payload_of(entry: bytes) -> tuple[Kind, bytes] | None:
    """Return the kind and the payload of a whole entry; None when its bytes are not those that were written."""
    read = read_header(entry)
    if read is None or not read.fits(memoryview(entry)[HEADER_BYTES:]):
        return None
    return read.kind, entry[HEADER_BYTES + read.sender_bytes :]


def read_header(data: Buffer, offset: int = 0) -> Header | None:
    """The header at this place; None when there is none that is whole and sound."""
    view = memoryview(data)[offset : offset + HEADER_BYTES]
    if len(view) < HEADER_BYTES:
        return None
    magic, kind, sender_bytes, zero, content_bytes, sha256 = _HEAD.unpack_from(view)
    if magic != MAGIC or any(zero) or kind not in Kind.__members__.values() or sender_bytes > content_bytes:
        return None
    if zlib.crc32(view[: _HEAD.size]) != _CRC.unpack_from(view, _HEAD.size)[0]:
        return None
    return Header(Kind(kind), sender_bytes, content_bytes, sha256)


def read_erased(data: Buffer, offset: int = 0) -> Header | None:
    """Return the header of an erased entry as it was before; None when there is no erased entry at this place."""
    view = bytes(memoryview(data)[offset : offset + HEADER_BYTES])
    if not view.startswith(MAGIC):
        return None
    for at in _MARK_OFFSETS:
        if (found := read_header(view[:at] + _marked(view, at) + view[at + len(_MARK) :])) is not None:
            return found
    return None


def erased_mark(data: Buffer, offset: int) -> tuple[int, bytes]:
    """Return the bytes that mark an entry as erased, and where in its header they belong.

    `data` is the header, `offset` its place in the segment.
    """
    for at in _MARK_OFFSETS:
        start = offset + at
        if start // _SECTOR_BYTES == (start + len(_MARK) - 1) // _SECTOR_BYTES:
            break
    return at, _marked(bytes(data), at)


def _marked(head: bytes, at: int) -> bytes:
    return bytes(one ^ other for one, other in zip(head[at : at + len(_MARK)], _MARK, strict=False))


@dataclass(frozen=True, slots=True)
class Found:
    """An entry in a segment. Its content was not looked at."""

    offset: int
    header: Header


@dataclass(frozen=True, slots=True)
class Erased:
    """An erased entry in a segment. A crash may have left some of its payload."""

    offset: int
    header: Header


@dataclass(frozen=True, slots=True)
class Damage:
    """Bytes [start, end) that are no entry. `torn`: the beginning of one at the segment's end, as a crash leaves it."""

    start: int
    end: int
    torn: bool


def scan(data: Buffer) -> Iterator[Found | Erased | Damage]:
    """What a segment holds, in order and without a gap."""
    view = memoryview(data)
    size, at = len(view), 0
    while at < size:
        erased = None
        read = read_header(view, at) or (erased := read_erased(view, at))
        if read is None:
            following = _next_header(view, at + 1)
            yield Damage(at, size if following is None else following, torn=size - at < HEADER_BYTES)
            at = size if following is None else following
        elif at + read.entry_bytes > size:
            yield Damage(at, size, torn=True)
            at = size
        else:
            yield Found(at, read) if erased is None else Erased(at, read)
            at += read.entry_bytes


def _next_header(view: memoryview, start: int) -> int | None:
    """Where the next sound header begins: what comes after a damaged one is found again."""
    step, overlap = 1024 * 1024, len(MAGIC) - 1
    while start < len(view):
        at = bytes(view[start : start + step + overlap]).find(MAGIC)
        if at < 0:
            start += step
        elif (read_header(view, start + at) or read_erased(view, start + at)) is not None:
            return start + at
        else:
            start += at + 1
    return None
