"""Brings what is in the spool to session-storage, oldest first, once it is back.

Of a session the opening goes before its envelopes, and these before its seal. One POST at a time is ours, filled as far
as it goes; the other is left to the chunks that come in.
"""

import asyncio
import json
from typing import Any, Final

import structlog
from prometheus_client import Counter

from sessions.core.envelope import fingerprint
from sessions.core.types import SessionId
from sessions.processor.key_rings import KeyRings
from sessions.processor.killpoints import Point
from sessions.processor.pipeline import POST_BYTES, Submitter
from sessions.processor.recording import ACKNOWLEDGED, Recording
from sessions.processor.spool_format import Kind
from sessions.processor.spool_index import Entry
from sessions.processor.spooling import Spooling, read_key
from sessions.processor.storage_client import FrameAnswer, StorageClient
from sessions.processor.storage_watch import AWAY_CODES
from sessions.runtime.errors import DomainError
from sessions.runtime.killpoints import reach

WINDOW_ENTRIES: Final = 512
SEAL_WAIT_SECONDS: Final = 20.0
"""How long a seal waits for what is still in the spool of its session, once storage is back."""
_PAUSE_SECONDS: Final = 0.2

_CLOSED: Final = ("session-sealed", "session-shredded")
DRAINED = Counter("lucid_spool_drained_total", "Entries that session-storage has taken or had.", ("kind",))
SEALS_REFUSED = Counter("lucid_spool_seals_refused_total", "Seals that waited and were refused; the session is open.")
for _kind in Kind:
    DRAINED.labels(_kind.name.lower())
_log = structlog.get_logger()


