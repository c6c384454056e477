"""Small answers of JSON, by the short way where the server has one.

By ASGI an answer takes two messages, and each of its headers is looked through and put together anew for every
request; for a small chunk that is a tenth of all that chunk-processor does.
"""

from collections.abc import Callable
from typing import Final, TypeAlias

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from sessions.runtime import headers
from sessions.runtime.log import REQUEST_ID_HEADER

WRITE: Final = "sessions.write"
"""Key of a request's scope: the server's `Write`."""
Write: TypeAlias = Callable[[int, bytes, bytes], bool]
"""Writes a whole answer, of status, header lines and body; gives False when it has to take the usual way."""
ANSWER: Final = "sessions.answer"
"""Key of a request's scope: `Answer` within a service's `RequestContext`, unless something between has to see it."""
Answer: TypeAlias = Callable[[int, bytes], bool]
"""Like `Write`, with the headers that every answer has."""
_HEAD: Final = (
    b"".join(b"%b: %b\r\n" % header for header in headers.completed("", [(b"content-type", b"application/json")]))
    + REQUEST_ID_HEADER.encode()
    + b": "
)


def header_lines(request_id: str) -> bytes:
    """The headers of an answer of JSON, but for its length."""
    return _HEAD + request_id.encode() + b"\r\n"


async def send_json(content: str, status: int, scope: Scope, receive: Receive, send: Send) -> None:
    """Answer with JSON."""
    answer: Answer | None = scope.get(ANSWER)
    if answer is None or not answer(status, content.encode()):
        await Response(content, status, media_type="application/json")(scope, receive, send)
