"""Sessions as the REST interface shows them: in lists, and one with where to resume."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from sessions.core.receipt import Anchor
from sessions.core.types import SessionId
from sessions.runtime.times import to_rfc3339
from sessions.storage import problems
from sessions.storage.anchor import BatchReader
from sessions.storage.heads import SessionHead, Sessions, completed, head_of, sealed_summary
from sessions.storage.progress import MAX_REPORTED_GAPS, ProgressReader
from sessions.storage.retention import Terms
from sessions.storage.seal_summary import first_gaps
from sessions.storage.store import Cursor, SessionFilter, SessionRecord, SessionStatus


class SessionViews:
    """Shows sessions as JSON objects."""

    def __init__(self, sessions: Sessions, batches: BatchReader, terms: Terms, progress: ProgressReader) -> None:
        self._sessions = sessions
        self._batches = batches
        self._terms = terms
        self._progress = progress

    async def anchor_of(self, record: SessionRecord) -> Anchor:
        """The anchor of a sealed session; pending while it is in no batch."""
        return await self._anchor(None if record.placement is None else record.placement.sequence)

    async def _anchor(self, sequence: int | None) -> Anchor:
        batch = None if sequence is None else await self._batches.get_by_sequence(sequence)
        return batch.anchor if batch is not None else Anchor()

    async def page(self, which: SessionFilter, limit: int, after: Cursor | None) -> tuple[list[dict[str, Any]], bool]:
        """Return sessions as JSON objects, and whether more may follow; see `completed` for pages that end early."""
        found = await self._sessions.page(which, limit, after)
        views = await self._views(found)
        return views, len(found) == limit or len(views) < len(found)

    async def summaries(self, session_ids: Sequence[SessionId]) -> list[dict[str, Any]]:
        """Return the first of these sessions, those that exist, as JSON objects; see `completed` for how many."""
        heads = await self._sessions.heads(session_ids)
        return await self._views([heads[name] for name in session_ids if name in heads])

    async def _views(self, found: Sequence[SessionHead]) -> list[dict[str, Any]]:
        heads = await completed(self._sessions, found)
        # Sessions that were sealed together are in one batch, which is read once.
        anchors = {batch: await self._anchor(batch) for batch in {head.batch for head in heads}}
        return [self._view(head, anchors[head.batch]) for head in heads]

    async def summary(self, record: SessionRecord) -> dict[str, Any]:
        """Return a session as a JSON object, without what takes a scan."""
        return self._view(await self._head(record), await self.anchor_of(record))

    async def _head(self, record: SessionRecord) -> SessionHead:
        head = head_of(record)
        if not head.unread_bytes:
            return head
        summary = await sealed_summary(record)
        await self._sessions.keep_summaries({record.session_id: summary})
        return replace(head, summary=summary)

    def _view(self, record: SessionHead, anchor: Anchor) -> dict[str, Any]:
        view: dict[str, Any] = {
            "session_id": record.session_id,
            "status": record.status.value,
            "chunk_count": None,
            "plaintext_bytes": None,
            "envelope_bytes": None,
            "opened_at": to_rfc3339(record.opened_at),
            "sealed_at": None,
            "root": None,
            "anchor": None,
            "held": record.held,
            **problems.tombstone_json(record.tombstone),
            "retained_until": None,
            "delete_at": None,
        }
        if record.status is SessionStatus.SEALED:
            retained_until, delete_at = self._terms.retained_until(record), self._terms.delete_at(record)
            view["retained_until"] = retained_until and to_rfc3339(retained_until)
            view["delete_at"] = delete_at and to_rfc3339(delete_at)
        if (summary := record.summary) is not None:
            view |= {
                "chunk_count": summary.stored_chunks,
                "plaintext_bytes": summary.plaintext_bytes,
                "envelope_bytes": summary.envelope_bytes,
                "sealed_at": summary.sealed_at,
                "root": summary.root.hex(),
                "anchor": anchor.to_json(),
            }
        return view

    async def status(self, record: SessionRecord) -> dict[str, Any]:
        """A session as a JSON object, with where to resume."""
        head = await self._head(record)
        view = self._view(head, await self.anchor_of(record))
        if record.seal is not None and head.summary is not None:
            missing, truncated = first_gaps(record.seal.manifest, MAX_REPORTED_GAPS)
            return view | {
                "next_index": head.summary.chunk_count,
                "missing": missing,
                "missing_truncated": truncated,
                "unheard": list(record.unheard),
            }
        progress = await self._progress.read(record.session_id, record.opened_at)
        return view | {
            "next_index": progress.next_index,
            "missing": [list(gap) for gap in progress.missing],
            "missing_truncated": progress.missing_truncated,
            "chunk_count": progress.chunk_count,
            "plaintext_bytes": progress.plaintext_bytes,
            "envelope_bytes": progress.envelope_bytes,
        }
