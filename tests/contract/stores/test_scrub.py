"""Scrubs, with an attacker straight in the stores: on the twins, and on MongoDB in both topologies."""

from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import pytest
from bson import Binary, Int64

from sessions.core.envelope import fingerprint
from sessions.core.types import SessionId
from sessions.runtime.audit import Audit
from sessions.runtime.errors import DomainError
from sessions.runtime.times import now
from sessions.storage import scrub
from sessions.storage.audit_chunks import WithTrail
from sessions.storage.chunk_records import ChunkRecord, NewChunk
from sessions.storage.memory import MemoryChunks, MemorySessions, MemoryTiles
from sessions.storage.memory_audit import MemoryEvents
from sessions.storage.memory_scrub import MemoryBodyScan, MemoryFindings
from sessions.storage.mongo import Database
from sessions.storage.mongo_audit import MongoEvents
from sessions.storage.mongo_chunks import BODY_PART_BYTES, MongoChunks
from sessions.storage.mongo_scrub import MongoBodyScan, MongoFindings
from sessions.storage.mongo_sessions import MongoSessions
from sessions.storage.mongo_tiles import MongoTiles
from sessions.storage.retention import Terms
from sessions.storage.scrub import Scrubber
from sessions.storage.scrub_session import SETTLED_AFTER
from sessions.storage.scrub_store import BodyKey, Finding, Kind, Part, Position
from sessions.storage.sealing import Sealer
from sessions.storage.shredding import Shredder
from sessions.storage.store import SessionStatus, ShredReason
from tests.altering import altered_end
from tests.unit.runtime.apps import Written
from tests.unit.storage.chunks import EPOCH, envelope_of, new_chunk, session_record

A, B = SessionId("a"), SessionId("b")
Change = Callable[[bytes], bytes]


