"""Key rings: how the wrapped DEKs of a session are laid out. Bytes only; wrapping and sealing are the processor's.

wrapped DEK   version u8 | (version 2: check value 8) | nonce 12 | wrapped key 32 | tag 16
sealed DEK    version u8 | HPKE encapsulation 1120 | sealed key 32 | tag 16, for the recovery recipient
"""

import re
from base64 import b64encode
from dataclasses import dataclass, field
from typing import Any, Final

from sessions.core import strict
from sessions.core.errors import CoreError, KeyRingFormatError
from sessions.core.types import DEK_ID_BYTES, DekId, SessionId, session_id

FILE_VERSION: Final = 1
KEY_BYTES: Final = 32
CHECK_BYTES: Final = 8
NONCE_BYTES: Final = 12
TAG_BYTES: Final = 16
RECIPIENT_BYTES: Final = 8
KEM_BYTES: Final = 1120
MAX_KEYS: Final = 64
MAX_WRAPPED_BYTES: Final = 4095
"""Of a wrapped or a sealed DEK, whatever wraps it: a KMS or an HSM has a layout of its own."""
KEK_ID_PATTERN: Final = r"^[A-Za-z0-9._-]{1,64}$"

_WRAPPED_V1: Final = b"\x01"
_WRAPPED_V2: Final = b"\x02"
_SEALED_V1: Final = b"\x01"
_RECOVERY_PREFIX: Final = b"lucid/recovery/v1\0"
_SEALED_BYTES: Final = KEM_BYTES + KEY_BYTES + TAG_BYTES
_KEK_ID = re.compile(KEK_ID_PATTERN[1:-1])


@dataclass(frozen=True, slots=True)
class SealedDek:
    """A DEK sealed to a recovery recipient, which is named by 16 hex digits: the start of its public key's SHA-256."""

    recipient: str
    sealed: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class WrappedDek:
    """A DEK under a KEK, and sealed to the recovery recipient if there was one."""

    dek_id: DekId
    kek_id: str
    wrapped: bytes = field(repr=False)
    recovery: SealedDek | None = None


@dataclass(frozen=True, slots=True)
class KeyRing:
    """The wrapped DEKs of a session: the first seals, each opens what it sealed."""

    session_id: SessionId
    keys: tuple[WrappedDek, ...]


@dataclass(frozen=True, slots=True)
class Wrapping:
    """What our own wrapping writes. `check` tells KEKs of one id apart; rings of before it have None."""

    check: bytes | None
    nonce: bytes
    sealed: bytes = field(repr=False)

    def to_bytes(self) -> bytes:
        """The wrapped DEK's bytes."""
        head = _WRAPPED_V1 if self.check is None else _WRAPPED_V2 + self.check
        return head + self.nonce + self.sealed

    def aad(self, session: SessionId, dek_id: DekId) -> bytes:
        """What the wrapping is bound to."""
        # The DEK id has a fixed length, so the two cannot be shifted against each other. The check value is not bound:
        # it explains a failure and decides nothing, so a bit that flips in it costs no key.
        return (_WRAPPED_V1 if self.check is None else _WRAPPED_V2) + session.encode() + dek_id


def parse_wrapping(data: bytes) -> Wrapping:
    """Take a wrapped DEK apart.

    Raises:
        KeyRingFormatError: it is of no known version, or its length does not fit.
    """
    version, rest = data[:1], data[1:]
    check = None
    if version == _WRAPPED_V2:
        check, rest = rest[:CHECK_BYTES], rest[CHECK_BYTES:]
    elif version != _WRAPPED_V1:
        raise KeyRingFormatError("a wrapped DEK is of version 1 or 2")
    if len(rest) != NONCE_BYTES + KEY_BYTES + TAG_BYTES:
        raise KeyRingFormatError("a wrapped DEK of another length")
    return Wrapping(check, rest[:NONCE_BYTES], rest[NONCE_BYTES:])


def recovery_info(session: SessionId, dek_id: DekId) -> bytes:
    """HPKE's `info`: what a sealed DEK is bound to."""
    return _RECOVERY_PREFIX + session.encode() + dek_id  # as with the wrapping's AAD


def sealed_to_bytes(hpke: bytes) -> bytes:
    """The bytes of a sealed DEK, around what HPKE gave."""
    return _SEALED_V1 + hpke


def parse_sealed(data: bytes) -> bytes:
    """What HPKE opens.

    Raises:
        KeyRingFormatError: it is of another version, or its length does not fit.
    """
    if data[:1] != _SEALED_V1 or len(data) != 1 + _SEALED_BYTES:
        raise KeyRingFormatError(f"a sealed DEK is of version 1 and has {1 + _SEALED_BYTES} bytes")
    return data[1:]


def key_to_json(key: WrappedDek) -> dict[str, Any]:
    """A key as a JSON object, bytes in base64: as services send it, and as key-ring files hold it."""
    recovery = key.recovery
    return {
        "dek_id": b64encode(key.dek_id).decode(),
        "kek_id": key.kek_id,
        "wrapped": b64encode(key.wrapped).decode(),
        "recovery": recovery and {"recipient": recovery.recipient, "sealed": b64encode(recovery.sealed).decode()},
    }


def key_from_json(value: object) -> WrappedDek:
    """Read a key.

    Raises:
        KeyRingFormatError: it is none.
    """
    if isinstance(value, dict) and "recovery" not in value:
        value = {**value, "recovery": None}
    read = strict.Reader("key", value, ("dek_id", "kek_id", "wrapped", "recovery"), KeyRingFormatError)
    if not _KEK_ID.fullmatch(read.text("kek_id")):
        raise read.fail("kek_id", "1 to 64 of A-Z a-z 0-9 . _ -")
    return WrappedDek(
        DekId(read.base64("dek_id", DEK_ID_BYTES, DEK_ID_BYTES)),
        read.text("kek_id"),
        read.base64("wrapped", 1, MAX_WRAPPED_BYTES),
        read.optional("recovery", lambda name: _sealed_from_json(read.value(name))),
    )


def _sealed_from_json(value: object) -> SealedDek:
    read = strict.Reader("sealed key", value, ("recipient", "sealed"), KeyRingFormatError)
    return SealedDek(read.hex("recipient", RECIPIENT_BYTES).hex(), read.base64("sealed", 1, MAX_WRAPPED_BYTES))


def to_json(ring: KeyRing) -> dict[str, Any]:
    """A key ring as the JSON object of a key-ring file."""
    return {
        "version": FILE_VERSION,
        "session_id": ring.session_id,
        "keys": [key_to_json(key) for key in ring.keys],
    }


def from_json(value: object) -> KeyRing:
    """Read the JSON object of a key-ring file.

    Raises:
        KeyRingFormatError: it is none.
    """
    read = strict.Reader("key ring", value, ("version", "session_id", "keys"), KeyRingFormatError)
    read.integer("version", FILE_VERSION, FILE_VERSION)
    try:
        name = session_id(read.text("session_id"))
    except CoreError as error:
        raise KeyRingFormatError(str(error)) from error
    return KeyRing(name, tuple(key_from_json(key) for key in read.items("keys", MAX_KEYS)))


def from_bytes(data: bytes) -> KeyRing:
    """Read a key-ring file.

    Raises:
        KeyRingFormatError: it is none.
    """
    return from_json(strict.loads(data, "key ring", KeyRingFormatError))
