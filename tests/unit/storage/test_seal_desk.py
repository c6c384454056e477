"""Seals that wait for processors, on twins: what they wait for, what ends the wait, and what becomes of many orders."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import pytest
from structlog.testing import capture_logs

from sessions.core import frames
from sessions.core.manifest import Manifest, SealedBy
from sessions.core.types import SessionId
from sessions.runtime.errors import DomainError
from sessions.storage import seal_desk
from sessions.storage.processors import Holdings, Report
from sessions.storage.seal_desk import REFUSED, WAITING, Waiting
from sessions.storage.seal_orders import MAX_ORDERS, Ask, Closing, Confirmation, WaitingOrder
from sessions.storage.sealing import sealed_manifest
from sessions.storage.store import Change, SealOrder, SessionRecord, SessionStatus
from sessions.storage.unheard import UNHEARD
from tests.unit.storage.chunks import EPOCH, House, envelope_of, new_chunk

A, B, C = (SessionId(name) for name in "abc")
OPEN, SEALING, SEALED, _ = SessionStatus
WAIT = 600
PATIENCE = 24 * WAIT
"""PROCESSOR_WAIT_SECONDS of the house."""


@pytest.fixture(autouse=True)
def _often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(seal_desk, "_POLL_SECONDS", 0.001)


@pytest.fixture
async def house() -> House:
    """Two chunks of A, and the processors p and q."""
    one = House()
    await one.session("a", 0, 1)
    for name in "pq":
        await report(one, name)
    return one


async def report(house: House, name: str, *confirmed: tuple[Ask, int]) -> list[Ask]:
    return list((await house.registry.report(Report(name=name, holdings=Holdings(), confirmed=confirmed))).asks)


async def confirm(house: House, name: str, floor: int = 0) -> None:
    """As a processor does that holds nothing: it is asked, promises, and says so."""
    asks = await report(house, name)
    await report(house, name, *((ask, floor) for ask in asks))


async def order(
    house: House,
    count: int | None = None,
    by: str | None = "p",
    *,
    keep: bool = True,
    session: SessionId = A,
    sealed_by: SealedBy = "recorder",
    floor: int = 0,
    until: float | None = None,
    generation: str | None = None,
    seconds: float = 0,
) -> Manifest | Waiting:
    first = None if by is None else Confirmation(by, floor, until, generation)
    answer = await house.desk.seal(session, count, sealed_by, first, keep=keep, wait_seconds=seconds)
    return answer if isinstance(answer, Waiting) else sealed_manifest(answer)


def _unheard(logs: Sequence[Mapping[str, Any]]) -> list[tuple[str, list[str]]]:
    """What was told of lost processors: the event, and their names."""
    return [(entry["event"], [one["name"] for one in entry["processors"]]) for entry in logs]


async def refusal(work) -> DomainError:
    with pytest.raises(DomainError) as caught:
        await work
    return caught.value


def names(answer: Manifest | Waiting) -> list[str]:
    assert isinstance(answer, Waiting)
    return [known.record.name for known in answer.processors]


def closing(house: House, session: SessionId = A) -> Closing:
    found = house.sessions.records[session].closing
    assert found is not None
    return found


def record(house: House, session: SessionId = A) -> SessionRecord:
    return house.sessions.records[session]


async def test_without_processors_a_session_is_sealed_at_once_and_no_order_is_written() -> None:
    house = House()
    await house.session("a", 0)
    manifest = await order(house, 1, None)
    assert isinstance(manifest, Manifest)
    assert record(house).closing is None
    assert await order(house, 1, None) == manifest


async def test_the_only_processor_says_with_its_order_that_it_holds_nothing(house: House) -> None:
    await house.registry.forget("q")
    assert isinstance(await order(house, 2), Manifest)


async def test_what_asks_for_an_idle_seal_has_looked_whether_it_is_idle(house: House) -> None:
    """Only an order that waits is looked at again; else this request would order for ever."""
    await house.registry.forget("q")
    async with asyncio.timeout(5):
        assert isinstance(await order(house, None, sealed_by="idle"), Manifest)


async def test_no_session() -> None:
    house = House()
    for work in (order(house), house.desk.decide(A)):
        assert (await refusal(work)).code == "session-not-found"


async def test_an_order_waits_for_the_other_processor_and_is_kept(house: House) -> None:
    assert names(await order(house, 2)) == ["q"]
    assert (closing(house).clear, closing(house).orders[0].until_seconds) == ({"p"}, None)
    assert await house.desk.sweep() == 1
    assert WAITING._value.get() == 1
    assert record(house).status is OPEN
    await confirm(house, "q")
    assert await house.desk.sweep() == 0
    assert WAITING._value.get() == 0
    manifest = sealed_manifest(record(house))
    assert (manifest.chunk_count, record(house).closing) == (2, None)
    assert record(house).seal_order.unheard == ()  # type: ignore[union-attr]
    assert await order(house, 2) == manifest


async def test_an_order_of_nobody_in_particular_waits_for_all(house: House) -> None:
    assert names(await order(house, 2, None)) == ["p", "q"]
    await confirm(house, "p")
    assert names(await order(house, 2, None)) == ["q"]
    await confirm(house, "q")
    assert isinstance(await order(house, 2, None), Manifest)


async def test_the_request_itself_waits_a_while(house: House) -> None:
    waiting = asyncio.create_task(order(house, 2, seconds=5))
    await asyncio.sleep(0.02)
    assert not waiting.done()
    await confirm(house, "q")
    async with asyncio.timeout(2):
        assert isinstance(await waiting, Manifest)


async def test_what_comes_while_it_waits_is_in_the_seal(house: House) -> None:
    """What the spool of q held is delivered, and then q confirms."""
    assert names(await order(house, 3)) == ["q"]
    await house.intake.submit(frames.join([envelope_of("a", 2)]))
    await confirm(house, "q", floor=3)
    await house.desk.sweep()
    assert sealed_manifest(record(house)).chunk_count == 3


async def test_repeated_an_order_is_the_same_and_the_one_who_repeats_it_confirms(house: House) -> None:
    assert names(await order(house, 2, None)) == ["p", "q"]
    before = closing(house)
    assert names(await order(house, 2, "p", floor=1)) == ["q"]
    after = closing(house)
    assert (after.orders, after.ask_id, after.clear, after.floor) == (before.orders, before.ask_id, {"p"}, 1)
    assert isinstance(await order(house, 2, "q"), Manifest)


async def test_who_keeps_nothing_leaves_nothing(house: House) -> None:
    """R15: `finalize` answers 503, and orders nothing."""
    assert names(await order(house, 2, keep=False)) == ["q"]
    assert record(house).closing is None
    assert await report(house, "q") == []
    await confirm(house, "q")
    await house.desk.sweep()
    assert record(house).status is OPEN


async def test_an_order_that_is_not_kept_takes_no_kept_one_with_it(house: House) -> None:
    assert names(await order(house, 2)) == ["q"]
    kept = closing(house).orders
    assert names(await order(house, 2, keep=False)) == ["q"]
    assert names(await order(house, 1, keep=False)) == ["q"]
    assert closing(house).orders == kept
    await confirm(house, "q")
    await confirm(house, "p")
    await house.desk.sweep()
    assert record(house).status is SEALED


async def test_an_order_whose_request_died_lapses(house: House) -> None:
    """A crash of storage between the order and its withdrawal: nobody was promised that it stays."""
    await house.orders.order(A, WaitingOrder(2, "recorder", 0.0, until_seconds=15.0))
    await house.desk.sweep()
    house.pass_seconds(15)
    await report(house, "q")
    assert await house.desk.sweep() == 1
    house.pass_seconds(0.5)
    assert await house.desk.sweep() == 0
    assert (record(house).status, record(house).closing) == (OPEN, None)


async def test_an_order_that_lapsed_binds_nobody_while_a_processor_is_missing(house: House) -> None:
    """Else all others would keep the session out of their spools until it is lost."""
    await house.orders.order(A, WaitingOrder(2, "recorder", 0.0, until_seconds=15.0))
    house.pass_seconds(20)
    assert names(await order(house, 2, session=A, keep=False)) == ["q"]
    await house.desk.sweep()
    assert record(house).closing is None


async def test_an_answer_that_came_late_does_not_count(house: House) -> None:
    """The request was under way for so long that p stands by it no more: p may have spooled since."""
    house.pass_seconds(100)
    for name in "pq":
        await report(house, name)
    assert names(await order(house, 2, "p", until=99.0)) == ["p", "q"]
    assert (closing(house).clear, closing(house).floor) == (frozenset(), 0)
    await confirm(house, "q")
    await house.desk.sweep()
    assert record(house).status is OPEN
    manifest = await order(house, 2, "p", until=100.0, floor=2)
    assert isinstance(manifest, Manifest), "in time, to the very second"


async def test_an_answer_from_before_a_set_back_does_not_count(house: House) -> None:
    """The database's uptime is less than the request says, and p was released from its promise meanwhile."""
    await house.uptime.read()
    before = house.uptime.generation
    assert before
    assert names(await order(house, 2, "p", until=1e9, generation="another")) == ["p", "q"]
    assert names(await order(house, 3, "p", until=1e9, generation=before)) == ["q"]


