"""The leaves of a session out of raw BSON: a seal reads a million records, and making documents of them takes longest.

All records of one session are laid out alike, so their members are at the same places. One that is not, say because
another program has written it, is read the long way.
"""

import struct
from collections.abc import Sequence
from typing import Any, Final

import bson
from bson import Binary, Int64

from sessions.core.types import HASH_BYTES, SessionId
from sessions.storage.chunk_records import Leaves

Columns = tuple[Sequence[int], Sequence[bytes], Sequence[int], Sequence[int]]
"""Of records: indexes, leaf hashes, bytes of plaintexts, bytes of envelopes."""

PROJECTION: Final = {"envelope_sha256": False}
"""What of a record a leaf does not need."""
_NUMBERS: Final = (0x1122334455667788, 0x1122334455667789, 0x112233445566778A)
_LEAF: Final = b"l" * HASH_BYTES


class _Layout:
    """Where the members of a session's records are."""

    def __init__(self, session_id: SessionId) -> None:
        index, plaintext_bytes, envelope_bytes = map(Int64, _NUMBERS)
        sample = bson.encode(
            {
                "_id": {"s": session_id, "i": index},
                "plaintext_bytes": plaintext_bytes,
                "envelope_bytes": envelope_bytes,
                "leaf_hash": Binary(_LEAF),
            }
        )
        members = [(struct.pack("<q", number), "q") for number in _NUMBERS] + [(_LEAF, f"{HASH_BYTES}s")]
        form, at, between = "<", 0, list[bytes]()
        for mark, code in members:
            place = sample.index(mark, at)
            between.append(sample[at:place])
            form += f"{place - at}s{code}"
            at = place + len(mark)
        between.append(sample[at:])
        self._between = between
        self._record = struct.Struct(f"{form}{len(sample) - at}s")

    def columns(self, batch: bytes) -> Columns | None:
        """What is in a batch of records; None when one of them is laid out otherwise."""
        if not batch or len(batch) % self._record.size:
            return None
        found: list[Any] = list(zip(*self._record.iter_unpack(batch), strict=True))
        count = len(batch) // self._record.size
        if any(column.count(known) != count for column, known in zip(found[::2], self._between, strict=True)):
            return None
        indexes, plaintexts, envelopes, hashes = found[1::2]
        return indexes, hashes, plaintexts, envelopes


def _decoded(batch: bytes) -> Columns:
    found: list[dict[str, Any]] = bson.decode_all(batch)
    return (
        [int(document["_id"]["i"]) for document in found],
        [bytes(document["leaf_hash"]) for document in found],
        [int(document["plaintext_bytes"]) for document in found],
        [int(document["envelope_bytes"]) for document in found],
    )


def leaves(session_id: SessionId, batches: Sequence[bytes]) -> Leaves:
    """The leaves of records as the database sends them, without what `PROJECTION` leaves out. Run it in a thread."""
    layout = _Layout(session_id)
    found = [layout.columns(batch) or _decoded(batch) for batch in batches]
    indexes, hashes, plaintexts, envelopes = zip(*found, strict=True) if found else ((),) * 4
    return Leaves(
        [index for column in indexes for index in column],
        [leaf for column in hashes for leaf in column],
        sum(map(sum, plaintexts)),
        sum(map(sum, envelopes)),
    )
