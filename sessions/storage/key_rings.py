"""Finding key rings that are not as they should be, and replacing keys in them: storage's part of a rotation.

Storage cannot tell what is in a key. It knows which KEK wraps it and to which recovery recipient it is sealed, by name,
and keeps an index of both: so what is outdated is found without looking at what is not.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final, Protocol

from sessions.core.key_ring import KeyRing, WrappedDek
from sessions.core.types import SessionId

UNSEALED_LISTED: Final = 100


class Kind(StrEnum):
    """What rings are grouped by; a ring is in the group of each of its keys."""

    KEK = "kek"
    RECIPIENT = "recipient"


@dataclass(frozen=True, slots=True)
class Group:
    """All rings that have a key under this KEK, or sealed to this recipient (None: to none)."""

    kind: Kind
    value: str | None

    @property
    def place(self) -> tuple[str, str]:
        """Its place among the groups: KEKs first."""
        return self.kind.value, self.value or ""


@dataclass(frozen=True, slots=True)
class Target:
    """How keys should be: under this KEK, and sealed to this recipient, or (None) to whichever, if any."""

    kek_id: str
    recipient: str | None


@dataclass(frozen=True, slots=True)
class Place:
    """How far a walk has come: behind this session of this group."""

    group: Group
    after: SessionId


@dataclass(frozen=True, slots=True)
class RingPage:
    """Some rings, and where to go on; None at the end."""

    rings: list[KeyRing]
    following: Place | None


@dataclass(frozen=True, slots=True)
class Replacement:
    """A key that was wrapped anew. It takes its place only if what is `expected` is there still.

    Every wrapping has a nonce of its own, so the expected bytes tell each version of a key from every other.
    """

    session_id: SessionId
    expected: bytes = field(repr=False)
    key: WrappedDek


@dataclass(frozen=True, slots=True)
class RingCounts:
    """How many rings each group has, and the first sessions whose keys are sealed to no recipient."""

    groups: Sequence[tuple[Group, int]]
    unsealed: Sequence[SessionId]


class KeyRingStore(Protocol):
    """The key rings of all sessions that are not shredded."""

    async def groups(self, kind: Kind) -> list[Group]:
        """The groups of a kind; all that have a ring, and perhaps one that has none."""

    async def count(self, group: Group) -> int:
        """How many rings a group has."""

    async def page(self, group: Group, after: SessionId | None, limit: int) -> list[KeyRing]:
        """Rings of a group by session id, those behind `after`."""

    async def replace(self, replacements: Sequence[Replacement]) -> int:
        """Replace keys, each by itself, in one journaled write each; gives how many were as expected.

        A key without a recovery part leaves the one that is there: the DEK is the same.
        """


class Rings:
    """Walks over outdated rings in short steps."""

    def __init__(self, store: KeyRingStore) -> None:
        self._store = store

    async def counts(self) -> RingCounts:
        """How many rings there are of each group."""
        groups = [group for kind in Kind for group in await self._store.groups(kind)]
        counted = [(group, await self._store.count(group)) for group in sorted(groups, key=lambda one: one.place)]
        unsealed = await self._store.page(Group(Kind.RECIPIENT, None), None, UNSEALED_LISTED)
        return RingCounts([(group, count) for group, count in counted if count], [ring.session_id for ring in unsealed])

    async def outdated(self, target: Target, start: Place | None, limit: int) -> RingPage:
        """Rings with a key that is not as it should be, from a place on; at most `limit`, perhaps fewer before the end.

        A ring that becomes as it should be leaves its group, so whoever starts again finds only what is left.
        """
        found: list[KeyRing] = []
        for group in await self._stale(target):
            if start is not None and group.place < start.group.place:
                continue
            after = start.after if start is not None and group == start.group else None
            wanted = limit - len(found)
            page = await self._store.page(group, after, wanted)
            # What is under another KEK has had its turn as such.
            found += [ring for ring in page if group.kind is Kind.KEK or _is_under(ring, target.kek_id)]
            if len(page) == wanted:
                return RingPage(found, Place(group, page[-1].session_id))
        return RingPage(found, None)

    async def _stale(self, target: Target) -> list[Group]:
        groups = [group for group in await self._store.groups(Kind.KEK) if group.value != target.kek_id]
        if target.recipient is not None:
            sealed = await self._store.groups(Kind.RECIPIENT)
            groups += [group for group in sealed if group.value != target.recipient]
        return sorted(groups, key=lambda group: group.place)

    async def replace(self, replacements: Sequence[Replacement]) -> int:
        """See `KeyRingStore`."""
        return await self._store.replace(replacements)


def _is_under(ring: KeyRing, kek_id: str) -> bool:
    return all(key.kek_id == kek_id for key in ring.keys)