class Yard:
    """The stores, a scrubber on them, and what an attacker with a hand in the database does."""

    def __init__(self, db: Database | None) -> None:
        self.db = db
        self.memory = MemorySessions(), MemoryChunks(), MemoryTiles()
        self.time: datetime = now() + 2 * SETTLED_AFTER
        self.written = Written()
        self.events = MemoryEvents(self.memory[0]) if db is None else MongoEvents(db)
        if db is None:
            self.sessions, self.chunks, self.tiles = self.memory
            self.scan, self.findings = MemoryBodyScan(*self.memory[:2], self.events), MemoryFindings()
        else:
            self.sessions, self.chunks, self.tiles = MongoSessions(db), MongoChunks(db), MongoTiles(db)
            self.scan, self.findings = MongoBodyScan(db), MongoFindings(db)
        self.everything = WithTrail(self.chunks, self.chunks, self.events)
        self.sealer = Sealer(self.sessions, self.everything, self.tiles)
        self.shredder = Shredder(self.sessions, self.sessions, self.chunks, Terms())
        self.scrubber = Scrubber(
            self.sessions,
            self.everything,
            self.tiles,
            self.scan,
            findings=self.findings,
            audit=Audit("storage", self.written),
            clock=lambda: self.time,
        )

    async def session(self, name: str, *chunks: NewChunk, seal: bool = True) -> None:
        await self.sessions.create(session_record(name))
        await self.chunks.insert(list(chunks))
        if seal:
            await self.sealer.seal(SessionId(name), None, "idle")

    async def scrub(self, only: SessionId | None = None, **options: Any) -> list[Finding]:
        found: list[Finding] = []
        start: Position | None = None
        while True:
            page = await self.scrubber.page(start, only=only, **options)
            found += page.findings
            start = page.following
            if start is None:
                return found

    async def kinds(self, only: SessionId | None = None, **options: Any) -> list[tuple[str, str, str, int | None]]:
        found = await self.scrub(only, **options)
        return [(one.kind.value, one.part.value, one.session_id, one.index) for one in found]

    async def record(self, name: SessionId, index: int) -> ChunkRecord:
        return (await self.chunks.page(name, index, 1))[0]

    async def body(self, name: SessionId, index: int, change: Change, part: int = 0) -> None:
        """Change the bytes of a body where it lies."""
        digest = (await self.record(name, index)).fingerprint.envelope_sha256
        if self.db is None:
            bodies = self.memory[1].bodies
            bodies[name, index, digest] = change(bodies[name, index, digest])
            return
        place = {"s": name, "i": Int64(index), "e": Binary(digest[:16]), "p": part}
        document = await self.db["bodies"].find_one({"_id": place})
        assert document is not None
        await self.db["bodies"].update_one({"_id": place}, {"$set": {"data": Binary(change(bytes(document["data"])))}})

    async def drop_body(self, name: SessionId, index: int) -> None:
        if self.db is None:
            bodies = self.memory[1].bodies
            for key in [key for key in bodies if key[:2] == (name, index)]:
                del bodies[key]
        else:
            await self.db["bodies"].delete_many({"_id.s": name, "_id.i": index})

    async def drop_record(self, name: SessionId, index: int) -> None:
        if self.db is None:
            del self.memory[1].records[name][index]
        else:
            await self.db["chunks"].delete_one({"_id": {"s": name, "i": Int64(index)}})

    async def put_record(self, name: SessionId, record: ChunkRecord) -> None:
        if self.db is None:
            self.memory[1].records.setdefault(name, {})[record.index] = record
            return
        fields = {
            "plaintext_bytes": Int64(record.plaintext_bytes),
            "envelope_bytes": Int64(record.fingerprint.envelope_bytes),
            "envelope_sha256": Binary(record.fingerprint.envelope_sha256),
            "leaf_hash": Binary(record.fingerprint.leaf_hash),
        }
        place = {"s": name, "i": Int64(record.index)}
        await self.db["chunks"].replace_one({"_id": place}, fields, upsert=True)

    async def put_body(self, name: SessionId, index: int, data: bytes) -> bytes:
        digest = fingerprint(name, index, data).envelope_sha256
        if self.db is None:
            self.memory[1].bodies[name, index, digest] = data
        else:
            place = {"s": name, "i": Int64(index), "e": Binary(digest[:16]), "p": 0}
            await self.db["bodies"].insert_one({"_id": place, "data": Binary(data)})
        return digest

    async def drop_tiles(self) -> None:
        if self.db is None:
            self.memory[2].tiles.clear()
        else:
            await self.db["tiles"].delete_many({})

    async def alter_tile(self) -> None:
        if self.db is None:
            tiles = self.memory[2].tiles
            (key,) = tiles
            tiles[key] = bytes(32) + tiles[key][32:]
        else:
            document = await self.db["tiles"].find_one({})
            assert document is not None
            changed = Binary(bytes(32) + document["hashes"][32:])
            await self.db["tiles"].update_one({"_id": document["_id"]}, {"$set": {"hashes": changed}})

    async def manifest(self, name: SessionId, change: Change) -> None:
        record = await self.sessions.get(name)
        assert record is not None
        assert record.seal is not None
        data = change(record.seal.manifest)
        if self.db is None:
            self.memory[0].records[name] = replace(record, seal=replace(record.seal, manifest=data))
        else:
            await self.db["sessions"].update_one({"_id": name}, {"$set": {"manifest": Binary(data)}})


@pytest.fixture
async def yard(store_db: Database | None) -> Yard:
    if store_db is not None:
        for name in ("findings", "scrubs"):
            await store_db[name].delete_many({})
    return Yard(store_db)


async def _chunks(yard: Yard, count: int = 3) -> None:
    await yard.session("a", *(new_chunk("a", index, b"%d of a" % index) for index in range(count)))
    await yard.session("b", *(new_chunk("b", index, b"%d of b" % index) for index in range(2)), seal=False)


