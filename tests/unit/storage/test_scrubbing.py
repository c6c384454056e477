"""Scrubs on twins: in the background, over HTTP, and what an attacker does to very long sessions and to batches."""

import base64
import json
from collections.abc import AsyncIterator
from dataclasses import replace

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sessions.core import manifest as manifests
from sessions.core.receipt import Batch
from sessions.core.types import MAX_CHUNK_INDEX, Hash, SessionId
from sessions.runtime.audit import Audit
from sessions.runtime.errors import DomainError
from sessions.storage import scrub_routes, scrubbing
from sessions.storage.chunk_records import ChunkRecord
from sessions.storage.memory_anchoring import LeaseState, MemoryLease
from sessions.storage.memory_scrub import MemoryBodyScan, MemoryFindings
from sessions.storage.mongo import Readiness
from sessions.storage.scrub import Scrubber
from sessions.storage.scrub_routes import decode_cursor, encode_cursor
from sessions.storage.scrub_store import Position
from sessions.storage.scrubbing import Scrubbing
from sessions.storage.store import Placement
from tests import strategies
from tests.altering import altered_end
from tests.unit.runtime.apps import Written, app_of, client_of
from tests.unit.storage.chunks import House, new_chunk
from tests.unit.storage.test_routes import _Everybody

A = SessionId("a")


