"""The recovery recipient: a key pair whose private half is offline, to which each DEK is sealed as well.

HPKE (RFC 9180) in base mode with the hybrid KEM ML-KEM-768 + X25519 (X-Wing), HKDF-SHA256 and AES-256-GCM: whoever
breaks one of the two, by a quantum computer or otherwise, still has the other before him.

A key file holds one line, `KIND:BASE64`:
lucid-recovery-public-v1   ML-KEM-768 encapsulation key 1184 | X25519 public key 32
lucid-recovery-private-v1  ML-KEM-768 seed 64                | X25519 private key 32

`python -m sessions.processor.recovery` prints a new pair, the private line first.
"""

import base64
import hashlib
import sys
from dataclasses import replace
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM768PrivateKey, MLKEM768PublicKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.hpke import (
    AEAD,
    KDF,
    KEM,
    MLKEM768X25519PrivateKey,
    MLKEM768X25519PublicKey,
    Suite,
)

from sessions.core.errors import KeyRingFormatError
from sessions.core.key_ring import (
    RECIPIENT_BYTES,
    SealedDek,
    WrappedDek,
    parse_sealed,
    recovery_info,
    sealed_to_bytes,
)
from sessions.core.types import SessionId
from sessions.processor.keys import Dek, KeyWrapper
from sessions.runtime.errors import DomainError

SUITE: Final = Suite(KEM.MLKEM768_X25519, KDF.HKDF_SHA256, AEAD.AES_256_GCM)
PUBLIC_KIND: Final = "lucid-recovery-public-v1"
PRIVATE_KIND: Final = "lucid-recovery-private-v1"
_MLKEM_PUBLIC_BYTES: Final = 1184
_MLKEM_SEED_BYTES: Final = 64
_X25519_BYTES: Final = 32


class RecoveryKeyError(ValueError):
    """A line that holds no such key. The message holds none of it."""


def generate() -> tuple[str, str]:
    """A new key pair, as the lines of its private and its public file."""
    mlkem, x25519 = MLKEM768PrivateKey.generate(), X25519PrivateKey.generate()
    private = mlkem.private_bytes_raw() + x25519.private_bytes_raw()
    public = mlkem.public_key().public_bytes_raw() + x25519.public_key().public_bytes_raw()
    return _line(PRIVATE_KIND, private), _line(PUBLIC_KIND, public)


def public_key(line: str) -> MLKEM768X25519PublicKey:
    """The recipient of a public line.

    Raises:
        RecoveryKeyError: it is none.
    """
    data = _data(PUBLIC_KIND, line, _MLKEM_PUBLIC_BYTES)
    try:
        return MLKEM768X25519PublicKey(
            MLKEM768PublicKey.from_public_bytes(data[:_MLKEM_PUBLIC_BYTES]),
            X25519PublicKey.from_public_bytes(data[_MLKEM_PUBLIC_BYTES:]),
        )
    except ValueError:
        raise RecoveryKeyError(f"this is not the key of a {PUBLIC_KIND}") from None


def private_key(line: str) -> MLKEM768X25519PrivateKey:
    """The recipient's private half, of a private line.

    Raises:
        RecoveryKeyError: it is none.
    """
    data = _data(PRIVATE_KIND, line, _MLKEM_SEED_BYTES)
    return MLKEM768X25519PrivateKey(
        MLKEM768PrivateKey.from_seed_bytes(data[:_MLKEM_SEED_BYTES]),
        X25519PrivateKey.from_private_bytes(data[_MLKEM_SEED_BYTES:]),
    )


class Recipient:
    """The public half, as the processor has it: seals DEKs, and cannot open them."""

    def __init__(self, line: str) -> None:
        """Take the line of a public file. Raises `RecoveryKeyError`."""
        self._key = public_key(line)
        self.recipient_id = _recipient_id(_data(PUBLIC_KIND, line, _MLKEM_PUBLIC_BYTES))

    def seal(self, session_id: SessionId, dek: Dek) -> SealedDek:
        """Seal a key of a session."""
        hpke = SUITE.encrypt(dek.key, self._key, info=recovery_info(session_id, dek.dek_id))
        return SealedDek(self.recipient_id, sealed_to_bytes(hpke))


