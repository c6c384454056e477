"""Rotation: wraps the keys of all sessions under the active KEK, in short steps. Data is never touched.

A step may be repeated, broken off at any point, and run by several processors at once: a key that was wrapped anew
takes its place only if what it was made of is there still, and what is done leaves the list of what is to do.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import structlog
from prometheus_client import Counter

from sessions.core.key_ring import KeyRing
from sessions.processor.keys import KeyWrapper
from sessions.processor.storage_answers import Replacement
from sessions.processor.storage_client import StorageClient
from sessions.runtime.errors import DomainError

_log = structlog.get_logger()
STEP_MAX_RINGS: Final = 100
_REPLACE_AT_ONCE: Final = 100
REWRAPPED = Counter("lucid_keys_rewrapped_total", "Keys wrapped anew under the active KEK, by outcome.", ("outcome",))
for _outcome in ("replaced", "overtaken", "failed"):
    REWRAPPED.labels(_outcome)


@dataclass(frozen=True, slots=True)
class Target:
    """How keys should be: under the active KEK, and sealed to the recovery recipient, if there is one."""

    kek_id: str
    recipient: str | None


@dataclass(frozen=True, slots=True)
class Step:
    """What one step did. `overtaken` keys were replaced by somebody else, or shredded, in the meantime."""

    rings: int
    rewrapped: int
    overtaken: int
    failed: Sequence[dict[str, str]]
    next_cursor: str | None


class Rotation:
    """The keys of all sessions, seen from the KEKs."""

    def __init__(
        self, wrapper: KeyWrapper, kek_ids: Sequence[str], recipient: str | None, storage: StorageClient
    ) -> None:
        """`kek_ids` are those that `wrapper` can unwrap, the active one first."""
        self._wrapper = wrapper
        self._kek_ids = kek_ids
        self._target = Target(kek_ids[0], recipient)
        self._storage = storage

    async def status(self) -> dict[str, Any]:
        """How many key rings are under which KEK, and which are sealed to no recovery recipient.

        Raises:
            DomainError: `storage-unavailable`, `database-unavailable`.
        """
        counts = await self._storage.key_counts()
        names = (*self._kek_ids, *(name for name in sorted(counts.keks) if name not in self._kek_ids))
        return {
            "active": self._target.kek_id,
            "keks": [
                {"kek_id": name, "in_file": name in self._kek_ids, "rings": counts.keks.get(name, 0)} for name in names
            ],
            "recipient": self._target.recipient,
            "recipients": [{"recipient": name, "rings": rings} for name, rings in counts.recipients.items()],
            "unsealed": counts.unsealed,
        }

    async def step(self, cursor: str | None, limit: int) -> Step:
        """Wrap the keys of some rings anew; begins where the step before ended, or (None) at the beginning.

        Raises:
            DomainError: `invalid-request` for a cursor that is none, `storage-unavailable`, `database-unavailable`.
        """
        target = self._target
        rings, following = await self._storage.outdated_rings(target.kek_id, target.recipient, cursor, limit)
        made, failed = await asyncio.to_thread(self._rewrap, rings)
        replaced = 0
        for start in range(0, len(made), _REPLACE_AT_ONCE):
            replaced += await self._storage.replace_keys(made[start : start + _REPLACE_AT_ONCE])
        REWRAPPED.labels("replaced").inc(replaced)
        REWRAPPED.labels("overtaken").inc(len(made) - replaced)
        REWRAPPED.labels("failed").inc(len(failed))
        if failed:
            _log.warning("keys_not_rewrapped", count=len(failed), first=failed[0]["detail"])
        return Step(len(rings), replaced, len(made) - replaced, failed, following)

    def _rewrap(self, rings: Sequence[KeyRing]) -> tuple[list[Replacement], list[dict[str, str]]]:
        """Wrap what is outdated in these rings; what cannot be unwrapped is told and stays as it is."""
        made, failed = [], []
        for ring in rings:
            for key in ring.keys:
                recipient = key.recovery.recipient if key.recovery else None
                if key.kek_id == self._target.kek_id and self._target.recipient in (None, recipient):
                    continue
                try:
                    new = self._wrapper.wrap(ring.session_id, self._wrapper.unwrap(ring.session_id, key))
                except DomainError as error:
                    failed.append({"session_id": ring.session_id, "kek_id": key.kek_id, "detail": error.detail})
                else:
                    made.append(Replacement(ring.session_id, key, new))
        return made, failed
