"""How long sessions are kept, on twins, with a clock that the tests move."""

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sessions.core.types import SessionId
from sessions.runtime.audit import Audit
from sessions.runtime.errors import DomainError
from sessions.runtime.settings import ConfigurationError
from sessions.runtime.times import to_rfc3339
from sessions.storage import cursors, retention, sweeper
from sessions.storage.memory_anchoring import LeaseState, MemoryLease
from sessions.storage.retention import Place, Verdict, from_metadata
from sessions.storage.retention_routes import decode_cursor, encode_cursor
from sessions.storage.settings import StorageSettings
from sessions.storage.store import Change, Retention, SessionStatus, ShredReason
from sessions.storage.sweeper import Sweeper
from tests.unit.runtime.apps import Written
from tests.unit.storage.chunks import EPOCH, House, key
from tests.unit.storage.test_ledger import _Contended

A = SessionId("a")
SEALED, SHREDDED = SessionStatus.SEALED, SessionStatus.SHREDDED


async def _error(work) -> DomainError:
    with pytest.raises(DomainError) as caught:
        await work
    return caught.value


async def _sealed(house: House, name: str = "a", terms: dict | None = None) -> SessionId:
    session = SessionId(name)
    await house.ledger.open(session, None if terms is None else {"retention": terms}, key())
    await house.ledger.seal(session, None, "recorder")
    record = await house.ledger.get(session)
    assert record.seal_order is not None
    house.time = max(house.time, record.seal_order.sealed_at)
    return session


def _sweeper(house: House, state: LeaseState | None = None, holder: str = "x") -> Sweeper:
    return Sweeper(house.due, house.shredder, MemoryLease(state or LeaseState(), holder, 30), house.audit)


async def test_before_its_date_nobody_shreds_a_session() -> None:
    house = House(retain_days=30)
    await _sealed(house)
    sealed_at = (await house.ledger.get(A)).seal_order.sealed_at
    house.time = sealed_at + timedelta(days=30, milliseconds=-1)
    error = await _error(house.shred(A))
    date = to_rfc3339(sealed_at + timedelta(days=30))
    assert (error.code, error.members["retained_until"]) == ("session-retained", date)
    assert date in error.detail
    status = await house.ledger.status(await house.ledger.get(A))
    assert (status["retained_until"], status["delete_at"]) == (date, None)
    house.time += timedelta(milliseconds=1)
    assert (await house.shred(A)).status is SHREDDED
    status = await house.ledger.status(await house.ledger.get(A))
    assert (status["retained_until"], status["delete_at"]) == (None, None)


async def test_a_session_has_terms_of_its_own_from_its_metadata() -> None:
    house = House(retain_days=30, delete_after_days=60)
    await _sealed(house, "a", {"retain_days": 90, "delete_after_days": 120})
    sealed_at = (await house.ledger.get(A)).seal_order.sealed_at
    status = await house.ledger.status(await house.ledger.get(A))
    assert status["retained_until"] == to_rfc3339(sealed_at + timedelta(days=90))
    assert status["delete_at"] == to_rfc3339(sealed_at + timedelta(days=120))


@pytest.mark.parametrize(
    "terms",
    [
        {"retain_days": 29},
        {"delete_after_days": 29},
        {"retain_days": 50, "delete_after_days": 49},
        {"retain_days": 0},
    ],
)
async def test_terms_below_the_operators_are_refused(terms: dict) -> None:
    house = House(retain_days=30)
    assert (await _error(house.ledger.open(A, {"retention": terms}, key()))).code == "retention-too-short"
    assert house.sessions.records == {}
    await _sealed(house)
    assert (await _error(house.ledger.retain(A, Retention(**terms)))).code == "retention-too-short"
    assert (await house.ledger.get(A)).retention == Retention()


async def test_what_is_open_already_stays_so_under_stricter_terms() -> None:
    house = House()
    metadata = {"retention": {"retain_days": 3}}
    await house.ledger.open(A, metadata, key())
    strict = House(sessions=house.sessions, retain_days=30)
    assert not (await strict.ledger.open(A, metadata, key())).created
    await strict.ledger.seal(A, None, "recorder")
    record = await strict.ledger.get(A)
    assert strict.terms.retained_until(record) == record.seal_order.sealed_at + timedelta(days=30)


@pytest.mark.parametrize(
    "given_terms",
    [
        None,
        "30d",
        [],
        {"days": 3},
        {"retain_days": None},
        {"retain_days": True},
        {"retain_days": 1.0},
        {"retain_days": "3"},
        {"retain_days": -1},
        {"delete_after_days": 36_501},
    ],
)
def test_terms_that_are_none(given_terms: object) -> None:
    with pytest.raises(DomainError, match=r"^metadata\.retention") as caught:
        from_metadata({"retention": given_terms})
    assert caught.value.code == "invalid-request"


def test_terms_in_metadata() -> None:
    assert from_metadata(None) == from_metadata({"a": 1}) == from_metadata({"retention": {}}) == Retention()
    assert from_metadata({"retention": {"delete_after_days": 0}}) == Retention(None, 0)


