"""Storage's uptime: what counts, what does not, and how a database that was set back is noticed."""

import asyncio
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from structlog.testing import capture_logs

from sessions.runtime.errors import DomainError
from sessions.storage.memory_replicas import MemoryUptime
from sessions.storage.uptime import SET_BACKS, Uptime, UptimeClock

BEAT = 10.0


class _Host:
    """A replica on a host that has a clock of its own."""

    def __init__(self, store: MemoryUptime, seconds: float = 0.0) -> None:
        self.seconds = seconds
        self.acts: list[str] = []
        self.clock = UptimeClock(store, BEAT, lambda: self.seconds, set_back=[lambda: self.acts.append("first")])

    async def beat_after(self, seconds: float) -> None:
        self.seconds += seconds
        await self.clock.beat()


async def _error(work) -> str:
    with pytest.raises(DomainError) as caught:
        await work
    return caught.value.code


async def test_a_single_replica_counts_its_time_from_its_first_look() -> None:
    store = MemoryUptime()
    host = _Host(store, 1000.0)
    assert (host.clock.generation, await host.clock.read()) == ("", 0.0)
    assert host.clock.generation == store.uptime.generation
    await host.beat_after(500)
    assert await host.clock.read() == 0.0, "nobody knows for how long it has been up"
    for _ in range(3):
        await host.beat_after(7.5)
    assert await host.clock.read() == 22.5


async def test_the_time_that_a_replica_slept_through_does_not_count() -> None:
    host = _Host(MemoryUptime())
    await host.clock.beat()
    await host.beat_after(86_400)
    assert await host.clock.read() == 2 * BEAT
    await host.beat_after(10)
    assert await host.clock.read() == 3 * BEAT


async def test_a_clock_that_stands_still_counts_nothing() -> None:
    host = _Host(MemoryUptime())
    for _ in range(3):
        await host.beat_after(0)
    assert await host.clock.read() == 0


async def test_two_replicas_count_each_second_once() -> None:
    store = MemoryUptime()
    one, two = _Host(store), _Host(store, 5000.0)
    for host in (one, two):
        await host.clock.beat()
    for _ in range(20):  # their beats lie half a period apart
        for host in (one, two):
            one.seconds += BEAT / 2
            two.seconds += BEAT / 2
            await host.clock.beat()
    assert 20 * BEAT - 2 * BEAT <= await one.clock.read() <= 20 * BEAT


async def test_of_beats_at_once_one_counts() -> None:
    """Each has seen the same count, and adds what passed since."""
    store = MemoryUptime()
    hosts = [_Host(store) for _ in range(5)]
    for host in hosts:
        await host.clock.beat()
        host.seconds += BEAT
    await asyncio.gather(*(host.clock.beat() for host in hosts))
    assert (await hosts[0].clock.read(), store.uptime.beats) == (BEAT, 1)


@settings(max_examples=200, deadline=None)
@given(
    st.lists(
        st.tuples(st.integers(0, 2), st.floats(0, 15), st.sampled_from(["beat", "beat", "beat", "lost", "away"])),
        max_size=40,
    )
)
async def test_whatever_replicas_do_no_more_is_counted_than_passed(
    steps: list[tuple[int, float, str]],
) -> None:
    """Answers are lost and the database is away at any time; the count never falls, and never runs ahead."""
    store = _Shaky()
    hosts = [_Host(store, 100.0 * number) for number in range(3)]
    passed = before = 0.0
    for number, seconds, fault in steps:
        passed += seconds
        for host in hosts:
            host.seconds += seconds
        store.fault = fault
        if fault == "beat":
            await hosts[number].clock.beat()
        else:  # as `run` does
            try:
                await hosts[number].clock.beat()
            except DomainError:
                hosts[number].clock._looked_at = hosts[number].seconds
        assert before <= store.uptime.seconds <= passed + 1e-6
        before = store.uptime.seconds
        assert hosts[number].acts == []


class _Shaky(MemoryUptime):
    """Its answers are lost, or it is away."""

    fault = "beat"

    async def read(self) -> Uptime:
        if self.fault == "away":
            raise DomainError("database-unavailable", "away")
        return await super().read()

    async def beat(self, seen: Uptime, seconds: float) -> Uptime | None:
        found = await super().beat(seen, seconds)
        if self.fault == "lost":
            raise DomainError("database-unavailable", "its answer is lost")
        return found


async def _run_for(host: _Host, monkeypatch: pytest.MonkeyPatch, seconds: int, stir_at: set[int]) -> None:
    """Run it for so many seconds, with writes at some of them."""

    async def sleep(passed: float) -> None:
        host.seconds += passed
        if host.seconds in stir_at:
            host.clock.stir()
        if host.seconds >= seconds:
            raise asyncio.CancelledError

    with monkeypatch.context() as patch:
        patch.setattr("sessions.storage.uptime.asyncio.sleep", sleep)
        with pytest.raises(asyncio.CancelledError):
            await host.clock.run()