class Drainer:
    """Works through the spool."""

    def __init__(
        self, spooling: Spooling, storage: StorageClient, submitter: Submitter, recording: Recording, rings: KeyRings
    ) -> None:
        self._spooling = spooling
        self._spool = spooling.spool
        self._watch = spooling.watch
        self._storage = storage
        self._submitter = submitter
        self._recording = recording
        self._rings = rings
        self._urgent: dict[SessionId, asyncio.Event] = {}

    async def run(self) -> None:
        """Drain whenever there is something and storage is there, until cancelled."""
        while True:
            await self._spool.arrived.wait()
            await self._watch.back.wait()
            try:
                moved = await self._window()
            except DomainError as error:
                if not self._watch.lost(error):
                    _log.error("spool_drain_failed", code=error.code, detail=error.detail)
                moved = False
            except Exception as error:  # noqa: BLE001 - what is in the spool stays there, and is tried again
                _log.error("spool_drain_failed", code=type(error).__name__, detail=str(error))
                moved = False
            if not moved:
                await asyncio.sleep(_PAUSE_SECONDS)

    async def hurry(self, session_id: SessionId) -> bool:
        """Drain a session before the others; whether nothing of it is left in time."""
        if session_id not in self._spool.sessions:
            return True
        done = self._urgent.setdefault(session_id, asyncio.Event())
        away = asyncio.create_task(self._watch.gone.wait())
        waiting = asyncio.create_task(done.wait())
        try:
            await asyncio.wait({away, waiting}, timeout=SEAL_WAIT_SECONDS, return_when=asyncio.FIRST_COMPLETED)
        finally:
            away.cancel()
            waiting.cancel()
        return session_id not in self._spool.sessions

    def _next(self) -> list[Entry]:
        for session_id in list(self._urgent):
            session = self._spool.sessions.get(session_id)
            if session is None:
                self._urgent.pop(session_id).set()
                continue
            window: list[Entry] = []
            size = 0
            for entry in session.waiting():
                if window and (size + entry.place.entry_bytes > POST_BYTES or len(window) == WINDOW_ENTRIES):
                    break
                window.append(entry)
                size += entry.place.entry_bytes
            if window:
                return window
        return self._spool.oldest(POST_BYTES, WINDOW_ENTRIES)

    async def _window(self) -> bool:
        """Deliver some entries; whether there were any that could be."""
        window = self._next()
        for entry in window:
            if entry.kind is Kind.OPENING:
                await self._opening(entry)
        envelopes = [entry for entry in window if entry.kind is Kind.ENVELOPE and not entry.delivered]
        if envelopes:
            await self._envelopes(envelopes)
        for entry in window:
            if entry.kind is Kind.SEAL and not entry.session.envelopes_wait and not entry.session.opening_waits:
                await self._seal(entry)
        for session_id in [session_id for session_id in self._urgent if session_id not in self._spool.sessions]:
            self._urgent.pop(session_id).set()
        return any(entry.delivered for entry in window)

    async def _opening(self, entry: Entry) -> None:
        payload = await self._spooling.payload(entry)
        if payload is None:
            return
        opening = json.loads(payload)
        session_id = entry.session.session_id
        reach(Point.DRAIN_BEFORE_OPENING)
        try:
            await self._open(session_id, opening["metadata"], opening)
        except DomainError as error:
            if error.code in AWAY_CODES:
                raise
            await self._refused(entry, opening, error)
        else:
            reach(Point.DRAIN_AFTER_OPENING)
            DRAINED.labels("opening").inc()
            await self._spool.delivered([entry])
        self._rings.forget(session_id)  # storage may have further keys of it

    async def _refused(self, entry: Entry, opening: dict[str, Any], error: DomainError) -> None:
        session = entry.session
        session.refused = True
        _log.warning("spooled_opening_refused", session_id=session.session_id, code=error.code, detail=error.detail)
        if error.code in _CLOSED:  # perhaps it was we who delivered and sealed it, before a crash
            await self._spool.delivered([entry])
            return
        session.keyless = opening["metadata"] is None
        if not session.keyless:
            await self._spool.set_aside(entry, "opening-refused", code=error.code)
            try:
                # What was recorded is worth more than what was said of it: without metadata its key is taken.
                await self._open(session.session_id, None, opening)
            except DomainError as again:
                if again.code in AWAY_CODES:  # it waits still: no envelope goes where its key is not
                    raise
                session.keyless = True
        await self._spool.delivered([entry])

    async def _open(self, session_id: SessionId, metadata: dict[str, Any] | None, opening: dict[str, Any]) -> None:
        key = read_key(opening)
        keys, _ = await self._storage.open(session_id, metadata, key)
        if all(known.dek_id != key.dek_id for known in keys):
            await self._storage.add_key(session_id, key)

    async def _envelopes(self, entries: list[Entry]) -> None:
        payloads = await asyncio.gather(*map(self._spooling.payload, entries))
        found = [(entry, payload) for entry, payload in zip(entries, payloads, strict=True) if payload is not None]
        ours = [one for one in found if not one[0].session.keyless]
        reach(Point.DRAIN_BEFORE_POST)
        answers = await asyncio.gather(
            *(self._submitter.submit(entry.session.session_id, payload) for entry, payload in ours),
            return_exceptions=True,
        )
        reach(Point.DRAIN_AFTER_POST)
        delivered, failure = [], None
        settle = [one for one in found if one[0].session.keyless]
        for (entry, payload), answer in zip(ours, answers, strict=True):
            if isinstance(answer, FrameAnswer) and await self._has(entry, payload, answer):
                delivered.append(entry)
            elif isinstance(answer, FrameAnswer) or (isinstance(answer, DomainError) and answer.code not in AWAY_CODES):
                settle.append((entry, payload))
            else:
                failure = answer
        await self._spool.delivered(delivered)
        DRAINED.labels("envelope").inc(len(delivered))
        for entry, payload in settle:
            await self._settle(entry, payload)
        if failure is not None:
            raise failure

    async def _has(self, entry: Entry, payload: bytes, answer: FrameAnswer) -> bool:
        if answer.result not in ACKNOWLEDGED:
            return False
        ours = fingerprint(entry.session.session_id, entry.index, payload)
        return answer.envelope_sha256 == ours.envelope_sha256.hex()

    async def _settle(self, entry: Entry, payload: bytes) -> None:
        """Storage did not take an envelope as it is: it has the same content already, or the envelope is set aside."""
        session_id, index = entry.session.session_id, entry.index
        reason = "conflict"
        try:
            stored = await self._storage.envelope(session_id, index)
            theirs = await self._recording.open(session_id, index, stored)
            if theirs == await self._recording.open(session_id, index, payload):
                await self._spool.delivered([entry])
                DRAINED.labels("envelope").inc()
                return
        except DomainError as error:
            if error.code in AWAY_CODES:
                raise
            reason = error.code
        if entry.session.refused:  # then storage may lack the key that opens it
            for opening in entry.session.openings:
                await self._spool.set_aside(opening, "opening-refused")
        await self._spool.quarantine(entry, reason)

    async def _seal(self, entry: Entry) -> None:
        payload = await self._spooling.payload(entry)
        if payload is None:
            return
        session_id = entry.session.session_id
        try:
            await self._storage.seal(session_id, json.loads(payload)["chunk_count"])
        except DomainError as error:
            if error.code in AWAY_CODES:
                raise
            SEALS_REFUSED.inc()
            _log.error("queued_seal_refused", session_id=session_id, code=error.code, detail=error.detail)
        else:
            reach(Point.DRAIN_AFTER_SEAL)
            DRAINED.labels("seal").inc()
        await self._spool.delivered([entry])
