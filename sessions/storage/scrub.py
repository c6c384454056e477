"""Scrubbing: reading again what is stored, and holding it against what the records, tiles, manifests and batches say.

A scrub changes nothing but the list of findings. It goes session by session, and in a session by windows of one tile,
so its memory does not grow with anything but the size of one part of a body; hashing runs beside the event loop.
"""

import asyncio
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from secrets import SystemRandom
from typing import Final

import structlog
from prometheus_client import Counter

from sessions.core.audit import Action, Outcome
from sessions.core.envelope import MAX_HEADER_BYTES, chunk_leaf_input, read_header
from sessions.core.errors import CoreError
from sessions.core.merkle import leaf_hash
from sessions.core.tiles import TILE_WIDTH
from sessions.core.types import SessionId
from sessions.runtime.audit import Audit
from sessions.runtime.errors import DomainError
from sessions.runtime.times import Clock, now
from sessions.storage import problems
from sessions.storage.chunk_records import ChunkRecord
from sessions.storage.heads import LARGE_MANIFEST_BYTES
from sessions.storage.scrub_session import Subject
from sessions.storage.scrub_store import BodyKey, BodyScan, Finding, FindingStore, Kind, Part, Position
from sessions.storage.scrub_tree import TreeCheck
from sessions.storage.store import ChunkReader, SessionStore, TileStore

PAGE_BYTES: Final = 16 * 1024 * 1024
PAGE_WINDOWS: Final = 16
_KEY_BYTES: Final = 16
_BROKEN: Final = (KeyError, TypeError, ValueError, AttributeError, AssertionError)
"""What comes of reading a document that somebody wrote past the validators."""

FINDINGS = Counter("lucid_scrub_findings_total", "What scrubs found wrong, each time that they did.", ("kind",))
SCRUBBED_BYTES = Counter("lucid_scrub_bytes_total", "Bytes of bodies that scrubs have read.")
for _kind in Kind:
    FINDINGS.labels(_kind.value)
_log = structlog.get_logger()
_random = SystemRandom()


@dataclass(slots=True)
class ScrubPage:
    """What was looked at, what was found, and where to go on (None at the end).

    `total_bytes` is how much the bodies are of the session that was looked at last; None when it is not sealed.
    """

    sessions: int = 0
    chunks: int = 0
    bytes: int = 0
    total_bytes: int | None = None
    windows: int = 0
    findings: list[Finding] = field(default_factory=list)
    following: Position | None = None


