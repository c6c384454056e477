"""What a scrub knows of the session that it looks at, from the session's own document."""

from datetime import datetime, timedelta
from typing import Final

from sessions.core import manifest as manifests
from sessions.core.audit import day_of
from sessions.core.errors import CoreError
from sessions.core.manifest import Manifest
from sessions.core.merkle import verify_inclusion
from sessions.core.types import SessionId
from sessions.storage.scrub_store import Finding, Kind, Part
from sessions.storage.seal_summary import summary_of
from sessions.storage.sealing import covers
from sessions.storage.store import SessionRecord, SessionStatus

SETTLED_AFTER: Final = timedelta(hours=1)
"""A writer that came second, or one who shreds, may still be clearing up what it left; after so long it is not."""


class Subject:
    """A session under a scrub. One without a document is `unknown`: all that is there of it is orphaned.

    A day of the audit trail has neither keys nor bodies: its events are its records, and the tree tells of them.
    """

    def __init__(
        self, session_id: SessionId, record: SessionRecord | None, now: datetime, *, broken: bool = False
    ) -> None:
        self.session_id = session_id
        self.record = record
        self.unknown = record is None and not broken
        self.findings: list[Finding] = []
        self.manifest: Manifest | None = None
        self._trail = day_of(session_id) is not None
        if broken:
            self._found(Kind.ALTERED, Part.SESSION, "the session's document cannot be read")
        if record is not None:
            self._look(record)
        self._shredded = record is not None and record.status is SessionStatus.SHREDDED
        self.readable = record is not None and not self._shredded and not self._trail
        # In the trail nobody comes second, and nothing is cleared up.
        self.settled = self.unknown or self._trail or (record is not None and _settled(record, now))

    @property
    def chunk_count(self) -> int:
        """How many leaves the sealed tree has; 0 without a seal that can be read."""
        return 0 if self.manifest is None else self.manifest.chunk_count

    @property
    def no_account(self) -> str:
        """Why a record is orphaned."""
        return "there is no such session" if self.unknown else "the seal does not cover this chunk"

    @property
    def no_body_account(self) -> str:
        """Why a body is orphaned."""
        if self.unknown:
            return "there is no such session"
        return "the session was shredded" if self._shredded else "no record is of this body"

    def accounts_for(self, index: int) -> bool:
        """Whether a record of this index may be there."""
        return not self.unknown and (self.manifest is None or covers(self.manifest, index))

    def _found(self, kind: Kind, part: Part, detail: str) -> None:
        self.findings.append(Finding(kind, part, self.session_id, None, detail))

    def _look(self, record: SessionRecord) -> None:
        sealed = record.status in (SessionStatus.SEALED, SessionStatus.SHREDDED)
        if record.status is not SessionStatus.SHREDDED and not record.keys and not self._trail:
            self._found(Kind.MISSING, Part.KEYS, "the key ring is empty, and the session was not shredded")
        if record.seal is None:
            if sealed:
                self._found(Kind.MISSING, Part.MANIFEST, "the session is sealed, and has no manifest")
            return
        try:
            manifest = manifests.from_bytes(record.seal.manifest)
        except CoreError as error:
            self._found(Kind.ALTERED, Part.MANIFEST, f"the manifest cannot be read: {error}")
            return
        if manifest.session_id != self.session_id:
            self._found(Kind.FOREIGN, Part.MANIFEST, f"the manifest is that of session {manifest.session_id}")
            return
        self.manifest = manifest
        if record.seal.summary not in (None, summary_of(manifest)):
            self._found(Kind.ALTERED, Part.MANIFEST, "what lists show of the manifest is not what it says")
        if record.placement is not None:
            batch = record.placement.batch
            try:
                verify_inclusion(manifest.leaf_hash(), batch.index, batch.size, batch.path, batch.root)
            except CoreError:
                self._found(Kind.ALTERED, Part.BATCH, "the manifest is not in the batch that was anchored")


def _settled(record: SessionRecord, now: datetime) -> bool:
    if record.tombstone is not None:
        return record.tombstone.shredded_at < now - SETTLED_AFTER
    return (
        record.seal is not None and record.seal_order is not None and record.seal_order.sealed_at < now - SETTLED_AFTER
    )
