"""Lists without what may be large, and what sessions of version 0.1.0 lack."""

import hashlib
import threading
from dataclasses import replace
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sessions.core import manifest as manifests
from sessions.core.errors import ManifestFormatError
from sessions.core.manifest import Manifest
from sessions.core.types import Hash, SessionId
from sessions.storage import heads as module
from sessions.storage import seal_summary
from sessions.storage.heads import LARGE_MANIFEST_BYTES, completed, covered, head_of, manifest_of
from sessions.storage.memory import MemorySessions
from sessions.storage.seal_summary import first_gaps, read_summary, summary_of
from sessions.storage.sealing import covers, sealed_manifest
from sessions.storage.store import Seal, SealOrder, SessionFilter, SessionRecord, SessionStatus
from tests.unit.storage.chunks import EPOCH, House, session_record

A = SessionId("a")


def manifest(name: str, gaps: int = 0) -> Manifest:
    return Manifest(
        session_id=SessionId(name),
        chunk_count=2 * gaps + 3,
        missing=tuple((index, index) for index in range(1, 2 * gaps, 2)),
        plaintext_bytes=1000 + gaps,
        envelope_bytes=2000 + gaps,
        root=Hash(hashlib.sha256(name.encode()).digest()),
        opened_at="2026-01-31T12:00:00.123Z",
        sealed_at="2026-01-31T13:00:00.000Z",
        sealed_by="idle",
        metadata_sha256=Hash(hashlib.sha256(b"{}").digest()),
    )


def sealed(name: str, gaps: int = 0, *, summary: bool = False, data: bytes | None = None) -> SessionRecord:
    said = manifest(name, gaps)
    seal = Seal(said.to_bytes() if data is None else data, "x", summary_of(said) if summary else None)
    order = SealOrder(None, "idle", EPOCH + timedelta(hours=1))
    return replace(session_record(name), status=SessionStatus.SEALED, seal=seal, seal_order=order)


class CountedSessions(MemorySessions):
    """Notes of how many sessions manifests are read at once, and what is kept."""

    def __init__(self, *records: SessionRecord) -> None:
        super().__init__()
        self.records = {record.session_id: record for record in records}
        self.read: list[int] = []

    async def manifests(self, session_ids):
        self.read.append(len(session_ids))
        return await super().manifests(session_ids)


@given(
    st.lists(st.tuples(st.integers(1, 2**40), st.integers(0, 2**40)), max_size=12),
    st.integers(1, 14),
    st.integers(0, 5),
)
def test_the_first_gaps_are_those_of_the_manifest(steps: list[tuple[int, int]], limit: int, rest: int) -> None:
    gaps: list[tuple[int, int]] = []
    free = 0
    for step, length in steps:
        gaps.append((free + step, free + step + length))
        free = gaps[-1][1] + 1
    said = replace(manifest("missing-"), chunk_count=free + rest, missing=tuple(gaps))
    assert manifests.from_bytes(said.to_bytes()) == said
    assert first_gaps(said.to_bytes(), limit) == ([list(gap) for gap in gaps[:limit]], len(gaps) > limit)


def test_the_first_gaps_of_the_largest_indexes() -> None:
    end = 2**53 - 2
    gaps = tuple((end - 2 * number, end - 2 * number) for number in range(1000, 0, -1))
    said = replace(manifest("a"), chunk_count=end, missing=gaps)
    assert first_gaps(said.to_bytes(), 999) == ([list(gap) for gap in gaps[:999]], True)
    assert first_gaps(said.to_bytes(), 1000) == ([list(gap) for gap in gaps], False)


def test_a_summary_says_what_the_manifest_says() -> None:
    said = manifest("a", 4)
    summary = read_summary(said.to_bytes())
    assert summary == summary_of(said)
    assert summary is not None
    assert (summary.chunk_count, summary.missing_chunks, summary.stored_chunks) == (11, 4, 7)
    assert read_summary(b"{}") is None


async def test_a_seal_writes_its_summary() -> None:
    house = House()
    await house.session("a", 0, 3)
    said = sealed_manifest(await house.ledger.seal(A, None, "idle"))
    (head,) = await house.sessions.page(SessionFilter(), 5, None)
    assert (head.summary, head.unread_bytes) == (summary_of(said), 0)


async def test_what_is_summed_up_already_is_not_read() -> None:
    store = CountedSessions(sealed("a", summary=True), session_record("b"))
    heads = await store.page(SessionFilter(), 9, None)
    assert await completed(store, heads) == heads
    assert store.read == []


async def test_sessions_of_version_0_1_0_are_read_once() -> None:
    names = [f"s{number:02}" for number in range(20)]
    store = CountedSessions(*(sealed(name, number) for number, name in enumerate(names)))
    first = await completed(store, await store.page(SessionFilter(prefix="s"), 99, None))
    assert [head.summary for head in first] == [summary_of(manifest(name, n)) for n, name in enumerate(names)]
    assert store.read == [20]
    assert await completed(store, await store.page(SessionFilter(prefix="s"), 99, None)) == [
        replace(head, manifest_bytes=len(manifest(head.session_id, n).to_bytes())) for n, head in enumerate(first)
    ]
    assert store.read == [20]


