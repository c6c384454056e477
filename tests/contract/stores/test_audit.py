"""The audit trail on its twin and on MongoDB: indexes without gaps, days that close, and what is done to it unseen."""

import asyncio
import dataclasses
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from bson import Binary, Int64

from sessions.client.audit import AuditItem
from sessions.client.audit_check import check_events
from sessions.core import receipt as receipts
from sessions.core.audit import Action, AuditEvent, from_bytes, session_of
from sessions.core.errors import VerificationError
from sessions.core.manifest import Manifest
from sessions.core.types import SessionId
from sessions.runtime.audit import Audit
from sessions.runtime.errors import DomainError
from sessions.runtime.tasks import end_all
from sessions.runtime.times import now
from sessions.storage import audit_seal, audit_trail, mongo_due
from sessions.storage.audit_chunks import WithTrail
from sessions.storage.audit_seal import OLDEST_UNSEALED, DailySeal
from sessions.storage.audit_store import EventStore
from sessions.storage.audit_trail import Trail
from sessions.storage.evidence import Evidence
from sessions.storage.ledger import Ledger
from sessions.storage.memory import MemoryChunks, MemorySessions, MemoryTiles
from sessions.storage.memory_anchoring import LeaseState, MemoryBatches, MemoryLease
from sessions.storage.memory_audit import MemoryEvents
from sessions.storage.memory_scrub import MemoryBodyScan, MemoryFindings
from sessions.storage.mongo import Database, Readiness
from sessions.storage.mongo_audit import MongoEvents
from sessions.storage.mongo_chunks import MongoChunks
from sessions.storage.mongo_due import MongoDue
from sessions.storage.mongo_scrub import MongoBodyScan, MongoFindings
from sessions.storage.mongo_sessions import MongoSessions
from sessions.storage.mongo_tiles import MongoTiles
from sessions.storage.progress import ProgressReader
from sessions.storage.retention import Due, Terms
from sessions.storage.scrub import Scrubber
from sessions.storage.sealing import Sealer, sealed_manifest
from sessions.storage.shredding import Shredder
from sessions.storage.store import Change, SealOrder, SessionFilter, SessionRecord, SessionStatus, ShredReason
from tests.unit.core import reference
from tests.unit.runtime.apps import Written
from tests.unit.storage.chunks import House, event

DAY, NEXT = session_of("2026-01-31"), session_of("2026-02-01")
NOON = datetime(2026, 1, 31, 12, tzinfo=UTC)
OVER = datetime(2026, 2, 1, tzinfo=UTC) + audit_seal.GRACE


class Archive:
    """The stores, a trail and all that works on it, and what an attacker with a hand in the database does."""

    def __init__(self, db: Database | None) -> None:
        self.db, self.time = db, NOON
        self.memory = MemorySessions(), MemoryChunks(), MemoryTiles()
        if db is None:
            self.sessions, self.chunks, self.tiles = self.memory
            self.events: EventStore = MemoryEvents(self.memory[0])
            self.scan, self.findings = MemoryBodyScan(*self.memory[:2], self.events), MemoryFindings()
            self.due = self.memory[0]
        else:
            self.sessions, self.chunks, self.tiles = MongoSessions(db), MongoChunks(db), MongoTiles(db)
            self.events, self.scan, self.findings = MongoEvents(db), MongoBodyScan(db), MongoFindings(db)
            self.due = MongoDue(db)
        self.everything = WithTrail(self.chunks, self.chunks, self.events)
        self.sealer = Sealer(self.sessions, self.everything, self.tiles)
        self.lease = LeaseState()
        self.trail = self.replica()

    def replica(self) -> Trail:
        return Trail(self.events, self.sessions, "storage", lambda: self.time)

    def seal(self, holder: str = "x", sealer: Any = None) -> DailySeal:
        lease = MemoryLease(self.lease, holder, 30)
        return DailySeal(self.replica(), self.events, sealer or self.sealer, lease, lambda: self.time)

    async def sealed(self, count: int = 3) -> Manifest:
        """A day of so many events, sealed."""
        await self.trail.write([event(number) for number in range(count)])
        self.time = OVER
        assert await self.seal().turn() == [DAY]
        return await self.manifest()

    async def manifest(self, name: SessionId = DAY) -> Manifest:
        record = await self.sessions.get(name)
        assert record is not None
        return sealed_manifest(record)

    async def told(self, name: SessionId = DAY) -> list[tuple[int, AuditEvent]]:
        return [(one.index, from_bytes(one.data)) for one in await self.events.page(name, 0, 100_000)]

    async def ids(self, name: SessionId = DAY) -> list[str | None]:
        """Request ids in order; None for what closes the day. Their indexes have no gap."""
        told = await self.told(name)
        assert [index for index, _ in told] == list(range(len(told)))
        return [one.request_id for _, one in told]

    async def items(self) -> list[AuditItem]:
        """As a client gets them."""
        found = await self.events.page(DAY, 0, 1000)
        events = [(one.index, one.event()) for one in found]
        return [AuditItem(index=at, value=one and one.to_json(), event=one) for at, one in events]

    async def scrubbed(self) -> list[tuple[str, str, int | None]]:
        scrubber = Scrubber(
            self.sessions,
            self.everything,
            self.tiles,
            self.scan,
            findings=self.findings,
            audit=Audit("storage", Written()),
            clock=lambda: now() + timedelta(days=1),
        )
        page = await scrubber.page(None)
        assert page.following is None
        return [(one.kind.value, one.part.value, one.index) for one in page.findings]

    async def put(self, index: int, data: bytes | None, name: SessionId = DAY) -> None:
        """Whatever lies there: it is replaced, taken out, or put in."""
        if self.db is None:
            assert isinstance(self.events, MemoryEvents)
            self.events.events.setdefault(name, {}).pop(index, None)
            if data is not None:
                self.events.events[name][index] = data
            return
        place = {"_id": {"s": name, "i": Int64(index)}}
        await self.db["audit_events"].delete_one(place)
        if data is not None:
            await self.db["audit_events"].insert_one({**place, "event": Binary(data)})


