"""The bodies of the routes about retention."""

from typing import Annotated, Literal, TypeAlias

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from sessions.runtime.models import Timestamp, whole
from sessions.storage.retention import MAX_DAYS

Days: TypeAlias = Annotated[int, Field(ge=0, le=MAX_DAYS, strict=True), BeforeValidator(whole)]


class RetentionRequest(BaseModel):
    """A session's own terms, in days after its seal, in place of those it has; null or left out: the operator's.

    `retain_days`: before then nobody may shred it. `delete_after_days`: then it is shredded; 0: never.
    """

    model_config = ConfigDict(extra="forbid")

    retain_days: Days | None = None
    delete_after_days: Days | None = None


class DueModel(BaseModel):
    """A session whose time is up, and what the next sweep does: shreds it, or leaves it as `held` or `retained`."""

    session_id: str
    sealed_at: Timestamp
    delete_at: Timestamp
    retained_until: Timestamp | None
    verdict: Literal["shred", "held", "retained"]


class DueAnswer(BaseModel):
    """A page of sessions that are due; `next_cursor` is null at the end."""

    sessions: list[DueModel]
    next_cursor: str | None
