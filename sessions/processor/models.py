"""The bodies that chunk-processor takes and answers with."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from sessions.processor.rotation import STEP_MAX_RINGS
from sessions.runtime.metadata import ShallowMetadata
from sessions.runtime.models import BASE64_PATTERN, HexHash, JsonChunkIndex, JsonSessionId, Timestamp, whole


class OpenRequest(BaseModel):
    """What the recorder says of a session: any JSON object, kept and hashed into the manifest."""

    model_config = ConfigDict(extra="forbid")

    metadata: ShallowMetadata | None = None


class RecordedModel(BaseModel):
    """A chunk that is durable. Sizes in bytes."""

    session_id: str
    index: int
    plaintext_bytes: int
    envelope_bytes: int
    envelope_sha256: HexHash
    leaf_hash: HexHash
    durability: Literal["stored", "spooled"]


class SealQueued(BaseModel):
    """The seal is kept: session-storage is away, or processors have not handed over all of the session yet.

    Ask again for its manifest: the same request answers 200 once it is there, or 409 with why it cannot be.
    """

    session_id: str
    status: Literal["seal-queued"]
    chunk_count: int | None
    spooled_chunks: int
    waiting_for: list[str]
    """Processors that have not handed over what they hold of it."""


class LucidMetadata(BaseModel):
    """What the Lucid recorder says of a chunk; only the index is read."""

    chunk_index: JsonChunkIndex | None = None


class LucidChunk(BaseModel):
    """A chunk of the Lucid recorder; its index is `metadata.chunk_index`, else the number that ends `chunk_id`."""

    model_config = ConfigDict(extra="forbid")

    chunk_id: Annotated[str, Field(min_length=1, max_length=256)]
    chunk_data_base64: str
    metadata: LucidMetadata | None = None


class LucidProcessRequest(LucidChunk):
    """One chunk."""

    session_id: JsonSessionId
    # In a batch what is not base64 is that chunk's own failure; here it is the request's.
    chunk_data_base64: Annotated[str, Field(json_schema_extra={"pattern": BASE64_PATTERN})]


class LucidBatchRequest(BaseModel):
    """Several chunks of one session."""

    model_config = ConfigDict(extra="forbid")

    session_id: JsonSessionId
    chunks: Annotated[list[LucidChunk], Field(min_length=1, max_length=1000)]


class LucidResult(BaseModel):
    """What became of one chunk: `metadata` when it was stored, else `error`, a problem code and detail."""

    success: bool
    session_id: str
    chunk_id: str
    metadata: RecordedModel | None = None
    error: dict[str, Any] | None = None
    processing_time_ms: float
    timestamp: Timestamp


class LucidBatchResult(BaseModel):
    """What became of each chunk."""

    success: bool
    session_id: str
    total_chunks: int
    successful_chunks: int
    failed_chunks: int
    results: list[LucidResult]
    timestamp: Timestamp


class LucidRoot(BaseModel):
    """The session root."""

    session_id: str
    merkle_root: HexHash
    timestamp: Timestamp


class LucidFinalized(LucidRoot):
    """The session is sealed."""

    finalized: Literal[True] = True


class KekStatus(BaseModel):
    """A KEK: whether KEK_FILE has it, and how many sessions' key rings need it."""

    kek_id: str
    in_file: bool
    rings: int


class RecipientStatus(BaseModel):
    """How many sessions' keys are sealed to this recovery recipient; null: to none."""

    recipient: str | None
    rings: int


class KeyStatus(BaseModel):
    """All keys. `recipient` is the one that new keys are sealed to; `unsealed` the first sessions without any."""

    active: str
    keks: list[KekStatus]
    recipient: str | None
    recipients: list[RecipientStatus]
    unsealed: list[str]


class RotateRequest(BaseModel):
    """Where to go on, and at most how many sessions to look at."""

    model_config = ConfigDict(extra="forbid")

    cursor: Annotated[str, Field(max_length=500)] | None = None
    limit: Annotated[int, Field(ge=1, le=STEP_MAX_RINGS, strict=True), BeforeValidator(whole)] = STEP_MAX_RINGS


class KeyFailure(BaseModel):
    """A key that could not be unwrapped, and stays as it is."""

    session_id: str
    kek_id: str
    detail: str


class RotationStep(BaseModel):
    """What one step did, in sessions (`rings`) and keys; `next_cursor` is null at the end.

    `overtaken` keys were replaced by another processor, or shredded, in the meantime.
    """

    rings: int
    rewrapped: int
    overtaken: int
    failed: list[KeyFailure]
    next_cursor: str | None