@pytest.fixture
async def archive(store_db: Database | None) -> Archive:
    if store_db is not None:
        for name in ("findings", "scrubs"):
            await store_db[name].delete_many({})
    return Archive(store_db)


class TestStore:
    async def test_it_stores_in_order_up_to_the_first_index_that_is_taken(self, archive: Archive) -> None:
        events = archive.events
        assert await events.last(DAY) is None
        assert await events.append(DAY, 2, [b"two"]) == 1
        assert await events.append(DAY, 0, [b"zero", b"one", b"other", b"three"]) == 2
        assert await events.append(DAY, 1, [b"other"]) == 0
        assert await events.append(NEXT, 0, [b"of the next day"]) == 1
        last = await events.last(DAY)
        assert last is not None
        assert (last.index, last.data, last.event(), last.closes) == (2, b"two", None, False)
        page = await events.page(DAY, 1, 5)
        assert [(one.index, one.data) for one in page] == [(1, b"one"), (2, b"two")]
        assert [one.data for one in await events.page(DAY, 0, 1)] == [b"zero"]

    async def test_days_are_the_sessions_that_are_called_so(self, archive: Archive) -> None:
        for name in ("lucid-audit-x", "lucid-audit-2026-02-30", "lucid-audi", "lucid-audit.", "a"):
            await archive.sessions.create(_open(name))
        for name in (NEXT, DAY):
            await archive.sessions.create(_open(name))
        assert await archive.events.unsealed(5) == [DAY, NEXT]
        assert await archive.events.unsealed(1) == [DAY]
        assert await archive.events.days(5, None) == [NEXT, DAY]
        assert await archive.events.days(5, NEXT) == [DAY]
        assert await archive.events.days(5, DAY) == []
        recordings = await archive.sessions.page(SessionFilter(), 9, None)
        assert {DAY, NEXT} & {one.session_id for one in recordings} == set()
        assert "lucid-audit-x" in {one.session_id for one in recordings}
        await archive.sealer.seal(DAY, None, "idle")
        assert await archive.events.unsealed(5) == [NEXT]
        assert await archive.events.days(1, None) == [NEXT]


def _open(name: str) -> SessionRecord:
    return SessionRecord(session_id=SessionId(name), status=SessionStatus.OPEN, opened_at=NOON, metadata=b"{}", keys=())


