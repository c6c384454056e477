"""What entries of the spool say that are no envelopes: openings with their keys, and orders to seal. JSON."""

import json
from collections.abc import Mapping
from typing import Any

from sessions.core import key_ring
from sessions.core.errors import CoreError
from sessions.core.key_ring import WrappedDek


def read_key(opening: Mapping[str, Any]) -> WrappedDek:
    """The key of an opening."""
    return key_ring.key_from_json(opening["key"])


def read_opening(payload: bytes) -> dict[str, Any]:
    """Read an opening.

    Raises:
        ValueError: it is none, or one of another version.
    """
    try:
        opening: dict[str, Any] = json.loads(payload)
        read_key(opening)
        if not {"metadata", "opened_at"} <= opening.keys():
            raise LookupError
    except (CoreError, ValueError, LookupError, TypeError) as error:
        raise ValueError(f"no opening ({type(error).__name__})") from error
    return opening


def read_order(payload: bytes) -> int | None:
    """Read an order to seal; return its chunk count.

    Raises:
        ValueError: it is none, or one of another version.
    """
    try:
        count = json.loads(payload)["chunk_count"]
        return None if count is None else int(count)
    except (ValueError, LookupError, TypeError) as error:
        raise ValueError(f"no order to seal ({type(error).__name__})") from error
