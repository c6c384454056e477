"""What happens around every request: its id, its log line, its metrics, and the last resort for what nobody caught."""

import re
import time
from collections.abc import Callable
from secrets import token_hex
from typing import Final

import structlog
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from sessions.runtime import answer, body, headers, problems, tracing
from sessions.runtime.audit import Audit
from sessions.runtime.errors import DomainError
from sessions.runtime.log import REQUEST_ID_HEADER
from sessions.runtime.metrics import REQUESTS_IN_FLIGHT, method_label, request_seconds

_log = structlog.get_logger()
_ID_HEADER: Final = REQUEST_ID_HEADER.encode()
_REQUEST_ID = re.compile(rb"[A-Za-z0-9._-]{1,64}")
WHEN_ANSWERED: Final = "sessions.when_answered"
"""Key of a request's scope: a list of what is called when the request has been answered, whichever way."""
_SHOWN_CHARACTERS: Final = 256
"""Limit on the characters of a request's path in a log line."""
_QUIET: Final = frozenset({"/health", "/livez", "/readyz", "/metrics"})


class RequestContext:
    """Pure ASGI, so that bodies stream through it untouched."""

    def __init__(self, app: ASGIApp, audit: Audit, quiet_routes: frozenset[str] = frozenset()) -> None:
        """Wrap an app; requests to `quiet_routes` (path templates), like probes, are logged at debug level."""
        self._app = app
        self._audit = audit
        self._quiet = _QUIET | quiet_routes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        sent = dict(scope["headers"]).get(_ID_HEADER, b"")
        request_id = sent.decode() if _REQUEST_ID.fullmatch(sent) else token_hex(16)
        id_header = (_ID_HEADER, request_id.encode())
        status = 0

        async def send_with_headers(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = headers.completed(scope["path"], [*message.get("headers", ()), id_header])
            await send(message)

        write: answer.Write | None = scope.get(answer.WRITE)
        if write is not None:
            lines = answer.header_lines(request_id)

            def written(answered: int, content: bytes) -> bool:
                nonlocal status
                if not write(answered, lines, content):
                    return False
                status = answered
                return True

            scope[answer.ANSWER] = written
        when_answered: list[Callable[[], None]] = []
        scope[WHEN_ANSWERED] = when_answered
        started, method = time.perf_counter(), method_label(scope["method"])
        bound = structlog.contextvars.bind_contextvars(request_id=request_id)
        REQUESTS_IN_FLIGHT.inc()
        try:
            with tracing.received(scope["headers"], method) as tell:
                try:
                    await self._app(scope, receive, send_with_headers)
                except Exception as error:  # noqa: BLE001 - the last resort: a problem, not a dropped connection
                    self._told(scope, error.__cause__ if status else None)
                    if not status:
                        internal = DomainError("internal", "an unexpected error was logged under this request id")
                        await problems.response(internal)(scope, receive, send_with_headers)
                finally:
                    for act in when_answered:
                        act()
                seconds = time.perf_counter() - started
                route = getattr(scope.get("route"), "path", "unmatched")
                tell(route, status)
                request_seconds(method, route, status).observe(seconds)
                log = _log.debug if route in self._quiet and status < 400 else _log.info  # noqa: PLR2004
                log(
                    "request_served",
                    method=scope["method"],
                    path=_shown(scope),
                    status=status,
                    milliseconds=round(seconds * 1000, 1),
                )
        finally:
            # They refer to the request, and it to its scope: without this, a garbage collection alone would free it.
            for key in (body.WHOLE, answer.WRITE, answer.ANSWER):
                scope.pop(key, None)
            REQUESTS_IN_FLIGHT.dec()
            structlog.contextvars.unbind_contextvars("principal")
            structlog.contextvars.reset_contextvars(**bound)

    def _told(self, scope: Scope, known: BaseException | None) -> None:
        """Log what nobody caught; `known` is why an answer that had begun was broken off (Starlette tells)."""
        if isinstance(known, DomainError):
            _log.warning("answer_broken_off", path=_shown(scope), code=known.code, detail=known.detail)
            self._audit.refused(scope, known.code)
        else:
            _log.exception("request_failed", method=scope["method"], path=_shown(scope))
            self._audit.refused(scope, "internal")


def _shown(scope: Scope) -> str:
    """Return the path for the log, which nobody without a token shall fill."""
    path: str = scope["path"]
    return path if len(path) <= _SHOWN_CHARACTERS else f"{path[:_SHOWN_CHARACTERS]}..."