class Scrubber:
    """Looks for what is missing, altered, truncated, orphaned or foreign."""

    def __init__(
        self,
        sessions: SessionStore,
        chunks: ChunkReader,
        tiles: TileStore,
        bodies: BodyScan,
        *,
        findings: FindingStore,
        audit: Audit,
        clock: Clock = now,
    ) -> None:
        self._sessions = sessions
        self._chunks = chunks
        self._tree = TreeCheck(chunks, tiles)
        self._bodies = bodies
        self._findings = findings
        self._audit = audit
        self._clock = clock

    async def page(
        self,
        start: Position | None,
        *,
        only: SessionId | None = None,
        sample: float = 1.0,
        limit_bytes: int = PAGE_BYTES,
    ) -> ScrubPage:
        """Look at what comes next, of one session or of all; of the bodies at this share, chosen by chance.

        Raises:
            DomainError: `session-not-found`, `database-unavailable`, `audit-unavailable` for what was found.
        """
        page = ScrubPage()
        position = start or await self._first(only)
        while position is not None and page.windows < PAGE_WINDOWS and page.bytes < limit_bytes:
            try:
                position = await self._window(position, page, sample, limit_bytes)
            except Exception as error:
                if not page.windows or isinstance(error, DomainError):
                    raise
                break  # the next page begins here and raises it, so that it is known where
            page.windows += 1
            if position is not None and position.start == 0 and only is not None:
                position = None
        page.following = position
        await self._report(page)
        return page

    async def after(self, position: Position) -> Position | None:
        """Return where a scrub goes on that passes over the rest of a session; None at the end.

        Raises:
            DomainError: `database-unavailable`.
        """
        following = await self._bodies.next_session(position.session_id)
        return None if following is None else Position(following)

    async def _first(self, only: SessionId | None) -> Position | None:
        if only is None:
            first = await self._bodies.next_session(None)
            return None if first is None else Position(first)
        if (await self._subject(only)).unknown and await self._bodies.next_index(only, 0) is None:
            raise problems.session_not_found(only)
        return Position(only)

    async def _report(self, page: ScrubPage) -> None:
        SCRUBBED_BYTES.inc(page.bytes)
        for finding in page.findings:
            FINDINGS.labels(finding.kind.value).inc()
            _log.warning("scrub_finding", **finding.to_json())
        if page.findings:
            await self._findings.keep(page.findings, self._clock())
        for session_id, kind in sorted({(finding.session_id, finding.kind.value) for finding in page.findings}):
            await self._audit.own(Action.SCRUB_FINDING, Outcome.FAILED, session_id, kind)

    async def _subject(self, session_id: SessionId) -> Subject:
        try:
            record = await self._sessions.get(session_id)
        except _BROKEN:
            return Subject(session_id, None, self._clock(), broken=True)
        if record is None or record.seal is None or len(record.seal.manifest) <= LARGE_MANIFEST_BYTES:
            return Subject(session_id, record, self._clock())
        return await asyncio.to_thread(Subject, session_id, record, self._clock())

    async def _window(self, position: Position, page: ScrubPage, sample: float, limit_bytes: int) -> Position | None:
        """Look at a window, and say where to go on: in the same session, or at the next one's beginning."""
        subject = await self._subject(position.session_id)
        page.total_bytes = None if subject.manifest is None else subject.manifest.envelope_bytes
        if position.start == 0:
            page.findings += subject.findings
        start = position.start
        if start >= subject.chunk_count:  # what is there beyond the seal, or of a session without one
            found = await self._bodies.next_index(subject.session_id, start)
            if found is None:
                page.findings += await self._whole(subject)
                page.sessions += 1
                following = await self._bodies.next_session(subject.session_id)
                return None if following is None else Position(following)
            start = found
        window = start - start % TILE_WIDTH
        sealed = start < subject.chunk_count
        first, end = (window if sealed else start), window + TILE_WIDTH
        if sealed:
            end = min(end, subject.chunk_count)
        try:
            records = {one.index: one for one in await self._chunks.page(subject.session_id, first, TILE_WIDTH)}
        except _BROKEN:
            detail = f"a record of chunks {first} to {end - 1} cannot be read"
            page.findings.append(Finding(Kind.ALTERED, Part.RECORD, subject.session_id, first, detail))
            return Position(subject.session_id, end)
        if sealed and start == first:
            page.findings += await self._tree.tile(subject, first, end, records)
        stored: dict[int, set[bytes]] = {}
        for key in await self._bodies.keys(subject.session_id, start, end):
            stored.setdefault(key.index, set()).add(key.digest)
        for index in sorted({index for index in records if start <= index < end} | stored.keys()):
            await self._chunk(subject, index, records.get(index), stored.get(index, set()), page=page, sample=sample)
            if page.bytes >= limit_bytes:
                return Position(subject.session_id, index + 1)
        return Position(subject.session_id, end)

    async def _whole(self, subject: Subject) -> list[Finding]:
        try:
            return await self._tree.whole(subject)
        except _BROKEN:
            return []  # a record, which was told with its window

    async def _chunk(
        self,
        subject: Subject,
        index: int,
        chunk: ChunkRecord | None,
        digests: set[bytes],
        *,
        page: ScrubPage,
        sample: float,
    ) -> None:
        """Look at the record and the bodies of one index."""

        def found(kind: Kind, part: Part, detail: str) -> None:
            page.findings.append(Finding(kind, part, subject.session_id, index, detail))

        if chunk is not None:
            page.chunks += 1
            marks = chunk.fingerprint
            leaf = chunk_leaf_input(subject.session_id, index, marks.envelope_bytes, marks.envelope_sha256)
            if leaf_hash(leaf) != marks.leaf_hash:
                # What it says of its body is worth nothing, either.
                found(Kind.ALTERED, Part.RECORD, "the record's leaf hash is not that of its size and hash")
                return
            if not subject.accounts_for(index):
                if subject.settled:
                    found(Kind.ORPHANED, Part.RECORD, subject.no_account)
                return
            own = marks.envelope_sha256[:_KEY_BYTES]
            if subject.readable:
                problem: tuple[Kind, str] | None = None
                if own not in digests:
                    problem = (Kind.MISSING, "the body is not there")
                elif sample >= 1 or _random.random() < sample:
                    problem = await self._body(subject, chunk, page)
                if problem is not None and await self._still(subject, chunk):
                    found(problem[0], Part.BODY, problem[1])
                digests = digests - {own}
        if digests and subject.settled:
            found(Kind.ORPHANED, Part.BODY, subject.no_body_account)

    async def _body(self, subject: Subject, chunk: ChunkRecord, page: ScrubPage) -> tuple[Kind, str] | None:
        """Read a body, part by part, and hash it."""
        digest, head, size = hashlib.sha256(), b"", 0
        expected = chunk.fingerprint
        async for part in self._bodies.parts(
            subject.session_id, BodyKey(chunk.index, expected.envelope_sha256[:_KEY_BYTES])
        ):
            head += part[: MAX_HEADER_BYTES - len(head)]
            size += len(part)
            await asyncio.to_thread(digest.update, part)
        page.bytes += size
        try:
            header = read_header(head)
        except CoreError:
            header = None
        if header is not None and (header.session_id, header.index) != (subject.session_id, chunk.index):
            return Kind.FOREIGN, f"the body is that of chunk {header.index} of session {header.session_id}"
        if size < expected.envelope_bytes:
            return Kind.TRUNCATED, f"the body has {size} bytes of {expected.envelope_bytes}"
        if digest.digest() != expected.envelope_sha256:
            return Kind.ALTERED, "the body's SHA-256 is not that of the record"
        if header is None:
            return Kind.ALTERED, "the body is no envelope"
        if header.plaintext_bytes != chunk.plaintext_bytes:  # no hash is over this; it places the chunk in a replay
            return Kind.ALTERED, f"the record says {chunk.plaintext_bytes} bytes of plaintext, the envelope another"
        return None

    async def _still(self, subject: Subject, chunk: ChunkRecord) -> bool:
        """Whether it was not shredded, or taken back by its writer, while we looked."""
        after = await self._subject(subject.session_id)
        page: Sequence[ChunkRecord] = await self._chunks.page(subject.session_id, chunk.index, 1)
        return after.readable and bool(page) and page[0] == chunk
