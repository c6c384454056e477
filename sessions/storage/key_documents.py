"""Keys as they lie in a session's document. Apart from the driver, so that an export can be read without it."""

from typing import Any

from bson import Binary

from sessions.core.key_ring import SealedDek, WrappedDek
from sessions.core.types import DekId


def key_document(key: WrappedDek) -> dict[str, Any]:
    """A key as it lies in its session's document."""
    document = {"dek_id": Binary(key.dek_id), "kek_id": key.kek_id, "wrapped": Binary(key.wrapped)}
    return document if key.recovery is None else {**document, "recovery": sealed_document(key.recovery)}


def sealed_document(sealed: SealedDek) -> dict[str, Any]:
    """What is sealed to the recovery recipient, in such a key."""
    return {"recipient": sealed.recipient, "sealed": Binary(sealed.sealed)}


def key_of(document: dict[str, Any]) -> WrappedDek:
    """The key of such a document."""
    recovery = document.get("recovery")
    return WrappedDek(
        DekId(bytes(document["dek_id"])),
        document["kek_id"],
        bytes(document["wrapped"]),
        SealedDek(recovery["recipient"], bytes(recovery["sealed"])) if recovery else None,
    )
