"""Batches and the lease in memory: what they promise in the fewest words, and what unit tests run on."""

import hashlib
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from sessions.core.manifest import SESSION_LEAF_PREFIX
from sessions.core.merkle import leaf_hash
from sessions.core.receipt import AnchorState, Batch
from sessions.core.types import SessionId
from sessions.storage.anchor import (
    UNSETTLED,
    BatchRecord,
    Leaf,
    StaleLeaderError,
)
from sessions.storage.batching import tree_with_paths


@dataclass
class _Batch:
    record: BatchRecord
    leaf_hashes: Sequence[bytes]
    fence: int


class MemoryBatches:
    """Twin of `MongoBatches`."""

    def __init__(self) -> None:
        self._manifests: dict[SessionId, bytes] = {}
        self._places: dict[SessionId, tuple[int, Batch]] = {}
        self._batches: list[_Batch] = []

    def seal(self, session: SessionId, manifest: bytes) -> None:
        """What the ledger does elsewhere: a session is sealed and waits for its batch."""
        self._manifests[session] = manifest

    async def unbatched(self, limit: int) -> Sequence[Leaf]:
        """At most `limit` sealed sessions that are in no batch, by session id."""
        names = sorted(self._manifests.keys() - self._places.keys())[:limit]
        hashes = (leaf_hash(SESSION_LEAF_PREFIX + hashlib.sha256(self._manifests[name]).digest()) for name in names)
        return list(map(Leaf, names, hashes))

    async def place(self, sequence: int, token: int) -> None:
        """Give each member session its place, and mark the batch as placed."""
        batch = self._writable(sequence, token)
        root, paths = tree_with_paths(batch.leaf_hashes)
        for index, name in enumerate(batch.record.session_ids):
            place = Batch(root=root, size=batch.record.size, index=index, path=tuple(paths[index]))
            self._places.setdefault(name, (sequence, place))
        batch.record, batch.fence = replace(batch.record, placed=True), token

    def place_of(self, session: SessionId) -> tuple[int, Batch] | None:
        """The number of a session's batch and the session's place in it; None while it is in none."""
        return self._places.get(session)

    async def last(self) -> BatchRecord | None:
        """The newest batch, without session ids."""
        return self._cut(self._batches[-1]) if self._batches else None

    async def unsettled(self) -> Sequence[BatchRecord]:
        """All batches that are not confirmed, oldest first, without session ids."""
        return [self._cut(batch) for batch in self._batches if batch.record.anchor.state in UNSETTLED]

    async def highest_confirmed(self, chain_id: int, below: BatchRecord | None = None) -> BatchRecord | None:
        """Of the batches that are confirmed on a chain the one in the highest block, without session ids."""
        confirmed = [self._cut(one) for one in self._batches if one.record.anchor.state is AnchorState.CONFIRMED]
        found = [record for record in confirmed if record.anchor.chain_id == chain_id]
        lower = [record for record in found if below is None or _height(record) < _height(below)]
        return max(lower, key=_height, default=None)

    async def append(self, record: BatchRecord, leaf_hashes: Sequence[bytes], token: int) -> None:
        """Store a new batch."""
        if record.sequence:
            before = self._writable(record.sequence - 1, token)
            if not before.record.placed:
                raise StaleLeaderError("the batch before it is being placed")
            before.fence = token
        if record.sequence < len(self._batches) or await self.get(record.root):
            raise StaleLeaderError(f"there is a batch {record.sequence} already")
        self._batches.append(_Batch(record, tuple(leaf_hashes), token))

    async def update(self, record: BatchRecord, expected: AnchorState, token: int) -> None:
        """Replace state, anchor, transactions and gas of a batch."""
        batch = self._writable(record.sequence, token)
        stored = batch.record.transactions
        if batch.record.anchor.state is not expected or record.transactions[: len(stored)] != stored:
            raise StaleLeaderError(f"batch {record.sequence} was changed by another leader")
        batch.record = replace(record, session_ids=batch.record.session_ids, placed=batch.record.placed)
        batch.fence = token

    async def get(self, root: bytes, max_sessions: int = 1000) -> BatchRecord | None:
        """The batch with that root, with its first `max_sessions` session ids."""
        return next((self._cut(batch, max_sessions) for batch in self._batches if batch.record.root == root), None)

    async def get_by_sequence(self, sequence: int) -> BatchRecord | None:
        """The batch of that number, without session ids."""
        return self._cut(self._batches[sequence]) if 0 <= sequence < len(self._batches) else None

    async def list(self, limit: int, before_sequence: int | None = None) -> Sequence[BatchRecord]:
        """At most `limit` batches, newest first, without session ids."""
        batches = self._batches if before_sequence is None else self._batches[:before_sequence]
        return [self._cut(batch) for batch in reversed(batches)][:limit]

    def _writable(self, sequence: int, token: int) -> _Batch:
        if not 0 <= sequence < len(self._batches):
            raise StaleLeaderError(f"there is no batch {sequence}")
        if self._batches[sequence].fence > token:
            raise StaleLeaderError(f"batch {sequence} was changed by a newer leader")
        return self._batches[sequence]

    @staticmethod
    def _cut(batch: _Batch, max_sessions: int = 0) -> BatchRecord:
        return replace(batch.record, session_ids=batch.record.session_ids[:max_sessions])


def _height(record: BatchRecord) -> tuple[int, int]:
    return record.anchor.block_number or 0, record.sequence


@dataclass
class LeaseState:
    """What the replicas' `MemoryLease`s share."""

    holder: str = ""
    token: int = 0
    expires_at: float = 0.0


class MemoryLease:
    """Twin of `MongoLease`; the shared state and the clock (seconds) stand for the server."""

    def __init__(
        self, state: LeaseState, holder: str, ttl_seconds: float, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._state, self._holder, self._ttl_seconds, self._clock = state, holder, ttl_seconds, clock

    async def acquire(self) -> int | None:
        """Take or prolong the lease; the fencing number, or None while another holds it."""
        state, now = self._state, self._clock()
        if state.holder != self._holder:
            if state.expires_at > now:
                return None
            state.holder, state.token = self._holder, state.token + 1
        state.expires_at = now + self._ttl_seconds
        return state.token

    async def release(self) -> None:
        """Let go of the lease if it is held here."""
        if self._state.holder == self._holder:
            self._state.holder, self._state.expires_at = "", 0.0
