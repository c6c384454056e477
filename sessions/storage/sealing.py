"""Sealing: fixing a session's chunk count and root.

A writer inserts, then reads the session's state again; a sealer writes the state, then scans. So one of the two always
sees the other: no chunk is acknowledged that the seal does not cover.
"""

import asyncio
import hashlib
import time
from bisect import bisect_right
from collections import deque
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import replace
from secrets import token_hex
from typing import Final

from prometheus_client import Counter, Histogram

from sessions.core.manifest import Manifest, SealedBy
from sessions.core.manifest import from_bytes as manifest_from_bytes
from sessions.core.strict import MAX_JSON_INTEGER
from sessions.core.types import Hash, SessionId
from sessions.runtime.errors import DomainError
from sessions.runtime.killpoints import reach
from sessions.runtime.times import Clock, now, to_rfc3339
from sessions.storage import problems
from sessions.storage.as_asked import require_as_asked
from sessions.storage.chunk_records import Leaves
from sessions.storage.killpoints import Point
from sessions.storage.progress import MAX_REPORTED_GAPS
from sessions.storage.seal_orders import WaitingOrder
from sessions.storage.seal_scan import Scan
from sessions.storage.seal_summary import summary_of
from sessions.storage.store import (
    Change,
    ChunkReader,
    Seal,
    SealOrder,
    SessionRecord,
    SessionStatus,
    SessionStore,
    TileStore,
)

_SCAN_CHUNKS: Final = 4000
_PAGES_AHEAD: Final = 2
_TILE_WRITES: Final = 64
REFUSALS: Final = ("chunks-missing", "chunk-count-mismatch", "envelope-corrupt")

SEALED = Counter("lucid_sessions_sealed_total", "Sessions that were sealed, by whom.", ("by",))
SEAL_SECONDS = Histogram(
    "lucid_session_seal_duration_seconds",
    "Time to read a session's records, hash them and store its seal.",
    buckets=(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60),
)
for _by in ("recorder", "idle"):
    SEALED.labels(_by)


