"""The bodies of the routes with which a processor rotates keys."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from sessions.core.types import SessionId
from sessions.runtime.models import JsonSessionId
from sessions.storage.key_rings import Replacement
from sessions.storage.models import KekId, KeyAnswer, KeyModel, Recipient, WrappedBytes

MAX_REPLACEMENTS = 100


class OutdatedQuery(BaseModel):
    """How keys should be: under this KEK, and sealed to this recovery recipient if one is named."""

    model_config = ConfigDict(extra="forbid")

    kek_id: KekId
    recipient: Recipient | None = None
    limit: Annotated[int, Field(ge=1, le=100)] = 100
    cursor: Annotated[str, Field(max_length=500)] | None = None


class KeyRingAnswer(BaseModel):
    """The wrapped keys of a session."""

    session_id: str
    keys: list[KeyAnswer]


class KeyRingFile(KeyRingAnswer):
    """The key ring of a session, as `lucid-sessions keys export` keeps it."""

    version: Literal[1]


class KeyRingPage(BaseModel):
    """Rings with a key that is not as it should be; `next_cursor` is null at the end."""

    rings: list[KeyRingAnswer]
    next_cursor: str | None


class ReplacementModel(BaseModel):
    """A key that was wrapped anew, for the place of the one whose wrapped bytes are `expected`."""

    model_config = ConfigDict(extra="forbid")

    session_id: JsonSessionId
    expected: WrappedBytes
    key: KeyModel

    def to_replacement(self) -> Replacement:
        """As the store knows it."""
        return Replacement(SessionId(self.session_id), self.expected, self.key.to_key())


class ReplaceRequest(BaseModel):
    """Keys to replace; each by itself."""

    model_config = ConfigDict(extra="forbid")

    replacements: Annotated[list[ReplacementModel], Field(max_length=MAX_REPLACEMENTS)]


class ReplaceAnswer(BaseModel):
    """How many were as expected and were replaced; the others changed since, or are gone."""

    replaced: int


class KekCount(BaseModel):
    """How many rings have a key under this KEK."""

    kek_id: str
    rings: int


class RecipientCount(BaseModel):
    """How many rings have a key that is sealed to this recovery recipient; null: to none."""

    recipient: str | None
    rings: int


class RingCountsAnswer(BaseModel):
    """What keys there are. `unsealed` are the first sessions with a key that is sealed to no recipient."""

    keks: list[KekCount]
    recipients: list[RecipientCount]
    unsealed: list[str]
