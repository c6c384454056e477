"""Reads what an entry that a start finds in the spool says of itself."""

import json
from typing import NamedTuple

from sessions.core import envelope
from sessions.core.errors import CoreError
from sessions.core.types import SessionId, session_id
from sessions.processor.spool_format import Kind
from sessions.processor.spool_segments import Recovered


class Description(NamedTuple):
    """An entry's session, its chunk's index and size (-1 and 0 for what is no envelope), and its sender if known."""

    session_id: SessionId
    chunk_index: int
    plaintext_bytes: int
    by: str | None


def described(found: Recovered) -> Description:
    """Read the beginning of an entry.

    Raises:
        ValueError: it is not what its header says.
    """
    try:
        if found.kind is Kind.ENVELOPE:
            header = envelope.read_header(found.head)
            return Description(header.session_id, int(header.index), header.plaintext_bytes, found.by)
        said = json.loads(found.head)
        by = found.by or said.get("by")  # version 0.1.0 noted the sender of an opening there
        return Description(session_id(said["session_id"]), -1, 0, by if isinstance(by, str) else None)
    except (CoreError, ValueError, LookupError, TypeError, AttributeError) as error:
        raise ValueError(f"this is no {found.kind.name.lower()}") from error