async def test_a_manifest_that_cannot_be_read_spoils_no_list() -> None:
    store = CountedSessions(sealed("a", data=b"{}"), sealed("b"))
    found = await completed(store, await store.page(SessionFilter(prefix=""), 9, None))
    assert [head.summary for head in found] == [None, summary_of(manifest("b"))]


async def test_manifests_are_read_in_groups_and_a_page_has_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    size = len(manifest("s00", 9).to_bytes())
    monkeypatch.setattr(module, "MANIFEST_GROUP_BYTES", 2 * size)
    monkeypatch.setattr(module, "MANIFEST_PAGE_BYTES", 5 * size)
    store = CountedSessions(*(sealed(f"s{number:02}", 9) for number in range(9)))
    walked: list[str] = []
    while len(walked) < 9:
        after = (EPOCH, SessionId(walked[-1])) if walked else None
        heads = await store.page(SessionFilter(prefix="s"), 9, after)
        done = await completed(store, heads)
        assert done
        walked += [head.session_id for head in done]
    assert walked == sorted(store.records)
    assert max(store.read) == 2
    assert len(store.read) == 5


async def test_one_manifest_that_is_larger_than_all_bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    for bound in ("MANIFEST_GROUP_BYTES", "MANIFEST_PAGE_BYTES"):
        monkeypatch.setattr(module, bound, 10)
    store = CountedSessions(sealed("a"), sealed("b"))
    heads = await store.page(SessionFilter(prefix=""), 9, None)
    assert [head.session_id for head in await completed(store, heads)] == ["a"]


async def test_a_page_that_ends_early_names_the_next_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MANIFEST_GROUP_BYTES", 10)
    monkeypatch.setattr(module, "MANIFEST_PAGE_BYTES", 10)
    house = House()
    house.sessions.records = {name: sealed(name) for name in map(SessionId, "abc")}
    views, more = await house.ledger.page(SessionFilter(prefix=""), 9, None)
    assert ([view["session_id"] for view in views], more) == (["a"], True)
    views, more = await house.ledger.page(SessionFilter(prefix=""), 9, None)
    assert ([view["session_id"] for view in views], more) == (["a", "b"], True)
    assert [view["session_id"] for view in await house.ledger.summaries([SessionId("c"), A])] == ["c", "a"]


async def test_large_manifests_are_parsed_beside_the_event_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    threads: list[int] = []
    parse = manifests.from_bytes

    def noted(data: bytes) -> Manifest:
        threads.append(threading.get_ident())
        return parse(data)

    monkeypatch.setattr("sessions.storage.sealing.manifest_from_bytes", noted)
    monkeypatch.setattr(seal_summary.manifests, "from_bytes", noted)
    small, large = sealed("a", 3), sealed("b", 5000)
    assert (await manifest_of(small), await manifest_of(large)) == (manifest("a", 3), manifest("b", 5000))
    assert [one == threading.get_ident() for one in threads] == [True, False]
    house = House()
    house.sessions.records[large.session_id] = large
    status = await house.ledger.status(large)
    assert (len(status["missing"]), status["missing_truncated"]) == (1000, True)
    assert (status["next_index"], status["chunk_count"]) == (10_003, 5003)
    assert threads.pop() != threading.get_ident()
    before = list(threads)
    again = await house.ledger.get(large.session_id)
    assert await house.ledger.status(again) == status
    assert threads == before


async def test_what_a_seal_covers() -> None:
    whole, gaps = sealed("a", summary=True, data=b"not read"), sealed("b", 2, summary=True)
    assert await covered(whole, [0, 2, 3]) == [True, True, False]
    assert await covered(gaps, [0, 1, 2, 3, 6, 7]) == [True, False, True, False, True, False]
    assert await covered(replace(gaps, seal=replace(gaps.seal, summary=None)), [0, 1]) == [True, False]


async def test_gaps_are_looked_up_in_a_thread_where_the_manifest_is_large() -> None:
    large = sealed("a", 3000, summary=True)
    assert large.seal is not None
    assert len(large.seal.manifest) > LARGE_MANIFEST_BYTES
    indexes = [6002, 0, 1, 1, 2, 5999, 6000, 6003]
    assert await covered(large, indexes) == [covers(manifest("a", 3000), index) for index in indexes]


def test_a_manifest_without_gaps_listed_is_none() -> None:
    with pytest.raises(ManifestFormatError, match="gaps"):
        first_gaps(b"{}", 1)


async def test_a_head_has_nothing_that_is_large() -> None:
    order = SealOrder(None, "idle", EPOCH, unheard=("x" * 128,) * 256)
    record = replace(sealed("a", 100), metadata=b"x" * 9999, seal_order=order)
    head = head_of(record)
    assert head.unread_bytes == len(record.seal.manifest)
    assert len(repr(head)) < 900


async def test_a_seal_that_was_decided_since_the_list_was_read_is_not_resumed() -> None:
    house = House()
    await house.session("a", 0)
    order = SealOrder(None, "idle", EPOCH - timedelta(hours=1))
    listed = replace(session_record("a"), status=SessionStatus.SEALING, seal_order=order)

    class Behind(MemorySessions):
        async def page(self, which, limit, after):
            return [head_of(listed)]

    behind = Behind()
    behind.records = house.sessions.records
    house.ledger._sessions = behind
    assert await house.resume_seals(5) == 0
    assert behind.records[A].status is SessionStatus.OPEN
