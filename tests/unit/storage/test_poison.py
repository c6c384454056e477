"""M7: one item that cannot be processed stops no other, in each loop of the background."""

from collections.abc import Callable, Iterable
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from structlog.testing import capture_logs

from sessions.core import frames
from sessions.core.audit import session_of
from sessions.core.envelope import MAX_HEADER_BYTES, TAG_BYTES, Codec, Header
from sessions.core.types import CHUNK_MAX_BYTES_LIMIT, ChunkIndex, DekId, SessionId
from sessions.runtime.errors import DomainError
from sessions.storage import ingest, scrubbing
from sessions.storage.audit_seal import GRACE, DailySeal
from sessions.storage.audit_trail import Trail, begin_of
from sessions.storage.ingest import MAX_ENVELOPE_BYTES
from sessions.storage.memory_anchoring import LeaseState, MemoryLease
from sessions.storage.scrub_store import Position
from sessions.storage.sealing import sealed_manifest
from sessions.storage.store import Change, SealOrder, SessionStatus
from sessions.storage.sweeper import Sweeper
from tests.unit.storage.chunks import EPOCH, House, event, key
from tests.unit.storage.test_idle import Watched
from tests.unit.storage.test_scrubbing import Scrubbed

A, B, C = SessionId("a"), SessionId("b"), SessionId("c")
OPEN, SEALING, SEALED = SessionStatus.OPEN, SessionStatus.SEALING, SessionStatus.SEALED


def _failing(work: Callable[..., Any], *poison: SessionId, error: type[Exception] = RuntimeError) -> Callable[..., Any]:
    """The same work, but for what has one of these ids as its argument."""

    async def failing(first: Any, *rest: Any, **options: Any) -> Any:
        if getattr(first, "session_id", first) in poison:
            raise error("not foreseen")
        return await work(first, *rest, **options)

    return failing


def _skipped(logs: Iterable[Any]) -> list[str]:
    return [log["session_id"] for log in logs if log["event"] == "background_item_skipped"]


def _claiming(plaintext_bytes: int, size: int = 4) -> bytes:
    header = Header(Codec.ZSTD, DekId(bytes(16)), bytes(12), ChunkIndex(0), plaintext_bytes, A)
    return header.to_bytes() + bytes(size) + bytes(TAG_BYTES)


@pytest.mark.parametrize("plaintext_bytes", [CHUNK_MAX_BYTES_LIMIT + 1, 2**62, 2**64 - 1])
async def test_a_plaintext_length_that_no_chunk_has_is_refused(plaintext_bytes: int) -> None:
    house = House()
    await house.session("a")
    with pytest.raises(DomainError, match=f"^frame 1: .* {plaintext_bytes} bytes of plaintext") as caught:
        await house.intake.submit(frames.join([_claiming(CHUNK_MAX_BYTES_LIMIT), _claiming(plaintext_bytes)]))
    assert (caught.value.code, house.chunks.records) == ("bad-envelope", {})


async def test_an_envelope_larger_than_that_of_any_chunk_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """A processor could not read it again."""
    assert MAX_ENVELOPE_BYTES == CHUNK_MAX_BYTES_LIMIT + MAX_HEADER_BYTES + TAG_BYTES
    monkeypatch.setattr(ingest, "MAX_ENVELOPE_BYTES", 1000)
    house = House()
    await house.session("a")
    with pytest.raises(DomainError, match=r"^frame 0: .* at most 1000") as caught:
        await house.intake.submit(frames.join([_claiming(5, 1000)]))
    assert (caught.value.code, house.chunks.records) == ("bad-envelope", {})


def _poison(house: House, name: SessionId) -> None:
    """A record as 0.1.0 stored it."""
    house.chunks.records[name][0] = replace(house.chunks.records[name][0], plaintext_bytes=2**62)


async def test_a_seal_of_lengths_that_no_manifest_can_say_is_refused() -> None:
    house = House()
    await house.session("a", 0, 1)
    _poison(house, A)
    for by in ("recorder", "idle"):
        with pytest.raises(DomainError, match="claim 4611686018427387909 bytes") as caught:
            await house.ledger.seal(A, None, by)
        assert (caught.value.code, house.sessions.records[A].status) == ("envelope-corrupt", OPEN)
    assert house.tiles.tiles == {}
    assert (await house.ledger.status(house.sessions.records[A]))["plaintext_bytes"] == 2**62 + 5


async def _half_way(house: House, *names: SessionId) -> None:
    for name in names:
        change = Change(status=SEALING, seal_order=SealOrder(None, "recorder", EPOCH))
        await house.sessions.update(name, OPEN, change)
    house.time = EPOCH + timedelta(hours=1)