class Sealer:
    """Seals sessions; any replica may take over where another died."""

    def __init__(self, sessions: SessionStore, chunks: ChunkReader, tiles: TileStore, clock: Clock = now) -> None:
        self._sessions = sessions
        self._chunks = chunks
        self._tiles = tiles
        self._clock = clock

    async def seal(
        self,
        session_id: SessionId,
        chunk_count: int | None,
        sealed_by: SealedBy,
        floor: int = 0,
        unheard: tuple[str, ...] = (),
    ) -> Manifest:
        """Seal a session, or return the manifest that it has been sealed with.

        A seal by the recorder takes all of 0 .. n-1; one by idleness notes what is missing. What was ordered before is
        decided first; when that is refused, it is not the answer to this. `floor` is the least number of chunks that
        were acknowledged, `unheard` the processors that were not waited for.

        Raises:
            DomainError: `session-not-found`, `chunks-missing`, `chunk-count-mismatch`, `envelope-corrupt`; the session
                stays open.
        """
        record = await self._sessions.get(session_id)
        if record is None:
            raise problems.session_not_found(session_id)
        own: SealOrder | None = None
        while record.seal is None:
            if record.status is SessionStatus.OPEN:
                own = SealOrder(chunk_count, sealed_by, self._clock(), floor=floor, unheard=unheard)
                change = Change(status=SessionStatus.SEALING, seal_order=own)
                updated = await self._sessions.update(session_id, SessionStatus.OPEN, change)
                reach(Point.SEAL_ORDERED)
                record = updated or await self._again(session_id)
            else:
                record = await self._decide(record, own)
        return sealed_as_asked(record, chunk_count, sealed_by, floor)

    async def carry_out(self, record: SessionRecord, order: WaitingOrder, unheard: tuple[str, ...]) -> bool:
        """Decide an order that has waited, unless the processors were asked again meanwhile.

        Return whether the session is sealed.

        Raises:
            DomainError: `chunks-missing`, `chunk-count-mismatch`; the session is open, and the order removed.
        """
        closing = record.closing
        assert closing is not None  # it holds the order
        own = SealOrder(
            order.chunk_count,
            order.sealed_by,
            self._clock(),
            order.order_id,
            closing.floor,
            unheard,
            # It was promised with a 202, and what a lost processor holds may never come.
            as_it_is=bool(unheard) and order.until_seconds is None,
        )
        change = Change(status=SessionStatus.SEALING, seal_order=own)
        begun = await self._sessions.update(record.session_id, SessionStatus.OPEN, change, ask_id=closing.ask_id)
        reach(Point.SEAL_ORDERED)
        return begun is not None and (await self._decide(begun, own)).seal is not None

    async def settle(self, record: SessionRecord) -> None:
        """Decide the order of a session that is being sealed; a refusal is not the caller's."""
        await self._decide(record, None)

    async def resume(self, record: SessionRecord) -> None:
        """Decide a seal that was begun, by a process that may have died.

        Raises:
            DomainError: `chunks-missing`, `chunk-count-mismatch`, `envelope-corrupt`; the session is open again.
        """
        await self._decide(record, record.seal_order)

    async def _decide(self, record: SessionRecord, own: SealOrder | None) -> SessionRecord:
        """Seal a session as it was ordered; the session after that. Raises when `own` is the order, and is refused."""
        try:
            return await self._finish(record)
        except DomainError as error:
            if error.code not in REFUSALS or record.seal_order == own:
                raise
            return await self._again(record.session_id)

    async def _again(self, session_id: SessionId) -> SessionRecord:
        record = await self._sessions.get(session_id)
        assert record is not None  # sessions are never deleted
        return record

    async def _finish(self, record: SessionRecord) -> SessionRecord:
        order = record.seal_order
        assert order is not None  # written together with the state
        attempt = token_hex(8)
        began = time.perf_counter()
        try:
            scan, sealed_by = await self._scanned(record.session_id, order, attempt)
        except DomainError as error:
            if error.code in REFUSALS:
                await self._tiles.drop(record.session_id, attempt)
                reach(Point.SEAL_TILES_DROPPED)
                reopen = Change(status=SessionStatus.OPEN, refuse=order.order_id)
                if await self._sessions.update(record.session_id, SessionStatus.SEALING, reopen, order) is None:
                    return await self._again(record.session_id)  # another sealer decided this order
                reach(Point.SEAL_REOPENED)
            raise
        manifest = Manifest(
            session_id=record.session_id,
            chunk_count=scan.tree.size,
            missing=tuple(scan.gaps),
            plaintext_bytes=scan.plaintext_bytes,
            envelope_bytes=scan.envelope_bytes,
            root=scan.tree.root(),
            opened_at=to_rfc3339(record.opened_at),
            sealed_at=to_rfc3339(order.sealed_at),
            sealed_by=sealed_by,
            metadata_sha256=Hash(hashlib.sha256(record.metadata).digest()),
        )
        change = Change(status=SessionStatus.SEALED, seal=Seal(manifest.to_bytes(), attempt, summary_of(manifest)))
        sealed = await self._sessions.update(record.session_id, SessionStatus.SEALING, change, order)
        reach(Point.SEAL_STORED)
        if sealed is None:  # another sealer decided this order: the scan is not for what came since
            await self._tiles.drop(record.session_id, attempt)
            return await self._again(record.session_id)
        SEALED.labels(sealed_by).inc()
        SEAL_SECONDS.observe(time.perf_counter() - began)
        return sealed

    async def _scanned(self, session_id: SessionId, order: SealOrder, attempt: str) -> tuple[Scan, SealedBy]:
        try:
            return await self._scan(session_id, order, attempt), order.sealed_by
        except DomainError as error:
            if error.code != "chunks-missing" or not order.as_it_is or order.sealed_by == "idle":
                raise
        # By the recorder there are no gaps (FORMAT.md), so it is storage that seals it.
        await self._tiles.drop(session_id, attempt)
        return await self._scan(session_id, replace(order, sealed_by="idle"), attempt), "idle"

    async def _scan(self, session_id: SessionId, order: SealOrder, attempt: str) -> Scan:
        scan, start = Scan(session_id), 0
        allow_missing = order.sealed_by == "idle"
        tiles: list[tuple[int, int, bytes]] = []
        async with aclosing(self._pages(session_id)) as pages:
            async for page in pages:
                tiles += await asyncio.to_thread(scan.add, page, allow_missing=allow_missing)
                start = page.indexes[-1] + 1
                if len(tiles) >= _TILE_WRITES:
                    await self._tiles.put(session_id, attempt, tiles)
                    tiles = []
        least = max(order.floor, order.chunk_count or 0)
        if order.chunk_count is not None and max(start, order.floor) > order.chunk_count:
            raise problems.chunk_count_mismatch(session_id, order.chunk_count, max(start, order.floor))
        if start < least:
            tiles += await asyncio.to_thread(scan.gap, least, allow_missing=allow_missing)
        if scan.gaps and not allow_missing:
            raise problems.chunks_missing(session_id, [list(gap) for gap in scan.gaps[:MAX_REPORTED_GAPS]])
        if max(scan.plaintext_bytes, scan.envelope_bytes) > MAX_JSON_INTEGER:  # stored by a version without a bound
            raise problems.lengths_implausible(session_id, scan.plaintext_bytes)
        await self._tiles.put(session_id, attempt, [*tiles, *scan.tree.partial_tiles()])
        reach(Point.SEAL_TILES_STORED)
        return scan

    async def _pages(self, session_id: SessionId) -> AsyncGenerator[Leaves, None]:
        """A session's leaves. While one page is hashed, the next is read: from where it starts if nothing lacks."""

        def read(start: int) -> asyncio.Task[Leaves]:
            return asyncio.create_task(self._chunks.leaves(session_id, start, _SCAN_CHUNKS))

        start, ahead = 0, deque([read(0)])
        try:
            while ahead:
                page = await ahead[0]
                ahead.popleft()
                if len(page.indexes) < _SCAN_CHUNKS:
                    await _give_up(ahead)
                else:
                    following = page.indexes[-1] + 1
                    if following != start + _SCAN_CHUNKS:  # behind a gap, what was read ahead is not what follows
                        await _give_up(ahead)
                    start = following
                    while len(ahead) < _PAGES_AHEAD:
                        ahead.append(read(start + len(ahead) * _SCAN_CHUNKS))
                if page.indexes:
                    yield page
        finally:
            await _give_up(ahead)