class TestWriting:
    async def test_events_come_one_behind_the_other(self, archive: Archive) -> None:
        await archive.trail.write([event(0), event(1)])
        await archive.trail.write([event(2)])
        assert await archive.ids() == ["r-0", "r-1", "r-2"]
        assert (await archive.told())[1][1] == event(1)
        record = await archive.sessions.get(DAY)
        assert record is not None
        assert (record.status, record.keys, record.opened_at) == (SessionStatus.OPEN, (), NOON.replace(hour=0))

    async def test_replicas_that_write_at_once_leave_no_gap_and_lose_nothing(self, archive: Archive) -> None:
        replicas = [archive.replica() for _ in range(3)]
        writes = [replicas[number % 3].write([event(number), event(number + 1000)]) for number in range(90)]
        await asyncio.gather(*writes)
        assert sorted(await archive.ids()) == sorted(f"r-{number + more}" for number in range(90) for more in (0, 1000))

    async def test_more_than_one_insert_takes(self, archive: Archive, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(audit_trail, "INSERT_EVENTS", 2)
        await archive.trail.write([event(number) for number in range(5)])
        assert await archive.ids() == [f"r-{number}" for number in range(5)]

    async def test_whoever_comes_to_a_day_that_is_closed_goes_into_the_next(self, archive: Archive) -> None:
        late = archive.replica()
        await late.write([event(0)])
        await archive.trail.close(DAY)
        await archive.trail.close(DAY)
        await late.write([event(1), event(2)])
        await archive.replica().write([event(3)])
        await late.write([event(4)])
        assert await archive.ids() == ["r-0", None]
        assert await archive.ids(NEXT) == ["r-1", "r-2", "r-3", "r-4"]
        archive.time += timedelta(days=2)
        await late.write([event(5)])
        assert await archive.ids(session_of("2026-02-02")) == ["r-5"]

    async def test_a_clock_that_was_wrong_for_a_while(self, archive: Archive) -> None:
        archive.time = NOON + timedelta(days=1000)
        await archive.trail.write([event(0)])
        archive.time = NOON
        await archive.trail.write([event(1)])
        assert await archive.ids() == ["r-1"]
        assert await archive.ids(audit_trail.session_of((NOON + timedelta(days=1000)).date())) == ["r-0"]

    async def test_a_day_that_closes_while_many_write(self, archive: Archive) -> None:
        replicas = [archive.replica() for _ in range(3)]

        async def close() -> None:
            await asyncio.sleep(0.01)
            await archive.trail.close(DAY)

        async def write(number: int) -> None:
            await asyncio.sleep(number / 4000)
            await replicas[number % 3].write([event(number)])

        await asyncio.gather(close(), archive.trail.close(DAY), *map(write, range(100)))
        today, tomorrow = await archive.ids(), await archive.ids(NEXT)
        assert (today[-1], today.count(None)) == (None, 1)
        assert sorted([*today[:-1], *tomorrow]) == sorted(f"r-{number}" for number in range(100))

    async def test_a_database_that_fails_fails_all_who_wait(self, archive: Archive) -> None:
        failing = Trail(_Failing(archive.events, 1), archive.sessions, "storage", lambda: archive.time)  # type: ignore[arg-type]
        outcomes = await asyncio.gather(*(failing.write([event(n)]) for n in range(3)), return_exceptions=True)
        assert {type(one) for one in outcomes} <= {DomainError, type(None)}
        assert any(isinstance(one, DomainError) for one in outcomes)
        await failing.write([event(9)])
        written = [f"r-{n}" for n, one in enumerate(outcomes) if one is None]
        assert await archive.ids() == [*written, "r-9"]

    async def test_whoever_goes_away_while_waiting_is_left_out(self, archive: Archive) -> None:
        async with archive.trail._lock:
            gone = asyncio.create_task(archive.trail.write([event(0)]))
            stays = asyncio.create_task(archive.trail.write([event(1)]))
            await asyncio.sleep(0)
            gone.cancel()
            await asyncio.gather(gone, return_exceptions=True)
        await stays
        assert await archive.ids() == ["r-1"]


class _Failing:
    """A store whose first inserts fail."""

    def __init__(self, events: EventStore, times: int) -> None:
        self._events, self._times = events, times

    async def append(self, session_id: SessionId, start: int, events: Sequence[bytes]) -> int:
        if self._times:
            self._times -= 1
            raise DomainError("database-unavailable", "away", retry_after_seconds=1)
        return await self._events.append(session_id, start, events)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._events, name)


