"""Orders to seal, each with the promise that this spool holds nothing of the session: two processors on one storage."""

import asyncio
import shutil
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from sessions.core.types import SessionId
from sessions.processor.keys import FileKeyWrapper
from sessions.processor.promises import Promise
from sessions.processor.reporting import Identity
from sessions.processor.seal_orders import SealOrders
from sessions.processor.session_desk import Queued
from sessions.processor.storage_answers import SealAnswer
from sessions.processor.storage_client import StorageClient
from sessions.processor.storage_errors import OverdueError, RequestFailedError
from sessions.runtime.errors import DomainError
from sessions.storage import seal_route
from sessions.storage.store import SessionStatus
from tests.unit.processor.test_drainer import Desk, desk_of
from tests.unit.storage.chunks import House

A = SessionId("a")
AWAY = DomainError("storage-unavailable", "away", retry_after_seconds=1)


@pytest.fixture(autouse=True)
def _short(monkeypatch: pytest.MonkeyPatch) -> None:
    """Storage answers soon that a seal waits."""
    monkeypatch.setattr(seal_route, "WAIT_SECONDS", 0.05)


@pytest.fixture
async def desks(
    storage: StorageClient, wrapper: FileKeyWrapper, executor: ThreadPoolExecutor, tmp_path: Path
) -> AsyncIterator[list[Desk]]:
    found = []
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        found.append(desk_of(tmp_path / name, storage, wrapper, executor))
        await found[-1].reporter.report()
    yield found
    for desk in found:
        await desk.spool.close()


def _orders(desk: Desk) -> SealOrders:
    found = desk.desk._orders
    assert found is not None
    return found


def _promise(desk: Desk) -> Promise | None:
    return desk.spooling.promises.page(0, 10).get(A)


async def _error(work) -> DomainError:
    with pytest.raises(DomainError) as caught:
        await work
    return caught.value


async def _confirm(desk: Desk) -> None:
    """Learn of the question, and answer it."""
    await desk.reporter.report()
    await desk.reporter.report()


async def test_a_seal_releases_the_promise(desks: list[Desk], house: House) -> None:
    one, _ = desks
    await one.put(0, b"x")
    await house.registry.forget(desks[1].reporter.identity.name)
    placed = await _orders(one).place(A, 1)
    assert placed is not None
    assert placed.sealed is not None
    assert _promise(one) is None


async def test_an_order_that_waits_keeps_the_promise_until_it_is_decided(desks: list[Desk], house: House) -> None:
    one, two = desks
    await one.put(0, b"x")
    assert await _orders(one).place(A, 1) == SealAnswer(None, [two.reporter.identity.name])
    assert _promise(one) == Promise(None, 0.0)
    await one.reporter.report()
    closing = house.sessions.records[A].closing
    assert closing is not None
    assert _promise(one) == Promise(closing.ask_id, 0.0)
    one.away()
    assert (await _error(one.put(1, b"y"))).code == "storage-unavailable"
    one.back()
    await _confirm(two)
    await house.desk.sweep()
    assert house.sessions.records[A].status is SessionStatus.SEALED
    await one.reporter.report()
    assert _promise(one) is None


@pytest.mark.parametrize("code", ["chunks-missing", "session-not-found", "chunk-count-mismatch"])
async def test_of_a_verdict_nothing_is_left(desks: list[Desk], monkeypatch: pytest.MonkeyPatch, code: str) -> None:
    one, _ = desks

    async def refuse(*_: object, **__: object) -> SealAnswer:
        raise DomainError(code, "no")

    monkeypatch.setattr(one.recording._storage, "seal", refuse)
    assert (await _error(_orders(one).place(A, 1))).code == code
    assert _promise(one) == Promise(None, 0.0)
    await one.reporter.report()
    assert _promise(one) is None


@pytest.mark.parametrize(
    "error", [AWAY, OverdueError("late"), RequestFailedError("odd"), DomainError("overloaded", "x")]
)
async def test_what_got_no_answer_may_have_been_ordered(
    desks: list[Desk], house: House, monkeypatch: pytest.MonkeyPatch, error: DomainError
) -> None:
    """R1: the order came through, and the answer did not; or it comes through yet."""
    one, _ = desks
    house.pass_seconds(100)
    await one.reporter.report()
    await one.put(0, b"x")
    seal = one.recording._storage.seal

    async def lost(*arguments: Any, **claims: Any) -> SealAnswer:
        await seal(*arguments, **claims)
        raise error

    monkeypatch.setattr(one.recording._storage, "seal", lost)
    assert await _error(_orders(one).place(A, 1)) is error
    assert _promise(one) == Promise(None, 160.0)
    await one.reporter.report()
    promise = _promise(one)
    assert promise is not None
    assert (promise.ask_id is not None, promise.until_seconds) == (True, 160.0)
    one.away()
    assert (await _error(one.put(1, b"y"))).code == "storage-unavailable"