async def _give_up(reading: deque[asyncio.Task[Leaves]]) -> None:
    """Wait for reads whose result is not needed. Cancelling them is unsafe, see `Readiness.ping`."""
    await asyncio.gather(*reading, return_exceptions=True)
    reading.clear()


def sealed_manifest(record: SessionRecord) -> Manifest:
    """The manifest of a session that is sealed (and perhaps shredded).

    Raises:
        DomainError: `session-open`.
    """
    if record.seal is None:
        raise problems.session_open(record.session_id, "a manifest, a root and proofs come with the seal")
    return manifest_from_bytes(record.seal.manifest)


def sealed_as_asked(record: SessionRecord, chunk_count: int | None, sealed_by: SealedBy, floor: int) -> Manifest:
    """Return the manifest of a sealed session, if it holds all that was asked for: for a recorder, without gaps.

    Raises:
        DomainError: `chunks-missing`, `chunk-count-mismatch`, `session-open`.
    """
    manifest = sealed_manifest(record)
    assert record.seal is not None  # it has a manifest
    require_as_asked(
        record.session_id,
        record.seal.manifest,
        summary_of(manifest),
        chunk_count=chunk_count,
        sealed_by=sealed_by,
        floor=floor,
    )
    return manifest


def covers(manifest: Manifest, index: int) -> bool:
    """Whether a seal covers the chunk of this index, and not a gap."""
    begun = bisect_right(manifest.missing, index, key=lambda gap: gap[0])  # there may be 100,000 gaps
    return index < manifest.chunk_count and not (begun and index <= manifest.missing[begun - 1][1])
