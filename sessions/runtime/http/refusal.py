"""Answers to what came as no request, so that no application sees it."""

from secrets import token_hex

import structlog

from sessions.runtime import headers, problems
from sessions.runtime.errors import DomainError
from sessions.runtime.http.answer_head import status_line
from sessions.runtime.log import REQUEST_ID_HEADER

_log = structlog.get_logger()


def answer(error: DomainError, common: list[tuple[bytes, bytes]]) -> bytes:
    """Return the whole answer for an error; `common` are header fields that every answer has."""
    request_id = token_hex(16)
    with structlog.contextvars.bound_contextvars(request_id=request_id):
        found = problems.response(error)
        _log.debug("request_refused", code=error.code, detail=error.detail, status=found.status_code)
    own = [*common, *found.raw_headers, (REQUEST_ID_HEADER.encode(), request_id.encode()), (b"connection", b"close")]
    lines = b"".join(b"%b: %b\r\n" % field for field in headers.completed("", own))
    return b"%b%b\r\n%b" % (status_line(found.status_code), lines, bytes(found.body))
