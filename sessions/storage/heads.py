"""Sessions as lists read them: without metadata, keys and manifest, which may be large.

Sessions that version 0.1.0 sealed lack the summary of their seal. `completed` reads their manifests, some at a time
and beside the event loop, and stores what it found, so that each is read once.
"""

import asyncio
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Final, Protocol

from sessions.core.manifest import Manifest
from sessions.core.types import SessionId
from sessions.storage.seal_summary import SealSummary, missing_of, read_summary, summary_of
from sessions.storage.sealing import sealed_manifest
from sessions.storage.store import (
    Cursor,
    Retention,
    SealOrder,
    SessionFilter,
    SessionRecord,
    SessionStatus,
    SessionStore,
    Tombstone,
)

LARGE_MANIFEST_BYTES: Final = 16 * 1024
"""A manifest of more bytes is parsed in a thread: it takes a millisecond and longer."""
MANIFEST_GROUP_BYTES: Final = 1024 * 1024
"""Most bytes of manifests that a list holds at once; a single manifest may be larger."""
MANIFEST_PAGE_BYTES: Final = 8 * 1024 * 1024
"""Most bytes of manifests that one page of a list reads. Such a page ends early, after at least one session."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionHead:
    """One session, without what may be large.

    `batch` is the number of the batch that it is in. `manifest_bytes` is the size of its manifest, 0 before the seal.
    Its `seal_order` comes without the names of processors that were `unheard`.
    """

    session_id: SessionId
    status: SessionStatus
    opened_at: datetime
    seal_order: SealOrder | None = None
    summary: SealSummary | None = None
    batch: int | None = None
    held: bool = False
    retention: Retention
    tombstone: Tombstone | None = None
    manifest_bytes: int = 0

    @property
    def order_id(self) -> str | None:
        """Id of the newest order to seal it."""
        return None if self.seal_order is None else self.seal_order.order_id

    @property
    def unread_bytes(self) -> int:
        """Bytes of manifest to read for the summary that the session lacks."""
        return self.manifest_bytes if self.summary is None else 0


class SessionLists(Protocol):
    """Sessions by their heads."""

    async def page(self, which: SessionFilter, limit: int, after: Cursor | None) -> list[SessionHead]:
        """Recordings (not days of the audit trail) behind the cursor; newest opening first, or by id, see `by_id`."""

    async def heads(self, session_ids: Sequence[SessionId]) -> Mapping[SessionId, SessionHead]:
        """Return those sessions that exist, days of the audit trail among them."""

    async def manifests(self, session_ids: Sequence[SessionId]) -> Mapping[SessionId, bytes]:
        """Return the manifests of those sessions that are sealed."""

    async def keep_summaries(self, summaries: Mapping[SessionId, SealSummary]) -> None:
        """Store summaries of sessions that are sealed and have none."""


class Sessions(SessionStore, SessionLists, Protocol):
    """Sessions, and lists of them."""


def head_of(record: SessionRecord) -> SessionHead:
    """Return the head of a record."""
    seal = record.seal
    return SessionHead(
        session_id=record.session_id,
        status=record.status,
        opened_at=record.opened_at,
        seal_order=None if record.seal_order is None else replace(record.seal_order, unheard=()),
        summary=None if seal is None else seal.summary,
        batch=None if record.placement is None else record.placement.sequence,
        held=record.held,
        retention=record.retention,
        tombstone=record.tombstone,
        manifest_bytes=0 if seal is None else len(seal.manifest),
    )


def _is_large(manifest: bytes) -> bool:
    return len(manifest) > LARGE_MANIFEST_BYTES


async def manifest_of(record: SessionRecord) -> Manifest:
    """Return the manifest of a session that is sealed (and perhaps shredded); parse a large one in a thread.

    Raises:
        DomainError: `session-open`.
    """
    if record.seal is None or not _is_large(record.seal.manifest):
        return sealed_manifest(record)
    return await asyncio.to_thread(sealed_manifest, record)


async def sealed_summary(record: SessionRecord) -> SealSummary:
    """Return the summary of a session that is sealed; parse its manifest only if version 0.1.0 sealed it.

    Raises:
        DomainError: `session-open`.
    """
    if record.seal is not None and record.seal.summary is not None:
        return record.seal.summary
    return summary_of(await manifest_of(record))


async def covered(record: SessionRecord, indexes: Sequence[int]) -> list[bool]:
    """Return for each index whether the session's seal covers that chunk.

    Raises:
        DomainError: `session-open`.
    """
    summary = await sealed_summary(record)
    if not summary.missing_chunks:
        return [index < summary.chunk_count for index in indexes]
    assert record.seal is not None  # it has a summary
    data = record.seal.manifest
    missing = await asyncio.to_thread(missing_of, data, indexes) if _is_large(data) else missing_of(data, indexes)
    return [index < summary.chunk_count and index not in missing for index in indexes]


async def completed(sessions: SessionLists, heads: Sequence[SessionHead]) -> list[SessionHead]:
    """Return heads with the summaries that they lack; fewer where their manifests are more than a page may read.

    A session whose manifest cannot be read has none.
    """
    done: list[SessionHead] = []
    for group in _groups(heads):
        unread = [head.session_id for head in group if head.unread_bytes]
        if unread:
            found = await sessions.manifests(unread)
            summaries = await asyncio.to_thread(_read, found)
            del found
            await sessions.keep_summaries(summaries)
            group = [replace(head, summary=head.summary or summaries.get(head.session_id)) for head in group]  # noqa: PLW2901
        done += group
    return done


def _read(manifests: Mapping[SessionId, bytes]) -> dict[SessionId, SealSummary]:
    read = ((name, read_summary(data)) for name, data in manifests.items())
    return {name: summary for name, summary in read if summary is not None}


def _groups(heads: Sequence[SessionHead]) -> Iterator[list[SessionHead]]:
    """Runs of heads, each of bounded bytes of unread manifests, up to the bound of a page."""
    group: list[SessionHead] = []
    size = total = 0
    for head in heads:
        if group and head.unread_bytes and size + head.unread_bytes > MANIFEST_GROUP_BYTES:
            yield group
            group, size = [], 0
            if total and total + head.unread_bytes > MANIFEST_PAGE_BYTES:
                return
        group.append(head)
        size += head.unread_bytes
        total += head.unread_bytes
    if group:
        yield group
