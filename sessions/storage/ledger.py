"""What session-storage does with sessions: open, ring keys, hold, and tell; `shredding.py` destroys them."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import structlog
from prometheus_client import Counter

from sessions.core.key_ring import MAX_KEYS, WrappedDek
from sessions.core.manifest import SealedBy, metadata_sha256
from sessions.core.types import SessionId
from sessions.runtime.errors import DomainError
from sessions.runtime.killpoints import reach
from sessions.runtime.metadata import canonical_metadata
from sessions.runtime.tasks import skipped
from sessions.storage import problems
from sessions.storage.anchor import BatchReader
from sessions.storage.begun_seals import BegunSeals
from sessions.storage.heads import SessionHead, Sessions
from sessions.storage.killpoints import Point
from sessions.storage.progress import ProgressReader
from sessions.storage.reads import Hold
from sessions.storage.retention import Terms, from_metadata
from sessions.storage.seal_desk import WAIT_SECONDS, SealDesk, Waiting
from sessions.storage.seal_orders import Confirmation
from sessions.storage.sealing import Sealer
from sessions.storage.session_views import SessionViews
from sessions.storage.store import Change, Retention, SessionFilter, SessionRecord, SessionStatus

OPENED = Counter("lucid_sessions_opened_total", "Sessions that were opened.")
_log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Opened:
    """A session that was opened now, or before."""

    record: SessionRecord
    created: bool


class Ledger(SessionViews):
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
        written: Callable[[], None] = lambda: None,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """Call `opened` with each session that is opened here, and `written` after each write."""
        super().__init__(sessions, batches, terms, progress)
        self._sealer = sealer
        self._desk = desk
        self._opened = opened
        self._written = written
        self._begun = BegunSeals(monotonic)

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
            self._written()
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
                self._written()
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

    async def sealed_already(self, session_id: SessionId, hold: Hold) -> SessionRecord | None:
        """Return a session if it is sealed; `hold` reserves memory by its manifest's size before it is read.

        Raises:
            DomainError: those of `hold`.
        """
        head = (await self._sessions.heads([session_id])).get(session_id)
        if head is None or not head.manifest_bytes:
            return None
        await hold(head.manifest_bytes)
        return await self.get(session_id)

    async def sealed(self, session_id: SessionId, hold: Hold) -> SessionRecord:
        """Return a session that is sealed; see `sealed_already`.

        Raises:
            DomainError: `session-not-found`, `session-open`; those of `hold`.
        """
        record = await self.sealed_already(session_id, hold) or await self.get(session_id)
        if record.seal is None:
            raise problems.session_open(session_id, "a manifest, a root and proofs come with the seal")
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
        self._written()
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
    ) -> SessionRecord | Waiting:
        """Seal a session, or return it as it was sealed. See `SealDesk.seal`."""
        sealed = await self._desk.seal(session_id, chunk_count, sealed_by, first, keep=keep, wait_seconds=wait_seconds)
        self._written()
        self._progress.forget(session_id)
        return sealed

    async def resume_seals(self, limit: int) -> int:
        """Finish seals that were begun by a process that may have died; return how many were decided.

        Those are finished that this process has seen under one order for `RESUME_SEAL_AFTER_SECONDS`. They are read in
        pages of `limit`. A session that cannot be decided stops no other.

        Raises:
            DomainError: `database-unavailable`; the rest is for the next time.
        """
        decided, after = 0, None
        with self._begun.look() as is_old:
            while True:
                begun = await self._sessions.page(SessionFilter(status=SessionStatus.SEALING), limit, after)
                for head in begun:
                    if is_old(head):
                        decided += await self._resume_seal(head)
                if len(begun) < limit:
                    return decided
                after = begun[-1].opened_at, begun[-1].session_id

    async def _resume_seal(self, head: SessionHead) -> bool:
        try:
            record = await self.get(head.session_id)
            if record.status is not SessionStatus.SEALING or record.order_id != head.order_id:
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
        self._written()
        return updated or await self.hold(session_id, held=held)

    async def retain(self, session_id: SessionId, retention: Retention) -> SessionRecord:
        """Give a session terms of its own, in place of those that it has.

        Raises:
            DomainError: `session-not-found`, `session-shredded`, `retention-too-short`.
        """
        record = await self.readable(session_id)
        self._terms.require(session_id, retention)
        updated = await self._sessions.update(session_id, record.status, Change(retention=retention))
        self._written()
        return updated or await self.retain(session_id, retention)
