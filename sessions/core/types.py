"""The identifiers and bounds that every part shares."""

import re
from typing import Final, NewType, TypeAlias

from sessions.core.errors import IndexOutOfRangeError, InvalidSessionIdError

Buffer: TypeAlias = bytes | bytearray | memoryview
"""Bytes in memory, whoever owns them."""

SessionId = NewType("SessionId", str)
"""1 to 128 characters of `A-Z a-z 0-9 . _ -`, the first a letter or digit: safe in a path, a log and a shell."""

ChunkIndex = NewType("ChunkIndex", int)
"""Position of a chunk in its session, from 0."""

Hash = NewType("Hash", bytes)
"""A SHA-256 digest, 32 bytes."""

DekId = NewType("DekId", bytes)
"""The random name of a data-encryption key, 16 bytes."""

HASH_BYTES: Final = 32
DEK_ID_BYTES: Final = 16

SESSION_ID_PATTERN: Final = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$"
_SESSION_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")

MAX_CHUNK_INDEX: Final = 2**53 - 2
"""So that a count of chunks, too, is an integer which every JSON reader holds exactly (RFC 8785 section 3.2.2.3)."""

CHUNK_MAX_BYTES_LIMIT: Final = 64 * 1024 * 1024
"""The most that a deployment may allow for one chunk, in bytes."""


def session_id(text: str) -> SessionId:
    """Check a session id.

    Raises:
        InvalidSessionIdError: `text` does not match `SESSION_ID_PATTERN`.
    """
    if not _SESSION_ID.fullmatch(text):
        raise InvalidSessionIdError(text)
    return SessionId(text)


def chunk_index(value: int) -> ChunkIndex:
    """Check a chunk index.

    Raises:
        IndexOutOfRangeError: `value` is not within 0 .. `MAX_CHUNK_INDEX`.
    """
    if not 0 <= value <= MAX_CHUNK_INDEX:
        raise IndexOutOfRangeError(value, MAX_CHUNK_INDEX)
    return ChunkIndex(value)
