"""The rules and the model of recording with two processors that share the replicas of storage.

The model is what was acknowledged. A chunk that was is readable through both processors in the end, with its key, and
in the seal of its session; or it is in a quarantine, and the model knows why: other content was first, its processor was
lost or forgotten, or the database was set back to before it.
"""

import asyncio
import contextlib
import os
import random
import shutil
import tempfile
from collections.abc import AsyncIterator, Awaitable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule

from sessions.core import key_ring
from sessions.core.manifest import Manifest
from sessions.core.types import ChunkIndex, SessionId
from sessions.processor import drainer, pipeline, recording, reporting, storage_watch
from sessions.processor.keys import FileKeyWrapper
from sessions.processor.session_desk import Queued
from sessions.runtime.errors import DomainError
from sessions.runtime.metadata import canonical_metadata
from sessions.runtime.tasks import end_all
from sessions.storage import ingest, ledger, processors, seal_desk, seal_route, sealing
from sessions.storage.killpoints import Point
from sessions.storage.sealing import covers, sealed_manifest
from sessions.storage.store import Change, SessionStatus
from tests.unit.processor.replicas import (
    FAULTS,
    IDLE_SECONDS,
    PROBLEMS,
    FaultyWire,
    MemoryStores,
    Processor,
    StorageSide,
    Stores,
    contents_at,
)
from tests.unit.processor.virtual_time import LoopTime, VirtualLoop

NAMES = [SessionId("a"), SessionId("b")]
SESSIONS = st.sampled_from(NAMES)
INDEXES = st.integers(0, 3)
CONTENTS = st.sampled_from([b"one", b"two" * 300])
COUNTS = st.one_of(st.none(), st.integers(1, 4))
METADATA = st.sampled_from(
    [None, {"host": "desk"}, {"host": "tower"}, {"host": "desk", "retention": {"retain_days": 1}}]
)
WHICH = st.integers(0, 1)
ACTIONS = st.one_of(
    st.tuples(st.just("put"), WHICH, SESSIONS, INDEXES, CONTENTS),
    st.tuples(st.just("open"), WHICH, SESSIONS, METADATA),
    st.tuples(st.just("seal"), WHICH, SESSIONS, COUNTS, st.booleans()),
    st.tuples(st.just("report"), WHICH),
    st.tuples(st.just("drain"), WHICH),
    st.tuples(st.just("sweep")),
)
FAULT_LISTS = st.lists(st.sampled_from(FAULTS), max_size=3)
MODES = st.sampled_from(["none", "none", "cut", "stuck", "dropped", "deaf", *PROBLEMS])
DEATHS = [Point.SEAL_ORDERED, Point.SEAL_TILES_STORED, Point.SEAL_STORED, Point.SEAL_TILES_DROPPED, Point.CHUNK_NOTED]
MAX_KEYS = 3
QUIET_ROUNDS = 40
STEP_SECONDS = 20.0
REFUSALS = {
    "storage-unavailable",
    "database-unavailable",
    "chunk-conflict",
    "session-sealed",
    "session-shredded",
    "metadata-conflict",
    "overloaded",
    "chunks-missing",
    "chunk-count-mismatch",
    "session-not-found",
    "storage-full",
    "key-unavailable",
}


class DiedError(Exception):
    """A process of storage ended."""


@dataclass(frozen=True)
class Ack:
    """A chunk that was acknowledged: by which process, and when."""

    content: bytes
    host: str
    process: int
    spooled: bool
    number: int


@dataclass(frozen=True)
class Decided:
    """A seal: what the model knew when it was decided, and when it was stored."""

    number: int
    registered: frozenset[str]


