"""The bodies of reports, of the list of processors, and of seals that may have to wait for them."""

from typing import Annotated, Final, Literal

from fastapi import Path
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from sessions.core.types import CHUNK_MAX_BYTES_LIMIT
from sessions.runtime.models import ChunkCount, JsonSessionId, Timestamp, whole
from sessions.storage.processors import ASKS_AT_ONCE

PROCESSOR_PATTERN: Final = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$"
MAX_LISTED: Final = 1000
"""Limit on the sessions that a report names in one list."""
Name = Annotated[str, Path(pattern=PROCESSOR_PATTERN)]
AskId = Annotated[str, Field(pattern=r"^[0-9a-f]{16}$")]
Count = Annotated[int, Field(ge=0, le=2**53 - 1, strict=True), BeforeValidator(whole)]
Flag = Annotated[bool, Field(strict=True)]


class HoldingsModel(BaseModel):
    """What a spool holds; sizes in bytes."""

    model_config = ConfigDict(extra="ignore")

    spooled_entries: Count = 0
    spooled_bytes: Count = 0
    spooled_sessions: Count = 0
    spooled_seals: Count = 0
    quarantined_entries: Count = 0


class ConfirmedModel(BaseModel):
    """The processor holds nothing of this session, and acknowledged chunks below `floor`."""

    session_id: JsonSessionId
    ask_id: AskId
    floor: ChunkCount = 0


class ReportModel(BaseModel):
    """A processor's report."""

    model_config = ConfigDict(extra="ignore")

    holdings: HoldingsModel
    confirmed: Annotated[list[ConfirmedModel], Field(max_length=ASKS_AT_ONCE)] = []
    promised: Annotated[list[JsonSessionId], Field(max_length=MAX_LISTED)] = []
    quarantined: Annotated[list[JsonSessionId], Field(max_length=MAX_LISTED)] = []
    after: JsonSessionId | None = None
    leaving: Flag = False
    run: Annotated[str, Field(pattern=r"^[0-9a-f]{16}$")] | None = None
    """The process that reports; another one that reports under this name has a copy of the spool."""
    chunk_max_bytes: Annotated[int, Field(ge=1, le=CHUNK_MAX_BYTES_LIMIT)] | None = None
    """The processor's CHUNK_MAX_BYTES."""


class AskModel(BaseModel):
    """A session that is to be sealed: confirm that the spool holds nothing of it."""

    session_id: str
    ask_id: str


class ReportAnswer(BaseModel):
    """What a processor has to do and to know.

    `asked` has the newest question about each promised session that still has one; `shredded` are those of the
    quarantined sessions that were shredded. Another `generation`, or an uptime that falls, means that the database was
    set back.
    """

    asks: list[AskModel]
    asked: dict[str, str]
    shredded: list[str]
    uptime_seconds: float
    generation: str
    retain_days: int
    chunk_max_bytes: int


class StorageSealRequest(BaseModel):
    """How to seal, and by whom."""

    model_config = ConfigDict(extra="forbid")

    chunk_count: ChunkCount | None = None
    sealed_by: Literal["recorder", "idle"] = "recorder"
    processor: Annotated[str, Field(pattern=PROCESSOR_PATTERN)] | None = None
    """The processor that asks; it holds nothing of the session and takes nothing of it into its spool."""
    floor: ChunkCount = 0
    """The least number of chunks that it acknowledged."""
    until_seconds: Annotated[float, Field(strict=True)] | None = None
    """Storage's uptime up to which it stands by that."""
    generation: Annotated[str, Field(max_length=64)] | None = None
    """The generation of storage's database in which it stands by that."""
    keep: Flag = True
    """Whether the order stays when it has to wait for other processors."""
    wait: Flag = True
    """Whether the answer may take some seconds, in which these may hand over."""


class WaitingFor(BaseModel):
    """A processor that a seal waits for. `missing_seconds`: since its last report, while storage was up."""

    name: str
    state: Literal["present", "missing", "lost"]
    last_report_at: Timestamp
    missing_seconds: float
    spooled_entries: int
    spooled_bytes: int
    spooled_sessions: int
    quarantined_entries: int


class ProcessorsAnswer(BaseModel):
    """All processors, by name."""

    processors: list[WaitingFor]


class SealWaiting(BaseModel):
    """The seal is kept, and waits for these processors."""

    session_id: str
    waiting_for: list[WaitingFor]
