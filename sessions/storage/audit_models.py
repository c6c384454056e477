"""The bodies of the routes about the audit trail."""

from typing import Annotated, Literal, TypeAlias

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from sessions.core import audit
from sessions.core.audit import Action, AuditEvent, Outcome
from sessions.core.strict import MAX_JSON_INTEGER
from sessions.core.types import SESSION_ID_PATTERN
from sessions.runtime.audit import EVENTS_AT_ONCE
from sessions.runtime.models import TIMESTAMP, Anchor, HexHash, Timestamp, whole

DAY_PATTERN = r"^[1-9][0-9]{3}-(0[1-9]|1[0-2])-(0[1-9]|[12][0-9]|3[01])$"
Count: TypeAlias = Annotated[int, Field(ge=1, le=MAX_JSON_INTEGER, strict=True), BeforeValidator(whole)]


class AuditEventModel(BaseModel):
    """Audit event v1, as FORMAT.md describes it."""

    model_config = ConfigDict(extra="forbid")

    version: Literal[1]
    time: Annotated[str, Field(pattern=TIMESTAMP)]
    service: Annotated[str, Field(pattern=audit.SERVICE_PATTERN)]
    principal: Annotated[str, Field(pattern=audit.PRINCIPAL_PATTERN)] | None
    action: Action
    session_id: Annotated[str, Field(pattern=SESSION_ID_PATTERN)] | None
    outcome: Outcome
    code: Annotated[str, Field(pattern=audit.CODE_PATTERN)] | None
    request_id: Annotated[str, Field(pattern=audit.REQUEST_ID_PATTERN)] | None
    count: Count

    def to_event(self) -> AuditEvent:
        """As the trail takes it.

        Raises:
            AuditFormatError: a time that is none.
        """
        return audit.from_json(self.model_dump(mode="json"))


class EventsRequest(BaseModel):
    """Events of a processor, to be written in this order."""

    model_config = ConfigDict(extra="forbid")

    events: Annotated[list[AuditEventModel], Field(min_length=1, max_length=EVENTS_AT_ONCE)]


class EventsStored(BaseModel):
    """How many events were written."""

    stored: int


class PlacedEvent(BaseModel):
    """An event and its place in its day; null if what lies there is none."""

    index: int
    event: AuditEventModel | None


class EventPage(BaseModel):
    """Events of a day, in order; `next_cursor` is null at the end."""

    day: str
    session_id: str
    events: list[PlacedEvent]
    next_cursor: str | None


class DayModel(BaseModel):
    """A day of the trail and the session that it is; null where its seal will tell."""

    day: str
    session_id: str
    status: Literal["open", "sealing", "sealed", "shredded"]
    events: int | None
    sealed_at: Timestamp | None
    root: HexHash | None
    anchor: Anchor | None


class DayPage(BaseModel):
    """Days of the trail, newest first; `next_cursor` is null at the end."""

    days: list[DayModel]
    next_cursor: str | None
