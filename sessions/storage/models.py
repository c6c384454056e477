"""The bodies that session-storage takes and answers with."""

from base64 import b64decode
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Annotated, Any, Final, Literal, TypeAlias

from fastapi import Query
from pydantic import AfterValidator, AwareDatetime, BaseModel, BeforeValidator, ConfigDict, Field, WithJsonSchema

from sessions.core.key_ring import KEK_ID_PATTERN, MAX_WRAPPED_BYTES, SealedDek, WrappedDek, key_to_json
from sessions.core.types import SESSION_ID_PATTERN, DekId
from sessions.runtime.models import (
    BASE64_PATTERN,
    Anchor,
    HexHash,
    ManifestModel,
    Metadata,
    Status,
    Summary,
    Timestamp,
)

_WRAPPED_MAX_CHARACTERS: Final = MAX_WRAPPED_BYTES // 3 * 4


def _from_base64(value: Any) -> bytes:
    if not isinstance(value, str):
        raise ValueError("base64 text is needed")  # noqa: TRY004 - pydantic takes ValueError only
    return b64decode(value, validate=True)


def _date_time(value: Any) -> Any:
    # A number would pass for seconds since 1970.
    if isinstance(value, str) and "T" not in value.upper():
        raise ValueError("write a time as RFC 3339 says: 2026-01-31T23:59:59Z")
    return value


def _in_utc(value: datetime) -> datetime:
    try:
        return value.astimezone(UTC)
    except OverflowError:
        raise ValueError("this time is out of range") from None


DateTime: TypeAlias = Annotated[AwareDatetime, BeforeValidator(_date_time), AfterValidator(_in_utc)]
"""A time of RFC 3339, of any offset."""


WrappedBytes: TypeAlias = Annotated[
    bytes,
    BeforeValidator(_from_base64),
    Field(min_length=1, max_length=MAX_WRAPPED_BYTES),
    WithJsonSchema({"type": "string", "pattern": BASE64_PATTERN, "minLength": 4, "maxLength": _WRAPPED_MAX_CHARACTERS}),
]
KekId: TypeAlias = Annotated[str, Field(pattern=KEK_ID_PATTERN)]
Recipient: TypeAlias = Annotated[str, Field(pattern=r"^[0-9a-f]{16}$")]


class SealedKeyModel(BaseModel):
    """A DEK sealed to the recovery recipient; the bytes in base64."""

    model_config = ConfigDict(extra="forbid")

    recipient: Recipient
    sealed: WrappedBytes


class KeyModel(BaseModel):
    """A wrapped DEK; the bytes in base64."""

    model_config = ConfigDict(extra="forbid")

    dek_id: Annotated[
        bytes,
        BeforeValidator(_from_base64),
        Field(min_length=16, max_length=16),
        WithJsonSchema({"type": "string", "pattern": "^[A-Za-z0-9+/]{22}==$"}),
    ]
    kek_id: KekId
    wrapped: WrappedBytes
    recovery: SealedKeyModel | None = None

    def to_key(self) -> WrappedDek:
        """As the ledger knows it."""
        recovery = SealedDek(self.recovery.recipient, self.recovery.sealed) if self.recovery else None
        return WrappedDek(DekId(self.dek_id), self.kek_id, self.wrapped, recovery)


def key_ids(key: WrappedDek) -> "KeyIds":
    """What a reader may know of a key."""
    recipient = key.recovery.recipient if key.recovery is not None else None
    return KeyIds(dek_id=key.dek_id.hex(), kek_id=key.kek_id, recipient=recipient)


def key_json(key: WrappedDek) -> "KeyAnswer":
    """A key for an answer."""
    return KeyAnswer(**key_to_json(key))


class SealedKeyAnswer(BaseModel):
    """A DEK sealed to the recovery recipient; the bytes in base64."""

    recipient: str
    sealed: str


class KeyAnswer(BaseModel):
    """A wrapped DEK; the bytes in base64."""

    dek_id: str
    kek_id: str
    wrapped: str
    recovery: SealedKeyAnswer | None = None


class OpenRequest(BaseModel):
    """A session to open, with its first key; metadata null when the recorder said nothing of it."""

    model_config = ConfigDict(extra="forbid")

    metadata: Metadata | None = None
    key: KeyModel