async def test_orders_again_and_again_do_not_delay_a_seal(house: House) -> None:
    """A client that orders each second would keep q from ever having confirmed the newest question."""
    assert names(await order(house, 2)) == ["q"]
    asks = await report(house, "q")
    assert names(await order(house, 1, keep=False)) == ["q"]
    assert names(await order(house, 4)) == ["q"]
    await report(house, "q", *((ask, 0) for ask in asks))
    await house.desk.sweep()
    assert record(house).status is SEALED


async def test_the_floor_of_an_answer_that_came_late_does_count(house: House) -> None:
    """How far it has acknowledged stays true, whenever it said so."""
    house.pass_seconds(100)
    await house.registry.forget("p")
    await house.registry.forget("q")
    error = await refusal(order(house, None, "p", until=99.0, floor=3))
    assert (error.code, error.members["missing"]) == ("chunks-missing", [[2, 2]])


async def test_a_seal_never_has_fewer_chunks_than_were_acknowledged(house: House) -> None:
    """R2: q acknowledged a third one, which storage lost with its database."""
    assert names(await order(house, None)) == ["q"]
    await confirm(house, "q", floor=3)
    error = await refusal(order(house, None))
    assert (error.code, error.members["missing"]) == ("chunks-missing", [[2, 2]])
    assert record(house).status is OPEN
    assert names(await order(house, 2)) == ["q"]
    await confirm(house, "q", floor=3)
    assert (await refusal(order(house, 2))).code == "chunk-count-mismatch"
    await house.intake.submit(frames.join([envelope_of("a", 2)]))
    assert names(await order(house, 3)) == ["q"]
    await confirm(house, "q", floor=3)
    assert isinstance(await order(house, 3), Manifest)


