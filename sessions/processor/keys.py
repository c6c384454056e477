"""Keys: KEKs wrap one DEK a session; wrapped, they rest at session-storage; plain, only in memory here.

This module and `recovery.py` load nothing of the service, so that a recovery needs a few libraries only.
"""

import hmac
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, Protocol

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from sessions.core.errors import KeyRingFormatError
from sessions.core.key_ring import CHECK_BYTES, KEY_BYTES, NONCE_BYTES, WrappedDek, Wrapping, parse_wrapping
from sessions.core.types import DEK_ID_BYTES, DekId, SessionId
from sessions.runtime.errors import DomainError

_CHECK_LABEL: Final = b"lucid/kek-check/v1"


@dataclass(frozen=True, slots=True)
class Dek:
    """A data-encryption key: 16 bytes of name, 32 of key. Its repr does not show the key."""

    dek_id: DekId
    key: bytes = field(repr=False)

    @classmethod
    def generate(cls) -> "Dek":
        """A new key."""
        return cls(DekId(os.urandom(DEK_ID_BYTES)), os.urandom(KEY_BYTES))


class KeyWrapper(Protocol):
    """Wraps and unwraps DEKs; a KMS or an HSM is one more class with these two methods."""

    def wrap(self, session_id: SessionId, dek: Dek) -> WrappedDek:
        """Wrap a key for a session."""

    def unwrap(self, session_id: SessionId, wrapped: WrappedDek) -> Dek:
        """Unwrap it; it opens for the session and the name that it was wrapped for, only."""


def check_value(kek: bytes) -> bytes:
    """What tells a KEK from another one of the same id. It says nothing about the key: it is 8 bytes of an HMAC."""
    return hmac.digest(kek, _CHECK_LABEL, "sha256")[:CHECK_BYTES]


@dataclass(frozen=True, slots=True)
class _Kek:
    cipher: AESGCM = field(repr=False)
    check: bytes = field(repr=False)


class FileKeyWrapper:
    """KEKs from a file: the first is active, the others still unwrap."""

    def __init__(self, keks: Mapping[str, bytes]) -> None:
        self._keks = {kek_id: _Kek(AESGCM(key), check_value(key)) for kek_id, key in keks.items()}
        self.active_id = next(iter(keks))

    @property
    def kek_ids(self) -> Sequence[str]:
        """The ids in the file, the active one first."""
        return tuple(self._keks)

    def wrap(self, session_id: SessionId, dek: Dek) -> WrappedDek:
        """Wrap a key under the active KEK."""
        kek = self._keks[self.active_id]
        nonce = os.urandom(NONCE_BYTES)  # random: a KEK wraps far fewer than 2^32 keys
        aad = Wrapping(kek.check, nonce, b"").aad(session_id, dek.dek_id)
        wrapping = Wrapping(kek.check, nonce, kek.cipher.encrypt(nonce, dek.key, aad))
        return WrappedDek(dek.dek_id, self.active_id, wrapping.to_bytes())

    def unwrap(self, session_id: SessionId, wrapped: WrappedDek) -> Dek:
        """Unwrap a key.

        Raises:
            DomainError: `key-unavailable`, with `reason`: `kek-missing` (its KEK is not in the file), `kek-differs`
                (another key has its id there), `ring-corrupt`, or `kek-or-ring` when an old ring cannot tell.
        """
        kek = self._keks.get(wrapped.kek_id)
        if kek is None:
            detail = f"needs the KEK {wrapped.kek_id!r}, which is not in KEK_FILE: add its line again"
            raise _unavailable(session_id, wrapped, "kek-missing", detail)
        try:
            wrapping = parse_wrapping(wrapped.wrapped)
            if len(wrapped.dek_id) != DEK_ID_BYTES:
                raise KeyRingFormatError("a DEK id of another length")
        except KeyRingFormatError as error:
            detail = f"has a corrupt key ring: it holds {error}"
            raise _unavailable(session_id, wrapped, "ring-corrupt", detail) from None
        try:
            key = kek.cipher.decrypt(wrapping.nonce, wrapping.sealed, wrapping.aad(session_id, wrapped.dek_id))
        except InvalidTag:
            raise _failed(session_id, wrapped, wrapping.check, kek.check) from None
        return Dek(wrapped.dek_id, key)


def _failed(session_id: SessionId, wrapped: WrappedDek, check: bytes | None, of_file: bytes) -> DomainError:
    if check is None:
        detail = (
            f"has a key that the KEK {wrapped.kek_id!r} in KEK_FILE does not unwrap: it is another key than the one"
            " that wrapped it, or the key ring is corrupt (it is too old to tell which)"
        )
        return _unavailable(session_id, wrapped, "kek-or-ring", detail)
    if hmac.compare_digest(check, of_file):
        detail = f"has a corrupt key ring: the KEK {wrapped.kek_id!r} in KEK_FILE is the right one and does not unwrap"
        return _unavailable(session_id, wrapped, "ring-corrupt", detail)
    detail = (
        f"needs another key: the KEK named {wrapped.kek_id!r} in KEK_FILE is another key than the one that wrapped"
        " this; put the right key under this name"
    )
    return _unavailable(session_id, wrapped, "kek-differs", detail)


def _unavailable(session_id: SessionId, wrapped: WrappedDek, reason: str, detail: str) -> DomainError:
    return DomainError(
        "key-unavailable",
        f"session {session_id} {detail}",
        session_id=session_id,
        kek_id=wrapped.kek_id,
        reason=reason,
    )
