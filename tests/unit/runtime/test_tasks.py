import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from typing import Any

import pytest
from prometheus_client import REGISTRY
from structlog.testing import capture_logs

from sessions.runtime import tasks
from sessions.runtime.health import Check


async def test_all_have_ended_whichever_way() -> None:
    cleaned = []

    async def endless() -> None:
        try:
            await asyncio.sleep(3600)
        finally:
            await asyncio.sleep(0.01)
            cleaned.append(True)

    async def failing() -> None:
        raise RuntimeError("boom")

    async def short() -> None:
        pass

    running = [asyncio.create_task(work()) for work in (endless, failing, short)]
    await asyncio.sleep(0.01)
    await tasks.end_all(running)
    assert all(task.done() for task in running)
    assert cleaned == [True]
    await tasks.end_all([])


async def test_one_that_took_no_notice_is_told_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tasks, "AGAIN_SECONDS", 0.05)
    answered = asyncio.get_running_loop().create_future()
    went_on = []

    async def asking() -> None:
        with suppress(asyncio.CancelledError):  # of Python 3.12 and later
            await asyncio.wait_for(answered, 10)
        went_on.append(True)
        await asyncio.sleep(3600)

    running = asyncio.create_task(asking())
    await asyncio.sleep(0.01)
    answered.set_result(None)
    await asyncio.sleep(0)  # it is woken up, and has not run yet
    async with asyncio.timeout(5):
        await tasks.end_all([running])
    assert went_on == [True]
    assert running.cancelled()


class _Asyncio:
    """What the module under test has for `asyncio`, with pauses of its own: no other task's count."""

    def __init__(self, sleep: Callable[[float], Awaitable[None]]) -> None:
        self.sleep = sleep

    def __getattr__(self, name: str) -> Any:
        return getattr(asyncio, name)


