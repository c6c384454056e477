"""Scrubs over HTTP, page by page, and the findings of all of them."""

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Query, Request
from pydantic import BaseModel, ConfigDict, Field

from sessions.core.audit import Action
from sessions.core.types import MAX_CHUNK_INDEX, SESSION_ID_PATTERN, session_id
from sessions.runtime import audit
from sessions.runtime.auth import Role, allow
from sessions.runtime.errors import DomainError
from sessions.runtime.json_route import JsonRoute
from sessions.runtime.models import JsonSessionId, Limit, Timestamp, checked
from sessions.runtime.problems import responses
from sessions.storage import cursors
from sessions.storage.mongo import Readiness
from sessions.storage.reads import Reads
from sessions.storage.scrub import Scrubber
from sessions.storage.scrub_store import FindingStore, Position


class ScrubRequest(BaseModel):
    """What to look at: one session, or all; of the bodies this share, chosen by chance."""

    model_config = ConfigDict(extra="forbid")

    session_id: JsonSessionId | None = None
    sample: Annotated[float, Field(gt=0, le=1)] = 1.0
    cursor: Annotated[str, Field(max_length=300)] | None = None


class FindingModel(BaseModel):
    """One thing that is wrong; `index` is null when it is about the session as a whole."""

    kind: Literal["missing", "altered", "truncated", "orphaned", "foreign"]
    part: Literal["session", "keys", "manifest", "batch", "tree", "record", "body"]
    session_id: str
    index: int | None
    detail: str


class ScrubAnswer(BaseModel):
    """What was looked at and found; bytes are those of bodies; `next_cursor` is null at the end.

    `total_bytes` is how much there is of the session that was asked for, if it is sealed.
    """

    sessions: int
    chunks: int
    bytes: int
    total_bytes: int | None
    findings: list[FindingModel]
    next_cursor: str | None


class KeptFindingModel(FindingModel):
    """A finding, and when it was found."""

    first_seen: Timestamp
    last_seen: Timestamp


class FindingPage(BaseModel):
    """A page of findings by session; `next_cursor` is null at the end."""

    findings: list[KeptFindingModel]
    next_cursor: str | None


def encode_cursor(position: Position) -> str:
    """A page's end, opaque to clients."""
    return cursors.encode((position.session_id, position.start))


def decode_cursor(text: str | None) -> Position | None:
    """Read a cursor.

    Raises:
        DomainError: `invalid-request`.
    """

    def read(name: Any, start: Any) -> Position:
        if type(start) is not int or not 0 <= start <= MAX_CHUNK_INDEX + 1:
            raise ValueError("no index")
        return Position(session_id(name), start)

    return cursors.decode(text, read)


def router(scrubber: Scrubber, findings: FindingStore, readiness: Readiness, reads: Reads) -> APIRouter:
    """All routes under /api/v1/scrub."""

    async def ready() -> None:
        readiness.require()

    routes = APIRouter(prefix="/api/v1/scrub", tags=["scrub"], route_class=JsonRoute)

    @routes.post(
        "",
        dependencies=[Depends(allow(Role.ADMIN, Role.AUDIT, act=Action.SCRUB_REQUEST)), Depends(ready)],
        response_model=ScrubAnswer,
        responses=responses("session-not-found"),
    )
    async def scrub(http: Request, request: ScrubRequest) -> Any:
        """Read again what is stored, a page at a time, and hold it against its records, tiles and manifests."""
        start = decode_cursor(request.cursor)
        if start is not None and request.session_id not in (None, start.session_id):
            raise DomainError("invalid-request", "cursor: it is of another session")
        only = None if request.session_id is None else session_id(request.session_id)
        page = await scrubber.page(start, only=only, sample=request.sample)
        await audit.of(http).allowed(http.scope, only)
        return {
            "sessions": page.sessions,
            "chunks": page.chunks,
            "bytes": page.bytes,
            "total_bytes": None if only is None else page.total_bytes,
            "findings": [finding.to_json() for finding in page.findings],
            "next_cursor": page.following and encode_cursor(page.following),
        }

    @routes.get(
        "/findings",
        dependencies=[Depends(allow(Role.ADMIN, Role.AUDIT)), Depends(ready), Depends(reads.items())],
        response_model=FindingPage,
    )
    async def list_findings(
        limit: Limit = 100,
        cursor: Annotated[str | None, Query(max_length=300)] = None,
        session_id: Annotated[str | None, Query(pattern=SESSION_ID_PATTERN, max_length=128)] = None,
    ) -> Any:
        """What all scrubs have found, or of one session; nothing is taken off the list by itself."""
        found = await findings.page(limit, cursor, None if session_id is None else checked(session_id))
        full = len(found) == limit
        return {
            "findings": [one.to_json() for one in found],
            "next_cursor": found[-1].finding.name if full else None,
        }

    return routes
