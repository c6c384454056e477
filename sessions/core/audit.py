"""Audit events v1: who did, or was refused, what; and how a day of them is a session like any other.

The events of a UTC day are the chunks of the session `lucid-audit-2026-01-31`: where a recording has an envelope, the
trail has an event's canonical bytes. So leaf, root, manifest, batch, anchor and receipt are those of every session.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

import rfc8785

from sessions.core import strict
from sessions.core.errors import AuditFormatError, CoreError
from sessions.core.types import SESSION_ID_PATTERN, SessionId, session_id

RESERVED_PREFIX: Final = "lucid-audit-"
"""No recording has an id that begins so."""
DAY_SESSION_PATTERN: Final = rf"^{RESERVED_PREFIX}[0-9]{{4}}-[0-9]{{2}}-[0-9]{{2}}$"
"""As near as a pattern comes to the ids of days; `day_of` tells."""
MAX_EVENT_BYTES: Final = 1024
"""More than the longest members come to."""
SERVICE_PATTERN: Final = r"^[A-Za-z0-9._-]{1,64}$"
PRINCIPAL_PATTERN: Final = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$"
CODE_PATTERN: Final = r"^[a-z][a-z0-9-]{0,63}$"
REQUEST_ID_PATTERN: Final = r"^[A-Za-z0-9._-]{1,64}$"


class Action(StrEnum):
    """What was done, or asked for."""

    CHUNK_READ = "chunk.read"
    CONTENT_READ = "content.read"
    SESSION_SHRED = "session.shred"
    SESSION_HOLD = "session.hold"
    SESSION_RELEASE = "session.release"
    """A legal hold was lifted."""
    SESSION_RETAIN = "session.retain"
    RETENTION_SHRED = "retention.shred"
    """The service shredded a session whose time was up."""
    KEYS_STATUS = "keys.status"
    KEYS_ROTATE = "keys.rotate"
    KEYS_REPLACE = "keys.replace"
    """A rotation's keys were put in the place of the old ones, at session-storage."""
    KEYS_EXPORT = "keys.export"
    SCRUB_REQUEST = "scrub.request"
    SCRUB_FINDING = "scrub.finding"
    PROCESSOR_FORGET = "processor.forget"
    """An operator told storage to wait for a processor no more."""
    SPOOL_RETRY = "spool.retry"
    SPOOL_DROP = "spool.drop"
    SERVICE_START = "service.start"
    """Settings, KEKs and tokens were read."""
    TOKENS_RELOAD = "tokens.reload"
    REQUEST_REFUSED = "request.refused"
    """Anything else was asked for without the right to it, or too often."""
    EVENTS_DROPPED = "events.dropped"
    """There were too many refusals to keep each; `count` says how many are in no other event."""
    TRAIL_CLOSE = "trail.close"
    """The day is over: its last event."""


class Outcome(StrEnum):
    """What became of it."""

    BEGUN = "begun"
    """It is about to change something. What came of it follows, unless the service died: then it may have happened."""
    ALLOWED = "allowed"
    REFUSED = "refused"
    FAILED = "failed"


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditEvent:
    """One event. It holds nothing that a caller could write freely, and no secret.

    `time` is RFC 3339, UTC, with milliseconds. `principal` is a token's name; None without a valid one, or when the
    service did it by itself. `code` is that of a problem, or the kind of a finding. `count` is how often it happened,
    for the first time at `time` and under `request_id`.
    """

    time: str
    service: str
    principal: str | None
    action: Action
    session_id: SessionId | None
    outcome: Outcome
    code: str | None
    request_id: str | None
    count: int = 1

    def to_json(self) -> dict[str, Any]:
        """The event as a JSON object."""
        return {
            "version": 1,
            "time": self.time,
            "service": self.service,
            "principal": self.principal,
            "action": self.action.value,
            "session_id": self.session_id,
            "outcome": self.outcome.value,
            "code": self.code,
            "request_id": self.request_id,
            "count": self.count,
        }

    def to_bytes(self) -> bytes:
        """The one byte string that stands for this event (RFC 8785)."""
        return rfc8785.dumps(self.to_json())


_MEMBERS: Final = ("version", *AuditEvent.__dataclass_fields__)
_PATTERNS: Final[Mapping[str, re.Pattern[str]]] = {
    "service": re.compile(SERVICE_PATTERN),
    "principal": re.compile(PRINCIPAL_PATTERN),
    "session_id": re.compile(SESSION_ID_PATTERN),
    "code": re.compile(CODE_PATTERN),
    "request_id": re.compile(REQUEST_ID_PATTERN),
}
_DAY: Final = re.compile(r"[1-9]\d{3}-(0[1-9]|1[0-2])-(0[1-9]|[12]\d|3[01])", re.ASCII)


def from_json(value: object) -> AuditEvent:
    """Read an event from a JSON object.

    Raises:
        AuditFormatError: a member is missing, unknown or of the wrong type.
    """
    read = strict.Reader("audit event", value, _MEMBERS, AuditFormatError)
    read.integer("version", 1, 1)

    def name(member: str) -> str:
        text = read.text(member)
        if not _PATTERNS[member].match(text) or text.endswith("\n"):
            raise read.fail(member, f"text that matches {_PATTERNS[member].pattern}")
        return text

    session = read.optional("session_id", name)
    return AuditEvent(
        time=read.timestamp("time"),
        service=name("service"),
        principal=read.optional("principal", name),
        action=Action(read.one_of("action", list(Action))),
        session_id=None if session is None else SessionId(session),
        outcome=Outcome(read.one_of("outcome", list(Outcome))),
        code=read.optional("code", name),
        request_id=read.optional("request_id", name),
        count=read.integer("count", 1),
    )


def from_bytes(data: bytes) -> AuditEvent:
    """Read an event from its canonical bytes; any other spelling of the same object is refused.

    Raises:
        AuditFormatError: not an event, or not its canonical form.
    """
    if len(data) > MAX_EVENT_BYTES:
        raise AuditFormatError(f"an audit event has at most {MAX_EVENT_BYTES} bytes")
    event = from_json(strict.loads(data, "audit event", AuditFormatError))
    if event.to_bytes() != data:
        raise AuditFormatError("the audit event is not in its canonical form (RFC 8785)")
    return event


def is_reserved(session: str) -> bool:
    """Whether a session id is one of the trail's own."""
    return session.startswith(RESERVED_PREFIX)


def session_of(day: str) -> SessionId:
    """The session of a day such as `2026-01-31`.

    Raises:
        AuditFormatError: it is no day.
    """
    if not (_DAY.fullmatch(day) and strict.is_date(*map(int, day.split("-")))):
        raise AuditFormatError(f"{day[:40]!r} is no day such as 2026-01-31")
    return session_id(RESERVED_PREFIX + day)


def day_of(session: str) -> str | None:
    """The day of a session of the trail; None for any other session."""
    try:
        day = session.removeprefix(RESERVED_PREFIX)
        return day if session_of(day) == session else None
    except CoreError:
        return None
