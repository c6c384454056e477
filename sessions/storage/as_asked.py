"""The check that a sealed session holds what a request to seal it asks for."""

from sessions.core.manifest import SealedBy
from sessions.core.types import SessionId
from sessions.storage import problems
from sessions.storage.progress import MAX_REPORTED_GAPS
from sessions.storage.seal_summary import SealSummary, first_gaps


def require_as_asked(
    session_id: SessionId,
    manifest: bytes,
    summary: SealSummary,
    *,
    chunk_count: int | None,
    sealed_by: SealedBy,
    floor: int,
) -> None:
    """Refuse a sealed session that lacks what was asked for: for a recorder, one with gaps. Do not parse its manifest.

    Raises:
        DomainError: `chunks-missing`, `chunk-count-mismatch`.
    """
    least = max(floor, chunk_count or 0)
    whole = chunk_count is not None and sealed_by == "recorder"
    missing = first_gaps(manifest, MAX_REPORTED_GAPS)[0] if whole and summary.missing_chunks else []
    if least > summary.chunk_count:
        missing.append([summary.chunk_count, least - 1])
    if missing:
        raise problems.sealed_without(session_id, missing)
    if chunk_count is not None and chunk_count < summary.chunk_count:
        raise problems.chunk_count_mismatch(session_id, chunk_count, summary.chunk_count)
