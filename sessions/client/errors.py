"""What can go wrong between a client and the services, or a node of the chain.

    ClientError                  has a `hint`: what to do about it
    ├── UnreachableError         no connection, or it broke, and trying again did not help in the time given
    ├── AnswerError              an error answer; `status`, `code`, `detail`, `request_id`, `problem`
    │   ├── UnauthorizedError    401, 403
    │   ├── NotFoundError        404
    │   ├── RefusedError         409, 410, 416 and every other 4xx: the request itself has to change
    │   └── BusyError            429 and 5xx, and trying again did not help in the time given
    │       └── SealQueuedError  202: the seal is kept and happens later, but not in the time given
    ├── BadAnswerError           an answer that is not what the service's contract says
    │   └── NodeError            the same of a node of the chain, or an error that it answered
    ├── SourceError              the file or pipe to record cannot be read
    │   └── SourceChangedError   it is not the recording that the session was begun with
    └── TargetError              the place to write to cannot be written
        └── TargetTakenError     there is something already, and it is not overwritten

This module imports nothing of HTTP, so that whoever handles the errors need not load it.
"""

from collections.abc import Mapping, Sequence
from typing import Any


class ClientError(Exception):
    """Base of every error of `sessions.client`."""

    hint: str
    """What to do about it, in a few words; may be empty."""

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint


class UnreachableError(ClientError):
    """No connection, or it broke, and trying again did not help in the time given."""


class AnswerError(ClientError):
    """An error answer (RFC 9457).

    `code` is the stable word of the problem body, empty when there was none; `problem` holds all of its members.
    `retry_after_seconds` is what the header Retry-After asked for, 0 when it was absent.
    """

    def __init__(self, status: int, problem: Mapping[str, Any], request_id: str = "", hint: str = "") -> None:
        self.status = status
        self.problem = dict(problem)
        self.code = _text(problem, "code")
        self.detail = _text(problem, "detail") or _text(problem, "title") or f"HTTP status {status}"
        self.request_id = _text(problem, "request_id") or request_id
        self.retry_after_seconds = 0.0
        super().__init__(self.detail, hint)

    def __str__(self) -> str:
        where = f"{self.status} {self.code}".rstrip()
        return f"{self.detail} [{where}]" if self.code else self.detail


class UnauthorizedError(AnswerError):
    """401: no valid token; 403: a token without the role that this needs."""


class NotFoundError(AnswerError):
    """404: there is no such session, chunk or anchor."""


class RefusedError(AnswerError):
    """A conflict with what is stored (409, 410), or a request that cannot be served as it is (other 4xx)."""


class BusyError(AnswerError):
    """429, 502, 503, 504 or 507 for longer than the time given for retries, or another 5xx at once."""


class SealQueuedError(BusyError):
    """The seal is kept, and happens when nothing is left to wait for; it did not within the time given.

    `waiting_for` names the processors that have not handed over what they hold of the session; it is empty while
    session-storage is away. Nothing is lost: every chunk is kept. Seal again later for the manifest and the root.
    """

    def __init__(self, session_id: str, waiting_for: Sequence[str] = ()) -> None:
        self.waiting_for = tuple(waiting_for)
        reason = f"waits for {', '.join(waiting_for)}" if waiting_for else "waits for session-storage, which is away"
        detail = f"the seal of session {session_id} is kept and {reason}"
        hint = "seal again later for its root"
        if waiting_for:
            hint += "; processors list says how these are"
        problem = {"code": "seal-queued", "detail": detail, "waiting_for": list(waiting_for)}
        super().__init__(202, problem, hint=hint)


class BadAnswerError(ClientError):
    """An answer that is not what the service's contract says: it is not trusted."""


class NodeError(BadAnswerError):
    """A node of the chain answered an error, or something that is not JSON-RPC."""


class SourceError(ClientError):
    """The file or pipe to record cannot be read."""


class SourceChangedError(SourceError):
    """The file or pipe is not the recording that the session was begun with."""


class TargetError(ClientError):
    """The place to write to cannot be written."""


class TargetTakenError(TargetError):
    """There is something already, and it is not overwritten."""


def _text(problem: Mapping[str, Any], name: str) -> str:
    value = problem.get(name)
    return value if isinstance(value, str) else ""


_HINTS = {
    401: "check LUCID_TOKEN or LUCID_TOKEN_FILE",
    403: "the token lacks the role that this needs",
    429: "try again later",
    503: "try again later",
    507: "the service is out of space for now: try again later",
}
_CODE_HINTS = {
    "session-not-found": "check the session id",
    "chunk-conflict": "another content is stored under this index: record it under a new session id",
    "session-sealed": "a sealed session takes no more chunks: use a new session id",
    "session-open": "seal the session first",
    "metadata-conflict": "the session was opened with other metadata",
    "session-held": "a legal hold is on the session",
    "session-retained": "it has to be kept until then",
    "retention-too-short": "keep it for longer",
    "chunks-missing": "send the missing chunks first",
    "session-shredded": "its keys and bodies are destroyed",
    "body-too-large": "use smaller chunks",
}


def from_answer(status: int, problem: Mapping[str, Any], request_id: str = "") -> AnswerError:
    """The error that an answer with this status (4xx or 5xx) stands for."""
    hint = _CODE_HINTS.get(_text(problem, "code")) or _HINTS.get(status, "")
    kind: type[AnswerError] = RefusedError
    if status in (401, 403):
        kind = UnauthorizedError
    elif status == 404:  # noqa: PLR2004 - the number is the name
        kind = NotFoundError
    elif status == 429 or status >= 500:  # noqa: PLR2004 - the same
        kind = BusyError
    return kind(status, problem, request_id, hint)
