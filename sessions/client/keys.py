"""What an operator asks about keys: their state, a rotation, a session's key ring."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from sessions.client.answers import AnswerFormatError, known_members
from sessions.client.paging import walk
from sessions.client.transport import OneStorage, Transport, session_path
from sessions.core import key_ring as key_rings
from sessions.core import strict
from sessions.core.key_ring import KeyRing

_FAILURES_KEPT: Final = 100
_MAX_ITEMS: Final = 10_000
_RECIPIENT_BYTES: Final = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class KekStatus:
    """A KEK: whether the processor's KEK_FILE has it, and how many sessions' key rings need it."""

    kek_id: str
    in_file: bool
    rings: int


@dataclass(frozen=True, slots=True, kw_only=True)
class RecipientStatus:
    """How many sessions' keys are sealed to this recovery recipient; None: to none."""

    recipient: str | None
    rings: int


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyStatus:
    """All keys. New ones are sealed to `recipient`; `unsealed` are the first sessions whose keys are to none."""

    active: str
    keks: tuple[KekStatus, ...]
    recipient: str | None
    recipients: tuple[RecipientStatus, ...]
    unsealed: tuple[str, ...]

    @property
    def rings_under_old_keks(self) -> int:
        """Rings that a rotation has still to bring under the active KEK."""
        return sum(kek.rings for kek in self.keks if kek.kek_id != self.active)

    @property
    def rings_to_seal(self) -> int:
        """Rings that a rotation has still to seal to the recovery recipient."""
        if self.recipient is None:
            return 0
        return sum(one.rings for one in self.recipients if one.recipient != self.recipient)

    @property
    def outdated(self) -> int:
        """Rings that a rotation has something to do for; at least so many, as one ring may need both."""
        return max(self.rings_under_old_keks, self.rings_to_seal)


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyFailure:
    """A key that could not be unwrapped, and stays as it is."""

    session_id: str
    kek_id: str
    detail: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RotationStep:
    """What one step of a rotation did."""

    rings: int
    rewrapped: int
    overtaken: int
    failed: tuple[KeyFailure, ...]
    next_cursor: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Rotated:
    """What a rotation did, in keys, and how things are now. Of the failures the first 100 are kept."""

    rewrapped: int
    overtaken: int
    failed: int
    failures: tuple[KeyFailure, ...]
    status: KeyStatus


def key_status(value: object) -> KeyStatus:
    """Read the state of the keys.

    Raises:
        FormatError: it is not such an answer.
    """
    read = known_members("key status", value, KeyStatus.__dataclass_fields__)
    keks, recipients = [], []
    for item in read.items("keks", _MAX_ITEMS):
        kek = known_members("KEK", item, KekStatus.__dataclass_fields__)
        if type(kek.value("in_file")) is not bool:
            raise kek.fail("in_file", "true or false")
        keks.append(
            KekStatus(kek_id=kek.text("kek_id"), in_file=kek.value("in_file"), rings=kek.integer("rings")),
        )
    for item in read.items("recipients", _MAX_ITEMS):
        one = known_members("recipient", item, RecipientStatus.__dataclass_fields__)
        recipients.append(RecipientStatus(recipient=_recipient(one), rings=one.integer("rings")))
    unsealed = read.items("unsealed", _MAX_ITEMS)
    if not all(isinstance(name, str) for name in unsealed):
        raise read.fail("unsealed", "a list of session ids")
    return KeyStatus(
        active=read.text("active"),
        keks=tuple(keks),
        recipient=_recipient(read),
        recipients=tuple(recipients),
        unsealed=tuple(unsealed),
    )


def _recipient(read: strict.Reader) -> str | None:
    found = read.optional("recipient", lambda name: read.hex(name, _RECIPIENT_BYTES))
    return None if found is None else found.hex()


def rotation_step(value: object) -> RotationStep:
    """Read what a step of a rotation did.

    Raises:
        FormatError: it is not such an answer.
    """
    read = known_members("rotation step", value, RotationStep.__dataclass_fields__)
    failed = []
    for item in read.items("failed", _MAX_ITEMS):
        one = known_members("failure", item, KeyFailure.__dataclass_fields__)
        failed.append(
            KeyFailure(session_id=one.text("session_id"), kek_id=one.text("kek_id"), detail=one.text("detail"))
        )
    return RotationStep(
        rings=read.integer("rings"),
        rewrapped=read.integer("rewrapped"),
        overtaken=read.integer("overtaken"),
        failed=tuple(failed),
        next_cursor=read.optional("next_cursor", read.text),
    )


class KeyCalls(OneStorage):
    """The calls about keys, to both services; `AsyncClient` has them."""

    _processor: Transport

    async def key_status(self) -> KeyStatus:
        """Which KEK is active, how many key rings each has, and which are sealed to no recovery recipient."""
        return await self._processor.json("GET", "/api/v1/keys", lambda value, _: key_status(value))

    async def rotation_step(self, cursor: str | None = None, limit: int = 100) -> RotationStep:
        """Bring the next key rings under the active KEK; begins at the beginning without a cursor."""
        body = {"cursor": cursor, "limit": limit}
        return await self._processor.json(
            "POST", "/api/v1/keys/rotate", lambda value, _: rotation_step(value), json=body
        )

    async def rotate_keys(self, progress: Callable[[int, int], None] | None = None) -> Rotated:
        """Bring all key rings under the active KEK, step by step. Broken off, the same call goes on with what is left.

        `progress(rings_done, rings_total)` is called after each step.
        """
        rewrapped, overtaken, done = 0, 0, 0
        total = (await self.key_status()).outdated
        while True:
            failed, failures, moved = 0, list[KeyFailure](), 0

            async def page(cursor: str | None) -> tuple[list[RotationStep], str | None]:
                step = await self.rotation_step(cursor)
                return [step], step.next_cursor

            async for step in walk("the rotation", page):
                moved += step.rewrapped
                overtaken += step.overtaken
                failed += len(step.failed)
                failures += step.failed[: _FAILURES_KEPT - len(failures)]
                done += step.rings
                if progress is not None:
                    progress(done, max(done, total))
            rewrapped += moved
            status = await self.key_status()
            # Sessions that another processor opened under an old KEK meanwhile may lie behind us: once more, then.
            if moved == 0 or status.outdated <= failed:
                return Rotated(
                    rewrapped=rewrapped, overtaken=overtaken, failed=failed, failures=tuple(failures), status=status
                )

    async def key_ring(self, session_id: str) -> KeyRing:
        """A session's key ring, for a place apart from its envelopes."""

        def read(value: Any, _: int) -> KeyRing:
            ring = key_rings.from_json(value)
            if ring.session_id != session_id:
                raise AnswerFormatError("it is the key ring of another session")
            return ring

        return await self._storage.json("GET", f"{session_path(session_id)}/keys", read)