class SessionWithKeys(BaseModel):
    """A session and its key ring, for the processor."""

    session: Summary
    keys: list[KeyAnswer]


class KeyIds(BaseModel):
    """Which key a session's chunks are sealed with: its id, and those of what it is wrapped under and sealed to."""

    dek_id: str
    kek_id: str
    recipient: str | None


class StatusWithKeys(Status):
    """A session; its key ring is there for the role `processor` only, the ids of its keys for all readers.

    `metadata` is what the recorder said when it opened the session.
    """

    keys: list[KeyAnswer] | None = None
    key_ids: list[KeyIds]
    metadata: Metadata

    @classmethod
    def dumps(cls, view: Mapping[str, Any], canonical_metadata: bytes) -> bytes:
        """Return the answer as JSON, with the metadata as they are stored.

        They are not parsed: earlier versions stored them in any depth, which neither `json` nor pydantic can handle.
        """
        rest = cls(**view, metadata={}).model_dump_json(exclude={"metadata"}).encode()
        return rest.removesuffix(b"}") + b',"metadata":' + canonical_metadata + b"}"


class FrameAnswerModel(BaseModel):
    """What became of one envelope, and the hashes of what is stored at its place."""

    result: Literal["stored", "exists", "conflict", "sealed", "unknown-session", "unknown-key", "busy"]
    envelope_sha256: HexHash | None
    leaf_hash: HexHash | None


class SubmitAnswer(BaseModel):
    """One answer for each frame, in order."""

    results: list[FrameAnswerModel]


class SessionPage(BaseModel):
    """A page of sessions, newest opening first; `next_cursor` is null at the end."""

    sessions: list[Summary]
    next_cursor: str | None


class ChunkModel(BaseModel):
    """The record of a stored chunk. Sizes in bytes."""

    index: int
    plaintext_bytes: int
    envelope_bytes: int
    envelope_sha256: HexHash
    leaf_hash: HexHash


class ChunkPage(BaseModel):
    """A page of chunk records, ascending; `next_start` is null at the end."""

    chunks: list[ChunkModel]
    next_start: int | None


class BatchModel(BaseModel):
    """A session's place in the tree that one transaction anchors."""

    root: HexHash
    size: int
    index: int
    path: list[HexHash]


class ReceiptModel(BaseModel):
    """Receipt v1."""

    version: Literal[1]
    manifest: ManifestModel
    batch: BatchModel | None
    anchor: Anchor


class ProofModel(BaseModel):
    """Chunk proof v1."""

    version: Literal[1]
    session_id: str
    index: int
    envelope_bytes: int
    envelope_sha256: HexHash
    leaf_hash: HexHash
    tree_size: int
    root: HexHash
    path: list[HexHash]


class AnchorModel(BaseModel):
    """A batch and its transaction; gas in units of gas."""

    root: HexHash
    size: int
    sequence: int
    created_at: Timestamp
    anchor: Anchor
    gas_used: int | None


class AnchorWithSessions(AnchorModel):
    """A batch with (at most the first 1,000 of) its sessions, in leaf order."""

    sessions: list[str]


class AnchorPage(BaseModel):
    """A page of anchors, newest first.

    `head_block` is the newest block of the chain when this replica looked last; null while another one anchors.
    """

    anchors: list[AnchorModel]
    next_cursor: str | None
    head_block: int | None


RequestedBy: TypeAlias = Annotated[str | None, Query(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]
"""The name of a token."""


class HoldRequest(BaseModel):
    """The legal hold, set or lifted."""

    model_config = ConfigDict(extra="forbid")

    held: Annotated[bool, Field(strict=True)] = True


class SessionQuery(BaseModel):
    """Which sessions to list."""

    model_config = ConfigDict(extra="forbid")

    status: Literal["open", "sealing", "sealed", "shredded"] | None = None
    prefix: Annotated[str, Field(pattern=SESSION_ID_PATTERN, max_length=128)] | None = None
    held: Literal["true"] | None = None
    opened_after: DateTime | None = None
    opened_before: DateTime | None = None
    limit: Annotated[int, Field(ge=1, le=1000)] = 100
    cursor: Annotated[str, Field(max_length=300)] | None = None
