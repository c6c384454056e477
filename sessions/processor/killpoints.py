"""The points of the processor's write path, each between two steps of which the first lasts."""

from enum import StrEnum


class Point(StrEnum):
    """Where `sessions.runtime.killpoints` may strike."""

    CHUNK_SEALED = "chunk-sealed"
    CHUNK_STORED = "chunk-stored"
    CHUNK_SPOOLED = "chunk-spooled"
    SPOOL_SEGMENT_BEGUN = "spool-segment-begun"
    SPOOL_BEFORE_WRITE = "spool-before-write"
    SPOOL_BEFORE_FSYNC = "spool-before-fsync"
    SPOOL_AFTER_FSYNC = "spool-after-fsync"
    OPENING_SPOOLED = "opening-spooled"
    SEAL_SPOOLED = "seal-spooled"
    DRAIN_BEFORE_OPENING = "drain-before-opening"
    DRAIN_AFTER_OPENING = "drain-after-opening"
    DRAIN_BEFORE_POST = "drain-before-post"
    DRAIN_AFTER_POST = "drain-after-post"
    DRAIN_AFTER_SEAL = "drain-after-seal"
    DRAIN_BEFORE_DROP = "drain-before-drop"