@pytest.mark.parametrize("fate", ["in flight", "given up", "cancelled"])
async def test_a_verdict_takes_back_no_promise_of_another_order(
    desks: list[Desk], house: House, monkeypatch: pytest.MonkeyPatch, fate: str
) -> None:
    """The other order still says that the spool holds nothing, and comes through after the verdict."""
    one, two = desks
    await house.registry.forget(two.reporter.identity.name)
    await one.put(0, b"x")
    seal, sent, goes_on = one.recording._storage.seal, list[Any](), asyncio.Event()

    async def slow(*arguments: Any, **claims: Any) -> SealAnswer:
        if arguments[1] is None:
            sent.append((arguments, claims))
            if fate == "given up":
                raise OverdueError("late")
            await goes_on.wait()
        return await seal(*arguments, **claims)

    monkeypatch.setattr(one.recording._storage, "seal", slow)
    first = asyncio.create_task(_orders(one).place(A, None))
    while not sent:
        await asyncio.sleep(0)
    if fate == "given up":
        assert isinstance(await _error(first), OverdueError)
    elif fate == "cancelled":
        first.cancel()
        await asyncio.gather(first, return_exceptions=True)
    assert (await _error(_orders(one).place(A, 7))).code == "chunks-missing"
    await one.reporter.report()
    assert _promise(one) is not None
    one.away()
    assert (await _error(one.put(1, b"y"))).code == "storage-unavailable"
    ((arguments, claims),) = sent
    goes_on.set()
    await (first if fate == "in flight" else seal(*arguments, **claims))
    assert house.sessions.records[A].status is SessionStatus.SEALED
    one.back()
    await one.reporter.report()
    assert (_promise(one) is None) == (fate == "in flight"), "else it lapses with its time"
    house.pass_seconds(61)
    await one.reporter.report()
    assert _promise(one) is None


async def test_an_order_that_is_not_sent_takes_back_no_promise_of_another(
    desks: list[Desk], monkeypatch: pytest.MonkeyPatch
) -> None:
    one, _ = desks
    await one.put(0, b"x")

    async def late(*_: object, **__: object) -> SealAnswer:
        raise OverdueError("late")

    def refuse() -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(one.recording._storage, "seal", late)
    await _error(_orders(one).place(A, None))
    held = _promise(one)
    assert held is not None
    assert held.until_seconds > 0
    monkeypatch.setattr(one.spooling.promises, "save", refuse)
    await _error(_orders(one).place(A, None))
    assert _promise(one) == held


