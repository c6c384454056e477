"""Models that both services' answers share, and the types of path and query parameters."""

import re
from typing import Annotated, Any, Final, Literal, TypeAlias

from fastapi import Path, Query
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field

from sessions.core.types import MAX_CHUNK_INDEX, SESSION_ID_PATTERN, SessionId, chunk_index, session_id

HASH_PATTERN = r"^[0-9a-f]{64}$"
BASE64_PATTERN = r"^([A-Za-z0-9+/]{4})*([A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?$"
HexHash: TypeAlias = Annotated[str, Field(pattern=HASH_PATTERN)]
SessionIdPath: TypeAlias = Annotated[
    str, Path(description="Session id", json_schema_extra={"pattern": SESSION_ID_PATTERN, "maxLength": 128})
]
INDEX: Final = re.compile(r"0|-?[1-9][0-9]*")
"""One spelling for each index, so that one chunk has one URL. One that is out of range is told so."""


def spelled(text: Any) -> Any:
    """Return a path's chunk index as it came; a validator, that refuses other spellings of the same number."""
    if isinstance(text, str) and not INDEX.fullmatch(text):
        raise ValueError("the chunk index is a whole number, without leading zeros")
    return text


IndexPath: TypeAlias = Annotated[
    int,
    BeforeValidator(spelled),
    Path(description="Chunk index, from 0", json_schema_extra={"minimum": 0, "maximum": MAX_CHUNK_INDEX}),
]
Limit: TypeAlias = Annotated[int, Query(ge=1, le=1000, description="At most so many items")]
TIMESTAMP = r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$"
Timestamp: TypeAlias = Annotated[str, Field(pattern=TIMESTAMP)]
Gap: TypeAlias = Annotated[list[int], Field(min_length=2, max_length=2)]


def whole(value: Any) -> Any:
    """A number without a fraction as an integer, however it is written."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


# JSON has one kind of number, so 2.0 is an integer (JSON Schema says so, too); "2" and true are none.
ChunkCount: TypeAlias = Annotated[int, Field(ge=0, le=MAX_CHUNK_INDEX + 1, strict=True), BeforeValidator(whole)]
JsonChunkIndex: TypeAlias = Annotated[int, Field(ge=0, le=MAX_CHUNK_INDEX, strict=True), BeforeValidator(whole)]
JsonSessionId: TypeAlias = Annotated[
    str, AfterValidator(session_id), Field(json_schema_extra={"pattern": SESSION_ID_PATTERN, "maxLength": 128})
]


def checked(raw_session_id: str) -> SessionId:
    """The session id of a path. Raises `InvalidSessionIdError`, a problem of its own."""
    return session_id(raw_session_id)


def checked_index(raw_index: int) -> int:
    """The chunk index of a path. Raises `IndexOutOfRangeError`, a problem of its own."""
    return chunk_index(raw_index)


class Anchor(BaseModel):
    """The transaction that anchors the session's batch."""

    state: Literal["pending", "submitted", "included", "confirmed"]
    chain_id: int | None
    contract: str | None
    publisher: str | None
    transaction: str | None
    block_number: int | None
    block_hash: str | None
    block_timestamp: int | None


class Summary(BaseModel):
    """A session in a list. Sizes in bytes; times RFC 3339, UTC; null where the seal will tell."""

    model_config = ConfigDict(extra="ignore")

    session_id: str
    status: Literal["open", "sealing", "sealed", "shredded"]
    chunk_count: int | None
    plaintext_bytes: int | None
    envelope_bytes: int | None
    opened_at: Timestamp
    sealed_at: Timestamp | None
    root: HexHash | None
    anchor: Anchor | None
    held: bool = False
    shredded_at: Timestamp | None = None
    shred_reason: Literal["requested", "retention"] | None = None
    shredded_by: str | None = None
    retained_until: Timestamp | None = None
    delete_at: Timestamp | None = None


class Status(Summary):
    """A session, and where to resume: `next_index` is behind the highest stored, `missing` the gaps below it.

    `unheard` are processors that its seal did not wait for, since they were lost: it may lack chunks that these hold.
    """

    next_index: int
    missing: list[Gap]
    missing_truncated: bool = False
    unheard: list[str] = []


class SealRequest(BaseModel):
    """How to seal. Without a count, up to the highest chunk stored."""

    model_config = ConfigDict(extra="forbid")

    chunk_count: ChunkCount | None = None


class ManifestModel(BaseModel):
    """Manifest v1, as FORMAT.md describes it."""

    version: Literal[1]
    session_id: str
    chunk_count: int
    missing: list[Gap]
    plaintext_bytes: int
    envelope_bytes: int
    root: HexHash
    opened_at: Timestamp
    sealed_at: Timestamp
    sealed_by: Literal["recorder", "idle"]
    metadata_sha256: HexHash


class Sealed(BaseModel):
    """A sealed session's manifest, the SHA-256 of its canonical bytes, and the session root.

    `unheard` are processors that the seal did not wait for, since they were lost: it may lack chunks that these hold.
    """

    manifest: ManifestModel
    manifest_sha256: HexHash
    root: HexHash
    unheard: list[str] = []


Metadata: TypeAlias = dict[str, Any]
