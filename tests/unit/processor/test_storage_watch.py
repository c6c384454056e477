"""Whether storage is there: what says so, what does not, and how it is found out again."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from sessions.processor import storage_watch
from sessions.processor.storage_errors import OverdueError, RequestFailedError
from sessions.processor.storage_watch import FAILED, StorageWatch
from sessions.runtime.errors import PROBLEMS, DomainError

AWAY = DomainError("storage-unavailable", "no connection", retry_after_seconds=1)
FULL = DomainError("storage-full", "full", retry_after_seconds=30)


class Probe:
    """What the readiness probe says; each question is counted."""

    def __init__(self) -> None:
        self.problem: str | Exception | None = None
        self.asked = 0

    async def __call__(self) -> str | None:
        self.asked += 1
        if isinstance(self.problem, Exception):
            raise self.problem
        return self.problem


@pytest.fixture
def probe() -> Probe:
    return Probe()


@pytest.fixture
async def watch(probe: Probe, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[StorageWatch]:
    monkeypatch.setattr(storage_watch, "_PROBE_SECONDS", 0.01)
    one = StorageWatch(probe, 0.1)
    running = asyncio.create_task(one.run())
    yield one
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


async def _soon(condition) -> None:
    async with asyncio.timeout(2):
        while not condition():
            await asyncio.sleep(0.002)


@pytest.mark.parametrize("code", sorted(PROBLEMS))
async def test_which_answers_say_that_it_is_away(probe: Probe, code: str) -> None:
    """R5: of all answers these, and no other."""
    watch = StorageWatch(probe)
    said = watch.lost(DomainError(code, "why"))
    assert said == (code in ("storage-unavailable", "database-unavailable", "storage-full"))
    assert (watch.away, watch.gone.is_set(), watch.back.is_set()) == (said, said, not said)


@pytest.mark.parametrize("error", [RequestFailedError("odd answer"), OverdueError("too slow")])
async def test_one_request_that_fails_makes_it_ask_and_says_nothing_of_others(
    watch: StorageWatch, probe: Probe, error: DomainError
) -> None:
    before = FAILED._value.get()
    for _ in range(5):
        assert not watch.lost(error)
    assert FAILED._value.get() - before == 5
    await _soon(lambda: probe.asked)
    await asyncio.sleep(0.01)
    assert (probe.asked, watch.away) == (1, False), "it is asked once for all"
    watch.suspect()
    await _soon(lambda: probe.asked == 2)


@pytest.mark.parametrize("problem", ["not ready", RuntimeError("what")])
async def test_a_probe_that_fails_says_that_it_is_away(watch: StorageWatch, probe: Probe, problem) -> None:
    probe.problem = problem
    watch.lost(RequestFailedError("odd answer"))
    await _soon(lambda: watch.away)
    assert ("not ready" if isinstance(problem, str) else "RuntimeError") in watch.reason
    asked = probe.asked
    watch.suspect()
    probe.problem = None
    await _soon(lambda: not watch.away)
    assert probe.asked > asked
    assert watch.back.is_set()


async def test_it_is_back_when_the_probe_says_so_and_not_before(watch: StorageWatch, probe: Probe) -> None:
    probe.problem = "still starting"
    assert watch.lost(AWAY)
    await _soon(lambda: probe.asked >= 3)
    assert (watch.away, watch.reason, watch.answers) == (True, "still starting", False)
    probe.problem = None
    await _soon(watch.back.is_set)
    assert not watch.away


async def test_storage_that_is_full_is_asked_all_but_to_take_chunks(
    watch: StorageWatch, probe: Probe, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(storage_watch, "_HOLD_MAX_SECONDS", 0.05)
    assert watch.lost(FULL)
    assert (watch.away, watch.answers) == (True, True)
    await asyncio.sleep(0.02)
    assert probe.asked == 0, "its probe is content all the same: it is not asked for a while"
    await _soon(lambda: not watch.away)


async def test_the_first_reason_of_a_kind_stays_until_it_is_back(watch: StorageWatch, probe: Probe) -> None:
    probe.problem = "gone"
    watch.lost(AWAY)
    watch.lost(DomainError("storage-unavailable", "later"))
    assert (watch.reason, watch.answers) == ("no connection", False)


async def test_storage_that_was_full_and_crashes_cannot_be_asked(watch: StorageWatch, probe: Probe) -> None:
    probe.problem = "gone"
    watch.lost(FULL)
    watch.lost(DomainError("database-unavailable", "later"))
    assert (watch.reason, watch.answers) == ("later", False)
    watch.lost(FULL)
    assert (watch.reason, watch.answers) == ("full", True), "the last answer counts"


async def test_storage_that_was_full_and_whose_probe_fails_cannot_be_asked(
    watch: StorageWatch, probe: Probe, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(storage_watch, "_HOLD_MAX_SECONDS", 0.01)
    probe.problem = "gone"
    watch.lost(FULL)
    await _soon(lambda: probe.asked)
    await asyncio.sleep(0)
    assert (watch.away, watch.reason, watch.answers) == (True, "gone", False)


async def test_a_call_that_takes_too_long_is_given_up_and_makes_it_ask(watch: StorageWatch, probe: Probe) -> None:
    async def slow() -> None:
        await asyncio.sleep(5)

    loop = asyncio.get_running_loop()
    began = loop.time()
    with pytest.raises(OverdueError, match=r"within 0\.1 s"):
        await watch.attempt(slow())
    assert 0.09 < loop.time() - began < 1
    assert probe.asked == 1, "before it was given up"
    assert not watch.away


async def test_a_call_that_hangs_in_a_storage_that_is_gone_finds_it_out_early(
    watch: StorageWatch, probe: Probe
) -> None:
    probe.problem = "gone"
    hanging = asyncio.create_task(watch.attempt(asyncio.sleep(5)))
    await _soon(lambda: watch.away)
    assert not hanging.done()
    with pytest.raises(OverdueError):
        await hanging


async def test_a_call_that_is_answered_is_noted_and_suspects_nobody(watch: StorageWatch, probe: Probe) -> None:
    assert watch.answered_at == 0.0
    assert await watch.attempt(asyncio.sleep(0, "answer")) == "answer"
    assert watch.answered_at > 0
    noted = watch.answered_at

    async def refused() -> None:
        raise DomainError("session-sealed", "a verdict")

    with pytest.raises(DomainError, match="a verdict"):
        await watch.attempt(refused())
    await asyncio.sleep(0.06)
    assert (watch.answered_at, probe.asked) == (noted, 0)
