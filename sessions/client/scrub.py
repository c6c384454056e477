"""Scrubs: what a client asks of session-storage about whether all is there still, and as it was."""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias, cast

from sessions.client.answers import known_members
from sessions.client.paging import walk
from sessions.client.transport import OneStorage

Kind: TypeAlias = Literal["missing", "altered", "truncated", "orphaned", "foreign"]
_KINDS: Final = ("missing", "altered", "truncated", "orphaned", "foreign")
_MAX_ITEMS: Final = 1_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One thing that is wrong; without an index it is about the session as a whole."""

    kind: Kind
    part: str
    session_id: str
    index: int | None
    detail: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ScrubStep:
    """What one page of a scrub looked at, and found; bytes are those of bodies.

    `total_bytes` is how much there is of the session that was asked for, if it is sealed.
    """

    sessions: int
    chunks: int
    bytes: int
    total_bytes: int | None
    findings: tuple[Finding, ...]
    next_cursor: str | None


def scrub_step(value: object) -> ScrubStep:
    """Read one page of a scrub.

    Raises:
        FormatError: it is not such an answer.
    """
    read = known_members("scrub", value, ScrubStep.__dataclass_fields__)
    findings = []
    for item in read.items("findings", _MAX_ITEMS):
        one = known_members("finding", item, Finding.__dataclass_fields__)
        findings.append(
            Finding(
                kind=cast("Kind", one.one_of("kind", _KINDS)),
                part=one.text("part"),
                session_id=one.text("session_id"),
                index=one.optional("index", one.integer),
                detail=one.text("detail"),
            )
        )
    return ScrubStep(
        sessions=read.integer("sessions"),
        chunks=read.integer("chunks"),
        bytes=read.integer("bytes"),
        total_bytes=read.optional("total_bytes", read.integer),
        findings=tuple(findings),
        next_cursor=read.optional("next_cursor", read.text),
    )


class ScrubCalls(OneStorage):
    """The calls about scrubs; `AsyncClient` has them."""

    async def scrub(self, session: str | None = None, *, sample: float = 1.0) -> AsyncIterator[ScrubStep]:
        """Have all that is stored read again, or one session; page by page. Of the bodies `sample` is the share."""

        async def page(cursor: str | None) -> tuple[list[ScrubStep], str | None]:
            body = {"session_id": session, "sample": sample, "cursor": cursor}
            step = await self._storage.json("POST", "/api/v1/scrub", lambda value, _: scrub_step(value), json=body)
            return [step], step.next_cursor

        async for step in walk("the scrub", page):
            yield step