async def test_a_seal_that_cannot_be_resumed_stops_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    house = House()
    for name in (A, B, C):
        await house.session(name, 0)
    _poison(house, C)
    await _half_way(house, A, B, C)
    monkeypatch.setattr(house.sealer, "resume", _failing(house.sealer.resume, B))
    with capture_logs() as logs:
        assert await house.resume_seals(1) == 2, "in pages of one, the newest first: c is before b before a"
    assert _skipped(logs) == [B]
    assert [log["session_id"] for log in logs if log["event"] == "seal_refused"] == [C]
    assert [house.sessions.records[name].status for name in (A, B, C)] == [SEALED, SEALING, OPEN]


async def test_a_session_that_cannot_be_shredded_whole_stops_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    house = House()
    for name in (A, B):
        await house.session(name, 0)
        await house.ledger.seal(name, None, "recorder")
    drop = house.chunks.drop
    monkeypatch.setattr(house.chunks, "drop", _failing(drop, A, B, error=ValueError))
    for name in (A, B):
        with pytest.raises(ValueError, match="not foreseen"):
            await house.shred(name)
    monkeypatch.setattr(house.chunks, "drop", _failing(drop, A))
    with capture_logs() as logs:
        assert await house.shredder.resume(10) == 1
    assert (_skipped(logs), await house.sessions.unfinished(10)) == ([A], [A])


@pytest.mark.parametrize("error", [RuntimeError, lambda text: DomainError("session-not-found", text)])
async def test_a_session_that_is_due_and_cannot_be_shredded_stops_no_other(
    monkeypatch: pytest.MonkeyPatch, error: Any
) -> None:
    house = House(delete_after_days=1)
    for name in (A, B):
        await house.ledger.open(name, None, key())
        await house.ledger.seal(name, None, "recorder")
    house.time += timedelta(days=1)
    monkeypatch.setattr(house.shredder, "shred", _failing(house.shredder.shred, A, error=error))
    sweeper = Sweeper(house.due, house.shredder, MemoryLease(LeaseState(), "x", 30), house.audit)
    with capture_logs() as logs:
        assert await sweeper.sweep() == {"shred": 1}
    assert _skipped(logs) == [A]
    assert [house.sessions.records[name].status for name in (A, B)] == [SEALED, SessionStatus.SHREDDED]


async def test_an_idle_session_that_cannot_be_sealed_stops_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    house = Watched()
    for name in (A, B):
        await house.session(name)
        await house.write(name, 0)
    house.pass_minutes(67)
    monkeypatch.setattr(house.ledger, "seal", _failing(house.ledger.seal, A))
    with capture_logs() as logs:
        assert await house.sealer_of_idle.sweep() == 1
    assert _skipped(logs) == [A]
    assert (await house.ledger.get(B)).status is SEALED
    assert house.notes._noted[A] == house.uptime_store.uptime.seconds, (
        "it is tried again when it has been idle once more"
    )


async def test_a_day_that_cannot_be_sealed_stops_no_later_one(monkeypatch: pytest.MonkeyPatch) -> None:
    house = House()
    days = [session_of("2026-01-31"), session_of("2026-02-01")]
    for day in days:
        house.time = begin_of(day) + timedelta(hours=1)
        await Trail(house.events, house.sessions, "storage", lambda: house.time).write([event()])
    house.time += timedelta(days=1) + GRACE
    seal = house.sealer.seal
    monkeypatch.setattr(house.sealer, "seal", _failing(seal, days[0]))
    daily = DailySeal(house.trail, house.events, house.sealer, MemoryLease(LeaseState(), "x", 30), lambda: house.time)
    with capture_logs() as logs:
        assert await daily.turn() == [days[1]]
    assert _skipped(logs) == [days[0]]
    assert daily.check().detail == f"{days[0]} is over and not sealed: RuntimeError"
    assert sealed_manifest(house.sessions.records[days[1]]).chunk_count == 2
    monkeypatch.setattr(house.sealer, "seal", seal)
    assert await daily.turn() == [days[0]]
    assert daily.check().status == "ok"


async def test_a_page_that_cannot_be_scrubbed_is_passed_over_in_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    house = Scrubbed()
    for name in (A, B, C):
        await house.session(name, 0)
    house.damage("c", 0)
    monkeypatch.setattr(house.scrubber, "_window", _failing(house.scrubber._window, B))
    background = house.background(10**9)
    pauses = []
    with capture_logs() as logs:
        for _ in range(5):
            try:
                pauses.append(await background.turn())
            except RuntimeError:
                assert house.findings.at == Position(B)
    assert pauses == [0.5, 0.5, scrubbing._BETWEEN_PASSES_SECONDS]
    assert _skipped(logs) == [B]
    assert list(house.findings.findings) == ["c/0/body/altered"]