async def test_terms_are_lengthened_and_shortened_later() -> None:
    house = House(retain_days=30, delete_after_days=100)
    assert (await _error(house.ledger.retain(A, Retention()))).code == "session-not-found"
    await house.ledger.open(A, None, key())
    record = await house.ledger.get(A)
    assert (house.terms.retained_until(record), house.terms.delete_at(record)) == (None, None)
    assert (await house.ledger.retain(A, Retention(90, 0))).retention == Retention(90, 0)
    await house.ledger.seal(A, None, "recorder")
    record = await house.ledger.get(A)
    house.time = record.seal_order.sealed_at + timedelta(days=31)
    assert (await _error(house.shred(A))).code == "session-retained"
    assert house.terms.delete_at(record) is None
    await house.ledger.retain(A, Retention(30, None))
    await house.shred(A)
    assert (await _error(house.ledger.retain(A, Retention(90)))).code == "session-shredded"


async def test_terms_that_come_while_the_state_changes() -> None:
    house = House(sessions=_Contended(Change(status=SessionStatus.SEALING)))
    await house.session("a")
    record = await house.ledger.retain(A, Retention(5))
    assert (record.retention, record.status) == (Retention(5), SessionStatus.SEALING)


async def test_a_longer_retention_that_comes_while_a_session_is_shredded_stands() -> None:
    house = House(sessions=_Contended(Change(retention=Retention(5))))
    contended, house.sessions.first = house.sessions.first, None
    await _sealed(house)
    house.sessions.first = contended
    assert (await _error(house.shred(A))).code == "session-retained"
    assert (await house.ledger.get(A)).status is SEALED


async def test_the_sweeper_shreds_what_is_due_and_leaves_the_rest(monkeypatch) -> None:
    monkeypatch.setattr(sweeper, "PAGE_SESSIONS", 2)
    house = House(delete_after_days=10)
    for name, terms in {
        "b": None,
        "a": None,
        "held": None,
        "kept": {"retain_days": 5, "delete_after_days": 5},
        "never": {"delete_after_days": 0},
        "longer": {"delete_after_days": 11},
        "short": {"delete_after_days": 1},
    }.items():
        await _sealed(house, name, terms)
    await house.ledger.hold(SessionId("held"), held=True)
    await house.ledger.open(SessionId("open"), None, key())
    sweep = _sweeper(house)
    assert await sweep.sweep() == {}
    house.time += timedelta(days=1)
    assert await sweep.sweep() == {Verdict.SHRED: 1}
    tombstone = (await house.ledger.get(SessionId("short"))).tombstone
    assert tombstone is not None
    assert (tombstone.shredded_at, tombstone.reason, tombstone.by) == (house.time, ShredReason.RETENTION, "retention")
    house.time += timedelta(days=9)
    assert await sweep.sweep() == {Verdict.SHRED: 3, Verdict.HELD: 1}
    left = {name for name, record in house.sessions.records.items() if record.status is SEALED}
    assert left == {"held", "never", "longer"}
    await house.ledger.hold(SessionId("held"), held=False)
    house.time += timedelta(days=1)
    assert await sweep.sweep() == {Verdict.SHRED: 2}
    assert house.sessions.shredding == set()


async def test_a_stricter_operator_keeps_what_was_due() -> None:
    house = House(delete_after_days=10)
    await _sealed(house, "a", {"delete_after_days": 10})
    strict = House(sessions=house.sessions, retain_days=30)
    strict.time = house.time + timedelta(days=11)
    (due,) = (await strict.due.page(None, 5)).sessions
    assert (due.verdict, due.record.session_id) == (Verdict.RETAINED, "a")
    assert await _sweeper(strict).sweep() == {Verdict.RETAINED: 1}


async def test_a_hold_after_the_page_was_read_stands(monkeypatch) -> None:
    house = House(delete_after_days=1)
    await _sealed(house)
    house.time += timedelta(days=1)
    page = await house.due.page(None, 5)
    await house.ledger.hold(A, held=True)

    async def stale(start: Place | None, limit: int):
        return page

    monkeypatch.setattr(house.due, "page", stale)
    assert await _sweeper(house).sweep() == {Verdict.HELD: 1}
    assert (await house.ledger.get(A)).status is SEALED


async def test_what_the_sweeper_shreds_leaves_events_or_stays() -> None:
    house = House(delete_after_days=1)
    await _sealed(house)
    house.time += timedelta(days=1)
    written = Written()
    sweeper = Sweeper(
        house.due, house.shredder, MemoryLease(LeaseState(), "x", 30), Audit("storage", written, lambda: house.time)
    )
    written.away = True
    assert (await _error(sweeper.sweep())).code == "audit-unavailable"
    assert (await house.ledger.get(A)).status is SEALED
    written.away = False
    assert await sweeper.sweep() == {Verdict.SHRED: 1}
    told = (None, "retention.shred", "a")
    assert written.told() == [(*told, "begun", None), (*told, "allowed", None)]