async def test_nothing_is_there(yard: Yard) -> None:
    assert await yard.kinds() == []
    with pytest.raises(DomainError) as caught:
        await yard.scrub(A)
    assert caught.value.code == "session-not-found"


async def test_all_is_as_it_was_stored(yard: Yard) -> None:
    await _chunks(yard)
    await yard.session("empty")
    await yard.session("gaps", new_chunk("gaps", 2), new_chunk("gaps", 300))
    await yard.session("large", new_chunk("large", 0, bytes(2 * BODY_PART_BYTES + 5)))
    page = await yard.scrubber.page(None)
    assert (page.findings, page.sessions, page.chunks, page.following) == ([], 5, 8, None)
    assert page.bytes > 2 * BODY_PART_BYTES
    assert await yard.kinds(A) == []
    assert await yard.findings.page(5, None) == []


@pytest.mark.parametrize("name", [A, B])
async def test_an_altered_body(yard: Yard, name: SessionId) -> None:
    await _chunks(yard)
    await yard.body(name, 1, altered_end)
    assert await yard.kinds() == [("altered", "body", name, 1)]
    await yard.body(name, 1, lambda data: b"X" + data[1:])
    assert await yard.kinds() == [("altered", "body", name, 1)]


async def test_a_truncated_body(yard: Yard) -> None:
    await _chunks(yard)
    await yard.body(A, 0, lambda data: data[:-1])
    await yard.body(B, 1, lambda data: b"")
    assert await yard.kinds() == [("truncated", "body", "a", 0), ("truncated", "body", "b", 1)]


async def test_a_part_of_a_body_that_is_gone(yard: Yard) -> None:
    await yard.session("a", new_chunk("a", 0, bytes(3 * BODY_PART_BYTES)))
    if yard.db is None:
        await yard.body(A, 0, lambda data: data[:BODY_PART_BYTES] + data[2 * BODY_PART_BYTES :])
    else:
        await yard.db["bodies"].delete_one({"_id.s": "a", "_id.p": 1})
    assert await yard.kinds() == [("truncated", "body", "a", 0)]


async def test_a_dropped_body(yard: Yard) -> None:
    await _chunks(yard)
    await yard.drop_body(A, 2)
    await yard.drop_body(B, 0)
    expected = [("missing", "body", "a", 2), ("missing", "body", "b", 0)]
    assert await yard.kinds() == expected
    assert await yard.kinds(sample=1e-9) == expected  # that it is there is looked at whatever the sample


async def test_swapped_bodies(yard: Yard) -> None:
    await _chunks(yard)
    bodies = [envelope_of("a", index, b"%d of a" % index) for index in (0, 1)]
    await yard.body(A, 0, lambda _: bodies[1])
    await yard.body(A, 1, lambda _: bodies[0])
    found = await yard.scrub()
    assert [(one.kind, one.index) for one in found] == [(Kind.FOREIGN, 0), (Kind.FOREIGN, 1)]
    assert found[0].detail == "the body is that of chunk 1 of session a"


async def test_a_body_of_another_session(yard: Yard) -> None:
    await _chunks(yard)
    await yard.body(A, 0, lambda _: envelope_of("b", 0, b"0 of b"))
    assert await yard.kinds() == [("foreign", "body", "a", 0)]


async def test_a_chunk_that_was_replaced_with_its_record(yard: Yard) -> None:
    await _chunks(yard)
    forged = envelope_of("a", 1, b"forged!")
    record = ChunkRecord(1, 7, fingerprint(A, 1, forged))
    await yard.drop_body(A, 1)
    await yard.put_body(A, 1, forged)
    await yard.put_record(A, record)
    assert await yard.kinds() == [("altered", "tree", "a", None)]


