"""The registry of processors: reports, states by storage's uptime, and what each is asked."""

import pytest

from sessions.core.types import SessionId
from sessions.runtime.errors import DomainError
from sessions.storage import processors
from sessions.storage.processors import KNOWN, Holdings, ProcessorState, Registry, Report, Stored
from sessions.storage.seal_orders import Ask, WaitingOrder
from sessions.storage.store import Change, SealOrder, SessionStatus
from tests.unit.storage.chunks import EPOCH, House

A, B, C = (SessionId(name) for name in "abc")
WAIT = 600
PRESENT, MISSING, LOST = ProcessorState


@pytest.fixture
async def house() -> House:
    one = House()
    for name in (A, B, C):
        await one.session(name)
    return one


def report(name: str = "p", holdings: Holdings = Holdings(), **more: object) -> Report:  # noqa: B008 - frozen
    return Report(name=name, holdings=holdings, **more)  # type: ignore[arg-type]


async def _order(house: House, session: SessionId, count: int | None = None) -> Ask:
    assert await house.orders.order(session, WaitingOrder(count, "recorder", 0.0))
    return _ask(house, session)


def _ask(house: House, session: SessionId) -> Ask:
    closing = house.sessions.records[session].closing
    assert closing is not None
    return Ask(session, closing.ask_id)


async def _states(house: House) -> dict[str, ProcessorState]:
    return {known.record.name: known.state for known in (await house.registry.survey()).processors}


async def test_a_processor_goes_missing_and_is_lost_by_uptime_alone(house: House) -> None:
    await house.registry.report(report("p"))
    assert await _states(house) == {"p": PRESENT}
    house.pass_seconds(15)
    assert await _states(house) == {"p": PRESENT}
    house.pass_seconds(0.5)
    assert await _states(house) == {"p": MISSING}
    house.pass_seconds(WAIT - 15.5)
    assert await _states(house) == {"p": MISSING}
    house.pass_seconds(0.5)
    assert await _states(house) == {"p": LOST}
    assert [KNOWN.labels(state.value)._value.get() for state in ProcessorState] == [0, 0, 1]
    await house.registry.report(report("p"))
    assert await _states(house) == {"p": PRESENT}, "one that comes back is waited for again"


async def test_what_is_shown_of_a_processor(house: House) -> None:
    holdings = Holdings(spooled_entries=1, spooled_bytes=2, spooled_sessions=3, quarantined_entries=4)
    await house.registry.report(report("p", holdings))
    house.pass_seconds(20.26)
    (known,) = (await house.registry.survey()).processors
    shown = known.to_json()
    assert shown.pop("last_report_at").endswith("Z")
    assert shown == {
        "name": "p",
        "state": "missing",
        "missing_seconds": 20.3,
        "spooled_entries": 1,
        "spooled_bytes": 2,
        "spooled_sessions": 3,
        "quarantined_entries": 4,
    }


async def test_a_record_from_before_a_set_back_is_not_missing_for_a_negative_time(house: House) -> None:
    await house.processors.report("p", Holdings(), 1e6)
    (known,) = (await house.registry.survey()).processors
    assert (known.state, known.missing_seconds) == (PRESENT, 0.0)


