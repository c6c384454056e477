"""What session-storage does with sessions: open, ring keys, hold, and tell; `shredding.py` destroys them."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any

import structlog
from prometheus_client import Counter

from sessions.core.key_ring import MAX_KEYS, WrappedDek
from sessions.core.manifest import Manifest, SealedBy, metadata_sha256
from sessions.core.receipt import Anchor
from sessions.core.types import SessionId
from sessions.runtime.errors import DomainError
from sessions.runtime.killpoints import reach
from sessions.runtime.metadata import canonical_metadata
from sessions.runtime.tasks import skipped
from sessions.runtime.times import to_rfc3339
from sessions.storage import problems
from sessions.storage.anchor import BatchReader
from sessions.storage.heads import SessionHead, Sessions, completed, head_of, manifest_of
from sessions.storage.killpoints import Point
from sessions.storage.progress import MAX_REPORTED_GAPS, ProgressReader
from sessions.storage.retention import Terms, from_metadata
from sessions.storage.seal_desk import WAIT_SECONDS, SealDesk, Waiting
from sessions.storage.seal_orders import Confirmation
from sessions.storage.seal_summary import first_gaps, summary_of
from sessions.storage.sealing import Sealer
from sessions.storage.store import (
    Change,
    Cursor,
    Retention,
    SessionFilter,
    SessionRecord,
    SessionStatus,
)

RESUME_SEAL_AFTER = timedelta(seconds=10)
OPENED = Counter("lucid_sessions_opened_total", "Sessions that were opened.")
_log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Opened:
    """A session that was opened now, or before."""

    record: SessionRecord
    created: bool


class Ledger:
    """The sessions' life, on whatever stores it is given."""

    def __init__(
        self,
        sessions: Sessions,
        sealer: Sealer,
        desk: SealDesk,
        progress: ProgressReader,
        *,
        batches: BatchReader,
        terms: Terms,
        opened: Callable[[SessionRecord], None] = lambda _: None,
    ) -> None:
        """`opened` is told of each session that is opened here."""
        self._sessions = sessions
        self._sealer = sealer
        self._desk = desk
        self._progress = progress
        self._batches = batches
        self._terms = terms
        self._opened = opened

    async def open(self, session_id: SessionId, metadata: Mapping[str, Any] | None, key: WrappedDek) -> Opened:
        """Open a session with its first key, or find it open: then its own keys stay, and `key` is not used.

        A session that was opened by a chunk alone takes the first metadata that come before its seal.

        Raises:
            DomainError: `metadata-conflict`, `session-sealed`, `session-shredded`, `retention-too-short`,
                `invalid-request`; `overloaded` while its seal is being decided.
        """
        retention = from_metadata(metadata)
        canonical = canonical_metadata(metadata)
        if retention != Retention() and await self._sessions.get(session_id) is None:
            # What is open already stays so: the operator's terms may have become stricter since.
            self._terms.require(session_id, retention)
        record, created = await self._sessions.create(
            SessionRecord(
                session_id=session_id,
                status=SessionStatus.OPEN,
                opened_at=self._terms.clock(),
                metadata=canonical,
                keys=(key,),
                retention=retention,
                metadata_given=metadata is not None,
            )
        )
        reach(Point.OPENING_STORED)
        OPENED.inc(created)
        if created:
            self._opened(record)
        else:
            problems.require_open(record)
            if metadata is not None:
                record = await self._with_metadata(record, metadata, canonical, retention)
        return Opened(record, created)

    async def _with_metadata(
        self, record: SessionRecord, metadata: Mapping[str, Any], canonical: bytes, retention: Retention
    ) -> SessionRecord:
        """Give a session that has none yet its metadata and terms; refuse other than those that it has."""
        session_id = record.session_id
        if not record.metadata_given:
            self._terms.require(session_id, retention)
            change = Change(metadata=canonical, retention=retention)
            given = await self._sessions.update(session_id, SessionStatus.OPEN, change)
            if given is not None:
                return given
            record = await self.get(session_id)  # another request gave it metadata, or it is being sealed
            problems.require_open(record)
        if record.metadata != canonical:
            sha256 = metadata_sha256(metadata).hex()
            detail = f"session {session_id} was opened with other metadata than this (SHA-256 {sha256})"
            raise DomainError("metadata-conflict", detail, session_id=session_id)
        return record

    async def get(self, session_id: SessionId) -> SessionRecord:
        """A session.

        Raises:
            DomainError: `session-not-found`.
        """
        record = await self._sessions.get(session_id)
        if record is None:
            raise problems.session_not_found(session_id)
        return record

    async def readable(self, session_id: SessionId) -> SessionRecord:
        """A session whose content is there.

        Raises:
            DomainError: `session-not-found`, `session-shredded`.
        """
        record = await self.get(session_id)
        if record.status is SessionStatus.SHREDDED:
            raise problems.session_shredded(record)
        return record

    async def add_key(self, session_id: SessionId, key: WrappedDek) -> SessionRecord:
        """Add a wrapped key to a session's ring; one that is there already stays as it is.

        Raises:
            DomainError: `session-not-found`, `session-sealed`, `session-shredded`, `invalid-request`.
        """
        record = await self.readable(session_id)
        problems.require_open(record)
        if any(known.dek_id == key.dek_id for known in record.keys):
            return record
        if len(record.keys) >= MAX_KEYS:
            raise DomainError("invalid-request", f"a key ring holds at most {MAX_KEYS} keys")
        updated = await self._sessions.update(session_id, SessionStatus.OPEN, Change(add_key=key))
        return updated or await self.add_key(session_id, key)

    async def seal(
        self,
        session_id: SessionId,
        chunk_count: int | None,
        sealed_by: SealedBy,
        first: Confirmation | None = None,
        *,
        keep: bool = True,
        wait_seconds: float = WAIT_SECONDS,
    ) -> Manifest | Waiting:
        """Seal a session, or return the manifest it has. See `SealDesk.seal`."""
        sealed = await self._desk.seal(session_id, chunk_count, sealed_by, first, keep=keep, wait_seconds=wait_seconds)
        self._progress.forget(session_id)
        return sealed

    async def resume_seals(self, limit: int) -> int:
        """Finish seals that were begun some time ago, by a process that may have died; return how many were decided.

        They are read in pages of `limit`. A session that cannot be decided stops no other.

        Raises:
            DomainError: `database-unavailable`; the rest is for the next time.
        """
        decided, after = 0, None
        latest = self._terms.clock() - RESUME_SEAL_AFTER
        while True:
            begun = await self._sessions.page(SessionFilter(status=SessionStatus.SEALING), limit, after)
            for head in begun:
                if head.seal_order and head.seal_order.sealed_at < latest:
                    decided += await self._resume_seal(head)
            if len(begun) < limit:
                return decided
            after = begun[-1].opened_at, begun[-1].session_id

    async def _resume_seal(self, head: SessionHead) -> bool:
        try:
            record = await self.get(head.session_id)
            if record.status is not SessionStatus.SEALING or record.seal_order != head.seal_order:
                return False  # decided, or ordered again, since the list was read
            await self._sealer.resume(record)
        except DomainError as error:
            if error.code == "database-unavailable":
                raise
            _log.warning("seal_refused", session_id=head.session_id, code=error.code, reason=error.detail)
        except Exception:  # noqa: BLE001 - whatever is wrong with this session, others are to be sealed
            skipped(session_id=head.session_id)
            return False
        self._progress.forget(head.session_id)
        return True

    async def hold(self, session_id: SessionId, *, held: bool) -> SessionRecord:
        """Set or lift the legal hold.

        Raises:
            DomainError: `session-not-found`, `session-shredded`.
        """
        record = await self.readable(session_id)
        updated = await self._sessions.update(session_id, record.status, Change(held=held))
        return updated or await self.hold(session_id, held=held)

    async def retain(self, session_id: SessionId, retention: Retention) -> SessionRecord:
        """Give a session terms of its own, in place of those that it has.

        Raises:
            DomainError: `session-not-found`, `session-shredded`, `retention-too-short`.
        """
        record = await self.readable(session_id)
        self._terms.require(session_id, retention)
        updated = await self._sessions.update(session_id, record.status, Change(retention=retention))
        return updated or await self.retain(session_id, retention)

    async def anchor_of(self, record: SessionRecord) -> Anchor:
        """The anchor of a sealed session; pending while it is in no batch."""
        return await self._anchor(None if record.placement is None else record.placement.sequence)

    async def _anchor(self, sequence: int | None) -> Anchor:
        batch = None if sequence is None else await self._batches.get_by_sequence(sequence)
        return batch.anchor if batch is not None else Anchor()

    async def page(self, which: SessionFilter, limit: int, after: Cursor | None) -> tuple[list[dict[str, Any]], bool]:
        """Return sessions as JSON objects, and whether more may follow; see `completed` for pages that end early."""
        found = await self._sessions.page(which, limit, after)
        views = await self._views(found)
        return views, len(found) == limit or len(views) < len(found)

    async def summaries(self, session_ids: Sequence[SessionId]) -> list[dict[str, Any]]:
        """Return the first of these sessions, those that exist, as JSON objects; see `completed` for how many."""
        heads = await self._sessions.heads(session_ids)
        return await self._views([heads[name] for name in session_ids if name in heads])

    async def _views(self, found: Sequence[SessionHead]) -> list[dict[str, Any]]:
        heads = await completed(self._sessions, found)
        # Sessions that were sealed together are in one batch, which is read once.
        anchors = {batch: await self._anchor(batch) for batch in {head.batch for head in heads}}
        return [self._view(head, anchors[head.batch]) for head in heads]

    async def summary(self, record: SessionRecord) -> dict[str, Any]:
        """Return a session as a JSON object, without what takes a scan."""
        return self._view(await self._head(record), await self.anchor_of(record))

    async def _head(self, record: SessionRecord) -> SessionHead:
        head = head_of(record)
        if not head.unread_bytes:
            return head
        summary = summary_of(await manifest_of(record))
        await self._sessions.keep_summaries({record.session_id: summary})
        return replace(head, summary=summary)

    def _view(self, record: SessionHead, anchor: Anchor) -> dict[str, Any]:
        view: dict[str, Any] = {
            "session_id": record.session_id,
            "status": record.status.value,
            "chunk_count": None,
            "plaintext_bytes": None,
            "envelope_bytes": None,
            "opened_at": to_rfc3339(record.opened_at),
            "sealed_at": None,
            "root": None,
            "anchor": None,
            "held": record.held,
            **problems.tombstone_json(record.tombstone),
            "retained_until": None,
            "delete_at": None,
        }
        if record.status is SessionStatus.SEALED:
            retained_until, delete_at = self._terms.retained_until(record), self._terms.delete_at(record)
            view["retained_until"] = retained_until and to_rfc3339(retained_until)
            view["delete_at"] = delete_at and to_rfc3339(delete_at)
        if (summary := record.summary) is not None:
            view |= {
                "chunk_count": summary.stored_chunks,
                "plaintext_bytes": summary.plaintext_bytes,
                "envelope_bytes": summary.envelope_bytes,
                "sealed_at": summary.sealed_at,
                "root": summary.root.hex(),
                "anchor": anchor.to_json(),
            }
        return view

    async def status(self, record: SessionRecord) -> dict[str, Any]:
        """A session as a JSON object, with where to resume."""
        head = await self._head(record)
        view = self._view(head, await self.anchor_of(record))
        if record.seal is not None and head.summary is not None:
            missing, truncated = first_gaps(record.seal.manifest, MAX_REPORTED_GAPS)
            return view | {
                "next_index": head.summary.chunk_count,
                "missing": missing,
                "missing_truncated": truncated,
                "unheard": list(record.unheard),
            }
        progress = await self._progress.read(record.session_id, record.opened_at)
        return view | {
            "next_index": progress.next_index,
            "missing": [list(gap) for gap in progress.missing],
            "missing_truncated": progress.missing_truncated,
            "chunk_count": progress.chunk_count,
            "plaintext_bytes": progress.plaintext_bytes,
            "envelope_bytes": progress.envelope_bytes,
        }
