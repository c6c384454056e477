"""Audit events of a service: those of privileged acts before these are answered, those of refusals soon after.

A privileged act is answered only when its event is durable: who cannot be recorded is not served. A refusal costs the
one who refuses next to nothing: it is counted, and told with all that were like it within a second. So a flood of wrong
tokens keeps nobody waiting, and fills no disk.
"""

import asyncio
import re
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Final, Protocol, TypeAlias

import structlog
from prometheus_client import Counter
from starlette.requests import Request
from starlette.types import Scope

from sessions.core.audit import RESERVED_PREFIX, Action, AuditEvent, Outcome, is_reserved
from sessions.core.errors import CoreError
from sessions.core.types import SessionId, session_id
from sessions.runtime.errors import PROBLEMS, DomainError
from sessions.runtime.limits import Bucket
from sessions.runtime.log import request_id
from sessions.runtime.times import Clock, now, to_rfc3339

ACTION: Final = "sessions.action"
"""Key of a request's scope: the `Action` that its route is for, if that is a privileged one."""
PRINCIPAL: Final = "sessions.principal"
"""Key of a request's scope: the name of its token, once that is known to be valid."""
EVENTS_AT_ONCE: Final = 128
"""The most events in one write."""
MAX_WAITING: Final = 512
"""So many kinds of refusals are told apart at once; half of them with the session that was asked for."""
_FLUSH_SECONDS: Final = 1.0
_RETRY_SECONDS: Final = 5.0
_LAST_FLUSH_SECONDS: Final = 5.0
_KINDS_PER_SECOND: Final = 10.0
_KINDS_BURST: Final = 256.0
_REFUSALS: Final = frozenset({401, 403, 429})
_NOT_A_NAME: Final = re.compile(r"[^A-Za-z0-9._-]")

WRITTEN = Counter("lucid_audit_events_total", "Audit events that this service had written.")
DROPPED = Counter("lucid_audit_dropped_total", "Refusals that are in no audit event but one that counts them.")
REFUSED = Counter("lucid_requests_refused_total", "Requests refused for their token, by the problem's code.", ("code",))
# Looked up once: a refusal is to cost next to nothing.
_REFUSED: Final = {code: REFUSED.labels(code) for code, (status, _) in PROBLEMS.items() if status in _REFUSALS}
_log = structlog.get_logger()


class Sink(Protocol):
    """Where events go."""

    async def write(self, events: Sequence[AuditEvent]) -> None:
        """Store events; they are durable when this returns.

        Raises:
            DomainError: they are not, or it is not known.
        """


@dataclass(slots=True)
class _Waiting:
    """Refusals that are alike, and when and under which request the first came."""

    time: str
    request_id: str | None
    count: int = 0


_Kind: TypeAlias = tuple[Action, str | None, SessionId | None, Outcome, str | None]


