"""The ledger's refusals, each with its stable code and what to do."""

from datetime import datetime
from typing import Any

from sessions.core.types import SessionId
from sessions.runtime.errors import DomainError
from sessions.runtime.times import to_rfc3339
from sessions.storage.store import SessionRecord, SessionStatus, Tombstone


def session_not_found(session_id: SessionId) -> DomainError:
    """There is no such session."""
    return DomainError("session-not-found", f"no session {session_id} was ever opened here", session_id=session_id)


def chunk_not_found(session_id: SessionId, index: int) -> DomainError:
    """There is no such chunk."""
    detail = f"session {session_id} has no chunk {index}"
    return DomainError("chunk-not-found", detail, session_id=session_id, index=index)


def session_open(session_id: SessionId, what: str) -> DomainError:
    """It takes a sealed session."""
    return DomainError("session-open", f"seal session {session_id} first: {what}", session_id=session_id)


def session_sealed(session_id: SessionId) -> DomainError:
    """It takes an open session."""
    return DomainError(
        "session-sealed", f"session {session_id} is sealed and takes nothing more", session_id=session_id
    )


def session_sealing(session_id: SessionId) -> DomainError:
    """Its seal is being decided, and may be refused yet."""
    detail = f"the seal of session {session_id} is being decided; repeat the request"
    return DomainError("overloaded", detail, retry_after_seconds=1, session_id=session_id)


def seal_waits(session_id: SessionId, processors: list[str]) -> DomainError:
    """Its seal waits for processors."""
    names = ", ".join(processors)
    detail = f"the seal of session {session_id} waits for what these processors still hold: {names}; repeat the request"
    return DomainError("overloaded", detail, retry_after_seconds=2, session_id=session_id, waiting_for=processors)


def require_open(record: SessionRecord) -> None:
    """Refuse a session that is not open.

    Raises:
        DomainError: `session-shredded`, `session-sealed`; `overloaded` while its seal is being decided.
    """
    if record.status is SessionStatus.SHREDDED:
        raise session_shredded(record)
    if record.status is SessionStatus.SEALING:
        raise session_sealing(record.session_id)
    if record.status is SessionStatus.SEALED:
        raise session_sealed(record.session_id)


def session_held(session_id: SessionId) -> DomainError:
    """It is under legal hold."""
    detail = f"lift the legal hold on session {session_id} first"
    return DomainError("session-held", detail, session_id=session_id)


def session_retained(session_id: SessionId, until: datetime) -> DomainError:
    """It has to be kept."""
    date = to_rfc3339(until)
    detail = f"session {session_id} has to be kept until {date}: nobody may shred it before"
    return DomainError("session-retained", detail, session_id=session_id, retained_until=date)


def retention_too_short(session_id: SessionId, what: str, least_days: int) -> DomainError:
    """It would be kept for less time than it has to be."""
    detail = f"session {session_id} has to be kept for {least_days} days at least: {what}"
    return DomainError("retention-too-short", detail, session_id=session_id, least_days=least_days)


def session_shredded(record: SessionRecord) -> DomainError:
    """Its content is gone for good."""
    detail = f"session {record.session_id} was shredded; its manifest, proofs and receipt remain"
    tombstone = tombstone_json(record.tombstone)
    return DomainError("session-shredded", detail, session_id=record.session_id, **tombstone)


def tombstone_json(tombstone: Tombstone | None) -> dict[str, Any]:
    """A tombstone for an answer; all null where there is none."""
    return {
        "shredded_at": tombstone and to_rfc3339(tombstone.shredded_at),
        "shred_reason": tombstone and tombstone.reason.value,
        "shredded_by": tombstone and tombstone.by,
    }


def chunks_missing(session_id: SessionId, missing: list[list[int]]) -> DomainError:
    """It has gaps; `missing` holds the first and last index of each."""
    detail = f"session {session_id} cannot be sealed with gaps: send the missing chunks, or seal with another count"
    return DomainError("chunks-missing", detail, session_id=session_id, missing=missing)


def sealed_without(session_id: SessionId, missing: list[list[int]]) -> DomainError:
    """It is sealed, and the seal does not cover these chunks."""
    detail = f"session {session_id} is sealed without these chunks, and a sealed session takes no more"
    return DomainError("chunks-missing", detail, session_id=session_id, missing=missing)


def chunk_count_mismatch(session_id: SessionId, chunk_count: int, stored: int) -> DomainError:
    """It has chunks that the count leaves out."""
    detail = f"session {session_id} has chunks up to index {stored - 1}, the seal was asked for {chunk_count}"
    return DomainError("chunk-count-mismatch", detail, session_id=session_id, chunk_count=stored)
