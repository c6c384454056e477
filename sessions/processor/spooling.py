"""What is done while session-storage is away: sessions are opened, chunks kept and seals ordered, all in the spool."""

import asyncio
import json
from collections.abc import Awaitable, Mapping
from contextlib import suppress
from typing import Any, Final, TypeVar

from sessions.core import key_ring
from sessions.core.key_ring import WrappedDek
from sessions.core.types import CHUNK_MAX_BYTES_LIMIT, ChunkIndex, DekId, SessionId
from sessions.processor.chunk_limit import ChunkLimit
from sessions.processor.kept_orders import KeptOrders
from sessions.processor.killpoints import Point
from sessions.processor.openings import read_key, read_opening
from sessions.processor.promises import Promises
from sessions.processor.quarantining import Quarantining
from sessions.processor.spool import Spool
from sessions.processor.spool_format import HEADER_BYTES, MAX_SENDER_BYTES, Kind
from sessions.processor.spool_index import Entry
from sessions.processor.spool_room import full
from sessions.processor.spool_segments import CorruptEntryError
from sessions.processor.spool_status import status_of
from sessions.processor.storage_answers import Keys
from sessions.processor.storage_watch import StorageWatch
from sessions.runtime.errors import DomainError
from sessions.runtime.killpoints import reach
from sessions.runtime.metadata import canonical_metadata
from sessions.runtime.times import now, to_rfc3339

T = TypeVar("T")
ENVELOPE_OVERHEAD_BYTES: Final = HEADER_BYTES + MAX_SENDER_BYTES + 256
"""What an envelope and its entry have beside the chunk, at most."""
_ATTEMPTS: Final = 3