class Audit:
    """What a service tells of who did, or was refused, what."""

    def __init__(self, service: str, sink: Sink, clock: Clock = now) -> None:
        # The operator may have called the service anything.
        self._service = _NOT_A_NAME.sub("-", service)[:64]
        self._sink = sink
        self._clock = clock
        self._kinds = Bucket(_KINDS_PER_SECOND, _KINDS_BURST)
        self._waiting: dict[_Kind, _Waiting] = {}
        self._dropped = 0
        self.problem = ""
        """Why events wait, for `/health`; empty while none does. Recording goes on, privileged acts are refused."""

    async def allowed(self, scope: Scope, session: SessionId | None = None) -> None:
        """Record that a request is granted; before that nothing may be answered.

        Raises:
            DomainError: `audit-unavailable`.
        """
        await self._record(scope[ACTION], Outcome.ALLOWED, scope[PRINCIPAL], session or _session(scope))

    @asynccontextmanager
    async def change(self, scope: Scope, session: SessionId | None = None) -> AsyncIterator[None]:
        """Record that a request is about to change something, and when it did, that too.

        So there is no change without an event, even if the process dies in between. A `DomainError` of the block is
        for `refused`.

        Raises:
            DomainError: `audit-unavailable`.
        """
        await self._record(scope[ACTION], Outcome.BEGUN, scope[PRINCIPAL], session or _session(scope))
        yield
        await self.allowed(scope, session)

    async def own(self, action: Action, outcome: Outcome, session: SessionId | None, code: str | None = None) -> None:
        """Record what the service did by itself.

        Raises:
            DomainError: `audit-unavailable`.
        """
        await self._record(action, outcome, None, session, code)

    async def _record(
        self,
        action: Action,
        outcome: Outcome,
        principal: str | None,
        session: SessionId | None,
        code: str | None = None,
    ) -> None:
        event = AuditEvent(
            time=to_rfc3339(self._clock()),
            service=self._service,
            principal=principal,
            action=action,
            session_id=session,
            outcome=outcome,
            code=code,
            request_id=request_id() or None,
        )
        try:
            await self._sink.write([event])
        except DomainError as error:
            _log.warning("audit_not_written", action=action.value, reason=error.detail)
            raise DomainError(
                "audit-unavailable",
                "this leaves an audit event, which cannot be written now; repeat the request",
                retry_after_seconds=1,
            ) from error
        WRITTEN.inc()

    def refused(self, scope: Scope, code: str) -> None:
        """Note that a request was answered with a problem, if it was of a privileged act or refused for its token."""
        status = PROBLEMS[code][0]
        if status in _REFUSALS:
            _REFUSED[code].inc()
        action: Action | None = scope.get(ACTION)
        if action is None and status not in _REFUSALS:
            return
        principal: str | None = scope.get(PRINCIPAL)
        # Whoever has no token may write any session into the path: that would be no less free than text.
        session = None if principal is None else _session(scope)
        outcome = Outcome.REFUSED if status < 500 else Outcome.FAILED  # noqa: PLR2004
        self.note(action or Action.REQUEST_REFUSED, outcome, code, principal=principal, session=session)

    def note(
        self,
        action: Action,
        outcome: Outcome,
        code: str | None,
        *,
        principal: str | None = None,
        session: SessionId | None = None,
    ) -> None:
        """Have an event written soon. It neither waits nor fails, and takes no memory for what is like another one."""
        kind: _Kind = action, principal, session, outcome, code
        waiting = self._waiting.get(kind)
        if waiting is None and (len(self._waiting) >= MAX_WAITING // 2 or self._kinds.take()):
            kind = action, principal, None, outcome, code
            waiting = self._waiting.get(kind)
            if waiting is None and len(self._waiting) >= MAX_WAITING:
                self._dropped += 1
                DROPPED.inc()
                return
        if waiting is None:
            waiting = self._waiting[kind] = _Waiting(to_rfc3339(self._clock()), request_id() or None)
        waiting.count += 1

    async def run(self) -> None:
        """Write what was noted, each second, until cancelled; then once more."""
        try:
            while True:
                try:
                    await self.flush()
                    self.problem, pause_seconds = "", _FLUSH_SECONDS
                except DomainError as error:
                    self.problem = f"audit events wait: {error.detail}"
                    _log.warning("audit_delayed", reason=error.detail, kinds=len(self._waiting))
                    pause_seconds = _RETRY_SECONDS
                await asyncio.sleep(pause_seconds)
        finally:
            try:
                async with asyncio.timeout(_LAST_FLUSH_SECONDS):
                    await self.flush()
            except (DomainError, TimeoutError):
                lost = sum(waiting.count for waiting in self._waiting.values()) + self._dropped
                _log.error("audit_lost", refusals=lost)

    async def flush(self) -> None:
        """Write what was noted so far; what cannot be written stays noted.

        Raises:
            DomainError: of the sink.
        """
        taken, self._waiting = self._waiting, {}
        dropped, self._dropped = self._dropped, 0
        if dropped:
            summary: _Kind = Action.EVENTS_DROPPED, None, None, Outcome.REFUSED, None
            taken.setdefault(summary, _Waiting(to_rfc3339(self._clock()), None)).count += dropped
        kinds = list(taken)
        try:
            while kinds:
                some = kinds[:EVENTS_AT_ONCE]
                await self._write([self._event(kind, taken[kind]) for kind in some])
                del kinds[:EVENTS_AT_ONCE]
        finally:
            for kind in kinds:
                before, since = taken[kind], self._waiting.get(kind)
                before.count += since.count if since else 0
                self._waiting[kind] = before

    async def _write(self, events: Sequence[AuditEvent]) -> None:
        """Write events. One that the sink does not understand is logged and dropped, and keeps no other waiting."""
        try:
            await self._sink.write(events)
        except DomainError as error:
            if error.code != "invalid-request":
                raise
            if len(events) > 1:
                for event in events:
                    await self._write([event])
                return
            DROPPED.inc(events[0].count)
            _log.error("audit_event_refused", audit_event=events[0].to_json(), reason=error.detail)
            return
        WRITTEN.inc(len(events))

    def _event(self, kind: _Kind, waiting: _Waiting) -> AuditEvent:
        action, principal, session, outcome, code = kind
        return AuditEvent(
            time=waiting.time,
            service=self._service,
            principal=principal,
            action=action,
            session_id=session,
            outcome=outcome,
            code=code,
            request_id=waiting.request_id,
            count=waiting.count,
        )


def of(request: Request) -> Audit:
    """The audit of the service that serves a request."""
    audit: Audit = request.app.state.audit
    return audit


def _session(scope: Scope) -> SessionId | None:
    """The session of a request's path; None where there is none, or what is no session id."""
    path: dict[str, Any] = scope.get("path_params", {})
    try:
        return session_id(path["session_id"])
    except (KeyError, CoreError):
        return None


def require_recording(session: SessionId) -> SessionId:
    """Refuse the sessions of the audit trail, which is not for recordings and cannot be changed.

    Raises:
        DomainError: `session-reserved`.
    """
    if is_reserved(session):
        detail = f"ids that begin with {RESERVED_PREFIX} are the audit trail's: choose another, or read it at storage"
        raise DomainError("session-reserved", detail, session_id=session)
    return session