async def test_an_order_that_comes_late_does_not_say_what_holds_no_more(
    desks: list[Desk], house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was under way for longer than the promise binds; meanwhile the spool took a chunk."""
    one, two = desks
    await one.put(0, b"x")
    late: list[Any] = []

    async def under_way(*arguments: Any, **claims: Any) -> SealAnswer:
        late.append((arguments, claims))
        raise OverdueError("late")

    seal = one.recording._storage.seal
    with monkeypatch.context() as patch:
        patch.setattr(one.recording._storage, "seal", under_way)
        await _error(_orders(one).place(A, None))
    house.pass_seconds(61)
    for desk in desks:
        await desk.reporter.report()
    assert _promise(one) is None
    one.away()
    assert (await one.put(1, b"acknowledged")).durability == "spooled"
    ((arguments, claims),) = late
    answer = await seal(*arguments, **claims)
    assert sorted(answer.waiting_for) == sorted(desk.reporter.identity.name for desk in desks)
    await _confirm(two)
    await house.desk.sweep()
    assert house.sessions.records[A].status is SessionStatus.OPEN
    await one.drain()
    await _confirm(one)
    await house.desk.sweep()
    assert house.sessions.records[A].status is SessionStatus.SEALED
    assert await two.recording.read(A, 1) == b"acknowledged"


async def test_the_promise_is_on_the_disk_before_the_order_goes_out(
    desks: list[Desk], monkeypatch: pytest.MonkeyPatch, storage: StorageClient, tmp_path: Path
) -> None:
    """The process is killed while its order waits: the next one must not spool what the seal would leave out."""
    one, _ = desks
    await one.put(0, b"x")
    seen: list[bytes] = []
    seal = storage.seal

    async def killed(*arguments: Any, **claims: Any) -> SealAnswer:
        seen.append((tmp_path / "one" / "promises.json").read_bytes())
        return await seal(*arguments, **claims)

    monkeypatch.setattr(storage, "seal", killed)
    await _orders(one).place(A, 1)
    assert [b'"a"' in data for data in seen] == [True]


async def test_the_next_process_keeps_the_promise_of_an_order_that_waits(
    desks: list[Desk],
    house: House,
    storage: StorageClient,
    wrapper: FileKeyWrapper,
    executor: ThreadPoolExecutor,
) -> None:
    one, two = desks
    await one.put(0, b"x")
    assert (await _orders(one).place(A, None)) == SealAnswer(None, [two.reporter.identity.name])
    await one.spool.close()
    again = desk_of(one.folder, storage, wrapper, executor)
    again.away()
    assert (await _error(again.put(1, b"y"))).code == "storage-unavailable"
    again.back()
    await again.reporter.report()
    again.away()
    assert (await _error(again.put(1, b"y"))).code == "storage-unavailable", "it is asked for still"
    again.back()
    await _confirm(two)
    await house.desk.sweep()
    assert house.sessions.records[A].status is SessionStatus.SEALED
    await again.spool.close()


async def test_without_a_disk_for_the_promise_nothing_is_ordered(
    desks: list[Desk], house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, _ = desks
    await one.put(0, b"x")

    def refuse() -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(one.spooling.promises, "save", refuse)
    error = await _error(_orders(one).place(A, 1))
    assert isinstance(error, RequestFailedError)
    assert house.sessions.records[A].closing is None
    assert not one.watch.away
    await one.reporter.report()
    assert _promise(one) is None


async def test_what_the_spool_holds_goes_first(desks: list[Desk], house: House) -> None:
    one, _ = desks
    one.away()
    await one.put(0, b"x")
    one.back()
    assert await _orders(one).place(A, 1) is None
    assert A not in house.sessions.records
    assert _promise(one) is None


async def test_a_seal_waits_for_what_another_spool_has_acknowledged(desks: list[Desk], house: House) -> None:
    """R1: the recorder changed from two to one while two could not reach storage."""
    one, two = desks
    await one.put(0, b"zero")
    two.away()
    assert (await two.put(1, b"one")).durability == "spooled"
    answer = await one.seal(None)
    assert answer == Queued(A, None, 0, [two.reporter.identity.name])
    await two.drain()
    await _confirm(two)
    await house.desk.sweep()
    sealed = await one.seal(None)
    assert isinstance(sealed, dict)
    assert sealed["manifest"]["chunk_count"] == 2
    assert await one.recording.read(A, 1) == b"one"


async def test_finalize_orders_nothing_that_has_to_wait(desks: list[Desk], house: House) -> None:
    one, two = desks
    await one.put(0, b"zero")
    two.away()
    await two.put(1, b"one")
    error = await _error(one.seal(None, keep=False))
    assert (error.code, error.retry_after_seconds) == ("storage-unavailable", 5)
    assert house.sessions.records[A].closing is None
    await two.drain()
    assert house.sessions.records[A].status is SessionStatus.OPEN


async def test_both_may_ask_at_once(desks: list[Desk], house: House) -> None:
    """Each holds what it acknowledged until it is delivered; neither waits for the other's order."""
    one, two = desks
    for number, desk in enumerate(desks):
        desk.away()
        await desk.put(number, b"x")
    async with one.running(), two.running(), asyncio.timeout(10):
        while house.sessions.records.get(A) is None or house.sessions.records[A].status is not SessionStatus.SEALED:
            await asyncio.gather(*(desk.desk.seal(A, 2) for desk in desks))
            await house.desk.sweep()
    sealed = await one.seal(2)
    assert isinstance(sealed, dict)
    assert sealed["manifest"]["chunk_count"] == 2


async def test_a_processor_whose_spool_was_copied_takes_another_name(
    desks: list[Desk], storage: StorageClient, wrapper: FileKeyWrapper, executor: ThreadPoolExecutor, tmp_path: Path
) -> None:
    """Two of one name: what the copy confirms would count for the other, and leave out what that has acknowledged."""
    one, two = desks
    await one.put(0, b"x")
    shutil.copytree(tmp_path / "one", tmp_path / "copy")
    copy = desk_of(tmp_path / "copy", storage, wrapper, executor)
    shared = one.reporter.identity.name
    assert copy.reporter.identity.name == shared
    await copy.reporter.report()
    assert await one.reporter.report(), "it is to report again at once"
    assert one.reporter.identity.name != shared
    one.away()
    assert (await _error(one.put(1, b"y"))).code == "storage-unavailable", "no seal would wait for the new name yet"
    one.back()
    await one.reporter.report()
    one.away()
    assert (await one.put(1, b"y")).durability == "spooled"
    placed = await _orders(two).place(A, None)
    assert placed is not None
    assert sorted(placed.waiting_for) == sorted([shared, one.reporter.identity.name])
    assert Identity(tmp_path / "one", "host").name == one.reporter.identity.name, "for good"
    await copy.spool.close()


async def test_a_processor_that_ends_and_begins_again_keeps_its_name(
    desks: list[Desk], storage: StorageClient, wrapper: FileKeyWrapper, executor: ThreadPoolExecutor, tmp_path: Path
) -> None:
    name = desks[0].reporter.identity.name
    for _ in range(3):
        await desks[0].spool.close()
        desks[0] = desk_of(tmp_path / "one", storage, wrapper, executor)
        for _ in range(2):
            assert not await desks[0].reporter.report()
    assert desks[0].reporter.identity.name == name