async def test_a_hold_that_comes_before_the_sweeper_shreds_is_told() -> None:
    house = House(delete_after_days=1)
    await _sealed(house)
    house.time += timedelta(days=1)
    await house.ledger.hold(A, held=True)
    written = Written()
    sweeper = Sweeper(house.due, house.shredder, MemoryLease(LeaseState(), "x", 30), Audit("storage", written))
    assert await sweeper._shred(A) is Verdict.HELD
    assert written.told()[-1] == (None, "retention.shred", "a", "refused", "session-held")


async def test_only_who_has_the_lease_sweeps() -> None:
    house = House(delete_after_days=1)
    for name in ("a", "b"):
        await _sealed(house, name)
    house.time += timedelta(days=1)
    state = LeaseState()
    other = MemoryLease(state, "other", 30)
    await other.acquire()
    assert await _sweeper(house, state).sweep() == {}

    class Lost(MemoryLease):
        times = 0

        async def acquire(self) -> int | None:
            self.times += 1
            return 1 if self.times < 3 else None

    assert await Sweeper(house.due, house.shredder, Lost(LeaseState(), "x", 30), house.audit).sweep() == {
        Verdict.SHRED: 1
    }
    await other.release()
    assert await _sweeper(house, state).sweep() == {Verdict.SHRED: 1}


class _Established:
    class established:  # noqa: N801
        @staticmethod
        async def wait() -> None: ...


async def test_a_database_that_is_away_ends_no_sweeper(monkeypatch) -> None:
    monkeypatch.setattr(sweeper, "SWEEP_SECONDS", 0)
    house = House(delete_after_days=1)
    answers = [DomainError("database-unavailable", "away"), DomainError("session-not-found", "x"), None]

    async def page(start: Place | None, limit: int):
        answer = answers.pop(0)
        if answer is None:
            raise KeyboardInterrupt
        raise answer

    monkeypatch.setattr(house.due, "page", page)
    with pytest.raises(KeyboardInterrupt):
        await _sweeper(house).run(_Established())
    assert answers == []


async def test_what_a_sweep_cannot_shred_for_another_reason_is_told(monkeypatch) -> None:
    house = House(delete_after_days=1)
    await _sealed(house)
    house.time += timedelta(days=1)

    async def drop(session_id: SessionId) -> None:
        raise DomainError("database-unavailable", "away")

    monkeypatch.setattr(house.chunks, "drop", drop)
    assert (await _error(_sweeper(house).sweep())).code == "database-unavailable"


@pytest.mark.parametrize("limit", [1, 2, 3, 10])
async def test_pages_of_what_is_due_come_without_gap_or_repeat(limit: int) -> None:
    house = House(delete_after_days=3)
    for name, terms in {"x": None, "y": None, "two": {"delete_after_days": 2}, "one": {"delete_after_days": 1}}.items():
        await _sealed(house, name, terms)
    house.time += timedelta(days=9)
    seen: list[str] = []
    start = None
    while True:
        page = await house.due.page(start, limit)
        seen += [one.record.session_id for one in page.sessions]
        start = page.following and decode_cursor(encode_cursor(page.following))
        if start is None:
            break
    assert (sorted(seen[:2]), seen[2:]) == (["x", "y"], ["one", "two"])


@given(st.none() | st.integers(0, retention.MAX_DAYS), st.integers(0, 10**9))
def test_a_cursor_comes_back_as_it_went(days: int | None, seconds: int) -> None:
    place = Place(days, (EPOCH + timedelta(seconds=seconds), A))
    assert decode_cursor(encode_cursor(place)) == place


@pytest.mark.parametrize("days", [True, -1, 36_501, "1"])
def test_what_is_no_cursor(days: object) -> None:
    place = Place(days, (EPOCH, A))  # type: ignore[arg-type]
    for text in (encode_cursor(place), "!", encode_cursor(Place(1, (EPOCH, SessionId("/"))))):
        with pytest.raises(DomainError, match=r"^cursor: "):
            decode_cursor(text)
    naive = "WzEsICIyMDI2LTAxLTAxVDAwOjAwOjAwIiwgImEiXQ=="
    finer = cursors.encode((None, "2026-01-31T23:59:59.0419+05:30", "demo"))  # found by fuzzing
    for text in (naive, finer):
        with pytest.raises(DomainError, match=r"^cursor: "):
            decode_cursor(text)
    assert decode_cursor(None) is None


def test_settings_that_contradict_each_other(tmp_path) -> None:
    def terms(retain: int, delete: int):
        return StorageSettings(
            tokens_file=tmp_path / "t", mongodb_url="mongodb://x", retain_days=retain, delete_after_days=delete
        ).terms()

    with pytest.raises(ConfigurationError, match=r"^DELETE_AFTER_DAYS: "):
        terms(30, 29)
    assert (terms(30, 0).delete_after_days, terms(30, 30).retain_days) == (0, 30)
