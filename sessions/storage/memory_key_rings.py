"""The twin in memory of `KeyRingStore`, on the twin of the sessions."""

from collections.abc import Sequence
from dataclasses import replace

from sessions.core.key_ring import KeyRing, WrappedDek
from sessions.core.types import SessionId
from sessions.storage.key_rings import Group, Kind, Replacement
from sessions.storage.memory import MemorySessions


class MemoryKeyRings:
    """`KeyRingStore` in memory."""

    def __init__(self, sessions: MemorySessions) -> None:
        self._sessions = sessions

    async def groups(self, kind: Kind) -> list[Group]:
        """See `KeyRingStore`."""
        found = {_group(kind, key) for record in self._sessions.records.values() for key in record.keys}
        return sorted(found, key=lambda group: group.place)

    async def count(self, group: Group) -> int:
        """See `KeyRingStore`."""
        return len(self._of(group))

    async def page(self, group: Group, after: SessionId | None, limit: int) -> list[KeyRing]:
        """See `KeyRingStore`."""
        return [ring for ring in self._of(group) if after is None or ring.session_id > after][:limit]

    async def replace(self, replacements: Sequence[Replacement]) -> int:
        """See `KeyRingStore`."""
        return sum(map(self._replace, replacements))

    def _of(self, group: Group) -> list[KeyRing]:
        return [
            KeyRing(name, record.keys)
            for name, record in sorted(self._sessions.records.items())
            if any(_group(group.kind, key) == group for key in record.keys)
        ]

    def _replace(self, one: Replacement) -> bool:
        record = self._sessions.records.get(one.session_id)
        keys = [] if record is None else list(record.keys)
        for place, key in enumerate(keys):
            if (key.dek_id, key.wrapped) == (one.key.dek_id, one.expected):
                assert record is not None
                keys[place] = replace(one.key, recovery=one.key.recovery or key.recovery)
                self._sessions.records[one.session_id] = replace(record, keys=tuple(keys))
                return True
        return False


def _group(kind: Kind, key: WrappedDek) -> Group:
    if kind is Kind.KEK:
        return Group(kind, key.kek_id)
    return Group(kind, key.recovery.recipient if key.recovery else None)