async def test_a_foreign_envelope_with_a_record_that_fits(yard: Yard) -> None:
    await _chunks(yard)
    foreign = envelope_of("b", 1, b"1 of b")
    await yard.drop_body(B, 0)
    await yard.put_body(B, 0, foreign)
    await yard.put_record(B, ChunkRecord(0, 6, fingerprint(B, 0, foreign)))
    assert await yard.kinds() == [("foreign", "body", "b", 0)]


async def test_bytes_that_are_no_envelope_with_a_record_that_fits(yard: Yard) -> None:
    await _chunks(yard)
    await yard.drop_body(B, 0)
    await yard.put_body(B, 0, b"nonsense")
    await yard.put_record(B, ChunkRecord(0, 6, fingerprint(B, 0, b"nonsense")))
    assert await yard.kinds() == [("altered", "body", "b", 0)]


async def test_an_altered_record(yard: Yard) -> None:
    await _chunks(yard)
    record = await yard.record(B, 1)
    await yard.put_record(B, replace(record, fingerprint=replace(record.fingerprint, envelope_bytes=1)))
    assert await yard.kinds() == [("altered", "record", "b", 1)]


async def test_a_record_with_another_length_of_plaintext(yard: Yard) -> None:
    await _chunks(yard)
    record = await yard.record(A, 1)
    await yard.put_record(A, replace(record, plaintext_bytes=record.plaintext_bytes + 1))
    assert await yard.kinds() == [("altered", "body", "a", 1)]


async def test_a_dropped_record(yard: Yard) -> None:
    await _chunks(yard)
    await yard.drop_record(A, 1)
    expected = [("missing", "record", "a", 1)]
    yard.time -= 2 * SETTLED_AFTER
    assert await yard.kinds() == expected
    yard.time += 2 * SETTLED_AFTER
    assert await yard.kinds() == [*expected, ("orphaned", "body", "a", 1)]


async def test_bodies_and_records_that_nothing_accounts_for(yard: Yard) -> None:
    await _chunks(yard)
    await yard.put_body(A, 0, envelope_of("a", 0, b"of a writer that came second"))
    await yard.put_body(A, 700, envelope_of("a", 700))
    await yard.put_record(A, ChunkRecord(900, 5, new_chunk("a", 900).fingerprint))
    await yard.put_body(B, 0, envelope_of("b", 0, b"of a writer that is under way"))
    await yard.put_body(SessionId("none"), 3, envelope_of("none", 3))
    await yard.put_record(SessionId("z"), ChunkRecord(0, 5, new_chunk("z", 0).fingerprint))
    assert await yard.kinds() == [
        ("orphaned", "body", "a", 0),
        ("orphaned", "body", "a", 700),
        ("orphaned", "record", "a", 900),
        ("orphaned", "body", "none", 3),
        ("orphaned", "record", "z", 0),
    ]
    yard.time -= 2 * SETTLED_AFTER  # what was sealed just now may still be cleared up
    assert [found[2] for found in await yard.kinds()] == ["none", "z"]


async def test_a_shredded_session(yard: Yard) -> None:
    await _chunks(yard)
    await yard.shredder.shred(A, ShredReason.REQUESTED, "admin-1")
    yard.time = now() + 2 * SETTLED_AFTER
    assert await yard.kinds() == []
    await yard.put_body(A, 0, envelope_of("a", 0))
    assert await yard.kinds() == [("orphaned", "body", "a", 0)]
    await yard.drop_record(A, 1)
    assert ("missing", "record", "a", 1) in await yard.kinds()


@pytest.mark.parametrize("count", [256, 300, 600])
async def test_a_long_session(yard: Yard, count: int) -> None:
    await yard.session("a", *(new_chunk("a", index) for index in range(count)))
    assert await yard.kinds() == []
    forged = envelope_of("a", 5, b"forged!")
    await yard.drop_body(A, 5)
    await yard.put_body(A, 5, forged)
    await yard.put_record(A, ChunkRecord(5, 7, fingerprint(A, 5, forged)))
    assert await yard.kinds() == [("altered", "tree", "a", 0)]


