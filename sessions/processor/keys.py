"""Keys: KEKs from a file wrap one DEK a session; wrapped, they rest at session-storage; plain, only in memory here."""

import base64
import binascii
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Protocol

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from sessions.core.types import DEK_ID_BYTES, DekId, SessionId
from sessions.runtime.errors import DomainError
from sessions.runtime.settings import ConfigurationError, content_lines

_SETTING: Final = "KEK_FILE"
_KEK_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
_KEY_BYTES: Final = 32
_NONCE_BYTES: Final = 12
_WRAP_VERSION: Final = b"\x01"


@dataclass(frozen=True, slots=True)
class Dek:
    """A data-encryption key: 16 bytes of name, 32 of key. Its repr does not show the key."""

    dek_id: DekId
    key: bytes = field(repr=False)

    @classmethod
    def generate(cls) -> "Dek":
        """A new key."""
        return cls(DekId(os.urandom(DEK_ID_BYTES)), os.urandom(_KEY_BYTES))


@dataclass(frozen=True, slots=True)
class WrappedDek:
    """A DEK under a KEK: version 1 | nonce 12 | wrapped key 32 | tag 16."""

    dek_id: DekId
    kek_id: str
    wrapped: bytes = field(repr=False)


class KeyWrapper(Protocol):
    """Wraps and unwraps DEKs; a KMS or an HSM is one more class with these two methods."""

    def wrap(self, session_id: SessionId, dek: Dek) -> WrappedDek:
        """Wrap a key for a session."""

    def unwrap(self, session_id: SessionId, wrapped: WrappedDek) -> Dek:
        """Unwrap it; it opens for the session and the name that it was wrapped for, only."""


def _aad(session_id: SessionId, dek_id: DekId) -> bytes:
    # The DEK id has a fixed length, so the two cannot be shifted against each other.
    return _WRAP_VERSION + session_id.encode() + dek_id


class FileKeyWrapper:
    """KEKs from a file: the first is active, the others still unwrap."""

    def __init__(self, keks: Mapping[str, bytes]) -> None:
        self._keks = {kek_id: AESGCM(key) for kek_id, key in keks.items()}
        self.active_id = next(iter(keks))

    def wrap(self, session_id: SessionId, dek: Dek) -> WrappedDek:
        """Wrap a key under the active KEK."""
        nonce = os.urandom(_NONCE_BYTES)  # random: a KEK wraps far fewer than 2^32 keys
        sealed = self._keks[self.active_id].encrypt(nonce, dek.key, _aad(session_id, dek.dek_id))
        return WrappedDek(dek.dek_id, self.active_id, _WRAP_VERSION + nonce + sealed)

    def unwrap(self, session_id: SessionId, wrapped: WrappedDek) -> Dek:
        """Unwrap a key.

        Raises:
            DomainError: `key-unavailable`, when its KEK is not in the file, or does not fit.
        """
        kek = self._keks.get(wrapped.kek_id)
        if kek is None:
            raise DomainError(
                "key-unavailable",
                f"session {session_id} needs the KEK {wrapped.kek_id!r}, which is not in KEK_FILE: add its line again",
                session_id=session_id,
            )
        nonce, sealed = wrapped.wrapped[1 : 1 + _NONCE_BYTES], wrapped.wrapped[1 + _NONCE_BYTES :]
        try:
            if wrapped.wrapped[:1] != _WRAP_VERSION or len(wrapped.dek_id) != DEK_ID_BYTES:
                raise InvalidTag
            return Dek(wrapped.dek_id, kek.decrypt(nonce, sealed, _aad(session_id, wrapped.dek_id)))
        except (InvalidTag, ValueError):
            raise DomainError(
                "key-unavailable",
                f"the KEK {wrapped.kek_id!r} in KEK_FILE does not unwrap the key of session {session_id}: "
                "it is not the key that it was, or the key ring was changed",
                session_id=session_id,
            ) from None


def load_keks(path: Path) -> FileKeyWrapper:
    """Read a KEK file: one `ID:BASE64` a line, 32 bytes each.

    Raises:
        ConfigurationError: a line is not that, or an id is there twice. The message holds no key.
    """
    keks: dict[str, bytes] = {}
    for number, line in content_lines(_SETTING, path):
        kek_id, colon, encoded = line.partition(":")
        if not colon or not _KEK_ID.fullmatch(kek_id):
            raise ConfigurationError(_SETTING, f"{path} line {number} is not 'ID:BASE64'")
        try:
            key = base64.b64decode(encoded, validate=True)
        except (binascii.Error, ValueError):
            raise ConfigurationError(_SETTING, f"{path} line {number}: the key is not base64") from None
        if len(key) != _KEY_BYTES:
            raise ConfigurationError(_SETTING, f"{path} line {number}: a key has {_KEY_BYTES} bytes, not {len(key)}")
        if kek_id in keks:
            raise ConfigurationError(_SETTING, f"{path} line {number}: the id {kek_id} is there twice")
        keks[kek_id] = key
    return FileKeyWrapper(keks)
