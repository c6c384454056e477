"""Envelope v1: how one sealed chunk is laid out. Bytes only; the sealing itself is the processor's.

    magic "LSE1" | codec u8 | 3 zero bytes | DEK id 16 | nonce 12 | index u64 | plaintext length u64
    | session id length u16 | session id | ciphertext | tag 16

The header (all before the ciphertext) is the AAD of AES-256-GCM, so nothing in it can be changed, and an envelope
cannot be moved to another index or session.
"""

import hashlib
import struct
from dataclasses import dataclass
from enum import IntEnum
from typing import Final

from sessions.core.errors import CoreError, EnvelopeFormatError
from sessions.core.merkle import leaf_hash
from sessions.core.types import Buffer, ChunkIndex, DekId, Hash, SessionId, chunk_index, session_id

MAGIC: Final = b"LSE1"
NONCE_BYTES: Final = 12
TAG_BYTES: Final = 16
_FIXED: Final = struct.Struct(">4sB3s16s12sQQH")

MAX_HEADER_BYTES: Final = _FIXED.size + 128
MIN_ENVELOPE_BYTES: Final = _FIXED.size + 1 + TAG_BYTES

CHUNK_LEAF_PREFIX: Final = b"lucid/chunk/v1\0"
MISSING_LEAF_PREFIX: Final = b"lucid/missing/v1\0"


class Codec(IntEnum):
    """How the plaintext was coded before it was sealed."""

    STORED = 0
    ZSTD = 1


@dataclass(frozen=True, slots=True)
class Header:
    """All that an envelope says in clear."""

    codec: Codec
    dek_id: DekId
    nonce: bytes
    index: ChunkIndex
    plaintext_bytes: int
    session_id: SessionId

    def to_bytes(self) -> bytes:
        """The header's bytes, which are also the AAD."""
        name = self.session_id.encode()
        return (
            _FIXED.pack(
                MAGIC,
                self.codec,
                bytes(3),
                self.dek_id,
                self.nonce,
                self.index,
                self.plaintext_bytes,
                len(name),
            )
            + name
        )


@dataclass(frozen=True, slots=True)
class Envelope:
    """A parsed envelope. `aad` and `sealed` (ciphertext and tag) are views into the bytes that were parsed."""

    header: Header
    aad: memoryview
    sealed: memoryview


def parse(data: Buffer) -> Envelope:
    """Take an envelope apart, strictly: there is exactly one way to write each header.

    Raises:
        EnvelopeFormatError: anything but an envelope v1.
    """
    view = memoryview(data).cast("B").toreadonly()
    header = read_header(view)
    header_bytes = _FIXED.size + len(header.session_id)
    if len(view) < header_bytes + TAG_BYTES:
        raise EnvelopeFormatError("the envelope ends within its header or tag")
    if header.codec is Codec.STORED and len(view) != header_bytes + header.plaintext_bytes + TAG_BYTES:
        raise EnvelopeFormatError("the length does not fit the plaintext length of a chunk stored as is")
    return Envelope(header=header, aad=view[:header_bytes], sealed=view[header_bytes:])


def read_header(data: Buffer) -> Header:
    """The header at the beginning of an envelope, of which the rest need not be there.

    Raises:
        EnvelopeFormatError: anything but a header of an envelope v1.
    """
    view = memoryview(data).cast("B").toreadonly()
    if len(view) < MIN_ENVELOPE_BYTES:
        raise EnvelopeFormatError(f"an envelope has at least {MIN_ENVELOPE_BYTES} bytes, this has {len(view)}")
    magic, codec, zero, dek_id, nonce, index, plaintext_bytes, name_bytes = _FIXED.unpack_from(view)
    if magic != MAGIC:
        raise EnvelopeFormatError("this is not an envelope v1 (magic)")
    if codec not in Codec.__members__.values():
        raise EnvelopeFormatError(f"codec {codec} is not known")
    if any(zero):
        raise EnvelopeFormatError("the reserved bytes are not zero")
    header_bytes = _FIXED.size + name_bytes
    if len(view) < header_bytes:
        raise EnvelopeFormatError("the envelope ends within its header or tag")
    try:
        return Header(
            codec=Codec(codec),
            dek_id=DekId(dek_id),
            nonce=nonce,
            index=chunk_index(index),
            plaintext_bytes=plaintext_bytes,
            session_id=session_id(bytes(view[_FIXED.size : header_bytes]).decode("ascii")),
        )
    except UnicodeDecodeError as error:
        raise EnvelopeFormatError("the session id is not text") from error
    except CoreError as error:
        raise EnvelopeFormatError(str(error)) from error


def _name_and_index(session: SessionId, index: int) -> bytes:
    name = session.encode()
    return struct.pack(">H", len(name)) + name + struct.pack(">Q", index)


def chunk_leaf_input(session: SessionId, index: int, envelope_bytes: int, envelope_sha256: bytes) -> bytes:
    """What the Merkle leaf of a chunk is the hash of: over ciphertext, so that a verifier needs no key."""
    return CHUNK_LEAF_PREFIX + _name_and_index(session, index) + struct.pack(">Q", envelope_bytes) + envelope_sha256


def missing_leaf_input(session: SessionId, index: int) -> bytes:
    """What stands in the tree for a chunk that a session closed with gaps does not have."""
    return MISSING_LEAF_PREFIX + _name_and_index(session, index)


@dataclass(frozen=True, slots=True)
class Fingerprint:
    """What ties an envelope into its session's tree."""

    envelope_bytes: int
    envelope_sha256: Hash
    leaf_hash: Hash


def fingerprint(session: SessionId, index: int, data: Buffer) -> Fingerprint:
    """Hash an envelope's bytes and its leaf."""
    size = memoryview(data).nbytes
    digest = hashlib.sha256(data).digest()
    return Fingerprint(size, Hash(digest), leaf_hash(chunk_leaf_input(session, index, size, digest)))