async def test_the_count_changes_within_a_second_of_a_write_and_rarely_without(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    store = MemoryUptime()
    host = _Host(store)
    await _run_for(host, monkeypatch, 60, set())
    assert (store.uptime.beats, store.uptime.seconds) == (5, 50)
    host = _Host(store := MemoryUptime())
    await _run_for(host, monkeypatch, 60, {1, 2, 3, 34})
    # From the first look on: after 1, 2 and 3 s, each 10 s, and after 34 s, from which it is each 10 s again.
    assert (store.uptime.beats, store.uptime.seconds) == (9, 54)


async def test_a_set_back_between_two_beats_is_noticed_once_something_was_written(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    store = MemoryUptime()
    host = _Host(store)
    await host.clock.beat()
    backup = store.uptime
    await _run_for(host, monkeypatch, 3, {1})
    store.uptime = backup
    await host.clock.read()
    assert host.acts == ["first"]


async def test_a_second_set_back_to_the_same_state_gives_another_generation() -> None:
    """A processor that knows the first generation was cut off meanwhile, and is not told of the second."""
    store = MemoryUptime()
    host = _Host(store)
    await host.clock.beat()
    await host.beat_after(5)
    backup = store.uptime
    seen = {backup.generation}
    for _ in range(4):
        await host.beat_after(10)
        store.uptime = backup
        await host.clock.read()
        assert host.clock.generation == store.uptime.generation
        assert host.clock.generation not in seen
        seen.add(host.clock.generation)
    assert host.acts == ["first"] * 4


async def test_an_answer_from_before_another_replica_noticed_renews_nothing() -> None:
    store = MemoryUptime()
    host, other = _Host(store), _Host(store)
    for one in (host, other):
        await one.clock.beat()
        await one.beat_after(10)
    late = store.uptime
    store.uptime = replace(late, seconds=0.0)
    await other.clock.read()
    await host.clock.read()
    now = store.uptime
    assert await host.clock._note(late) == now
    assert (store.uptime, host.acts) == (now, ["first"])


async def test_generations_that_are_remembered_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sessions.storage.uptime._GENERATIONS", 2)
    store = MemoryUptime()
    host = _Host(store)
    for number in range(5):
        store.uptime = Uptime(float(number), number, f"g{number}")
        await host.clock.read()
    assert list(host.clock._seen) == ["g3", "g4"]


async def test_time_in_which_nothing_could_be_written_does_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    store = _Shaky()
    host = _Host(store)
    asked: list[float] = []

    async def sleep(seconds: float) -> None:
        asked.append(seconds)
        host.seconds += seconds
        store.fault = "away" if 3 <= len(asked) / BEAT < 20 else "beat"
        if len(asked) == 25 * BEAT:
            raise asyncio.CancelledError

    monkeypatch.setattr("sessions.storage.uptime.asyncio.sleep", sleep)
    with capture_logs() as logs, pytest.raises(asyncio.CancelledError):
        await host.clock.run()
    assert {entry["event"] for entry in logs} == {"uptime_not_counted"}
    assert (len(logs), set(asked)) == (17, {1.0})
    # Of 24 periods 17 ended while the database was away, and the first after them began then.
    assert await host.clock.read() == (24 - 17) * BEAT


async def test_a_count_that_falls_was_set_back() -> None:
    store = MemoryUptime()
    host, other = _Host(store), _Host(store)
    host.clock.on_set_back(lambda: host.acts.append("later"))
    for one in (host, other):
        await one.clock.beat()
    backup = store.uptime
    await host.beat_after(10)
    await other.clock.read()
    store.uptime = backup
    before = SET_BACKS._value.get()
    with capture_logs() as logs:
        assert await host.clock.read() == 0
    assert [entry["event"] for entry in logs] == ["database_set_back"]
    assert (host.acts, SET_BACKS._value.get() - before) == (["first", "later"], 1)
    assert store.uptime.generation != backup.generation
    await host.clock.read()
    assert host.acts == ["first", "later"], "once for each time"
    # The other replica looks when the count is beyond what it knew: it notices by the generation.
    store.uptime = replace(store.uptime, seconds=1000.0)
    assert await other.clock.read() == 1000.0
    assert other.acts == ["first"]


async def test_what_a_replica_saw_before_a_set_back_adds_nothing_after_it() -> None:
    store = MemoryUptime()
    host = _Host(store)
    await host.clock.beat()
    backup = store.uptime
    await host.beat_after(10)
    store.uptime = backup
    await host.beat_after(10)
    assert (await host.clock.read(), host.acts) == (0.0, ["first"])
    await host.beat_after(10)
    assert await host.clock.read() == 10


async def test_a_new_process_takes_the_count_as_it_is() -> None:
    store = MemoryUptime()
    store.uptime = Uptime(77.0, 3, "g")
    host = _Host(store)
    assert (await host.clock.read(), host.clock.generation, host.acts) == (77.0, "g", [])


async def test_of_two_reads_at_once_the_later_answer_may_be_the_older_count() -> None:
    store = MemoryUptime()
    host = _Host(store)
    await host.clock.beat()
    old, answered = store.uptime, asyncio.Event()

    async def slow() -> Uptime:
        await answered.wait()
        return old

    read, store.read = store.read, slow
    late = asyncio.create_task(host.clock.read())
    await asyncio.sleep(0)
    store.read = read
    await host.beat_after(10)
    answered.set()
    assert await late == 10.0
    assert host.acts == []


async def test_a_database_that_is_away_is_the_callers_error() -> None:
    store = _Shaky()
    host = _Host(store)
    store.fault = "away"
    assert await _error(host.clock.read()) == "database-unavailable"
    assert await _error(host.clock.beat()) == "database-unavailable"