class Spooling:
    """Decides what goes to the spool, and finds it there."""

    def __init__(self, spool: Spool, watch: StorageWatch, promises: Promises, *, introduced: bool = True) -> None:
        """`introduced`: session-storage knows this spool, so no seal leaves out what is acknowledged into it."""
        self.spool = spool
        self.watch = watch
        self.promises = promises
        self.introduced = introduced
        self.retain_days = 0
        self.limit = ChunkLimit(CHUNK_MAX_BYTES_LIMIT)
        self.orders = KeptOrders(spool, self.payload)
        self.quarantining = Quarantining(spool, promises)
        self._keeping: dict[tuple[SessionId, DekId], asyncio.Task[None]] = {}

    def concerns(self, session_id: SessionId) -> bool:
        """Whether the spool may know something of the session."""
        return self.watch.away or session_id in self.spool.sessions

    def takes(self, session_id: SessionId) -> bool:
        """Return whether a chunk goes to the spool.

        So it does while storage is away, while storage lacks the key that the chunk is encrypted under, and while what
        the spool has of this session cannot be delivered: nobody else waits for it then.
        """
        if self.watch.away:
            return True
        session = self.spool.sessions.get(session_id)
        return session is not None and (session.opening_waits or session.failures > 0)

    def require_room(self, session_id: SessionId, chunk_bytes: int, by: str | None) -> None:
        """Before a body is read: refuse a token's chunk that the spool could not keep.

        Raises:
            DomainError: `spool-full`.
        """
        if self.takes(session_id):
            self.spool.room.require(chunk_bytes + ENVELOPE_OVERHEAD_BYTES, by)

    async def attempt(self, call: Awaitable[T]) -> T:
        """Ask session-storage, but not for long.

        Raises:
            DomainError: what it answered; it is noted when it is away.
        """
        try:
            return await self.watch.attempt(call)
        except DomainError as error:
            self.watch.lost(error)
            raise

    async def openings(self, session_id: SessionId) -> list[dict[str, Any]]:
        """The openings of a session that are in the spool."""
        session = self.spool.sessions.get(session_id)
        found = []
        for entry in list(session.openings) if session is not None else ():
            payload = await self.payload(entry)
            if payload is not None:
                with suppress(ValueError):  # the drainer quarantines it
                    found.append(read_opening(payload))
        return found

    async def keys(self, session_id: SessionId) -> Keys:
        """The keys of a session that are in the spool, wrapped."""
        openings = await self.openings(session_id)
        return tuple({key.dek_id: key for key in map(read_key, openings)}.values())

    async def open(
        self, session_id: SessionId, metadata: Mapping[str, Any] | None, key: WrappedDek, by: str | None = None
    ) -> bool:
        """Keep an opening; False when there is one already that says the same.

        Raises:
            DomainError: `metadata-conflict`, `retention-too-short`, `invalid-request`, `spool-full`;
                `storage-unavailable` for a session that is promised.
        """
        self._require_taking(session_id, by)
        known = await self.openings(session_id)
        if known and metadata is None:
            return False
        for opening in known:
            if opening["metadata"] == metadata:
                return False
            if opening["metadata"] is not None:
                detail = f"session {session_id} was opened with other metadata than this"
                raise DomainError("metadata-conflict", detail, session_id=session_id)
        canonical_metadata(metadata)  # refuses what session-storage would refuse later
        self._require_terms(session_id, metadata)
        await self._append_opening(session_id, metadata, key, by)
        reach(Point.OPENING_SPOOLED)
        return not known

    def _require_taking(self, session_id: SessionId, by: str | None) -> None:
        """Refuse what must not be acknowledged here. Between this and `Spool.append` nothing may be awaited.

        Raises:
            DomainError: `storage-unavailable`, `spool-full`.
        """
        if session_id in self.promises:
            raise DomainError(
                "storage-unavailable",
                f"the seal of session {session_id} is being decided. Only session-storage knows what it contains, and"
                " session-storage does not answer; repeat the request",
                retry_after_seconds=2,
            )
        if not self.introduced:
            raise DomainError(
                "storage-unavailable",
                "session-storage is away and does not know this new spool yet, so a seal could leave out what it holds;"
                " repeat the request",
                retry_after_seconds=2,
            )
        if self.spool.quarantine.is_full_for(by):
            raise full("session-storage is away, and the quarantine has no room for more of this token")

    def _require_terms(self, session_id: SessionId, metadata: Mapping[str, Any] | None) -> None:
        """Refuse terms that session-storage would refuse later, as far as it has told us its own."""
        wanted = (metadata or {}).get("retention")
        days = wanted.get("retain_days") if isinstance(wanted, Mapping) else None
        if isinstance(days, int) and days < self.retain_days:
            detail = f"session {session_id} has to be kept for {self.retain_days} days at least"
            raise DomainError("retention-too-short", detail, session_id=session_id, least_days=self.retain_days)

    async def keep_key(self, session_id: SessionId, key: WrappedDek, by: str | None = None) -> None:
        """Have a key in the spool before what is sealed under it.

        A session that was opened at storage is none of the spool's; but a repeat of its chunks has to be opened and
        compared, also when this process was restarted and storage is away still.

        Raises:
            DomainError: `spool-full`; `storage-unavailable` when the key was delivered again and again meanwhile.
        """
        what = session_id, key.dek_id
        for _ in range(_ATTEMPTS):
            session = self.spool.sessions.get(session_id)
            if session is not None and key.dek_id in session.kept_keys:
                return  # an envelope that is appended now, before anything is awaited, finds it there
            task = self._keeping.get(what)
            if task is None:
                task = self._keeping[what] = asyncio.create_task(self._keep_key(session_id, key, by))
                task.add_done_callback(lambda _: self._keeping.pop(what, None))
            await asyncio.shield(task)
        detail = f"session-storage takes the key of session {session_id} from the spool at once; repeat the request"
        raise DomainError("storage-unavailable", detail, retry_after_seconds=1)

    async def _keep_key(self, session_id: SessionId, key: WrappedDek, by: str | None) -> None:
        session = self.spool.sessions.get(session_id)
        if session is None or all(known.dek_id != key.dek_id for known in await self.keys(session_id)):
            session = (await self._append_opening(session_id, None, key, by)).session
        session.kept_keys.add(key.dek_id)  # if it has been delivered meanwhile, what comes next has none

    async def _append_opening(
        self, session_id: SessionId, metadata: Mapping[str, Any] | None, key: WrappedDek, by: str | None
    ) -> Entry:
        self._require_taking(session_id, by)
        payload = {
            "session_id": session_id,
            "metadata": metadata,
            "key": key_ring.key_to_json(key),
            "opened_at": to_rfc3339(now()),
            "by": by,
        }
        entry, _ = await self.spool.append(Kind.OPENING, session_id, json.dumps(payload).encode(), by=by)
        return entry

    async def keep(
        self,
        session_id: SessionId,
        index: ChunkIndex,
        envelope: bytes,
        plaintext_bytes: int,
        by: str | None = None,
    ) -> bool:
        """Keep an envelope; False when there is another at its place.

        Raises:
            DomainError: `spool-full`; `storage-unavailable` when a seal is being decided, or ordered with fewer chunks.
        """
        session = self.spool.sessions.get(session_id)
        if session is not None and session.seals and index not in session.chunks:
            await self.orders.require_within(session, index, by)
        self._require_taking(session_id, by)
        _, created = await self.spool.append(
            Kind.ENVELOPE, session_id, envelope, int(index), plaintext_bytes=plaintext_bytes, by=by
        )
        if created:
            reach(Point.CHUNK_SPOOLED)
        return created

    async def envelope(self, session_id: SessionId, index: int) -> bytes | None:
        """An envelope that is in the spool; None when it is not there, or not any more."""
        entry = await self.spool.find(session_id, index)
        return None if entry is None else await self.payload(entry)

    async def payload(self, entry: Entry) -> bytes | None:
        """An entry's payload; None when it was delivered in the meantime, or damaged, which sets it aside."""
        try:
            return await self.spool.read(entry)
        except FileNotFoundError:
            return None
        except CorruptEntryError:
            await self.quarantining.quarantine(entry, "damaged")
            return None

    async def status(self, session_id: SessionId) -> dict[str, Any] | None:
        """A session as the spool knows it; None when it was not opened here.

        What session-storage has of it is not in it: a recorder that resumes sends that again, which changes nothing.
        """
        openings = await self.openings(session_id)
        session = self.spool.sessions.get(session_id)
        if not openings or session is None:
            return None
        return await status_of(session, openings[0]["opened_at"])
