"""Delivers what the spool has of one session: its openings with their keys, its envelopes, and the order to seal it."""

import asyncio
from collections.abc import Callable
from typing import Any, Final, NoReturn

import structlog
from prometheus_client import Counter

from sessions.core import envelope as envelopes
from sessions.core.envelope import fingerprint
from sessions.core.errors import CoreError
from sessions.core.types import ChunkIndex, DekId
from sessions.processor.key_rings import KeyRings
from sessions.processor.killpoints import Point
from sessions.processor.opening_delivery import OpeningDelivery
from sessions.processor.openings import read_key, read_order
from sessions.processor.pipeline import POST_BYTES, Submitter
from sessions.processor.quarantine import CONFLICT
from sessions.processor.recording import ACKNOWLEDGED, Recording
from sessions.processor.seal_orders import SealOrders
from sessions.processor.spool_format import Kind
from sessions.processor.spool_index import Entry, SpooledSession
from sessions.processor.spooling import Spooling
from sessions.processor.storage_answers import FrameAnswer
from sessions.processor.storage_client import StorageClient
from sessions.processor.storage_errors import RequestFailedError, is_transient
from sessions.processor.undelivered import DRAINED, EntryFailedError, unreadable
from sessions.runtime.errors import DomainError
from sessions.runtime.killpoints import reach

TURN_SECONDS: Final = 0.25
"""Time in seconds after which a session's turn ends with the window that is under way, if others wait."""
_CONTESTED_ENTRIES: Final = 32
"""Limit on the envelopes that are delivered together after some have met a conflict."""
_SETTLE_SECONDS: Final = 0.25
"""Time for the conflicts of one window in seconds. Those that are left are submitted again in a later one."""
_LOST: Final = ("unknown-session", "unknown-key")
SEALS_REFUSED = Counter("lucid_spool_seals_refused_total", "Seals that waited and were refused; the session is open.")
_log = structlog.get_logger()