async def test_what_a_lost_processor_said_of_how_far_it_was_counts_still(house: House) -> None:
    """q says that it acknowledged three chunks, waits with p for r, and is lost; storage had lost the third."""
    await report(house, "r")
    assert names(await order(house, None)) == ["q", "r"]
    await confirm(house, "q", floor=3)
    for _ in range(40):
        house.pass_seconds(WAIT / 39)
        await report(house, "p")
    error = await refusal(order(house, 2))
    assert (error.code, error.members["missing"]) == ("chunks-missing", [[2, 2]])
    manifest = sealed_manifest(record(house))
    assert (manifest.chunk_count, manifest.missing, manifest.sealed_by) == (3, ((2, 2),), "idle"), "by the kept order"


async def test_a_session_that_is_sealed_says_what_it_lacks(house: House) -> None:
    """R14: who asks for more is not answered with the manifest."""
    await house.sealer.seal(A, 2, "recorder")
    for count, floor in ((4, 0), (2, 4), (None, 4)):
        error = await refusal(order(house, count, floor=floor))
        assert (error.code, error.members["missing"]) == ("chunks-missing", [[2, 3]])
    assert (await refusal(order(house, 1))).code == "chunk-count-mismatch"
    assert isinstance(await order(house, None, "q", floor=2), Manifest)


async def test_a_lost_processor_is_not_waited_for_and_the_seal_names_it(house: House) -> None:
    house.pass_seconds(WAIT)
    await report(house, "p")
    assert names(await order(house, 2)) == ["q"], "it is missing, not lost"
    house.pass_seconds(1)
    await report(house, "p")
    before = UNHEARD._value.get()
    with capture_logs() as logs:
        await house.desk.sweep()
    assert _unheard(logs) == [("session_sealed_unheard", ["q"])]
    assert UNHEARD._value.get() - before == 1
    assert record(house).seal_order.unheard == ("q",)  # type: ignore[union-attr]


