"""The spool in random orders of all that happens to it, real files and all, against a small model: no difference.

`LUCID_SPOOL_MACHINE_EXAMPLES=1000 scripts/test tests/unit/processor/test_spool_machine.py` tries more orders.
"""

import asyncio
import json
import os
import resource
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from sessions.core.types import Buffer, ChunkIndex, SessionId
from sessions.processor import crypt
from sessions.processor.keys import Dek
from sessions.processor.promises import Promises
from sessions.processor.quarantine import Quarantine
from sessions.processor.quarantining import Quarantining
from sessions.processor.spool import Spool
from sessions.processor.spool_erasing import Place
from sessions.processor.spool_format import HEADER_BYTES, Kind, payload_of
from sessions.processor.spool_index import Entry
from sessions.processor.spool_room import Room, SpoolRoom
from sessions.processor.spool_segments import CorruptEntryError, Segments
from sessions.runtime.errors import DomainError
from tests.unit.processor.spools import waiting_in

EXAMPLES = int(os.environ.get("LUCID_SPOOL_MACHINE_EXAMPLES", "30"))
STEPS = 30
SEGMENT_BYTES, MAX_BYTES, MAX_ENTRIES, FREE_MIN_BYTES = 400, 8000, 20, 3000
AMPLE = 10**9
STATES = [Room.OK, Room.LOW, Room.CRITICAL, Room.FULL]
DEK = Dek.generate()

SESSIONS = st.sampled_from([SessionId("a"), SessionId("b"), SessionId("c")])
SIZES = st.integers(0, 700)
SENDERS = st.sampled_from([None, "desk", "tower"])
CHUNKS = st.tuples(st.just(Kind.ENVELOPE), SESSIONS, st.integers(0, 6), SIZES, SENDERS)
OTHERS = st.tuples(st.sampled_from([Kind.OPENING, Kind.SEAL]), SESSIONS, st.just(-1), SIZES, SENDERS)
PUTS = st.one_of(CHUNKS, OTHERS)
SMALL = st.tuples(st.just(Kind.ENVELOPE), SESSIONS, st.integers(0, 6), st.integers(0, 200), SENDERS)
Put = tuple[Kind, SessionId, int, int, str | None]


class Disk(Segments):
    """Segments on a disk that is as full as it is told, and whose files grow as far as they are told."""

    free = AMPLE
    file_bytes: int | None = None

    def free_bytes(self) -> int:
        return self.free

    def append(self, entries: Sequence[tuple[Kind, Buffer] | tuple[Kind, Buffer, str | None]]) -> list[Place]:
        if self.file_bytes is None:
            return super().append(entries)
        before = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (self.file_bytes, before[1]))
        try:
            return super().append(entries)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)


@dataclass(eq=False)
class Item:
    """An entry that was acknowledged."""

    kind: Kind
    session: SessionId
    index: int
    payload: bytes = field(repr=False)
    by: str | None
    delivered: bool = False
    damaged: bool = False
    left_over: bool = False
    """It was delivered when the process ended; whether it was overwritten is known only after an orderly end."""


def _payload(kind: Kind, session: SessionId, index: int, size: int) -> bytes:
    content = os.urandom(size)
    if kind is Kind.ENVELOPE:
        return crypt.seal(DEK, session, ChunkIndex(index), content, 3).envelope
    return json.dumps({"session_id": session, "what": content.hex()}).encode()