class _Time:
    """A clock that passes as far as it is told; pauses of tasks pass it, too."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 0.0
        self.pauses: list[float] = []
        self.sleep = asyncio.sleep
        monkeypatch.setattr(tasks, "asyncio", _Asyncio(self._pause))

    async def _pause(self, seconds: float) -> None:
        self.pauses.append(seconds)
        self.now += seconds
        await self.sleep(0)

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> _Time:
    return _Time(monkeypatch)


@pytest.fixture
async def background(clock: _Time) -> AsyncIterator[Callable[..., tasks.Background]]:
    """Starts one task named `work`; it ends with the test."""
    running: list[asyncio.Task[None]] = []
    one = tasks.Background(clock)

    def start(work: tasks.Work, **options: bool) -> tasks.Background:
        running.append(one.start("work", work, **options))
        return one

    yield start
    await tasks.end_all(running)


def _counted(name: str = "failures") -> float:
    return REGISTRY.get_sample_value(f"lucid_background_{name}_total", {"task": "work"}) or 0.0


async def test_a_task_that_fails_is_logged_counted_and_started_again(
    clock: _Time, background: Callable[..., tasks.Background]
) -> None:
    """M7: any error that nobody foresaw ended the task, and nothing told."""
    runs, done = [], asyncio.Event()

    async def work() -> None:
        runs.append(clock.now)
        if len(runs) < 10:
            raise KeyError("secret text")
        done.set()
        await asyncio.Event().wait()

    before = _counted()
    with capture_logs() as logs:
        one = background(work)
        async with asyncio.timeout(5):
            await done.wait()
    assert clock.pauses == [1, 2, 4, 8, 16, 32, 60, 60, 60]
    assert _counted() == before + 9
    assert [(log["event"], log["task"], log["error"], log["failures"]) for log in logs] == [
        ("background_task_failed", "work", "KeyError", number) for number in range(1, 10)
    ]
    assert all(isinstance(log["exc_info"], KeyError) and log["exc_info"].__traceback__ for log in logs)
    assert one.check() == Check("failed", "work keeps failing (KeyError): the log has the reason", False)
    clock.now += tasks.WELL_SECONDS
    assert one.check().status == "ok"


async def test_pauses_start_at_the_first_again_after_it_was_well(
    clock: _Time, background: Callable[..., tasks.Background]
) -> None:
    runs, done = [], asyncio.Event()

    async def work() -> None:
        runs.append(None)
        if len(runs) == 4:
            clock.now += tasks.WELL_SECONDS
        if len(runs) == 6:
            done.set()
            await asyncio.Event().wait()
        raise RuntimeError("boom")

    one = background(work)
    async with asyncio.timeout(5):
        await done.wait()
    assert clock.pauses == [1, 2, 4, 1, 2]
    assert one.check().status == "ok"


async def test_few_failures_are_no_failed_health_unless_they_go_on_for_a_minute(
    clock: _Time, background: Callable[..., tasks.Background]
) -> None:
    failing, again = asyncio.Event(), asyncio.Event()

    async def work() -> None:
        await failing.wait()
        failing.clear()
        again.set()
        raise RuntimeError("boom")

    async def fail() -> None:
        again.clear()
        failing.set()
        async with asyncio.timeout(5):
            await again.wait()
        for _ in range(5):
            await clock.sleep(0)

    one = background(work)
    await fail()
    assert one.check().status == "ok"
    clock.now += tasks.WELL_SECONDS - 1.5
    assert one.check().status == "ok", "it runs, though not for a minute"
    await fail()
    assert one.check().status == "ok", "59.5 s"
    await fail()
    assert one.check().status == "failed"
    clock.now += tasks.WELL_SECONDS
    assert one.check().status == "ok"
    await fail()
    assert one.check().status == "ok"


async def test_a_loop_that_waits_is_well_when_a_turn_succeeds_and_not_before(
    clock: _Time, background: Callable[..., tasks.Background]
) -> None:
    turns, done = asyncio.Queue[Exception | None](), asyncio.Event()

    async def work() -> None:
        while True:
            error = await turns.get()
            with tasks.turn():
                if error is not None:
                    raise error
            done.set()

    async def make(error: Exception | None) -> None:
        done.clear()
        turns.put_nowait(error)
        async with asyncio.timeout(5):
            await done.wait()

    one = background(work)
    before = _counted()
    await make(ValueError("boom"))
    assert (one.check().status, _counted()) == ("ok", before + 1)
    clock.now += tasks.WELL_SECONDS + 1
    assert one.check() == Check("failed", "work keeps failing (ValueError): the log has the reason", False)
    await make(None)
    assert one.check().status == "ok"
    for status in ("ok", "ok", "failed"):
        await make(ValueError("boom"))
        assert one.check().status == status
    await make(None)
    assert one.check().status == "failed", "not for a minute yet"
    clock.now += tasks.WELL_SECONDS
    assert one.check().status == "ok"
    assert clock.pauses == []


async def test_a_task_may_finish_only_where_that_is_meant(
    clock: _Time, background: Callable[..., tasks.Background]
) -> None:
    async def work() -> None:
        pass

    before = _counted()
    one = background(work, finishes=True)
    for _ in range(9):
        await clock.sleep(0)
    assert (one.check(), _counted(), clock.pauses) == (Check("ok", "", False), before, [])
    one = background(work)
    for _ in range(9):
        await clock.sleep(0)
    assert clock.pauses[:3] == [1, 2, 4]
    assert one.check().detail.startswith("work keeps failing (ReturnedError)")


async def test_a_part_that_is_cancelled_ends_no_task(clock: _Time, background: Callable[..., tasks.Background]) -> None:
    runs = []

    async def work() -> None:
        runs.append(None)
        part = asyncio.ensure_future(asyncio.Event().wait())
        part.cancel()
        await part

    background(work)
    for _ in range(20):
        await clock.sleep(0)
    assert len(runs) > 2


async def test_a_task_that_fails_while_it_is_ended_ends(clock: _Time) -> None:
    runs = []

    async def work() -> None:
        runs.append(None)
        try:
            await asyncio.Event().wait()
        finally:
            raise RuntimeError("boom")

    task = tasks.Background(clock).start("work", work)
    await clock.sleep(0)
    async with asyncio.timeout(5):
        await tasks.end_all([task])
    assert (len(runs), clock.pauses) == (1, [])


async def test_an_item_that_is_passed_over_is_logged_and_counted(
    clock: _Time, background: Callable[..., tasks.Background]
) -> None:
    done = asyncio.Event()

    async def work() -> None:
        try:
            raise KeyError("odd")
        except KeyError:
            tasks.skipped(session_id="a")
        done.set()

    before = _counted("skipped")
    with capture_logs() as logs:
        one = background(work, finishes=True)
        async with asyncio.timeout(5):
            await done.wait()
    assert _counted("skipped") == before + 1
    assert [(log["event"], log["task"], log["session_id"], log["exc_info"]) for log in logs] == [
        ("background_item_skipped", "work", "a", True)
    ]
    assert one.check().status == "ok"