async def test_reports_that_say_nothing_new_are_stored_now_and_then(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    stored: list[float] = []
    real = house.processors.report

    async def noted(name: str, holdings: Holdings, uptime_seconds: float, run: str | None) -> Stored:
        stored.append(uptime_seconds)
        return await real(name, holdings, uptime_seconds, run)

    monkeypatch.setattr(house.processors, "report", noted)
    for _ in range(12):
        await house.registry.report(report())
        house.pass_seconds(1)
    assert stored == [0, 5, 10]
    await house.registry.report(report(holdings=Holdings(spooled_entries=1)))
    assert stored == [0, 5, 10, 12], "news at once"
    await _order(house, A)
    await house.registry.report(report(holdings=Holdings(spooled_entries=1)))
    assert stored == [0, 5, 10, 12, 12], "and while it is asked"
    assert await _states(house) == {"p": PRESENT}


@pytest.mark.parametrize("step", [-8.0, 8.0])
async def test_after_a_set_back_the_next_report_is_stored(house: House, step: float) -> None:
    """R9: the database lost what it had stored; without a record no seal would wait for the processor."""
    house.pass_seconds(100)
    await house.registry.report(report())
    house.processors.records.clear()
    house.pass_seconds(step)
    house.registry.set_back()
    await house.registry.report(report())
    assert list(house.processors.records) == ["p"]


async def test_a_count_that_falls_has_the_next_report_stored(house: House) -> None:
    house.pass_seconds(100)
    await house.registry.report(report())
    house.processors.records.clear()
    house.uptime_store.uptime = type(house.uptime_store.uptime)(99.0, 0, house.uptime_store.uptime.generation)
    await house.registry.report(report())
    assert list(house.processors.records) == ["p"]


async def test_a_processor_is_asked_until_it_confirms_the_newest_question(house: House) -> None:
    await house.registry.report(report())
    first, other = await _order(house, A), await _order(house, B)
    assert list((await house.registry.report(report())).asks) == [first, other]
    await house.orders.ask_again(first)
    second = await _order(house, A, 5)
    answer = await house.registry.report(report(confirmed=[(first, 1), (other, 0), (Ask(C, "0" * 16), 0)]))
    assert list(answer.asks) == [second], "the older question is answered for nothing"
    answer = await house.registry.report(report(confirmed=[(second, 7)], promised=[A, B, C]))
    assert (list(answer.asks), answer.asked) == ([], {A: second.ask_id, B: other.ask_id})
    closing = house.sessions.records[A].closing
    assert closing is not None
    assert (closing.clear, closing.floor) == ({"p"}, 7)
    assert house.sessions.records[C].closing is None


async def test_a_promise_binds_while_the_seal_is_being_decided(house: House) -> None:
    await house.registry.report(report())
    ask = await _order(house, A)
    order = SealOrder(None, "recorder", EPOCH)
    change = Change(status=SessionStatus.SEALING, seal_order=order)
    await house.sessions.update(A, SessionStatus.OPEN, change)
    answer = await house.registry.report(report(promised=[A]))
    assert (list(answer.asks), answer.asked) == ([ask], {A: ask.ask_id})
    await house.sealer.settle(house.sessions.records[A])
    assert (await house.registry.report(report(promised=[A]))).asked == {}


async def test_questions_come_in_pages(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processors, "ASKS_AT_ONCE", 2)
    await house.registry.report(report())
    asks = [await _order(house, name) for name in (A, B, C)]
    assert list((await house.registry.report(report())).asks) == asks[:2]
    assert list((await house.registry.report(report(after=B))).asks) == asks[2:]


async def test_one_that_leaves_and_holds_nothing_is_not_waited_for(house: House) -> None:
    await house.registry.report(report("p"))
    await house.registry.report(report("q", Holdings(spooled_entries=1)))
    assert (await house.registry.report(report("p", leaving=True))).asks == ()
    await house.registry.report(report("q", Holdings(spooled_entries=1), leaving=True))
    assert await _states(house) == {"q": PRESENT}, "q still holds something"
    await house.registry.report(report("never", leaving=True))
    assert await _states(house) == {"q": PRESENT}
    await house.registry.report(report("p"))
    assert await _states(house) == {"p": PRESENT, "q": PRESENT}


async def test_one_that_was_forgotten_comes_back_with_its_next_report(house: House) -> None:
    await house.registry.report(report("p"))
    assert [await house.registry.forget("p"), await house.registry.forget("p")] == [True, False]
    assert await _states(house) == {}
    await house.registry.report(report("p"))
    assert await _states(house) == {"p": PRESENT}


async def test_so_many_are_known_and_no_more(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processors, "MAX_PROCESSORS", 2)
    for name in "pq":
        await house.registry.report(report(name))
    for wanted in (report("r"), report("r", leaving=True)):
        with pytest.raises(DomainError) as caught:
            await house.registry.report(wanted)
        assert (caught.value.code, caught.value.retry_after_seconds) == ("overloaded", 30)
    await house.registry.report(report("p"))
    await house.registry.forget("q")
    await house.registry.report(report("r"))
    assert await _states(house) == {"p": PRESENT, "r": PRESENT}


async def test_those_that_are_known_report_to_a_replica_that_was_started_now(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else all of them would be lost after an hour, once there are as many as may be."""
    monkeypatch.setattr(processors, "MAX_PROCESSORS", 2)
    for name in "pq":
        await house.registry.report(report(name))
    house.pass_seconds(60)
    fresh = Registry(house.processors, house.orders, house.uptime, WAIT)
    for name in "pq":
        await fresh.report(report(name))
    assert await _states(house) == {"p": PRESENT, "q": PRESENT}
    with pytest.raises(DomainError):
        await fresh.report(report("r"))


async def test_a_database_that_is_away_takes_no_report(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    async def away(*_: object) -> None:
        raise DomainError("database-unavailable", "away")

    monkeypatch.setattr(house.processors, "report", away)
    with pytest.raises(DomainError):
        await house.registry.report(report())
    monkeypatch.undo()
    await house.registry.report(report())
    assert await _states(house) == {"p": PRESENT}, "what was not stored is not taken for stored"


async def test_a_process_that_was_replaced_is_refused_and_confirms_nothing(house: House) -> None:
    first, second = "0" * 16, "1" * 16
    await house.registry.report(report(run=first))
    await house.registry.report(report(run=second))
    ask = await _order(house, A)
    for confirmed in ([], [(ask, 0)]):
        with pytest.raises(DomainError) as caught:
            await house.registry.report(report(run=first, confirmed=confirmed))
        assert caught.value.code == "processor-replaced"
    assert list((await house.registry.report(report(run=second))).asks) == [ask]


async def test_a_processor_that_comes_makes_earlier_questions_count_no_more(house: House) -> None:
    """A replica may be about to seal by a list of processors without it, and would leave out what it spools."""
    await house.registry.report(report("p"))
    ask = await _order(house, A)
    await house.registry.report(report("p", confirmed=[(ask, 0)]))
    meet, failed = house.processors.meet, False

    async def fails(name: str) -> None:
        nonlocal failed
        if not failed:
            failed = True
            raise DomainError("database-unavailable", "away")
        await meet(name)

    house.processors.meet = fails  # type: ignore[method-assign]
    with pytest.raises(DomainError):
        await house.registry.report(report("q"))
    second = _ask(house, A)
    assert second != ask
    assert list((await house.registry.report(report("q"))).asks) == [_ask(house, A)], (
        "it has not heard the first answer"
    )
    third = _ask(house, A)
    assert third != second
    await house.registry.report(report("q"))
    assert _ask(house, A) == third


async def test_a_goodbye_that_was_held_up_is_not_that_of_the_next_process(house: House) -> None:
    first, second = "0" * 16, "1" * 16
    await house.registry.report(report(run=first))
    await house.registry.report(report(run=second))
    await house.registry.report(report(run=first, leaving=True))
    assert await _states(house) == {"p": PRESENT}
    await house.registry.report(report(run=second, leaving=True))
    assert await _states(house) == {}


async def test_a_process_that_begins_is_stored_by_the_replica_that_knew_the_one_before(house: House) -> None:
    """It left through another replica, and this one would not have stored a report that says nothing new."""
    other = Registry(house.processors, house.orders, house.uptime, 600, lambda: house.seconds)
    first, second = "0" * 16, "1" * 16
    await house.registry.report(report(run=first))
    await other.report(report(run=first, leaving=True))
    assert await _states(house) == {}
    await house.registry.report(report(run=second))
    assert await _states(house) == {"p": PRESENT}