class SpoolMachine(RuleBasedStateMachine):
    """`items` is what was acknowledged and lies in a segment that is there, by its place."""

    @initialize()
    def begin(self) -> None:
        self.runner = asyncio.Runner()
        self.folder = Path(tempfile.mkdtemp(prefix="spool-"))
        self.items: dict[Place, Item] = {}
        self.damages: list[tuple[int, int, int]] = []
        self.free = AMPLE
        self.start()

    def start(self) -> None:
        self.disk = Disk(self.folder, SEGMENT_BYTES, Quarantine(self.folder / "quarantine", AMPLE))
        self.disk.free = self.free
        self.spool = Spool(self.disk, SpoolRoom(MAX_BYTES, FREE_MIN_BYTES, MAX_ENTRIES))
        self.spool.open()
        self.state = 0
        self.noted_free = self.free
        self.note()

    def teardown(self) -> None:
        if hasattr(self, "runner"):
            self.runner.run(self.spool.close())
            self.runner.close()
            shutil.rmtree(self.folder)

    def waiting(self) -> dict[Place, Item]:
        """What was acknowledged and is to be delivered."""
        return {place: item for place, item in self.items.items() if not item.delivered}

    def openings(self) -> set[Place]:
        return {opening.place for session in self.spool.sessions.values() for opening in session.openings}

    def kept_openings(self) -> int:
        """Openings that were delivered, and are needed for as long as their session has others."""
        return sum(opening.delivered for session in self.spool.sessions.values() for opening in session.openings)

    def held(self) -> dict[str | None, tuple[int, int]]:
        """What each token has of the spool: bytes and entries."""
        held: dict[str | None, tuple[int, int]] = {}
        kept = {one.place for session in self.spool.sessions.values() for one in session.openings if one.delivered}
        for place in [*self.waiting(), *kept]:
            size_bytes, entries = held.get(self.items[place].by, (0, 0))
            held[self.items[place].by] = size_bytes + place.entry_bytes, entries + 1
        return held

    def note(self, more_bytes: int = 0, more_entries: int = 0) -> None:
        """How full it is now, and so its state: one begins at the first bounds, and ends below the second."""
        fill = max(
            (self.used() + more_bytes) / MAX_BYTES,
            (self.spool.entries + more_entries) / MAX_ENTRIES,
            1 - 0.4 * (self.noted_free - FREE_MIN_BYTES) / FREE_MIN_BYTES,
        )
        reached = sum(fill >= bound for bound in (0.5, 0.8, 0.95))
        kept = sum(fill >= bound for bound in (0.4, 0.7, 0.9))
        self.state = max(reached, min(self.state, kept))

    def used(self) -> int:
        return sum(file.stat().st_size for file in self.folder.glob("*.seg"))

    def segment(self, number: int) -> Path:
        return self.folder / f"{number:016d}.seg"

    def put_all(self, puts: list[Put], delivered: Sequence[Entry] = ()) -> dict[Place, Item]:
        """Put them at once, each of which is taken or refused as the model says; gives those that are new.

        `delivered` are entries that are taken out at the same time.
        """
        expected, made = [], []
        more_bytes = more_entries = 0
        under_way = {(item.session, item.index) for item in self.waiting().values() if item.kind is Kind.ENVELOPE}
        held = self.held()
        for kind, session, index, size, by in puts:
            payload = _payload(kind, session, index, size)
            made.append(Item(kind, session, index, payload, by))
            if kind is Kind.ENVELOPE and (session, index) in under_way:
                expected.append("there")
                continue
            needed = HEADER_BYTES + len(by or "") + len(payload)
            left_entries = MAX_ENTRIES - self.spool.entries - more_entries
            left = min(MAX_BYTES - self.used(), self.noted_free - FREE_MIN_BYTES) - more_bytes
            size_bytes, entries = held.get(by, (0, 0))
            is_little = size_bytes + 2 * needed <= left and entries + 2 <= left_entries
            if needed > left or left_entries < 1 or (self.state == 3 and not is_little):
                expected.append("spool-full")
                continue
            under_way.add((session, index))
            held[by] = size_bytes + needed, entries + 1
            more_bytes, more_entries = more_bytes + needed, more_entries + 1
            self.note(more_bytes, more_entries)
            expected.append("new")

        async def one(item: Item) -> tuple[str, Place | None]:
            try:
                entry, created = await self.spool.append(item.kind, item.session, item.payload, item.index, by=item.by)
            except DomainError as error:
                return error.code, None
            return ("new", entry.place) if created else ("there", None)

        async def together() -> list[tuple[str, Place | None]]:
            taking_out = [asyncio.create_task(self.spool.delivered(list(delivered)))] if delivered else []
            found = await asyncio.gather(*map(one, made))
            await asyncio.gather(*taking_out)
            await self.spool.written()
            return found

        answers = self.runner.run(together())
        assert [answer for answer, _ in answers] == expected
        if more_entries:
            self.noted_free = self.free
            self.note()
        return {place: item for (_, place), item in zip(answers, made, strict=True) if place is not None}

    @rule(puts=st.lists(PUTS, min_size=1, max_size=6))
    def put(self, puts: list[Put]) -> None:
        self.items |= self.put_all(puts)

    @rule(puts=st.lists(SMALL, min_size=1, max_size=3))
    @precondition(lambda self: self.state == 0)
    def put_while_all_is_taken_out(self, puts: list[Put]) -> None:
        window = waiting_in(self.spool)
        for entry in window:
            self.items[entry.place].delivered = True
        self.items |= self.put_all(puts, window)
        self.gone([])

    @rule(size=SIZES, room=st.integers(0, 400))
    @precondition(lambda self: self.state < 3)
    def put_what_the_disk_does_not_take(self, size: int, room: int) -> None:
        """The system itself writes a part of it and refuses the rest."""
        sizes = self.disk.sizes
        current = self.disk.current()
        used = sizes[current] if current is not None and sizes[current] < SEGMENT_BYTES else 0
        payload = _payload(Kind.SEAL, SessionId("a"), -1, size)
        if HEADER_BYTES + len(payload) > min(MAX_BYTES - self.used(), self.noted_free - FREE_MIN_BYTES):
            return
        self.disk.file_bytes = used + min(room, len(payload))
        with pytest.raises(DomainError, match="full"):
            self.runner.run(self.spool.append(Kind.SEAL, SessionId("a"), payload))
        self.runner.run(self.spool.written())
        self.disk.file_bytes = None
        self.noted_free = 0
        self.state = 3
        self.free_disk_is(self.free)

    @rule(free=st.sampled_from([0, FREE_MIN_BYTES, 4000, 5000, 6000, 7000, AMPLE]))
    def free_disk_is(self, free: int) -> None:
        self.free = self.disk.free = self.noted_free = free

        async def look() -> None:
            self.spool.room._free_bytes = None
            watching = asyncio.create_task(self.spool.watch())
            while self.spool.room._free_bytes != free:
                await asyncio.sleep(0)
            watching.cancel()

        self.runner.run(look())
        self.note()

    @rule(session=SESSIONS, max_bytes=st.integers(1, 4000), alone=st.booleans(), some=st.integers(0, 2**10))
    def drain(self, session: SessionId, max_bytes: int, alone: bool, some: int) -> None:
        """Storage took some of a session's window, in any order."""
        if (found := self.spool.sessions.get(session)) is None:
            return
        found.isolating = alone
        window = found.window(max_bytes)
        self.check_window(session, window, 1 if alone else max_bytes)
        found.isolating = False
        chosen = [entry for number, entry in enumerate(window) if some >> number & 1]
        self.runner.run(self.spool.delivered(chosen))
        self.gone([entry.place for entry in chosen])

    @rule(session=SESSIONS)
    def drain_a_session(self, session: SessionId) -> None:
        """As for a seal: all of it, before the others, in order."""
        if (found := self.spool.sessions.get(session)) is not None:
            entries = list(found.waiting())
            kinds = [entry.kind for entry in entries]
            assert kinds == sorted(kinds)
            self.runner.run(self.spool.delivered(entries))
            self.gone([entry.place for entry in entries])
        assert session not in self.spool.sessions
        assert all(item.session != session or item.delivered or item.kind is Kind.SEAL for item in self.items.values())

    @rule(data=st.data())
    def set_aside(self, data: st.DataObject) -> None:
        """Storage has something else at its place."""
        if window := waiting_in(self.spool):
            entry = data.draw(st.sampled_from(window))
            item = self.items[entry.place]
            self.runner.run(Quarantining(self.spool, Promises(None)).quarantine(entry, "conflict", detail="why"))
            self.damages.append((entry.place.segment, entry.place.offset, entry.place.offset + entry.place.entry_bytes))
            name = f"{entry.place.segment:016d}-{entry.place.offset:012d}.entry"
            assert payload_of((self.folder / "quarantine" / name).read_bytes()) == (item.kind, item.payload)
            kept = self.spool.quarantine.entries[entry.place.name]
            assert (kept.session_id, kept.kind, kept.reason) == (item.session, item.kind.name.lower(), "conflict")
            assert kept.index == (item.index if item.kind is Kind.ENVELOPE else None)
            self.gone([entry.place])

    def gone(self, places: list[Place]) -> None:
        for place in places:
            self.items[place].delivered = True
        self.items = {place: item for place, item in self.items.items() if self.segment(place.segment).exists()}
        self.note()

    @rule(data=st.data(), bits=st.integers(1, 255), restart=st.booleans())
    def damage(self, data: st.DataObject, bits: int, restart: bool) -> None:
        """A byte of an entry is another: it is set aside when it is read, and costs nothing else."""
        if not (waiting := self.waiting()):
            return
        place = data.draw(st.sampled_from(sorted(waiting)))
        at = place.offset + data.draw(st.integers(0, place.entry_bytes - 1))
        with self.segment(place.segment).open("r+b") as file:
            file.seek(at)
            (byte,) = file.read(1)
            file.seek(at)
            file.write(bytes([byte ^ bits]))
        self.items[place].damaged = True
        self.damages.append((place.segment, place.offset, place.offset + place.entry_bytes))
        if restart:
            self.restart()
        else:
            self.sweep()

    @rule()
    def restart(self) -> None:
        released = {place for place, item in self.items.items() if item.delivered} - self.openings()
        self.runner.run(self.spool.close())
        self.come_back({})
        assert not released & {entry.place for entry in waiting_in(self.spool)}, "what was delivered comes back"

    @rule()
    def overwrite(self) -> None:
        """What was delivered before the last turn is no more in the segments that stay."""
        released = {place for place, item in self.items.items() if item.delivered} - self.openings()
        self.runner.run(self.spool.leftovers.turn())
        self.runner.run(self.spool.leftovers.turn())
        for place in released:
            data = self.segment(place.segment).read_bytes()[place.offset + HEADER_BYTES :]
            assert not any(data[: place.entry_bytes - HEADER_BYTES])

    @rule(
        puts=st.lists(PUTS, min_size=1, max_size=4),
        left=st.floats(0, 1),
        hole=st.tuples(st.floats(0, 1), st.floats(0, 1)),
        garbage=st.one_of(st.just(b""), st.binary(max_size=100), st.just(bytes(500))),
    )
    def crash_while_writing(self, puts: list[Put], left: float, hole: tuple[float, float], garbage: bytes) -> None:
        """Of what was not acknowledged any part is on the disk: an end is missing, pages are empty, something follows."""
        before = dict(self.disk.sizes)
        unanswered = self.put_all(puts)
        self.spool._thread.shutdown()
        self.disk.close()
        number = max(self.disk.sizes, default=1)
        path = self.segment(number)
        start, size = before.get(number, 0), path.stat().st_size if path.exists() else 0
        with path.open("ab") as file:
            file.truncate(start + int(left * (size - start)))
        end = path.stat().st_size
        low, high = sorted(start + int(share * (end - start)) for share in hole)
        with path.open("r+b") as file:
            file.seek(low)
            file.write(bytes(high - low))
            file.seek(end)
            file.write(garbage)
        self.damages.append((number, start, end + len(garbage)))
        for place in unanswered:
            if place.segment == number and (place.offset + place.entry_bytes > end or low < high):
                unanswered[place].damaged = True
        self.come_back(unanswered)

    def come_back(self, unanswered: dict[Place, Item]) -> None:
        """Start again: what was delivered may be there once more, when its segment was; what is damaged is set aside."""
        there = {place: item for place, item in self.items.items() if self.segment(place.segment).exists()}
        self.items = there | unanswered
        self.start()
        for item in self.items.values():
            item.left_over, item.delivered = item.delivered, False
        self.sweep()

    def sweep(self) -> None:
        """Read all that is there, as the drainer does."""
        found = {}
        for entry in waiting_in(self.spool):
            try:
                found[entry.place] = self.runner.run(self.spool.read(entry))
            except CorruptEntryError:
                assert self.items[entry.place].damaged
                self.runner.run(Quarantining(self.spool, Promises(None)).quarantine(entry, "damaged"))
                self.note()
        for place, payload in found.items():
            assert payload == self.items[place].payload, "never another thing than was written"
        for place, item in self.items.items():
            if place in found:
                item.damaged = False
            else:
                assert item.damaged or item.delivered or item.left_over, "nothing acknowledged is lost"
                item.delivered = True
        self.gone([])

    def check_window(self, session: SessionId, window: list[Entry], max_bytes: int) -> None:
        """Envelopes of this session, without those that came again before the others of their index are gone."""
        places = [entry.place for entry in window]
        mine = {
            place: item
            for place, item in self.waiting().items()
            if item.session == session and item.kind is Kind.ENVELOPE
        }
        assert set(places) <= set(mine)
        assert len(set(places)) == len(places)
        assert bool(window) == bool(mine)
        assert len(window) == 1 or sum(place.entry_bytes for place in places) <= max_bytes

    @invariant()
    def all_is_there_in_order(self) -> None:
        if not hasattr(self, "spool"):
            return
        waiting = self.waiting()
        entries = waiting_in(self.spool)
        assert [entry.place for entry in entries] == sorted(waiting)
        for entry in entries:
            item = waiting[entry.place]
            assert (entry.kind, entry.session.session_id, entry.index) == (item.kind, item.session, item.index)
            assert entry.by == item.by
            assert self.disk.read(entry.place) == item.payload
            assert self.spool.sessions[item.session] is entry.session
        for session in ("a", "b", "c"):
            held = {item.kind for item in waiting.values() if item.session == session} - {Kind.SEAL}
            assert self.spool.holds(SessionId(session)) == bool(held)
        latest = {(item.session, item.index): place for place, item in sorted(waiting.items())}
        for (session, index), place in latest.items():
            if index >= 0:
                assert self.spool.sessions[session].chunks[index].place == place

    @invariant()
    def it_is_as_full_as_the_model(self) -> None:
        if not hasattr(self, "spool"):
            return
        assert self.spool.entries == len(self.waiting()) + self.kept_openings()
        assert self.spool.used_bytes == self.used()
        shares = {by: self.spool.room.shares.of(by) for by in (None, "desk", "tower")}
        assert {by: (one.size_bytes, one.entries) for by, one in shares.items() if one.entries} == self.held()
        assert sum(one.orders for one in shares.values()) == self.spool.seals
        assert self.spool.room.state is STATES[self.state]
        assert self.spool.entries <= MAX_ENTRIES or self.recovered_over()
        assert self.spool.arrived.is_set() == bool(self.spool.entries)

    def recovered_over(self) -> bool:
        """Delivered entries that a restart found again are over the bound only as far as they were on the disk."""
        return self.spool.entries <= len(self.items)

    @invariant()
    def segments_are_there_that_are_needed_and_no_others(self) -> None:
        if not hasattr(self, "spool"):
            return
        needed = {place.segment for place in self.waiting()}
        needed |= {one.place.segment for session in self.spool.sessions.values() for one in session.openings}
        assert {int(file.stem) for file in self.folder.glob("*.seg")} == needed

    @invariant()
    def what_is_set_aside_is_counted_and_was_damaged(self) -> None:
        if not hasattr(self, "spool"):
            return
        files = list((self.folder / "quarantine").glob("*.entry"))
        assert {file.stem for file in files} == self.spool.quarantine.entries.keys()
        assert {file.stem for file in (self.folder / "quarantine").glob("*.json")} == {file.stem for file in files}
        sizes = [file.stat().st_size for file in (self.folder / "quarantine").iterdir()]
        assert self.spool.quarantine.used_bytes == sum(-(-size // 4096) * 4096 for size in sizes)
        for file in files:
            number, offset = map(int, file.stem.split("-"))
            assert any(number == of and start <= offset < end for of, start, end in self.damages), file


TestSpoolMachine = SpoolMachine.TestCase
TestSpoolMachine.settings = settings(
    max_examples=EXAMPLES, stateful_step_count=STEPS, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
