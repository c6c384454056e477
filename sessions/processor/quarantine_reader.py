"""Opens chunks that are in the quarantine, for whoever decides what becomes of them."""

import asyncio

from sessions.core import envelope as envelopes
from sessions.core import key_ring
from sessions.core.errors import CoreError
from sessions.processor import crypt
from sessions.processor.key_rings import KeyRings
from sessions.processor.quarantining import Quarantining
from sessions.processor.recording import Recording
from sessions.processor.spool_format import Kind
from sessions.runtime.budget import ByteBudget
from sessions.runtime.errors import DomainError


class QuarantineReader:
    """Decrypts quarantined envelopes, with the key that is with them, else with one of session-storage's ring."""

    def __init__(self, rings: KeyRings, recording: Recording, budget: ByteBudget, chunk_max_bytes: int) -> None:
        self._rings = rings
        self._recording = recording
        self._budget = budget
        self._chunk_max_bytes = chunk_max_bytes

    async def chunk(self, quarantining: Quarantining, name: str) -> bytes:
        """Return the plaintext of a quarantined envelope.

        Raises:
            DomainError: `not-found`, `chunk-not-found` for an entry of another kind, `envelope-corrupt`,
                `key-unavailable`, `overloaded`.
        """
        quarantining.get(name)
        async with self._budget.reserve(2 * self._chunk_max_bytes):
            kind, data = await quarantining.payload(name)
            if kind is not Kind.ENVELOPE:
                raise DomainError("chunk-not-found", f"entry {name} is no chunk but an order: {kind.name.lower()}")
            try:
                header = envelopes.parse(data).header
            except CoreError as error:
                raise DomainError("envelope-corrupt", f"entry {name} is no envelope: {error}") from None
            session_id, index = header.session_id, header.index
            key = await quarantining.key_of(name)
            if key is None:
                return await self._recording.open(session_id, index, data)
            dek = self._rings.unwrapped(session_id, (key_ring.key_from_json(key),)).active
            return await asyncio.to_thread(crypt.open_envelope, dek, session_id, index, data)