class ReplicasMachine(RuleBasedStateMachine):
    """What a test makes of it says where the stores are, and how requests get there."""

    patience = 1.0
    """How much longer all takes than in memory."""

    async def stores(self) -> Stores:
        """Give an empty database."""
        return MemoryStores()

    def loop(self) -> asyncio.AbstractEventLoop:
        """Make what runs it all."""
        return VirtualLoop(self.random)

    @asynccontextmanager
    async def served(self, side: StorageSide) -> AsyncIterator[Any]:
        """Give what carries requests to the replicas."""
        yield side.carry

    @initialize(seed=st.integers(0, 2**16))
    def begin(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.patch = pytest.MonkeyPatch()
        self._hurry()
        self.runner = asyncio.Runner(loop_factory=self.loop)
        self.folder = Path(tempfile.mkdtemp(prefix="replicas-"))
        self.executor = ThreadPoolExecutor(1)
        self.wrapper = FileKeyWrapper({"one": os.urandom(32)})
        self.stack = contextlib.AsyncExitStack()
        self.numbers = count()
        self.acks: dict[tuple[SessionId, int], list[Ack]] = {}
        self.metadata: dict[SessionId, list[tuple[Any, str, int]]] = {}
        self.orders: dict[SessionId, list[tuple[int | None, int]]] = {}
        self.refused: set[tuple[SessionId, int | None]] = set()
        self.erased: set[tuple[SessionId, int, bytes]] = set()
        self.erased_metadata: set[tuple[SessionId, bytes]] = set()
        self.sealing: dict[SessionId, Decided] = {}
        self.sealed_at: dict[SessionId, int] = {}
        self.sealed: dict[SessionId, bytes] = {}
        self.reported: dict[str, float] = {}
        self.shredded: set[SessionId] = set()
        self.set_backs = 0
        self.death: Point | None = None
        self.died = False
        self.registered: frozenset[str] = frozenset()
        self.run(self._begin())

    def _hurry(self) -> None:
        """Nothing waits for long: what is late here never comes, or comes in a later step."""
        patience = self.patience
        for module, name, value in (
            (reporting, "REPORT_SECONDS", 0.01 * patience),
            (recording, "_BUSY_SECONDS", (0.0, 0.0)),
            (pipeline, "JOIN_SECONDS", 0.0005),
            (drainer, "SEAL_WAIT_SECONDS", 0.2),
            (ingest, "_SEALING_WAIT_SECONDS", 0.004),
            (ingest, "_SEALING_POLL_SECONDS", 0.001),
            (seal_route, "WAIT_SECONDS", 0.01 * patience),
            (seal_desk, "_POLL_SECONDS", 0.001 * patience),
            (seal_desk, "_UNKNOWN_POLL_SECONDS", 0.001 * patience),
            (seal_desk, "_UNKNOWN_SECONDS", 0.02 * patience),
            (processors, "_REFRESH_SECONDS", 0.0),
            (key_ring, "MAX_KEYS", MAX_KEYS),
            (ledger, "MAX_KEYS", MAX_KEYS),
        ):
            self.patch.setattr(module, name, value)
        for module in (seal_desk, drainer, storage_watch):
            self.patch.setattr(module, "time", LoopTime())
        for place in (sealing, ingest, ledger):
            self.patch.setattr(place, "reach", self._reach)
        self.patch.setattr(os, "fsync", lambda _: None)  # the machine does not lose its power here

    def _reach(self, point: Point) -> None:
        if point is self.death:
            self.death, self.died = None, True
            raise DiedError(point)

    async def _begin(self) -> None:
        self.side = StorageSide(await self.stores(), self.random)
        self._watch_seals()
        carry = await self.stack.enter_async_context(self.served(self.side))
        self.processors = []
        for host in ("left", "right"):
            folder = self.folder / host
            folder.mkdir()
            wire = FaultyWire(carry, self.random)
            self.processors.append(Processor(host, folder, wire, self.wrapper, self.executor))
        for one in self.processors:
            await self._report(one)
        await self._snapshot()

    def run(self, work: Coroutine[Any, Any, Any]) -> Any:
        """Run a step, which must end."""

        async def bounded() -> Any:
            async with asyncio.timeout(STEP_SECONDS):
                return await work

        return self.runner.run(bounded())

    def teardown(self) -> None:
        if not hasattr(self, "processors"):
            return
        try:
            self.run(self._all_is_found())
        finally:
            self.runner.run(self._end())
            self.runner.close()
            self.executor.shutdown()
            shutil.rmtree(self.folder)
            self.patch.undo()

    async def _end(self) -> None:
        for one in self.processors:
            await one.end()
        await self.stack.aclose()

    # What is seen of storage.

    def _watch_seals(self) -> None:
        sessions, update = self.side.stores.sessions, self.side.stores.sessions.update

        async def watched(name: SessionId, expected: SessionStatus, change: Change, *rest: Any, **more: Any) -> Any:
            before = await sessions.get(name)
            done = await update(name, expected, change, *rest, **more)
            if done is not None and change.status is SessionStatus.SEALING:
                names = {one.name for one in await self.side.stores.processors.all()}
                self.sealing[name] = Decided(next(self.numbers), self.registered & names)
            if done is not None and change.seal is not None:
                self.sealed_at[name] = next(self.numbers)
            if done is not None and change.refuse is not None and before is not None and before.closing is not None:
                orders = before.closing.orders
                self.refused |= {(name, one.chunk_count) for one in orders if one.order_id == change.refuse}
            return done

        sessions.update = watched  # type: ignore[method-assign]

    # What can be done.

    async def _act(self, action: tuple[Any, ...]) -> None:
        kind, *rest = action
        if kind == "sweep":
            with contextlib.suppress(DiedError):
                await self.side.some().desk.sweep()
            return
        which, *rest = rest
        await getattr(self, f"_{kind}")(self.processors[which], *rest)

    async def _refusable(self, work: Awaitable[Any]) -> Any:
        """What was answered, or None for a refusal that may be."""
        try:
            return await work
        except DomainError as error:
            if error.code not in REFUSALS:
                raise
            return None

    async def _put(self, one: Processor, name: SessionId, index: int, content: bytes) -> None:
        process = one.process
        done = await self._refusable(one.recording.record(name, ChunkIndex(index), content))
        if done is not None:
            ack = Ack(content, one.host, process, done.durability == "spooled", next(self.numbers))
            self.acks.setdefault((name, index), []).append(ack)
            self.erased.discard((name, index, content))
            await self._is_durable(one, name, index, ack)

    async def _is_durable(self, one: Processor, name: SessionId, index: int, ack: Ack) -> None:
        spooled = (await one.spooled()).get((name, index), set()) if ack.spooled else set()
        stored = (await contents_at(self.side.stores, self.wrapper, name)).get(index)
        aside = one.quarantined().get((name, index), {}) if ack.spooled else {}
        assert ack.content in {stored, *spooled, *aside}, f"acknowledged, and nowhere: {name} {index}"

    async def _open(self, one: Processor, name: SessionId, metadata: Any) -> None:
        done = await self._refusable(one.rings.open(name, metadata))
        if done is not None and metadata is not None:
            self.metadata.setdefault(name, []).append((metadata, one.host, next(self.numbers)))
            self.erased_metadata.discard((name, canonical_metadata(metadata)))

    async def _seal(self, one: Processor, name: SessionId, chunk_count: int | None, keep: bool) -> None:
        beside = self._beside([one])
        try:
            answer = await self._refusable(one.desk.seal(name, chunk_count, keep=keep))
        finally:
            await end_all(beside)
        if isinstance(answer, Queued):
            assert keep, "without it nothing is queued"
            self.orders.setdefault(name, []).append((answer.chunk_count, next(self.numbers)))
        elif answer is not None and chunk_count is not None:
            assert answer["manifest"]["chunk_count"] == chunk_count

    def _beside(self, processors: list[Processor]) -> list[asyncio.Task[None]]:
        """What runs beside requests."""
        works = [work(one) for one in processors for work in (self._reporting, self._draining)]
        return [asyncio.create_task(work) for work in works]

    async def _reporting(self, one: Processor) -> None:
        while True:
            if not one.watch.away:
                await self._report(one)
            await asyncio.sleep(0.001)

    async def _draining(self, one: Processor) -> None:
        while True:
            await one.drain()
            await asyncio.sleep(0.001)

    async def _report(self, one: Processor) -> None:
        if await self._refusable(one.reporter.report()) is not None:
            self.reported[one.name] = self.side.clocks.seconds

    async def _drain(self, one: Processor) -> None:
        await one.look()
        await one.drain()

    @rule(actions=st.lists(ACTIONS, min_size=1, max_size=3), left=FAULT_LISTS, right=FAULT_LISTS)
    def act(self, actions: list[tuple[Any, ...]], left: list[str], right: list[str]) -> None:
        """Some things at once."""
        for one, faults in zip(self.processors, (left, right), strict=True):
            one.wire.faults = faults

        async def together() -> None:
            self.registered = frozenset(one.name for one in await self.side.stores.processors.all())
            await asyncio.gather(*map(self._act, actions))

        self.run(together())
        for one in self.processors:
            one.wire.faults = []
        self._seen()

    @rule(which=WHICH, name=SESSIONS, content=CONTENTS, first=INDEXES, chunks=st.integers(1, 3))
    def record(self, which: int, name: SessionId, content: bytes, first: int, chunks: int) -> None:
        """A recorder sends chunks through one processor, one after the other."""
        for index in range(first, first + chunks):
            self.act([("put", which, name, index, content)], [], [])

    @rule(name=SESSIONS, index=INDEXES, contents=st.tuples(CONTENTS, CONTENTS), left=FAULT_LISTS, right=FAULT_LISTS)
    def record_twice(
        self, name: SessionId, index: int, contents: tuple[bytes, bytes], left: list[str], right: list[str]
    ) -> None:
        """The same chunk through both processors at once, perhaps with other content."""
        self.act([("put", which, name, index, contents[which]) for which in (0, 1)], left, right)

    @rule(which=WHICH, name=SESSIONS, chunk_count=COUNTS, chunk=st.tuples(WHICH, INDEXES), faults=FAULT_LISTS)
    def seal(
        self, which: int, name: SessionId, chunk_count: int | None, chunk: tuple[int, int], faults: list[str]
    ) -> None:
        """A seal is ordered, one of its chunks comes while it waits, and the other processor answers for itself."""
        self.act([("seal", which, name, chunk_count, True)], [], [])
        sender, index = chunk
        self.act([("put", sender, name, index, b"one")], *((faults, []) if sender == 0 else ([], faults)))
        for then in ("report", 1 - which), ("report", 1 - which), ("sweep",):
            self.act([then], [], [])

    @rule(which=WHICH, mode=MODES)
    def wire(self, which: int, mode: str) -> None:
        """From now on the way from one processor is like this."""
        self.processors[which].wire.always = mode

    @rule()
    def wires_heal(self) -> None:
        for one in self.processors:
            one.wire.heal()
            self.run(one.look())

    @rule(which=WHICH, what=st.integers(0, 3))
    def stuck_request_arrives(self, which: int, what: int) -> None:
        stuck = self.processors[which].wire.stuck or self.processors[1 - which].wire.stuck
        if stuck:  # no precondition: on real parts it may differ between two runs of the same steps
            self.run(stuck.pop(what % len(stuck))())
            self._seen()

    @rule(which=WHICH, action=ACTIONS, stops_in=st.integers(0, 3), graceful=st.booleans())
    def restart(self, which: int, action: tuple[Any, ...], stops_in: int, graceful: bool) -> None:
        """A processor ends in the middle of what it does, and begins again."""
        one = self.processors[which]

        async def stop() -> None:
            kept = one.segments()
            one.wire.stops_in = stops_in
            if graceful:
                one.wire.stops_in = None
                with contextlib.suppress(DomainError):
                    await one.reporter.leave()
            elif action[0] != "sweep":
                work = asyncio.create_task(self._act((action[0], which, *action[2:])))
                stopped = asyncio.create_task(one.wire.stopped.wait())
                await asyncio.wait({work, stopped}, return_when=asyncio.FIRST_COMPLETED)
                stopped.cancel()
                if not work.done():
                    work.cancel()
                await asyncio.gather(stopped, work, return_exceptions=True)
                if work.done() and not work.cancelled() and work.exception() is not None:
                    raise work.exception()  # type: ignore[misc]
            await one.end(kept=None if graceful else kept)
            one.wire.stops_in = None
            one.wire.stopped.clear()
            one.start(lambda: self.side.clocks.seconds)

        self.run(stop())
        self._seen()

    @rule(seconds=st.sampled_from([1.0, 20.0, 120.0]), reporting=st.lists(WHICH, max_size=2))
    def time_passes(self, seconds: float, reporting: list[int]) -> None:
        async def go_on() -> None:
            await self.side.go_on(seconds)
            for which in reporting:
                await self.processors[which].look()
                await self._report(self.processors[which])

        self.run(go_on())
        self._seen()

    @rule(which=WHICH, name=SESSIONS, what=st.sampled_from(["dies", "restarts", "loses", "forgets", "shreds", "idle"]))
    def storage(self, which: int, name: SessionId, what: str) -> None:
        """What storage, or who runs it, does now and then."""
        self.run(getattr(self, f"_{what}")(self.processors[which], name))
        self._seen()

    async def _dies(self, *_: Any) -> None:
        self.death = self.random.choice(DEATHS)

    async def _restarts(self, *_: Any) -> None:
        self.side.restart()

    async def _loses(self, one: Processor, _: SessionId) -> None:
        """One does not report for longer than seals wait."""
        for _ in range(4):
            await self.side.go_on(201.0)
            for other in self.processors:
                if other is not one:
                    await self._report(other)

    async def _idle(self, *_: Any) -> None:
        await self.side.go_on(IDLE_SECONDS + 31.0)
        for one in self.processors:
            await self._report(one)
        with contextlib.suppress(DiedError):
            await self.side.some().idle.sweep()

    async def _forgets(self, one: Processor, _: SessionId) -> None:
        await self.side.some().registry.forget(one.name)

    async def _shreds(self, _: Processor, name: SessionId) -> None:
        with contextlib.suppress(DomainError):
            await self.side.shred(name)
            self.shredded.add(name)

    @rule()
    def take_snapshot(self) -> None:
        self.run(self._snapshot())

    async def _snapshot(self) -> None:
        self.snapshot = (
            await self.side.stores.dump(),
            self.side.clocks.seconds,
            {name: list(orders) for name, orders in self.orders.items()},
            set(self.shredded),
        )

    @rule(restarted=st.booleans(), name=SESSIONS, index=INDEXES)
    def database_is_set_back(self, restarted: bool, name: SessionId, index: int) -> None:
        """To the last snapshot; and both processors go on with a session, before they have heard of it."""
        dumped, since, orders, shredded = self.snapshot

        async def set_back() -> None:
            if self.side.clocks.seconds == since:
                await self.side.go_on(1.0)
            before, metadata = await self._contents(), await self._metadata()
            await self.side.stores.load(dumped)
            after = await self._contents()
            self.erased |= before - after
            self.erased_metadata |= metadata - await self._metadata()
            if restarted:
                self.side.restart()
            self.set_backs += 1
            for other in NAMES:
                record = await self.side.stores.sessions.get(other)
                if record is None or record.seal is None:
                    self.sealed.pop(other, None)
                    self.sealed_at.pop(other, None)
            for one in self.processors:
                one.wire.stuck.clear()  # no connection outlives it

        self.run(set_back())
        self.orders = {name: list(found) for name, found in orders.items()}
        self.shredded = set(shredded)
        self._seen()
        for which in (0, 1):
            self.act([("put", which, name, index + which, b"one")], [], [])

    async def _contents(self) -> set[tuple[SessionId, int, bytes]]:
        return {
            (name, index, content)
            for name in NAMES
            for index, content in (await contents_at(self.side.stores, self.wrapper, name)).items()
            if content is not None
        }

    async def _metadata(self) -> set[tuple[SessionId, bytes]]:
        records = [await self.side.stores.sessions.get(name) for name in NAMES]
        return {(one.session_id, one.metadata) for one in records if one is not None and one.metadata_given}

    # What has to hold.

    def _seen(self) -> None:
        if self.died:
            self.side.restart()
            self.died = False
        self.run(self._sealed_sessions_are_whole())

    async def _sealed_sessions_are_whole(self) -> None:
        for name in NAMES:
            record = await self.side.stores.sessions.get(name)
            if record is None or record.seal is None:
                continue
            before = self.sealed.setdefault(name, record.seal.manifest)
            assert before == record.seal.manifest, "a seal is for good"
            if record.status is SessionStatus.SHREDDED:
                self._forget(name)
                continue
            await self._is_whole(name, sealed_manifest(record), record.unheard)

    def _forget(self, name: SessionId) -> None:
        self.shredded.add(name)
        for key in [key for key in self.acks if key[0] == name]:
            del self.acks[key]
        self.metadata.pop(name, None)
        self.orders.pop(name, None)

    async def _is_whole(self, name: SessionId, manifest: Manifest, unheard: tuple[str, ...]) -> None:
        contents = await contents_at(self.side.stores, self.wrapper, name)
        aside = [await self._held(one) for one in self.processors]
        for (session, index), acks in self.acks.items():
            if session != name:
                continue
            for ack in acks:
                if ack.number > self.sealed_at[name] or (name, index, ack.content) in self.erased:
                    continue
                holders = [
                    one
                    for one, held in zip(self.processors, aside, strict=True)
                    if ack.content in held.get((name, index), {})
                ]
                if covers(manifest, index):
                    assert contents.get(index) == ack.content or holders, f"lost: {name} {index} {ack}"
                    continue
                assert any(self._is_excused(one, name, index, ack, unheard) for one in holders), (
                    f"the seal left out {name} {index} {ack}: {holders and 'in a spool'}"
                )
        for one in self.processors:
            if self._is_excused(one, name, -1, None, unheard):
                continue
            floors = [
                index + 1
                for (session, index), acks in self.acks.items()
                for ack in acks
                if session == name and (ack.host, ack.process) == (one.host, one.process)
                if ack.number < self.sealed_at[name]
            ]
            assert manifest.chunk_count >= max(floors, default=0), f"{one.host} knows of more chunks of {name}"

    def _is_excused(
        self, one: Processor, name: SessionId, index: int, ack: Ack | None, unheard: tuple[str, ...]
    ) -> bool:
        """Whether a seal need not have what this processor held."""
        if one.name in unheard or one.name not in self.sealing[name].registered:
            return True
        return (
            ack is not None
            and bool(self.set_backs)
            and (one.quarantined().get((name, index), {}).get(ack.content) == "conflict")
        )

    async def _held(self, one: Processor) -> dict[tuple[SessionId, int], set[bytes]]:
        found = await one.spooled()
        for place, contents in one.quarantined().items():
            found.setdefault(place, set()).update(contents)
        return found

    async def _all_is_found(self) -> None:
        self.death = None
        for one in self.processors:
            one.wire.heal()
            while one.wire.stuck:
                await one.wire.stuck.pop()()
        await self._until_quiet()
        await self._sealed_sessions_are_whole()
        for name in NAMES:
            await self._seal_in_the_end(name)
        await self._until_quiet()
        await self._sealed_sessions_are_whole()
        for name in NAMES:
            await self._is_found(name)

    async def _until_quiet(self) -> None:
        for _ in range(QUIET_ROUNDS):
            await self.side.go_on(3.0)
            for one in self.processors:
                await one.look()
            beside = self._beside(self.processors)
            await asyncio.gather(*(one.drain() for one in self.processors))
            await end_all(beside)
            await asyncio.gather(*map(self._report, self.processors))
            replica = self.side.some()
            await replica.ledger.resume_seals(100)
            await replica.desk.sweep()
            if await self._is_quiet():
                return
        raise AssertionError(f"it does not come to rest: {await self._unrest()}")

    async def _is_quiet(self) -> bool:
        return not await self._unrest()

    async def _unrest(self) -> list[str]:
        found = [f"{one.host} holds {one.spool.sessions}" for one in self.processors if one.spool.entries]
        found += [f"{one.host} promised {one.promises._promises}" for one in self.processors if len(one.promises)]
        for name in NAMES:
            record = await self.side.stores.sessions.get(name)
            if record is not None and (record.closing is not None or record.status is SessionStatus.SEALING):
                found.append(f"{name} is {record.status}, {record.closing}")
        return found

    async def _seal_in_the_end(self, name: SessionId) -> None:
        record = await self.side.stores.sessions.get(name)
        beside = self._beside(self.processors)
        try:
            await asyncio.sleep(0)
            await self.processors[0].desk.seal(name, None)
        except DomainError as error:
            if error.code in ("session-not-found", "overloaded"):
                assert record is None, error  # noqa: PT017 - the answer is right whichever it is
            else:
                assert error.code in ("chunks-missing", "chunk-count-mismatch"), error  # noqa: PT017
                assert record is not None
        finally:
            await end_all(beside)

    async def _is_found(self, name: SessionId) -> None:
        record = await self.side.stores.sessions.get(name)
        aside = [one.quarantined() for one in self.processors]
        if record is not None and record.status is SessionStatus.SHREDDED:
            assert not any(place[0] == name for held in aside for place in held), "shredded, and in a quarantine"
            return
        for (session, index), acks in self.acks.items():
            if session != name:
                continue
            contents = {ack.content for ack in acks}
            lasting = {content for content in contents if (name, index, content) not in self.erased}
            found = {content for held in aside for content in held.get((name, index), {})}
            for one in self.processors:
                try:
                    found.add(await one.recording.read(name, index))
                except DomainError as error:
                    assert error.code in ("chunk-not-found", "session-not-found"), error  # noqa: PT017
            assert lasting <= found, f"{name} {index}: {lasting - found} of {acks}"
            stored = (await contents_at(self.side.stores, self.wrapper, name)).get(index)
            if stored is None:
                assert all(any(c in held.get((name, index), {}) for held in aside) for c in lasting)
        if record is not None:
            self._has_its_metadata(name, record)
        await self._orders_are_answered(name)

    def _has_its_metadata(self, name: SessionId, record: Any) -> None:
        for metadata, host, number in self.metadata.get(name, ()):
            canonical = canonical_metadata(metadata)
            if (name, canonical) in self.erased_metadata or record.metadata == canonical:
                continue
            one = next(one for one in self.processors if one.host == host)
            if (name, metadata) in one.metadata_aside():
                continue
            late = name in self.sealed_at and number > self.sealed_at[name]
            assert late or self._is_excused(one, name, -1, None, record.unheard), f"metadata of {name}: {metadata}"

    async def _orders_are_answered(self, name: SessionId) -> None:
        record = await self.side.stores.sessions.get(name)
        if record is None or record.seal is not None:
            return
        for chunk_count, _ in self.orders.get(name, ()):
            refused = {*self.refused, *(one for processor in self.processors for one in processor.refused)}
            assert self.set_backs or (name, chunk_count) in refused, f"an order for {name}: {chunk_count}"