class Scrubbed(House):
    """The domain on twins, with a scrubber."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.findings = MemoryFindings()
        self.scan = MemoryBodyScan(self.sessions, self.chunks, self.events)
        self.written = Written()
        self.scrubber = Scrubber(
            self.sessions,
            self.everything,
            self.tiles,
            self.scan,
            findings=self.findings,
            audit=Audit("storage", self.written),
        )

    def background(self, bytes_per_second: int, lease: MemoryLease | None = None) -> Scrubbing:
        own = lease or MemoryLease(LeaseState(), "x", 30)
        return Scrubbing(self.scrubber, self.findings, own, bytes_per_second)

    def damage(self, name: str, index: int) -> None:
        (key,) = [key for key in self.chunks.bodies if key[:2] == (name, index)]
        self.chunks.bodies[key] = altered_end(self.chunks.bodies[key])

    async def kinds(self) -> list[tuple[str, str, int | None]]:
        found, start = [], None
        while True:
            page = await self.scrubber.page(start)
            found += [(one.kind.value, one.part.value, one.index) for one in page.findings]
            start = page.following
            if start is None:
                return found


@pytest.fixture
def house() -> Scrubbed:
    return Scrubbed()


async def test_the_background_goes_on_after_a_restart_where_it_was(house: Scrubbed) -> None:
    await house.session("a", *range(5))
    for index in (0, 4):
        house.damage("a", index)
    size = len(next(iter(house.chunks.bodies.values())))
    slow = size / 12  # a page is what is read in 10 s: less than a chunk
    pauses = [await house.background(round(slow)).turn() for _ in range(2)]
    assert pauses == [pytest.approx(12, rel=0.2)] * 2
    assert house.findings.at == Position(A, 2)
    assert list(house.findings.findings) == ["a/0/body/altered"]
    while house.findings.at is not None:
        pause = await house.background(round(slow)).turn()
    assert pause == 3600
    assert list(house.findings.findings) == ["a/0/body/altered", "a/4/body/altered"]


async def test_findings_leave_an_event_for_each_session_and_kind(house: Scrubbed) -> None:
    for name in ("a", "b"):
        await house.session(name, *range(3))
        for index in (0, 2):
            house.damage(name, index)
    house.written.away = True
    with pytest.raises(DomainError) as caught:
        await house.background(10**9).turn()
    assert (caught.value.code, house.findings.at) == ("audit-unavailable", None)
    assert len(house.findings.findings) == 4
    house.written.away = False
    await house.background(10**9).turn()
    assert house.written.told() == [(None, "scrub.finding", name, "failed", "altered") for name in ("a", "b")]


async def test_one_replica_scrubs_at_a_time(house: Scrubbed) -> None:
    await house.session("a", 0)
    state = LeaseState()
    other = MemoryLease(state, "other", 30)
    await other.acquire()
    assert await house.background(1000, MemoryLease(state, "x", 30)).turn() == 60
    assert house.findings.at is None
    await other.release()
    assert await house.background(1000, MemoryLease(state, "x", 30)).turn() == 3600


async def test_no_scrub_in_the_background_when_it_is_off(house: Scrubbed) -> None:
    await house.background(0).run(Readiness(None))


async def test_a_database_that_is_away_delays_it(house: Scrubbed, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scrubbing, "_RETRY_SECONDS", 0)
    readiness = Readiness(None)
    readiness.established.set()
    answers = [DomainError("database-unavailable", "away"), RuntimeError("not foreseen"), 0.0]
    background = house.background(5)

    async def turn() -> float:
        if not answers:
            raise KeyboardInterrupt
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    monkeypatch.setattr(background, "turn", turn)
    with pytest.raises(KeyboardInterrupt):
        await background.run(readiness)


async def test_what_is_shredded_while_it_is_looked_at_is_not_missing(
    house: Scrubbed, monkeypatch: pytest.MonkeyPatch
) -> None:
    await house.session("a", 0)
    await house.ledger.seal(A, None, "recorder")
    keys = house.scan.keys

    async def shredded_first(*place):
        await house.shred(A)
        return await keys(*place)

    monkeypatch.setattr(house.scan, "keys", shredded_first)
    assert await house.kinds() == []


async def test_a_batch_that_does_not_hold_the_manifest(house: Scrubbed) -> None:
    await house.session("a", 0)
    await house.ledger.seal(A, None, "recorder")
    record = await house.ledger.get(A)
    leaf = manifests.from_bytes(record.seal.manifest).leaf_hash()
    for root, expected in ((leaf, []), (Hash(bytes(32)), [("altered", "batch", None)])):
        placed = replace(record, placement=Placement(0, Batch(root=root, size=1, index=0, path=())))
        house.sessions.records[A] = placed
        assert await house.kinds() == expected


async def test_a_tree_of_three_levels(house: Scrubbed) -> None:
    await house.session("a")
    one = new_chunk("a", 0).fingerprint
    count = 65_536 + 256
    house.chunks.records[A] = {index: ChunkRecord(index, 5, one) for index in range(count)}
    await house.ledger.seal(A, None, "recorder")
    record = await house.ledger.get(A)
    attempt = record.seal.tiles_attempt
    start = Position(A, count)  # the leaves are those of one chunk: the tree alone is looked at

    async def kinds() -> list[tuple[str, str]]:
        return [(one.kind.value, one.detail) for one in (await house.scrubber.page(start, only=A)).findings]

    assert await kinds() == []
    whole = house.tiles.tiles[A, attempt, 2, 0]
    house.tiles.tiles[A, attempt, 2, 0] = bytes(32)
    assert await kinds() == [("altered", "tiles of level 2 are not those of level 1")]
    del house.tiles.tiles[A, attempt, 2, 0]
    assert await kinds() == [("missing", "tiles of level 2 are not there")]
    house.tiles.tiles[A, attempt, 2, 0] = whole
    del house.tiles.tiles[A, attempt, 1, 1]
    assert await kinds() == [("missing", "tiles of level 1 are not there")]


@pytest.fixture
async def client(house: Scrubbed) -> AsyncIterator[httpx.AsyncClient]:
    readiness = Readiness(None)
    readiness.established.set()
    app = app_of(
        scrub_routes.router(house.scrubber, house.findings, readiness, house.reads), authenticator=_Everybody([])
    )
    async with client_of(app, headers={"authorization": "Bearer audit"}) as client:
        yield client


async def test_scrubs_over_http(house: Scrubbed, client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sessions.storage.scrub.PAGE_WINDOWS", 1)
    await house.session("a", 0, 1)
    await house.session("b", 0)
    house.damage("a", 1)
    first = (await client.post("/api/v1/scrub", json={})).json()
    expected = {"kind": "altered", "part": "body", "session_id": "a", "index": 1}
    assert (first["sessions"], first["chunks"], first["bytes"] > 0) == (0, 2, True)
    (finding,) = first["findings"]
    assert finding == {**expected, "detail": "the body's SHA-256 is not that of the record"}
    second = (await client.post("/api/v1/scrub", json={"cursor": first["next_cursor"]})).json()
    assert (second["sessions"], second["findings"]) == (1, [])
    one = (await client.post("/api/v1/scrub", json={"session_id": "b", "sample": 1})).json()
    last = (await client.post("/api/v1/scrub", json={"session_id": "b", "cursor": one["next_cursor"]})).json()
    assert (last["sessions"], last["next_cursor"], last["total_bytes"]) == (1, None, None)
    await house.ledger.seal(SessionId("b"), None, "recorder")
    sealed = (await client.post("/api/v1/scrub", json={"session_id": "b"})).json()
    assert sealed["total_bytes"] == sealed["bytes"] > 0
    kept = (await client.get("/api/v1/scrub/findings?limit=1")).json()
    assert kept["findings"][0].items() >= expected.items()
    rest = await client.get("/api/v1/scrub/findings", params={"cursor": kept["next_cursor"]})
    assert rest.json() == {"findings": [], "next_cursor": None}
    for body in (
        {"session_id": "b", "cursor": first["next_cursor"]},
        {"cursor": "x"},
        {"sample": 0},
        {"sample": 1.5},
        {"session_id": "/"},
        {"x": 1},
    ):
        answer = await client.post("/api/v1/scrub", json=body)
        assert (answer.status_code, answer.json()["code"]) == (400, "invalid-request")
    none = await client.post("/api/v1/scrub", json={"session_id": "none"})
    assert (none.status_code, none.json()["code"]) == (404, "session-not-found")


@pytest.mark.parametrize("role", ["record", "replay", "processor"])
async def test_other_roles_are_turned_away(client: httpx.AsyncClient, role: str) -> None:
    headers = {"authorization": f"Bearer {role}"}
    assert (await client.post("/api/v1/scrub", json={}, headers=headers)).status_code == 403
    assert (await client.get("/api/v1/scrub/findings", headers=headers)).status_code == 403


@given(strategies.session_ids, st.integers(0, MAX_CHUNK_INDEX + 1))
def test_a_cursor_comes_back_as_it_went(name: str, start: int) -> None:
    position = Position(SessionId(name), start)
    assert decode_cursor(encode_cursor(position)) == position


@pytest.mark.parametrize("value", [["a", -1], ["a", True], ["a", "1"], ["/", 1], [1, 1], [], None, ["a", 2**60]])
def test_what_is_no_cursor(value: object) -> None:
    text = base64.urlsafe_b64encode(json.dumps(value).encode()).decode()
    for cursor in (text, "!"):
        with pytest.raises(DomainError, match=r"^cursor: "):
            decode_cursor(cursor)
