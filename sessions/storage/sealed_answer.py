"""Answers about sealed sessions, put together around a manifest's canonical bytes.

A manifest may list 100,000 gaps, which take 30 MiB as objects. So no answer here parses one, unless version 0.1.0
sealed the session.
"""

import asyncio
import hashlib
import json
from collections.abc import Mapping
from typing import Final

from sessions.core.manifest import SealedBy
from sessions.core.receipt import Anchor
from sessions.storage.as_asked import require_as_asked
from sessions.storage.heads import sealed_summary
from sessions.storage.store import SessionRecord

_INLINE_BYTES: Final = 256 * 1024
"""A manifest of more bytes is hashed in a thread."""


async def require_sealed_as_asked(
    record: SessionRecord, chunk_count: int | None, sealed_by: SealedBy, floor: int
) -> None:
    """Refuse to answer a seal with a manifest that lacks what was asked for.

    Raises:
        DomainError: `chunks-missing`, `chunk-count-mismatch`, `session-open`.
    """
    summary = await sealed_summary(record)
    assert record.seal is not None  # it has a summary
    require_as_asked(
        record.session_id,
        record.seal.manifest,
        summary,
        chunk_count=chunk_count,
        sealed_by=sealed_by,
        floor=floor,
    )


async def seal_json(record: SessionRecord) -> bytes:
    """Return the answer to a seal (`Sealed`) as JSON.

    Raises:
        DomainError: `session-open`.
    """
    summary = await sealed_summary(record)
    assert record.seal is not None  # it has a summary
    manifest = record.seal.manifest
    large = len(manifest) > _INLINE_BYTES
    sha256 = await asyncio.to_thread(hashlib.sha256, manifest) if large else hashlib.sha256(manifest)
    rest = {"manifest_sha256": sha256.hexdigest(), "root": summary.root.hex(), "unheard": list(record.unheard)}
    return b"".join((b'{"manifest":', manifest, b",", _dumps(rest)[1:]))


def receipt_json(record: SessionRecord, anchor: Anchor) -> bytes:
    """Return the receipt of a sealed session as JSON."""
    assert record.seal is not None  # the caller has looked
    batch = record.placement.batch.to_json() if record.placement is not None else None
    rest = {"batch": batch, "anchor": anchor.to_json()}
    return b"".join((b'{"version":1,"manifest":', record.seal.manifest, b",", _dumps(rest)[1:]))


def _dumps(value: Mapping[str, object]) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()
