"""Sealing and opening chunks: zstd, then AES-256-GCM with the envelope's header as AAD. Runs in threads."""

import os
import threading
from dataclasses import dataclass, field
from typing import Final

import zstandard
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from sessions.core import envelope
from sessions.core.envelope import NONCE_BYTES, Codec, Fingerprint, Header
from sessions.core.errors import EnvelopeFormatError
from sessions.core.types import Buffer, ChunkIndex, SessionId
from sessions.processor.keys import Dek
from sessions.runtime.errors import DomainError

SEAL_INLINE_BYTES: Final = 64 * 1024
"""Up to here sealing takes less time than handing it to a thread; it blocks the event loop for well under 1 ms."""


@dataclass(frozen=True, slots=True)
class SealedChunk:
    """An envelope, and what ties it into its session's tree."""

    envelope: bytes = field(repr=False)
    plaintext_bytes: int
    fingerprint: Fingerprint


class _Compressors(threading.local):
    """A compressor for each thread. To make one for each chunk of 64 KiB takes a fifth of the compression's time."""

    def __init__(self) -> None:
        self._kept: tuple[int, zstandard.ZstdCompressor] | None = None

    def at(self, level: int) -> zstandard.ZstdCompressor:
        if self._kept is None or self._kept[0] != level:
            self._kept = (level, zstandard.ZstdCompressor(level=level))
        return self._kept[1]


_compressors: Final = _Compressors()


def seal(dek: Dek, session_id: SessionId, index: ChunkIndex, plaintext: Buffer, zstd_level: int) -> SealedChunk:
    """Compress (when that makes it smaller) and seal a chunk."""
    size = len(plaintext)
    packed: Buffer = _compressors.at(zstd_level).compress(plaintext)
    codec = Codec.ZSTD
    if len(packed) >= size:
        packed, codec = plaintext, Codec.STORED
    header = Header(
        codec=codec,
        dek_id=dek.dek_id,
        # Random, not counted: safe for 2^32 chunks under one key, and after a crash, which a counter is not.
        nonce=os.urandom(NONCE_BYTES),
        index=index,
        plaintext_bytes=size,
        session_id=session_id,
    )
    aad = header.to_bytes()
    data = aad + AESGCM(dek.key).encrypt(header.nonce, packed, aad)
    return SealedChunk(data, size, envelope.fingerprint(session_id, index, data))


def open_envelope(dek: Dek, session_id: SessionId, index: int, data: Buffer) -> bytes:
    """The plaintext of an envelope that should be this chunk of this session.

    Raises:
        DomainError: `envelope-corrupt`, for whatever is wrong with it.
    """
    try:
        parsed = envelope.parse(data)
        header = parsed.header
        if (header.session_id, header.index, header.dek_id) != (session_id, index, dek.dek_id):
            raise EnvelopeFormatError("it is another chunk's envelope")
        packed = AESGCM(dek.key).decrypt(header.nonce, parsed.sealed, parsed.aad)
        if header.codec is Codec.STORED:
            return packed
        if zstandard.frame_content_size(packed) != header.plaintext_bytes:
            raise EnvelopeFormatError("its compressed data declares another length")
        return zstandard.ZstdDecompressor().decompress(packed, max_output_size=header.plaintext_bytes)
    except (EnvelopeFormatError, InvalidTag, zstandard.ZstdError) as error:
        reason = str(error) or "its tag does not fit"
        raise DomainError(
            "envelope-corrupt",
            f"chunk {index} of session {session_id} does not open: {reason}",
            session_id=session_id,
            index=index,
        ) from None