class RecoverableWrapper:
    """A `KeyWrapper` that also seals each DEK to the recovery recipient."""

    def __init__(self, wrapper: KeyWrapper, recipient: Recipient) -> None:
        self._wrapper = wrapper
        self._recipient = recipient

    def wrap(self, session_id: SessionId, dek: Dek) -> WrappedDek:
        """See `KeyWrapper`."""
        return replace(self._wrapper.wrap(session_id, dek), recovery=self._recipient.seal(session_id, dek))

    def unwrap(self, session_id: SessionId, wrapped: WrappedDek) -> Dek:
        """See `KeyWrapper`."""
        return self._wrapper.unwrap(session_id, wrapped)


class RecoveryKey:
    """The private half, as whoever recovers has it."""

    def __init__(self, line: str) -> None:
        """Take the line of a private file. Raises `RecoveryKeyError`."""
        self._key = private_key(line)
        data = _data(PRIVATE_KIND, line, _MLKEM_SEED_BYTES)
        mlkem = MLKEM768PrivateKey.from_seed_bytes(data[:_MLKEM_SEED_BYTES]).public_key()
        x25519 = X25519PrivateKey.from_private_bytes(data[_MLKEM_SEED_BYTES:]).public_key()
        self.recipient_id = _recipient_id(mlkem.public_bytes_raw() + x25519.public_bytes_raw())

    def open(self, session_id: SessionId, wrapped: WrappedDek) -> Dek:
        """Open a key of a session.

        Raises:
            DomainError: `key-unavailable`: it was not sealed, or to another recipient, or what was sealed is corrupt.
        """
        recovery = wrapped.recovery
        if recovery is None:
            detail = "was not sealed to any recovery recipient"
            raise _unavailable(session_id, wrapped, "not-sealed", detail)
        try:
            key = SUITE.decrypt(
                parse_sealed(recovery.sealed), self._key, info=recovery_info(session_id, wrapped.dek_id)
            )
            return Dek(wrapped.dek_id, key)
        except (KeyRingFormatError, InvalidTag, ValueError):
            if recovery.recipient != self.recipient_id:
                detail = f"is sealed to the recipient {recovery.recipient}, and this is the key of {self.recipient_id}"
                raise _unavailable(session_id, wrapped, "recipient-differs", detail) from None
            detail = "does not open: what was sealed is corrupt, or of another session"
            raise _unavailable(session_id, wrapped, "ring-corrupt", detail) from None


def _unavailable(session_id: SessionId, wrapped: WrappedDek, reason: str, detail: str) -> DomainError:
    text = f"the key {wrapped.dek_id.hex()} of session {session_id} {detail}"
    return DomainError("key-unavailable", text, session_id=session_id, reason=reason)


def _recipient_id(public: bytes) -> str:
    return hashlib.sha256(public).digest()[:RECIPIENT_BYTES].hex()


def _line(kind: str, data: bytes) -> str:
    return f"{kind}:{base64.b64encode(data).decode()}"


def _data(kind: str, line: str, mlkem_bytes: int) -> bytes:
    found, _, encoded = line.strip().partition(":")
    if found != kind:
        raise RecoveryKeyError(f"this should be one line '{kind}:BASE64'")
    try:
        data = base64.b64decode(encoded, validate=True)
    except ValueError:  # binascii.Error, and text that is not ASCII
        raise RecoveryKeyError(f"what follows {kind}: is not base64") from None
    if len(data) != mlkem_bytes + _X25519_BYTES:
        raise RecoveryKeyError(f"a {kind} has {mlkem_bytes + _X25519_BYTES} bytes, not {len(data)}")
    return data


def main() -> int:
    """Print a new pair."""
    print("\n".join(generate()))  # noqa: T201 - its purpose
    return 0


if __name__ == "__main__":
    sys.exit(main())