async def test_tiles_that_are_gone_or_altered(yard: Yard) -> None:
    await yard.session("a", *(new_chunk("a", index) for index in range(300)))
    await yard.alter_tile()
    assert await yard.kinds() == [("altered", "tree", "a", 0), ("altered", "tree", "a", None)]
    await yard.drop_tiles()
    assert await yard.kinds() == [("missing", "tree", "a", None)]


async def test_records_missing_at_the_trees_edge(yard: Yard) -> None:
    await yard.session("a", *(new_chunk("a", index) for index in range(258)))
    await yard.drop_record(A, 257)
    await yard.drop_body(A, 257)
    assert await yard.kinds() == [("missing", "record", "a", 257)]


async def test_manifests(yard: Yard) -> None:
    await _chunks(yard)
    await yard.session("c", new_chunk("c", 0))
    c = await yard.sessions.get(SessionId("c"))
    assert c is not None
    assert c.seal is not None
    whole = c.seal.manifest
    await yard.manifest(A, lambda _: whole)
    assert await yard.kinds(A) == [("foreign", "manifest", "a", None)]
    await yard.manifest(A, lambda _: b"{}")
    assert await yard.kinds(A) == [("altered", "manifest", "a", None)]
    root = b'"root":"'
    at = whole.index(root) + len(root)
    await yard.manifest(SessionId("c"), lambda data: data[:at] + b"0" * 64 + data[at + 64 :])
    assert await yard.kinds(SessionId("c")) == [("altered", "manifest", "c", None), ("altered", "tree", "c", None)]


async def test_what_lists_show_is_held_against_the_manifest(yard: Yard) -> None:
    await yard.session("a", new_chunk("a", 0))
    record = await yard.sessions.get(A)
    assert record is not None
    assert record.seal is not None
    assert record.seal.summary is not None
    if yard.db is None:
        other = replace(record.seal.summary, plaintext_bytes=1)
        yard.memory[0].records[A] = replace(record, seal=replace(record.seal, summary=other))
    else:
        await yard.db["sessions"].update_one({"_id": "a"}, {"$set": {"seal_summary.plaintext_bytes": 1}})
    assert await yard.kinds() == [("altered", "manifest", "a", None)]


async def test_pages_are_bounded_and_go_on_where_they_ended(yard: Yard, monkeypatch: pytest.MonkeyPatch) -> None:
    await _chunks(yard, 300)
    await yard.body(A, 299, altered_end)
    await yard.body(B, 1, altered_end)
    expected = [("altered", "body", "a", 299), ("altered", "body", "b", 1)]
    assert await yard.kinds(limit_bytes=1) == expected
    page = await yard.scrubber.page(None, limit_bytes=1)
    assert (page.chunks, page.following) == (1, Position(A, 1))
    monkeypatch.setattr(scrub, "PAGE_WINDOWS", 1)
    assert await yard.kinds() == expected
    assert await yard.kinds(A) == expected[:1]


async def test_a_sample_reads_a_part(yard: Yard) -> None:
    await yard.session("a", *(new_chunk("a", index, bytes(1000)) for index in range(256)))
    page = await yard.scrubber.page(None, sample=0.5)
    assert (page.chunks, 40_000 < page.bytes < 240_000) == (256, True)