class Delivery:
    """Hands over sessions."""

    def __init__(
        self,
        spooling: Spooling,
        storage: StorageClient,
        submitter: Submitter,
        recording: Recording,
        *,
        rings: KeyRings,
        orders: SealOrders,
    ) -> None:
        self._spooling = spooling
        self._spool = spooling.spool
        self._quarantining = spooling.quarantining
        self._storage = storage
        self._submitter = submitter
        self._recording = recording
        self._rings = rings
        self._orders = orders
        self._openings = OpeningDelivery(spooling, storage)

    async def deliver(self, session: SpooledSession, at_once: int, others_wait: Callable[[], bool]) -> None:
        """Deliver openings and envelopes of a session, and when it has none, one order to seal it.

        Once others wait, stop after the window in which `TURN_SECONDS` are over. `at_once` sessions share the memory
        for it.

        Raises:
            EntryFailedError: some entries could not be delivered, for now.
        """
        loop = asyncio.get_running_loop()
        until = loop.time() + TURN_SECONDS
        try:
            if not session.holds:
                for entry in session.seals[:1]:
                    await self._seal(entry)
                return
            await self._openings.deliver(session)
            while entries := session.window(POST_BYTES // max(1, at_once)):
                if session.contested:
                    entries = entries[:_CONTESTED_ENTRIES]
                await self._envelopes(session, entries)
                if not any(entry.delivered for entry in entries):  # a disk that takes nothing into the quarantine
                    error = DomainError("internal", "entries can neither be delivered nor quarantined")
                    raise EntryFailedError(tuple(entries), error)
                if loop.time() >= until and others_wait():
                    return
        except EntryFailedError as failed:
            if failed.error.code != "session-shredded":
                raise
            await self._quarantining.shred(session.session_id)
        finally:
            self._rings.forget(session.session_id)  # storage may have further keys of it

    async def give_up(self, entry: Entry, error: DomainError) -> None:
        """Quarantine an entry that cannot be delivered; of an opening also all that needs its key."""
        reason = f"{error.code}: {error.detail}"
        if entry.kind is not Kind.OPENING:
            await self._aside(entry, "undeliverable", reason)
            return
        for other in [*entry.session.earlier, *entry.session.chunks.values()]:
            await self._aside(other, "undeliverable", reason)
        await self._aside(entry, "undeliverable", reason)

    async def _envelopes(self, session: SpooledSession, entries: list[Entry]) -> None:
        payloads = await asyncio.gather(*map(self._spooling.payload, entries))
        found = [(entry, payload) for entry, payload in zip(entries, payloads, strict=True) if payload is not None]
        reach(Point.DRAIN_BEFORE_POST)
        answers = await asyncio.gather(
            *(self._submit(session, entry, payload) for entry, payload in found), return_exceptions=True
        )
        reach(Point.DRAIN_AFTER_POST)
        delivered: list[Entry] = []
        settle: list[tuple[Entry, bytes, str]] = []
        failed: list[Entry] = []
        failure: DomainError | None = None
        for (entry, payload), answer in zip(found, answers, strict=True):
            if isinstance(answer, Exception) and not isinstance(answer, DomainError):
                _log.error("spool_entry_not_delivered", session_id=session.session_id, exc_info=answer)
                failed.append(entry)
                failure = DomainError("internal", type(answer).__name__)
                continue
            if not isinstance(answer, DomainError | str):
                raise answer
            verdict = answer.code if isinstance(answer, DomainError) else answer
            if verdict in ACKNOWLEDGED:
                delivered.append(entry)
            elif isinstance(answer, DomainError) and is_transient(answer):
                failed.append(entry)
                failure = answer
            else:
                settle.append((entry, payload, verdict))
        await self._spool.delivered(delivered)
        DRAINED.labels("envelope").inc(len(delivered))
        session.contested = bool(settle)
        loop = asyncio.get_running_loop()
        until = loop.time() + _SETTLE_SECONDS
        for entry, payload, verdict in settle:
            await self._settle(entry, payload, verdict)
            if loop.time() >= until:
                break
        if failure is not None:
            raise EntryFailedError(tuple(failed), failure)

    async def _submit(self, session: SpooledSession, entry: Entry, payload: bytes) -> str:
        """Submit an envelope; return what storage did with it.

        Raises:
            DomainError: it may be repeated when it is transient.
        """
        name, index = session.session_id, entry.index
        try:
            dek_id = envelopes.parse(payload).header.dek_id
        except CoreError as error:
            raise DomainError("envelope-corrupt", str(error)) from None
        if dek_id in session.foreign:
            payload = await self._under_another_key(session, index, payload)
        if session.isolating:  # with others in one POST, it could fail for them as well
            (answer,) = await self._spooling.watch.attempt(self._storage.submit([payload]))
        else:
            answer = await self._submitter.submit(name, payload)
        if answer.result in _LOST and dek_id in session.kept_keys:
            self._lost_key(session, dek_id)
        if answer.result == "busy":
            raise DomainError("overloaded", f"the seal of session {name} is being decided", retry_after_seconds=1)
        if answer.result in ACKNOWLEDGED and not _is_same(session, index, payload, answer):
            raise RequestFailedError("session-storage acknowledged other bytes")
        return answer.result

    def _lost_key(self, session: SpooledSession, dek_id: DekId) -> NoReturn:
        """Bring a session and its keys again, once: session-storage's database was set back to before them."""
        name = session.session_id
        if not session.opening_waits:  # or another envelope has met the same
            if dek_id in session.brought_again:
                session.foreign.add(dek_id)
                raise RequestFailedError(f"session-storage does not keep the key of session {name}")
            session.brought_again.add(dek_id)
            for opening in session.openings:
                opening.delivered = False
        raise DomainError("overloaded", f"session {name} lost its key at session-storage", retry_after_seconds=1)

    async def _under_another_key(self, session: SpooledSession, index: int, payload: bytes) -> bytes:
        """Encrypt a chunk again, under a key that session-storage has: its ring has no room for more."""
        name = session.session_id
        plaintext = await self._recording.open(name, index, payload)
        _, keys = await self._storage.session(name)
        sealed = await self._recording.encrypt(self._rings.unwrapped(name, keys), name, ChunkIndex(index), plaintext)
        return sealed.envelope

    async def _settle(self, entry: Entry, payload: bytes, verdict: str) -> None:
        """Storage did not take an envelope: it has the same content already, or the envelope is quarantined."""
        session_id, index = entry.session.session_id, entry.index
        reason = CONFLICT if verdict == "conflict" else "left-out"
        detail = f"session-storage answered {verdict}"
        try:
            stored = await self._storage.envelope(session_id, index)
            theirs = await self._recording.open(session_id, index, stored)
            if theirs == await self._recording.open(session_id, index, payload):
                await self._spool.delivered([entry])
                DRAINED.labels("envelope").inc()
                return
            reason = CONFLICT
        except DomainError as error:
            if is_transient(error) or error.code == "session-shredded":
                raise EntryFailedError((entry,), error) from None
            if error.code not in ("chunk-not-found", "session-not-found"):
                reason = "envelope-corrupt" if error.code == "envelope-corrupt" else "undeliverable"
            detail = f"session-storage answered {verdict}, then {error.code}: {error.detail}"
        await self._aside(entry, reason, detail)

    async def _aside(self, entry: Entry, reason: str, detail: str) -> None:
        """Quarantine an entry, an envelope together with the wrapped key that opens it."""
        key = await self._key_of(entry) if entry.kind is Kind.ENVELOPE else None
        await self._quarantining.quarantine(entry, reason, detail=detail[:500], key=key)

    async def _key_of(self, entry: Entry) -> dict[str, Any] | None:
        payload = await self._spooling.payload(entry)
        if payload is None:
            return None
        try:
            dek_id: DekId = envelopes.parse(payload).header.dek_id
        except CoreError:
            return None
        for opening in await self._spooling.openings(entry.session.session_id):
            if read_key(opening).dek_id == dek_id:
                return dict(opening["key"])
        return None

    async def _seal(self, entry: Entry) -> None:
        payload = await self._spooling.payload(entry)
        if payload is None:
            return
        session_id = entry.session.session_id
        try:
            if await self._orders.place(session_id, read_order(payload), wait=False) is None:
                return  # something has come since: that goes first
        except ValueError as error:
            raise unreadable(entry, error) from None
        except DomainError as error:
            if is_transient(error):
                raise EntryFailedError((entry,), error) from None
            SEALS_REFUSED.inc()
            _log.error("queued_seal_refused", session_id=session_id, code=error.code, detail=error.detail)
        else:
            reach(Point.DRAIN_AFTER_SEAL)
            DRAINED.labels("seal").inc()
        await self._spool.delivered([entry])


def _is_same(session: SpooledSession, index: int, payload: bytes, answer: FrameAnswer) -> bool:
    ours = fingerprint(session.session_id, index, payload)
    return answer.envelope_sha256 == ours.envelope_sha256.hex()