class TestSealing:
    async def test_a_day_is_sealed_after_its_end_with_all_its_events(self, archive: Archive) -> None:
        await archive.trail.write([event(number) for number in range(300)])
        archive.time = OVER - timedelta(milliseconds=1)
        assert await archive.seal().turn() == []
        archive.time = OVER
        assert await archive.seal().turn() == [DAY]
        manifest = await archive.manifest()
        data = [one.data for one in await archive.events.page(DAY, 0, 1000)]
        leaves = [
            reference.leaf(reference.chunk_leaf_input(DAY, index, len(one), reference.sha256(one)))
            for index, one in enumerate(data)
        ]
        assert (manifest.chunk_count, manifest.missing, manifest.root) == (301, (), reference.Tree(leaves).root(301))
        assert manifest.envelope_bytes == sum(map(len, data))
        assert (await archive.told())[-1][1].action is Action.TRAIL_CLOSE
        assert await archive.seal().turn() == []
        check_events(manifest, await archive.items())
        assert await archive.scrubbed() == []

    async def test_its_chunks_proofs_and_receipt_are_those_of_any_session(self, archive: Archive) -> None:
        manifest = await archive.sealed()
        batches = MemoryBatches()
        desk, progress = House().desk, ProgressReader(archive.everything)
        ledger = Ledger(archive.sessions, archive.sealer, desk, progress, batches=batches, terms=Terms())
        evidence = Evidence(ledger, archive.everything, archive.everything, archive.tiles)
        records, following = await evidence.chunks(DAY, 0, 10)
        assert ([one.index for one in records], following) == ([0, 1, 2, 3], None)
        assert from_bytes(await evidence.envelope(DAY, 1)) == event(1)
        (await evidence.proof(DAY, 1)).verify_in(manifest)
        assert receipts.from_bytes(await evidence.receipt(DAY)).manifest == manifest
        with pytest.raises(DomainError) as caught:
            await evidence.envelope(DAY, 4)
        assert caught.value.code == "chunk-not-found"
        assert await archive.everything.read(DAY, dataclasses.replace(records[0], index=9)) is None

    async def test_one_replica_at_a_time(self, archive: Archive) -> None:
        await archive.trail.write([event()])
        archive.time = OVER
        assert await MemoryLease(archive.lease, "other", 30).acquire()
        assert await archive.seal().turn() == []
        assert (await archive.told())[-1][1] == event()
        assert await archive.seal("other").turn() == [DAY]

    async def test_a_crash_between_any_two_steps_is_made_good(self, archive: Archive) -> None:
        for steps, day in enumerate(("2026-01-28", "2026-01-29", "2026-01-30")):
            archive.time = datetime.fromisoformat(f"{day}T12:00:00Z")
            name = session_of(day)
            await archive.replica().write([event(steps)])
            archive.time += timedelta(days=1)
            if steps >= 1:  # it died behind the close
                await archive.replica().close(name)
            if steps >= 2:  # it died in the scan
                change = Change(status=SessionStatus.SEALING, seal_order=SealOrder(None, "idle", archive.time))
                assert await archive.sessions.update(name, SessionStatus.OPEN, change)
            assert await archive.seal().turn() == [name]
            assert await archive.ids(name) == [f"r-{steps}", None]
            assert (await archive.manifest(name)).chunk_count == 2

    async def test_a_seal_that_fails_is_told_until_it_succeeds(self, archive: Archive) -> None:
        class Away:
            async def seal(self, *_: Any) -> Manifest:
                raise DomainError("database-unavailable", "it is away")

        await archive.trail.write([event()])
        archive.time = OVER
        seal = archive.seal()
        seal._sealer = Away()
        with pytest.raises(DomainError):
            await seal.turn()
        assert seal.check().status == "ok"
        assert OLDEST_UNSEALED._value.get() == audit_seal.GRACE.total_seconds()
        archive.time += audit_seal.LATE
        with pytest.raises(DomainError):
            await seal.turn()
        assert (seal.check().status, seal.check().detail) == ("degraded", f"{DAY} is over and not sealed")
        seal._sealer = archive.sealer
        assert await seal.turn() == [DAY]
        assert (seal.check().status, OLDEST_UNSEALED._value.get()) == ("ok", 0)

    async def test_it_looks_again_and_again_whatever_happens(
        self, archive: Archive, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(audit_seal, "_LOOK_SECONDS", 0.01)
        await archive.trail.write([event()])
        archive.time = OVER + audit_seal.LATE

        class Once:
            failed = False

            async def seal(self, *order: Any) -> Manifest:
                if not self.failed:
                    self.failed = True
                    raise DomainError("chunks-missing", "too many gaps")
                await asyncio.sleep(0.2)
                return await archive.sealer.seal(*order)

        readiness, seal = Readiness(None), archive.seal(sealer=Once())  # type: ignore[arg-type]
        running = asyncio.create_task(seal.run(readiness))
        await asyncio.sleep(0.05)
        assert seal.check().status == "ok"
        readiness.established.set()
        while seal.check().status == "ok":
            await asyncio.sleep(0.005)
        while "too many gaps" not in seal.check().detail:
            await asyncio.sleep(0.005)
        while seal.check().status != "ok":
            await asyncio.sleep(0.01)
        assert (await archive.manifest()).chunk_count == 2
        await end_all([running])

    async def test_the_sweeper_never_finds_it_and_nobody_shreds_it(self, archive: Archive) -> None:
        await archive.sealed()
        if archive.db is not None:
            await mongo_due.ensure_indexes(archive.db)
        terms = Terms(delete_after_days=1, clock=lambda: now() + timedelta(days=1000))
        assert (await Due(archive.due, terms).page(None, 10)).sessions == []
        shredder = Shredder(archive.sessions, archive.sessions, archive.chunks, terms)
        with pytest.raises(DomainError) as caught:
            await shredder.shred(DAY, ShredReason.RETENTION, "retention")
        assert caught.value.code == "session-reserved"


class TestAttacks:
    """Each is found by a scrub, and by a client that has the manifest alone."""

    async def found(self, archive: Archive) -> str:
        with pytest.raises(VerificationError) as caught:
            check_events(await archive.manifest(), await archive.items())
        return str(caught.value)

    @pytest.mark.parametrize("index", [0, 1, 3])
    async def test_an_altered_event(self, archive: Archive, index: int) -> None:
        await archive.sealed()
        await archive.put(index, event(index, principal="nobody").to_bytes())
        assert await self.found(archive) == "an event is altered: the events lead to another root"
        assert await archive.scrubbed() == [("altered", "tree", None)]

    async def test_bytes_that_are_no_event(self, archive: Archive) -> None:
        await archive.sealed()
        await archive.put(1, event(1).to_bytes() + b" ")
        assert await self.found(archive) == "event 1 is altered: it is no event"
        assert await archive.scrubbed() == [("altered", "tree", None)]

    @pytest.mark.parametrize("index", [0, 2, 3])
    async def test_a_dropped_event(self, archive: Archive, index: int) -> None:
        await archive.sealed()
        await archive.put(index, None)
        assert await self.found(archive) == f"event {index} is missing"
        assert await archive.scrubbed() == [("missing", "record", index)]

    async def test_an_event_that_was_inserted_behind_the_seal(self, archive: Archive) -> None:
        await archive.sealed()
        await archive.put(4, event(4).to_bytes())
        assert await self.found(archive) == "event 4 was inserted: the seal covers 4 events"
        assert await archive.scrubbed() == [("orphaned", "record", 4)]

    async def test_an_event_that_was_inserted_far_behind_the_seal(self, archive: Archive) -> None:
        await archive.sealed()
        await archive.put(9, event(4).to_bytes())
        assert await self.found(archive) == "an event was inserted behind the 4 that the seal covers"

    async def test_events_that_changed_places(self, archive: Archive) -> None:
        await archive.sealed()
        await archive.put(0, event(1).to_bytes())
        await archive.put(1, event(0).to_bytes())
        assert "another root" in await self.found(archive)

    async def test_an_event_that_was_taken_out_before_the_seal_is_in_it_as_a_gap(self, archive: Archive) -> None:
        await archive.trail.write([event(number) for number in range(4)])
        await archive.put(1, None)
        archive.time = OVER
        await archive.seal().turn()
        manifest = await archive.manifest()
        assert (manifest.missing, manifest.chunk_count) == (((1, 1),), 5)
        check_events(manifest, await archive.items())
        await archive.put(1, event(1).to_bytes())
        assert await self.found(archive) == "event 1 was inserted: the day was sealed without it"

    async def test_a_day_that_was_never(self, archive: Archive) -> None:
        await archive.put(0, event(0).to_bytes())
        assert await archive.scrubbed() == [("orphaned", "record", 0)]

    async def test_a_day_whose_end_was_cut_off_and_sealed_so(self, archive: Archive) -> None:
        await archive.trail.write([event(0), event(1)])
        await archive.sealer.seal(DAY, None, "idle")
        assert "before it was closed" in await self.found(archive)