async def test_findings_are_kept_once_and_nothing_else_is_changed(yard: Yard) -> None:
    await _chunks(yard)
    await yard.body(A, 1, altered_end)
    await yard.drop_body(A, 2)
    first = yard.time
    before = {kind: scrub.FINDINGS.labels(kind)._value.get() for kind in ("altered", "missing")}
    await yard.scrub()
    yard.time += timedelta(days=1)
    await yard.scrub()
    assert {kind: scrub.FINDINGS.labels(kind)._value.get() - before[kind] for kind in before} == {
        "altered": 2,
        "missing": 2,
    }
    kept = await yard.findings.page(9, None)
    assert [(one.finding.kind, one.finding.part, one.finding.index) for one in kept] == [
        (Kind.ALTERED, Part.BODY, 1),
        (Kind.MISSING, Part.BODY, 2),
    ]
    assert {(one.last_seen - one.first_seen).days for one in kept} == {1}
    assert abs(kept[0].first_seen - first) < timedelta(seconds=1)
    assert await yard.findings.page(1, None) == kept[:1]
    assert await yard.findings.page(9, kept[0].finding.name) == kept[1:]
    assert [one.index for one in await yard.chunks.page(A, 0, 9)] == [0, 1, 2]
    record = await yard.sessions.get(A)
    assert record is not None
    assert record.status is SessionStatus.SEALED


async def test_findings_of_one_session(yard: Yard) -> None:
    names = ("a", "a.b", "a-b", "a0", "b")
    found = [Finding(Kind.MISSING, Part.BODY, SessionId(name), index, "x") for name in names for index in (None, 3)]
    await yard.findings.keep(found, EPOCH)
    for name in names:
        kept = await yard.findings.page(9, None, SessionId(name))
        assert [(one.finding.session_id, one.finding.index) for one in kept] == [(name, None), (name, 3)]
        behind = await yard.findings.page(9, kept[0].finding.name, SessionId(name))
        assert [one.finding.index for one in behind] == [3]
    assert await yard.findings.page(9, None, SessionId("none")) == []


async def test_where_a_scrub_goes_on_is_remembered(yard: Yard) -> None:
    assert await yard.findings.position() is None
    for position in (Position(A, 2**40), None, Position(B)):
        await yard.findings.move(position)
        assert await yard.findings.position() == position


async def test_the_walk(yard: Yard) -> None:
    await yard.sessions.create(session_record("c"))
    for name in ("b", "b."):
        await yard.put_record(SessionId(name), ChunkRecord(7, 5, new_chunk(name, 7).fingerprint))
    digest = await yard.put_body(A, 4, envelope_of("a", 4))
    seen, name = [], None
    while (name := await yard.scan.next_session(name)) is not None:
        seen.append(name)
    assert seen == ["a", "b", "b.", "c"]
    assert [await yard.scan.next_index(A, start) for start in (0, 4, 5)] == [4, 4, None]
    assert await yard.scan.next_index(B, 0) == 7
    key = BodyKey(4, digest[:16])
    assert await yard.scan.keys(A, 0, 5) == {key}
    assert await yard.scan.keys(A, 0, 4) == await yard.scan.keys(A, 5, 9) == set()
    assert [part async for part in yard.scan.parts(A, key)] == [envelope_of("a", 4)]
    assert [part async for part in yard.scan.parts(A, BodyKey(4, bytes(16)))] == []


async def test_documents_that_were_written_past_the_validators(db: Database) -> None:
    yard = Yard(db)
    await db["findings"].delete_many({})
    await _chunks(yard)
    await yard.session("c", new_chunk("c", 0))
    unchecked = {"bypass_document_validation": True}
    await db["sessions"].update_one({"_id": "a"}, {"$set": {"status": "ajar"}}, **unchecked)
    for name in ("b", "c"):
        place = {"_id": {"s": name, "i": Int64(0)}}
        await db["chunks"].update_one(place, {"$unset": {"envelope_bytes": 1}}, **unchecked)
    assert await yard.kinds() == [
        ("altered", "session", "a", None),
        ("altered", "record", "b", 0),
        ("altered", "record", "c", 0),
    ]
    await db["sessions"].update_one({"_id": "a"}, {"$set": {"status": "sealed", "keys": []}, "$unset": {"manifest": 1}})
    assert await yard.kinds(A) == [("missing", "keys", "a", None), ("missing", "manifest", "a", None)]
    assert yard.time > EPOCH
