"""Errors of the services' domains, and the one table that maps them to HTTP.

A domain error knows its stable code and the facts that go with it; the edge knows the status.
"""

from typing import Any, Final


class DomainError(Exception):
    """Something that a caller did or met, with a stable code and the facts about it.

    `detail` says in a sentence what is wrong and what to do; `members` are added to the problem body.
    """

    def __init__(self, code: str, detail: str, *, retry_after_seconds: int | None = None, **members: Any) -> None:
        super().__init__(detail)
        self.code = code
        self.detail = detail
        self.retry_after_seconds = retry_after_seconds
        self.members = members


PROBLEMS: Final[dict[str, tuple[int, str]]] = {
    "invalid-request": (400, "The request is not as documented"),
    "invalid-session-id": (400, "The session id is malformed"),
    "index-out-of-range": (400, "No session can have this chunk index"),
    "bad-content-digest": (400, "The Content-Digest header cannot be read"),
    "digest-mismatch": (400, "The body does not have the digest that was sent"),
    "bad-envelope": (400, "An envelope is malformed"),
    "incomplete-body": (400, "The body ended early"),
    "bad-request-head": (400, "The head of the request cannot be read"),
    "bad-request-body": (400, "The body of the request cannot be read"),
    "unauthorized": (401, "A valid token is needed"),
    "forbidden": (403, "The token does not allow this"),
    "session-reserved": (403, "The session id is not for recordings"),
    "not-found": (404, "There is nothing here"),
    "session-not-found": (404, "There is no such session"),
    "chunk-not-found": (404, "There is no such chunk"),
    "anchor-not-found": (404, "There is no such anchor"),
    "method-not-allowed": (405, "The method is not for this resource"),
    "chunk-conflict": (409, "Another chunk has this index"),
    "chunk-count-mismatch": (409, "The session has chunks beyond the count"),
    "chunks-missing": (409, "The session has gaps"),
    "metadata-conflict": (409, "The session was opened with other metadata"),
    "retention-too-short": (409, "The session has to be kept for longer"),
    "processor-replaced": (409, "Another process reports under this name"),
    "session-held": (409, "The session is under legal hold"),
    "session-open": (409, "The session is not sealed yet"),
    "session-retained": (409, "The session has to be kept until a date"),
    "session-sealed": (409, "The session is sealed"),
    "session-shredded": (410, "The session was shredded"),
    "request-timeout": (408, "The request took too long to arrive"),
    "precondition-failed": (412, "The condition of the request does not hold"),
    "body-too-large": (413, "The body is larger than allowed"),
    "target-too-long": (414, "The target of the request is longer than allowed"),
    "unsupported-media-type": (415, "The media type is not accepted"),
    "range-not-satisfiable": (416, "The range is outside the recording"),
    "expectation-failed": (417, "The expectation cannot be met"),
    "too-many-requests": (429, "Too many requests"),
    "head-too-large": (431, "The head of the request is larger than allowed"),
    "internal": (500, "Something went wrong here"),
    "envelope-corrupt": (500, "A stored chunk does not open"),
    "not-implemented": (501, "The request needs what is not implemented"),
    "audit-unavailable": (503, "The act cannot be recorded, and so not done"),
    "key-unavailable": (503, "The session's key cannot be unwrapped"),
    "overloaded": (503, "Too much at once"),
    "storage-unavailable": (503, "session-storage cannot be reached"),
    "database-unavailable": (503, "The database cannot be reached"),
    "version-not-supported": (505, "The version of HTTP is not spoken here"),
    "spool-full": (507, "The spool has no room for more"),
    "storage-full": (507, "The disk has no room for more"),
}
"""Code of a problem: its HTTP status and title."""