async def test_a_seal_at_once_names_the_lost_processor_too(house: House) -> None:
    house.pass_seconds(WAIT + 1)
    await report(house, "p")
    before = UNHEARD._value.get()
    with capture_logs() as logs:
        assert isinstance(await order(house, 2), Manifest)
    assert _unheard(logs) == [("session_sealed_unheard", ["q"])]
    assert UNHEARD._value.get() - before == 1
    assert record(house).seal_order.unheard == ("q",)  # type: ignore[union-attr]


async def test_a_processor_that_reports_and_never_confirms_delays_a_seal_and_does_not_prevent_it(
    house: House,
) -> None:
    assert names(await order(house, 2)) == ["q"]
    for step in range(PATIENCE // 10):
        house.pass_seconds(10)
        for name in "pq":
            await report(house, name)
        if step % 100 == 0:
            assert await house.desk.sweep() == 1
    assert await house.desk.sweep() == 1
    house.pass_seconds(0.5)
    assert await house.desk.sweep() == 0
    assert record(house).seal_order.unheard == ("q",)  # type: ignore[union-attr]


async def test_orders_that_come_meanwhile_do_not_put_the_first_one_off(house: House) -> None:
    assert names(await order(house, 2)) == ["q"]
    for number in range(20):
        house.pass_seconds(PATIENCE / 20)
        for name in "pq":
            await report(house, name)
        assert names(await order(house, 3 + number % 3)) == ["q"]
    house.pass_seconds(1)
    await house.desk.sweep()
    assert record(house).status is SEALED


async def test_an_order_after_one_that_was_refused_asks_again(house: House) -> None:
    """q confirmed, and may have spooled since the earlier order was refused: so it is asked again."""
    assert names(await order(house, 3)) == ["q"]
    await confirm(house, "q")
    await house.desk.sweep()
    assert record(house).closing is None
    assert names(await order(house, 2)) == ["q"]
    assert record(house).status is OPEN


async def test_an_order_that_comes_between_the_question_and_the_seal_changes_nothing(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert names(await order(house, 2)) == ["q"]
    await confirm(house, "q")
    update, came = house.sessions.update, False

    async def late(*arguments: object, **options: object) -> SessionRecord | None:
        nonlocal came
        if not came:
            came = True
            assert await house.orders.order(A, WaitingOrder(9, "recorder", 0.0))
        return await update(*arguments, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(house.sessions, "update", late)
    with capture_logs() as logs:
        assert await house.desk.decide(A) == []
    assert (came, record(house).status, logs) == (True, SEALED, [])


def _paused(house: House, monkeypatch: pytest.MonkeyPatch, meanwhile: Callable[[], Awaitable[None]]) -> None:
    """Have something happen once while this replica stands still, just before it writes that a session is sealed."""
    update, came = house.sessions.update, False

    async def late(*arguments: Any, **options: Any) -> SessionRecord | None:
        nonlocal came
        if not came and arguments[2].seal_order is not None:
            came = True
            await meanwhile()
        return await update(*arguments, **options)

    monkeypatch.setattr(house.sessions, "update", late)


async def test_a_replica_that_stood_still_does_not_seal_by_confirmations_of_what_was_decided(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another replica refused the order; q was released from its promise, and has spooled a chunk since."""
    other = house.new_desk()
    await other.sweep()
    assert names(await order(house, 5)) == ["q"]
    await confirm(house, "q")

    async def decided() -> None:
        await other.sweep()
        assert record(house).closing is None
        assert names(await order(house, 2)) == ["q"]

    _paused(house, monkeypatch, decided)
    await house.desk.sweep()
    assert record(house).status is OPEN


async def test_a_processor_that_comes_while_a_replica_stands_still_is_waited_for(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    await house.registry.forget("q")

    async def comes() -> None:
        await report(house, "new")

    _paused(house, monkeypatch, comes)
    assert sorted(names(await order(house, 2))) == ["new", "p"]
    for name in ("p", "new"):
        await confirm(house, name)
    await house.desk.sweep()
    assert record(house).status is SEALED


async def test_a_promise_that_ran_out_while_another_seal_was_decided_does_not_count(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The scan of a long session takes longer than p's promise binds."""
    await house.registry.forget("q")
    begun = Change(status=SEALING, seal_order=SealOrder(9, "recorder", EPOCH))
    await house.sessions.update(A, OPEN, begun)
    settle = house.sealer.settle

    async def slow(which: SessionRecord) -> None:
        await settle(which)
        house.pass_seconds(100)
        await report(house, "p")

    monkeypatch.setattr(house.sealer, "settle", slow)
    assert names(await order(house, 2, "p", until=60.0)) == ["p"]
    assert record(house).status is OPEN


async def test_a_seal_that_did_not_come_to_be_is_not_said_to_be_unheard(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert names(await order(house, 2)) == ["q"]
    house.pass_seconds(WAIT + 1)
    await report(house, "p")
    update, came = house.sessions.update, 0

    async def late(*arguments: object, **options: object) -> SessionRecord | None:
        nonlocal came
        came += 1
        if came == 1:
            before = closing(house)
            house.sessions.records[A] = replace(record(house), closing=replace(before, ask_id="0" * 16))
        return await update(*arguments, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(house.sessions, "update", late)
    with capture_logs() as logs:
        await house.desk.sweep()
    assert [entry["event"] for entry in logs] == ["session_sealed_unheard"]
    assert record(house).status is SEALED


async def test_a_kept_order_outlives_another_that_is_refused(house: House) -> None:
    """R15: the orders wait together; the one of 3 is refused, the one of 2 is carried out."""
    assert names(await order(house, 3)) == ["q"]
    assert names(await order(house, 2)) == ["q"]
    assert [one.chunk_count for one in closing(house).orders] == [3, 2]
    before = REFUSED._value.get()
    await confirm(house, "q")
    with capture_logs() as logs:
        await house.desk.sweep()
    assert [(entry["event"], entry["code"]) for entry in logs] == [("seal_order_refused", "chunks-missing")]
    assert REFUSED._value.get() - before == 1
    assert (record(house).status, record(house).closing) == (SEALED, None)
    assert sealed_manifest(record(house)).chunk_count == 2


async def test_all_requests_that_wait_hear_their_own_answer(house: House) -> None:
    counts = (5, 2, 1, None)
    asking = [asyncio.create_task(order(house, count, seconds=5)) for count in counts]
    await asyncio.sleep(0.02)
    await confirm(house, "q")
    async with asyncio.timeout(5):
        answers = await asyncio.gather(*asking, return_exceptions=True)
    said = [one.code if isinstance(one, DomainError) else one.chunk_count for one in answers]  # type: ignore[union-attr]
    assert said == ["chunks-missing", 2, "chunk-count-mismatch", 2]


async def test_a_request_hears_why_its_order_was_refused_meanwhile(house: House) -> None:
    asking = asyncio.create_task(order(house, 5, seconds=5))
    await asyncio.sleep(0.02)
    await confirm(house, "q")
    await house.desk.sweep()
    async with asyncio.timeout(2):
        error = await refusal(asking)
    assert (error.code, error.members["missing"]) == ("chunks-missing", [[2, 4]])
    assert record(house).closing is None


async def test_an_order_that_another_replica_refused_is_placed_again_and_refused_here(house: House) -> None:
    """Why it was refused is known to the replica that did."""
    there = house.new_desk()
    await there._questions.renewed()  # it has run for a while
    asking = asyncio.create_task(order(house, 5, seconds=5))
    await asyncio.sleep(0.02)
    asking_again = asyncio.create_task(_answering(house))
    await confirm(house, "q")
    await there.sweep()
    async with asyncio.timeout(5):
        assert (await refusal(asking)).code == "chunks-missing"
    asking_again.cancel()
    await asyncio.gather(asking_again, return_exceptions=True)


async def _answering(house: House) -> None:
    while True:
        await asyncio.sleep(0.001)
        await confirm(house, "q")


async def test_so_many_orders_wait_and_further_ones_are_refused(house: House) -> None:
    for count in range(10, 10 + MAX_ORDERS):
        assert names(await order(house, count)) == ["q"]
    error = await refusal(order(house, 2))
    assert (error.code, error.retry_after_seconds) == ("overloaded", 5)
    assert (await refusal(order(house, 2, keep=False))).code == "overloaded"
    assert names(await order(house, 10)) == ["q"], "one of them may be repeated"
    assert len(closing(house).orders) == MAX_ORDERS
    await confirm(house, "q")
    await house.desk.sweep()
    assert record(house).closing is None, "each was refused"
    assert names(await order(house, 2)) == ["q"]


async def test_what_is_remembered_of_refusals_is_bounded(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(seal_desk, "_REFUSALS_KEPT", 3)
    for count in range(10, 16):
        await order(house, count)
    await confirm(house, "q")
    await house.desk.sweep()
    assert len(house.desk._refusals) == 3


async def test_a_seal_that_a_replica_began_and_left_is_finished_before_an_order_waits(house: House) -> None:
    begun = SealOrder(9, "recorder", EPOCH)
    await house.sessions.update(A, OPEN, Change(status=SEALING, seal_order=begun))
    assert names(await order(house, 2)) == ["q"]
    assert [one.chunk_count for one in closing(house).orders] == [2]
    assert record(house).status is OPEN


async def test_an_order_that_was_being_carried_out_is_finished_by_another_replica(house: House) -> None:
    """A crash after the state was written: the orders are there, and so is the refusal of this one alone."""
    assert names(await order(house, 9)) == ["q"]
    assert names(await order(house, 2)) == ["q"]
    first = closing(house).orders[0]
    await confirm(house, "q")
    begun = SealOrder(9, "recorder", EPOCH, first.order_id)
    await house.sessions.update(A, OPEN, Change(status=SEALING, seal_order=begun), ask_id=closing(house).ask_id)
    assert await house.desk.sweep() == 0
    assert sealed_manifest(record(house)).chunk_count == 2


async def test_a_session_that_is_not_idle_any_more_is_not_sealed_for_it(house: House) -> None:
    await house.activity.idle(10)
    house.pass_seconds(4000)
    for name in "pq":
        await report(house, name)
    assert names(await order(house, None, None, sealed_by="idle")) == ["p", "q"]
    await house.intake.submit(frames.join([envelope_of("a", 2)]))
    assert await house.desk.sweep() == 0, "it binds nobody any more"
    assert (record(house).status, record(house).closing) == (OPEN, None)


async def test_an_idle_session_is_sealed_once_all_have_confirmed(house: House) -> None:
    await house.session("b", 0, 2)
    await house.activity.idle(10)
    house.pass_seconds(4000)
    for name in "pq":
        await report(house, name)
    assert names(await order(house, None, None, sealed_by="idle", session=B)) == ["p", "q"]
    for name in "pq":
        await confirm(house, name)
    await house.desk.sweep()
    assert (sealed_manifest(record(house, B)).sealed_by, sealed_manifest(record(house, B)).missing) == (
        "idle",
        ((1, 1),),
    )


async def test_one_sessions_trouble_is_no_others(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, session in (("b", B), ("c", C)):
        await house.session(name)
        assert names(await order(house, 0, session=session)) == ["q"]
    assert names(await order(house, 2)) == ["q"]
    await confirm(house, "q")
    carry_out = house.sealer.carry_out

    async def breaks(one: SessionRecord, *rest: object) -> bool:
        if one.session_id == A:
            raise RuntimeError("not foreseen")
        if one.session_id == B:
            raise DomainError("overloaded", "later")
        return await carry_out(one, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(house.sealer, "carry_out", breaks)
    with capture_logs() as logs:
        await house.desk.sweep()
    assert [entry["event"] for entry in logs] == ["background_item_skipped", "seal_not_decided"]
    assert [record(house, one).status for one in (A, B, C)] == [OPEN, OPEN, SEALED]
    assert len(closing(house).orders) == 1, "nothing is lost of what could not be decided"


async def test_more_sessions_than_a_page_wait(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(seal_desk, "_SWEEP_SESSIONS", 2)
    sessions = [await house.session(f"s{number}") for number in range(5)]
    for session in sessions:
        assert names(await order(house, 0, session=session)) == ["q"]
    assert await house.desk.sweep() == 5
    await confirm(house, "q")
    assert await house.desk.sweep() == 0
    assert {record(house, session).status for session in sessions} == {SEALED}


async def test_a_database_that_is_away_ends_a_sweep_and_not_the_sweeping(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert names(await order(house, 2)) == ["q"]
    monkeypatch.setattr(seal_desk, "_SWEEP_SECONDS", 0.001)
    waiting = house.orders.waiting

    async def away(*_: object) -> None:
        raise DomainError("database-unavailable", "away")

    monkeypatch.setattr(house.orders, "waiting", away)
    assert (await refusal(house.desk.sweep())).code == "database-unavailable"
    with capture_logs() as logs:
        running = asyncio.create_task(house.desk.run())
        await asyncio.sleep(0.02)
        monkeypatch.setattr(house.orders, "waiting", waiting)
        await confirm(house, "q")
        async with asyncio.timeout(2):
            while record(house).status is not SEALED:
                await asyncio.sleep(0.001)
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
    assert {entry["event"] for entry in logs} == {"seals_not_decided"}


async def test_of_many_who_order_the_same_at_once_all_get_one_manifest(house: House) -> None:
    asking = [asyncio.create_task(order(house, 2, by, seconds=5)) for by in ("p", "q", None, "p", "q")]
    async with asyncio.timeout(5):
        answers = await asyncio.gather(*asking)
    assert len({one.to_bytes() for one in answers if isinstance(one, Manifest)}) == 1
    assert await report(house, "p") == []


async def test_a_chunk_that_comes_with_the_seal_is_covered_or_not_acknowledged(house: House) -> None:
    assert names(await order(house, None)) == ["q"]
    await confirm(house, "q")
    _, answers = await asyncio.gather(
        house.desk.sweep(), house.intake.submit(frames.join([new_chunk("a", 2).envelope]))
    )
    manifest = sealed_manifest(record(house))
    assert (answers[0].result.value == "stored") == (manifest.chunk_count == 3)


@pytest.mark.parametrize(("seals", "code"), [(0, "overloaded"), (1, "session-not-found")])
async def test_for_a_session_that_nobody_opened_spools_that_hold_orders_are_not_waited_for(
    house: House, monkeypatch: pytest.MonkeyPatch, seals: int, code: str
) -> None:
    """Else two processors that each spooled such an order would wait for each other for good; found by the model."""
    monkeypatch.setattr(seal_desk, "_UNKNOWN_SECONDS", 0.5)
    monkeypatch.setattr(seal_desk, "_UNKNOWN_POLL_SECONDS", 0.05)
    asked = asyncio.create_task(refusal(order(house, 1, session=SessionId("nobody's"), seconds=1)))
    while not asked.done():
        house.registry.set_back()  # each report is stored
        await house.registry.report(Report(name="q", holdings=Holdings(spooled_entries=1, spooled_seals=seals)))
        await asyncio.sleep(0.01)
    assert (await asked).code == code


async def test_an_order_of_a_drainer_for_a_session_that_nobody_knows_is_answered_at_once(house: House) -> None:
    """Some such orders, each waiting for seconds, kept all that was to be delivered; repeated they come to an end."""
    nobody = SessionId("nobody's")
    async with asyncio.timeout(0.5):
        for _ in range(2):
            assert (await refusal(order(house, 1, session=nobody))).code == "overloaded"
        house.registry.set_back()
        await report(house, "q")
        assert (await refusal(order(house, 1, session=nobody))).code == "session-not-found"
        assert (await refusal(order(house, 1, session=nobody))).code == "overloaded", "another order is asked for anew"


async def test_orders_for_sessions_that_nobody_knows_take_bounded_memory(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(seal_desk, "_UNKNOWN_KEPT", 3)
    for number in range(9):
        await refusal(order(house, 1, session=SessionId(f"n{number}")))
    assert len(house.desk._unknown_since) == 3


@pytest.mark.parametrize("begins", [True, False])
async def test_after_a_set_back_of_the_database_what_was_confirmed_before_counts_no_more(
    house: House, begins: bool
) -> None:
    """The question was decided once, and who had confirmed it may hold something since; found by the model."""
    await house.desk.sweep()
    assert names(await order(house, 3)) == ["q"]
    asked = closing(house)
    assert asked.clear == {"p"}
    if begins:
        house.desk = house.new_desk()
    else:
        house.desk.set_back()
    await confirm(house, "q")
    await house.desk.sweep()
    assert record(house).status is OPEN
    assert (closing(house).clear, closing(house).ask_id == asked.ask_id) == (frozenset(), False)
    await confirm(house, "q")
    await house.desk.sweep()
    assert closing(house).clear == {"q"}
    await house.intake.submit(frames.join([envelope_of("a", 2)]))
    await confirm(house, "p")
    await house.desk.sweep()
    assert sealed_manifest(record(house)).chunk_count == 3


async def test_questions_that_could_not_all_be_asked_again_are_asked_the_next_time(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert names(await order(house, 3)) == ["q"]
    house.desk.set_back()

    async def away(*_: object) -> list[SessionId]:
        raise DomainError("database-unavailable", "it is away")

    with monkeypatch.context() as while_away:
        while_away.setattr(house.orders, "waiting", away)
        assert (await refusal(house.desk.decide(A))).code == "database-unavailable"
    assert [known.record.name for known in await house.desk.decide(A)] == ["p", "q"]
