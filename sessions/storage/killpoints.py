"""The points of storage's write path, each between two steps of which the first lasts."""

from enum import StrEnum


class Point(StrEnum):
    """Where `sessions.runtime.killpoints` may strike."""

    OPENING_STORED = "opening-stored"
    CHUNK_NOTED = "chunk-noted"
    CHUNK_BODIES_STORED = "chunk-bodies-stored"
    CHUNK_RECORDS_STORED = "chunk-records-stored"
    CHUNK_CONFLICT_FOUND = "chunk-conflict-found"
    CHUNK_UNCOVERED = "chunk-uncovered"
    CHUNK_RECORD_REMOVED = "chunk-record-removed"
    SEAL_ORDERED = "seal-ordered"
    SEAL_TILES_STORED = "seal-tiles-stored"
    SEAL_STORED = "seal-stored"
    SEAL_TILES_DROPPED = "seal-tiles-dropped"
    SEAL_REOPENED = "seal-reopened"
    ANCHOR_LEASE_TAKEN = "anchor-lease-taken"
    BATCH_STORED = "batch-stored"
    BATCH_SESSIONS_PLACED = "batch-sessions-placed"
    BATCH_PLACED = "batch-placed"
    TRANSACTION_SIGNED = "transaction-signed"
    TRANSACTION_STORED = "transaction-stored"
    TRANSACTION_BROADCAST = "transaction-broadcast"
    ANCHOR_FOUND = "anchor-found"
    ANCHOR_INCLUDED = "anchor-included"
    ANCHOR_CONFIRMED = "anchor-confirmed"
    ANCHOR_TAKEN_BACK = "anchor-taken-back"
    SHRED_KEYS_DELETED = "shred-keys-deleted"
    SHRED_BODIES_DELETED = "shred-bodies-deleted"
    SHRED_FINISHED = "shred-finished"
