"""The anchorer's state machine, on the twins: every step, every crash between two steps, every way a chain behaves."""

import asyncio
import functools
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from structlog.testing import capture_logs

from sessions.core import merkle
from sessions.core.receipt import AnchorState
from sessions.core.types import SessionId
from sessions.storage import anchorer as module
from sessions.storage.anchor import ChainMisconfiguredError, ChainUnavailableError, StaleLeaderError, UnderpricedError
from sessions.storage.anchorer import Anchorer
from sessions.storage.memory_anchoring import LeaseState, MemoryBatches, MemoryLease
from sessions.storage.memory_chain import GWEI, MemoryChain


class Clock:
    def __init__(self) -> None:
        self.time = datetime(2026, 5, 14, tzinfo=UTC)

    def __call__(self) -> datetime:
        return self.time

    def pass_seconds(self, seconds: float) -> None:
        self.time += timedelta(seconds=seconds)


class World:
    """The database, the chain, and as many replicas as a test starts."""

    def __init__(self) -> None:
        self.batches, self.lease, self.chain, self.clock = MemoryBatches(), LeaseState(), MemoryChain(), Clock()
        self.replicas = 0

    def start(self, holder: str = "", **changes: Any) -> Anchorer:
        self.replicas += 1
        lease = MemoryLease(
            self.lease, holder or f"replica-{self.replicas}", 30, clock=lambda: self.clock().timestamp()
        )
        given: dict[str, Any] = {
            "batches": self.batches,
            "lease": lease,
            "chain": self.chain,
            "now": self.clock,
            "interval_seconds": 0.01,
        }
        return Anchorer(**(given | changes))

    def seal(self, *names: str) -> None:
        for name in names:
            self.batches.seal(SessionId(name), b"manifest of " + name.encode())

    async def states(self) -> list[str]:
        return [record.anchor.state.value for record in reversed(await self.batches.list(100))]

    async def check_all_is_anchored_once(self, names: list[str]) -> None:
        records = list(reversed(await self.batches.list(100)))
        assert {record.anchor.state for record in records} == {AnchorState.CONFIRMED}
        assert [record.sequence for record in records] == list(range(len(records)))
        members: list[SessionId] = []
        for record in records:
            members += (await self.batches.get(record.root)).session_ids
            assert record.placed
            assert record.anchor.transaction in {transaction.hash for transaction in record.transactions}
            assert record.gas_used
        assert sorted(members) == sorted(names)
        for name in names:
            sequence, place = self.batches.place_of(SessionId(name))
            assert place.root == records[sequence].root
        roots = [root for root in self.chain.anchored() if root != bytes(32)]
        assert roots == [record.root for record in records]


@pytest.fixture
def world() -> World:
    return World()


async def test_from_sealed_to_confirmed(world: World) -> None:
    anchorer = world.start()
    await anchorer.tick()
    assert await world.states() == []
    world.seal("b", "a")
    await anchorer.tick()
    assert await world.states() == ["submitted"]
    (record,) = await world.batches.unsettled()
    assert record.anchor.block_number is None
    assert record.anchor.publisher == world.chain.publisher
    assert anchorer.status.leader
    world.chain.mine()
    await anchorer.tick()
    assert await world.states() == ["included"]
    await anchorer.tick()
    assert await world.states() == ["included"]
    world.chain.mine()
    await anchorer.tick()
    await world.check_all_is_anchored_once(["a", "b"])
    assert len(world.chain.sent) == 1
    status = anchorer.status
    assert (status.batches_made, status.sessions_batched, status.transactions_signed) == (1, 2, 1)
    assert (status.batches_included, status.batches_confirmed, status.reorganisations) == (1, 1, 0)


async def test_what_is_confirmed_when_first_seen_skips_a_state(world: World) -> None:
    anchorer = world.start()
    world.seal("a")
    await anchorer.tick()
    world.chain.mine(2)
    await anchorer.tick()
    await world.check_all_is_anchored_once(["a"])


async def test_one_batch_at_a_time_is_on_its_way_and_several_may_be_in_blocks(world: World) -> None:
    world.chain.confirmations = 10
    anchorer = world.start(batch_max_sessions=2)
    world.seal("a", "b", "c", "d", "e")
    await anchorer.tick()
    await anchorer.tick()
    assert await world.states() == ["submitted"]
    for states in (["included", "submitted"], ["included", "included", "submitted"], ["included"] * 3):
        world.chain.mine()
        await anchorer.tick()
        assert await world.states() == states
    assert [record.size for record in await world.batches.list(9)] == [1, 2, 2]
    world.chain.mine(10)
    await anchorer.tick()
    await world.check_all_is_anchored_once(list("abcde"))


async def test_while_the_chain_is_away_sessions_are_batched_and_only_the_anchor_waits(world: World) -> None:
    anchorer = world.start()
    world.seal("a")
    world.chain.away = True
    with pytest.raises(ChainUnavailableError):
        await anchorer.tick()
    assert await world.states() == ["pending"]
    assert world.batches.place_of(SessionId("a")) is not None
    world.chain.away = False
    await anchorer.tick()
    world.chain.mine()
    await anchorer.tick()
    assert await world.states() == ["included"]
    world.seal("b")
    world.chain.away = True
    with pytest.raises(ChainUnavailableError):
        await anchorer.tick()
    assert await world.states() == ["included", "pending"]  # made although the first could not be looked for
    with pytest.raises(ChainUnavailableError):
        await anchorer.tick()
    world.chain.away = False
    await anchorer.tick()
    world.chain.mine(3)
    await anchorer.tick()
    await world.check_all_is_anchored_once(["a", "b"])


async def test_a_broadcast_that_got_lost_is_repeated_with_the_same_bytes(world: World) -> None:
    anchorer = world.start()
    world.seal("a")
    await anchorer.tick()
    world.chain._mempool.clear()
    await anchorer.tick()
    world.chain.mine(2)
    await anchorer.tick()
    await world.check_all_is_anchored_once(["a"])
    assert len({transaction.raw for transaction in world.chain.sent}) == 1


async def test_a_reorganisation_takes_it_back_to_submitted_and_out_goes_the_same(world: World) -> None:
    anchorer = world.start()
    world.seal("a")
    await anchorer.tick()
    world.chain.mine()
    await anchorer.tick()
    world.chain.reorganise(1)
    await anchorer.tick(make_batch=False)
    (record,) = await world.batches.unsettled()
    assert (record.anchor.state, record.anchor.block_hash, record.gas_used) == (AnchorState.SUBMITTED, None, None)
    assert anchorer.status.reorganisations == 1
    world.chain.mine(2)
    await anchorer.tick()
    await world.check_all_is_anchored_once(["a"])
    assert len({transaction.raw for transaction in world.chain.sent}) == 1


async def test_a_reorganisation_that_only_moves_it_changes_its_block(world: World) -> None:
    world.chain.confirmations = 5
    anchorer = world.start()
    world.seal("a")
    await anchorer.tick()
    world.chain.mine()
    await anchorer.tick()
    (before,) = await world.batches.unsettled()
    world.chain.reorganise(1)
    await world.chain.broadcast(before.transactions[0])
    world.chain.mine()
    await anchorer.tick()
    (after,) = await world.batches.unsettled()
    assert after.anchor.state is AnchorState.INCLUDED
    assert after.anchor.block_hash != before.anchor.block_hash
    assert anchorer.status.reorganisations == 0


async def test_a_reorganisation_of_two_batches_brings_both_back_in_order(world: World) -> None:
    world.chain.confirmations = 10
    anchorer = world.start()
    for name in "ab":
        world.seal(name)
        await anchorer.tick()
        world.chain.mine()
        await anchorer.tick()
    world.chain.reorganise(2)
    await anchorer.tick()
    assert await world.states() == ["submitted", "submitted"]
    world.seal("c")
    await anchorer.tick()
    assert len(await world.states()) == 2  # none is made while one is on its way
    world.chain.mine()
    await anchorer.tick()
    world.chain.mine(11)
    await anchorer.tick()
    world.chain.mine(11)
    await anchorer.tick()
    await world.check_all_is_anchored_once(["a", "b", "c"])


async def test_a_batch_made_before_a_reorganisation_waits_for_the_older_one(world: World) -> None:
    world.chain.confirmations = 10
    anchorer = world.start()
    world.seal("a")
    await anchorer.tick()
    world.chain.mine()
    await anchorer.tick()
    world.seal("b")
    world.chain.away = True
    with pytest.raises(ChainUnavailableError):
        await anchorer.tick()
    world.chain.away = False
    world.chain.reorganise(1)
    await anchorer.tick()
    assert await world.states() == ["submitted", "pending"]  # its nonce would be the older one's
    world.chain.mine()
    await anchorer.tick()
    assert await world.states() == ["included", "submitted"]


async def test_a_stuck_transaction_is_replaced_at_its_nonce_and_either_may_win(world: World) -> None:
    anchorer = world.start(replace_after_seconds=300)
    world.seal("a")
    await anchorer.tick()
    world.chain.base_fee_wei = 3 * GWEI  # more than the first one offers
    world.chain.mine()
    world.clock.pass_seconds(299)
    await anchorer.tick()
    (record,) = await world.batches.unsettled()
    assert len(record.transactions) == 1
    world.clock.pass_seconds(2)
    await anchorer.tick()
    (record,) = await world.batches.unsettled()
    old, new = record.transactions
    assert (new.nonce, record.anchor.transaction) == (old.nonce, new.hash)
    assert new.max_fee_wei >= old.max_fee_wei * 11 // 10
    world.chain.base_fee_wei = GWEI
    world.chain._mempool[old.nonce] = old  # a miner has the old one only
    world.chain.mine(2)
    await anchorer.tick()
    (done,) = await world.batches.list(1)
    assert done.anchor.transaction == old.hash
    await world.check_all_is_anchored_once(["a"])


async def test_at_the_cap_a_stuck_transaction_is_only_sent_again(world: World) -> None:
    anchorer = world.start(replace_after_seconds=300)
    world.seal("a")
    await anchorer.tick()
    world.chain.base_fee_wei = 500 * GWEI
    for _ in range(3):
        world.clock.pass_seconds(301)
        await anchorer.tick()
    (record,) = await world.batches.unsettled()
    assert len(record.transactions) == 1
    assert len(world.chain.sent) == 4
    world.chain.base_fee_wei = GWEI
    world.chain.mine(2)
    await anchorer.tick()
    await world.check_all_is_anchored_once(["a"])


async def test_what_is_refused_as_underpriced_is_raised_at_once(world: World) -> None:
    world.chain.least_fee_wei = 50 * GWEI
    anchorer = world.start()
    world.seal("a")
    await anchorer.tick()
    (record,) = await world.batches.unsettled()
    assert [one.max_fee_wei // GWEI for one in record.transactions] == [2, 4, 8, 16, 32, 64]
    assert world.chain.sent == [record.transactions[-1]]
    world.chain.least_fee_wei = 500 * GWEI
    world.chain._mempool.clear()
    for _ in range(5):
        with pytest.raises(UnderpricedError):
            await anchorer.tick()
    (record,) = await world.batches.unsettled()
    assert [one.max_fee_wei // GWEI for one in record.transactions][6:] == [128, 200], "it ends at the cap"
    world.chain.least_fee_wei = 0
    await anchorer.tick()
    world.chain.mine(2)
    await anchorer.tick()
    await world.check_all_is_anchored_once(["a"])


async def test_a_nonce_that_went_to_somebody_else_is_given_up(world: World) -> None:
    anchorer = world.start()
    world.seal("a")
    await anchorer.tick()
    world.chain.use_nonce()
    await anchorer.tick()
    (record,) = await world.batches.unsettled()
    assert [transaction.nonce for transaction in record.transactions] == [0], "its block is not confirmed"
    world.chain.mine()
    await anchorer.tick()
    (record,) = await world.batches.unsettled()
    assert [transaction.nonce for transaction in record.transactions] == [0, 1]
    world.chain.mine(2)
    await anchorer.tick()
    await world.check_all_is_anchored_once(["a"])


async def test_a_batch_is_not_signed_anew_without_end(world: World) -> None:
    """Each transaction may cost a fee, and one that always comes too late would be paid for ever."""
    anchorer = world.start(interval_seconds=60)
    world.seal("a")

    async def lose_nonces(times: int) -> int:
        for _ in range(times):
            with suppress(ChainMisconfiguredError):
                await anchorer.tick()
            world.chain.use_nonce()
            world.chain.mine(2)
            world.clock.pass_seconds(60)
        (record,) = await world.batches.unsettled()
        return len({one.nonce for one in record.transactions})

    assert await lose_nonces(40) == 16
    with pytest.raises(ChainMisconfiguredError, match="CHAIN_KEY_FILE"):
        await anchorer.tick()
    world.clock.pass_seconds(86_400)
    assert await lose_nonces(40) == 17, "then it is one a day"
    world.clock.pass_seconds(86_400)
    await anchorer.tick()
    world.chain.mine(2)
    await anchorer.tick()
    await world.check_all_is_anchored_once(["a"])


async def test_of_two_batches_with_lost_nonces_the_older_one_goes_first(world: World) -> None:
    world.chain.confirmations = 10
    anchorer = world.start()
    for name in "ab":
        world.seal(name)
        await anchorer.tick()
        world.chain.mine()
        await anchorer.tick()
    world.chain.reorganise(2)
    world.chain.use_nonce()
    world.chain.use_nonce()
    for _ in range(30):
        await anchorer.tick()
        world.chain.mine()
    world.chain.mine(10)
    await anchorer.tick()
    await world.check_all_is_anchored_once(["a", "b"])


async def test_a_batch_of_another_chain_is_anchored_on_the_one_of_the_settings(world: World) -> None:
    anchorer = world.start()
    world.seal("a")
    await anchorer.tick()
    world.chain = MemoryChain()
    world.chain.chain_id = 5
    await world.start(holder="replica-1").tick()
    world.chain.mine(2)
    await world.start(holder="replica-1").tick()
    await world.check_all_is_anchored_once(["a"])
    (record,) = await world.batches.list(1)
    assert record.anchor.chain_id == 5


async def test_a_changed_key_leaves_a_live_transaction_alone(world: World) -> None:
    anchorer = world.start()
    world.seal("a")
    await anchorer.tick()
    world.chain.publisher = b"\x02" * 20
    world.clock.pass_seconds(1000)
    await anchorer.tick()
    (record,) = await world.batches.unsettled()
    assert len(record.transactions) == 1
    world.chain.mine(2)
    await anchorer.tick()
    (record,) = await world.batches.list(1)
    assert record.anchor.publisher == b"\x01" * 20


# Two replicas.


async def test_only_the_holder_of_the_lease_acts(world: World) -> None:
    first, second = world.start(), world.start()
    world.seal("a")
    await first.tick()
    await second.tick()
    assert (first.status.leader, second.status.leader) == (True, False)
    assert len(world.chain.sent) == 1
    world.clock.pass_seconds(31)
    await second.tick()
    await first.tick()
    assert (first.status.leader, second.status.leader) == (False, True)


class Paused:
    """Ports whose chosen call lets another replica work first: a leader that slept through the end of its lease."""

    def __init__(self, port: Any, name: str, meanwhile: Any) -> None:
        self._port, self._name, self._meanwhile = port, name, meanwhile

    def __getattr__(self, name: str) -> Any:
        act = getattr(self._port, name)
        if name != self._name:
            return act

        async def late(*arguments: Any) -> Any:
            if self._meanwhile is not None:
                meanwhile, self._meanwhile = self._meanwhile, None
                await meanwhile()
            return await act(*arguments)

        return late


@pytest.mark.parametrize("call", ["append", "place", "update"])
async def test_a_stale_leader_writes_nothing(world: World, call: str) -> None:
    async def meanwhile() -> None:
        world.clock.pass_seconds(31)
        await world.start("newer").tick()

    world.seal("a", "b")
    stale = world.start(batches=Paused(world.batches, call, meanwhile))
    with pytest.raises(StaleLeaderError):
        await stale.tick()
    assert len(await world.states()) == 1
    assert len({transaction.nonce for transaction in world.chain.sent}) == 1
    world.chain.mine(2)
    await world.start("newer").tick()
    await world.check_all_is_anchored_once(["a", "b"])


# The process dies between any two steps.


class DiedError(BaseException):
    """Nothing after this instant happens in that process."""


class Mortal:
    """Counts the calls of all ports, and dies just before or just after one of them."""

    def __init__(self, at: int, *, after: bool) -> None:
        self.at, self.after, self.calls = at, after, 0

    def wrap(self, port: Any) -> Any:
        return MortalPort(self, port)


class MortalPort:
    def __init__(self, life: Mortal, port: Any) -> None:
        self._life, self._port = life, port

    def __getattr__(self, name: str) -> Any:
        act = getattr(self._port, name)

        @functools.wraps(act)
        async def call(*arguments: Any) -> Any:
            life = self._life
            life.calls += 1
            mine = life.calls == life.at
            if mine and not life.after:
                raise DiedError
            answer = await act(*arguments)
            if mine:
                raise DiedError
            return answer

        return call


async def live_through(world: World, life: Mortal) -> bool:
    """Two batches from sealed to confirmed, with a reorganisation; whether the process lived to the end."""
    anchorer = world.start(batches=life.wrap(world.batches), chain=life.wrap(world.chain), batch_max_sessions=2)
    try:
        await anchorer.tick()
        world.chain.mine()
        await anchorer.tick()
        world.chain.reorganise(1)
        for _ in range(6):
            await anchorer.tick()
            world.chain.mine()
    except DiedError:
        return False
    return True


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
async def test_whenever_the_process_dies_the_next_one_goes_on(after: bool) -> None:
    at, names = 0, ["a", "b", "c"]
    while True:
        at += 1
        world = World()
        world.seal(*names)
        lived = await live_through(world, Mortal(at, after=after))
        world.clock.pass_seconds(31)
        successor = world.start(batch_max_sessions=2)
        for _ in range(6):
            await successor.tick()
            world.chain.mine()
        await world.check_all_is_anchored_once(names)
        for record in await world.batches.list(9):
            assert len(record.transactions) == 1  # the same bytes every time, so one nonce and one fee
        if lived:
            break
    assert at > 30


# The loop.


async def until(condition: Any, seconds: float = 5) -> None:
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.005)


async def test_the_loop_works_survives_everything_and_lets_go_of_the_lease(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "IN_FLIGHT_POLL_SECONDS", 0.01)
    monkeypatch.setattr(module, "RETRY_SECONDS", 0.01)
    anchorer = world.start()
    status = anchorer.status
    with capture_logs() as logs:
        task = asyncio.create_task(anchorer.run())
        await until(lambda: status.chain_ok)
        assert status.balance_wei == 10**18
        assert (status.leader, status.last_error) == (True, None)

        world.chain.away = True
        world.seal("a")
        await until(lambda: status.last_error)
        assert status.chain_ok is False
        assert "ChainUnavailableError" in status.last_error

        world.chain.away, world.chain.wrong_setting = False, "CHAIN_ID"
        await until(lambda: "ChainMisconfiguredError" in (status.last_error or ""))
        world.chain.wrong_setting = None
        await until(lambda: status.last_error is None and status.transactions_signed)
        world.chain.mine(2)
        await until(lambda: status.batches_confirmed)
        assert status.chain_ok

        monkeypatch.setattr(world.batches, "last", None)  # calling it is a TypeError
        await until(lambda: "TypeError" in (status.last_error or ""))
        monkeypatch.undo()
        await until(lambda: status.last_error is None)
        assert status.failures >= 3

        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    assert world.lease.expires_at == 0
    events = {entry["event"] for entry in logs}
    assert events >= {
        "chain_unavailable",
        "chain_misconfigured",
        "anchoring_failed",
        "batch_made",
        "batch_submitted",
        "batch_confirmed",
    }
    assert {entry["setting"] for entry in logs if entry["event"] == "chain_misconfigured"} == {"CHAIN_ID"}


async def test_a_leader_change_is_no_failure(world: World) -> None:
    async def meanwhile() -> None:
        world.clock.pass_seconds(31)
        await world.start("newer").tick()

    world.seal("a")
    stale = world.start(batches=Paused(world.batches, "append", meanwhile))
    with capture_logs() as logs:
        task = asyncio.create_task(stale.run())
        await until(lambda: any(entry["event"] == "anchoring_leader_changed" for entry in logs))
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    assert stale.status.failures == 0
    assert not stale.status.leader


async def test_a_number_below_that_of_a_write_from_before_a_set_back_grows_beyond_it(world: World) -> None:
    """The database is set back to lease number 1, and then leader 7's write lands, which the driver repeated."""
    anchorer = world.start()
    world.seal("a")
    await anchorer.tick()
    world.chain.mine(2)
    await anchorer.tick()
    world.batches._batches[-1].fence = 7
    world.seal("b")
    world.clock.pass_seconds(1)
    rounds = []
    while len(await world.states()) < 2:
        rounds.append((await anchorer._round(), anchorer.status.last_error)[1])
        assert len(rounds) < 9
    assert world.lease.token == 7
    assert (rounds[:2], rounds[-1]) == ([None, None], None)
    assert all("StaleLeaderError" in str(error) for error in rounds[2:-1])
    assert anchorer.status.failures == len(rounds) - 3
    world.batches._batches[-1].fence = 9
    await anchorer._round()
    assert anchorer.status.last_error is None, "they are counted from the last round that went well"


async def test_replicas_that_all_find_a_newer_leader_get_past_it_together(world: World) -> None:
    one, two = world.start(), world.start()
    world.seal("a")
    await one.tick()
    world.chain.mine(2)
    await one.tick()
    world.batches._batches[-1].fence = 5
    world.seal("b")
    world.clock.pass_seconds(1)
    for _ in range(3):
        for replica in (one, two):
            await replica._round()
    assert len(await world.states()) == 2


async def test_the_interval_holds_batches_back(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "IN_FLIGHT_POLL_SECONDS", 0.01)
    anchorer = world.start(interval_seconds=0.5)
    task = asyncio.create_task(anchorer.run())
    await until(lambda: anchorer.status.chain_ok)
    world.seal("a")
    await asyncio.sleep(0.05)
    assert anchorer.status.batches_made == 0
    await until(lambda: anchorer.status.transactions_signed)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def test_a_backlog_is_worked_off_without_waiting_for_the_interval(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "IN_FLIGHT_POLL_SECONDS", 0.01)
    names = [f"s{number}" for number in range(7)]
    world.seal(*names)
    anchorer = world.start(interval_seconds=60, batch_max_sessions=2)
    task = asyncio.create_task(anchorer.run())

    def mined() -> bool:
        world.chain.mine()
        return anchorer.status.batches_included == 4

    await until(mined)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    world.chain.mine(2)
    await anchorer.tick()
    await world.check_all_is_anchored_once(names)


def most_in(times: list[datetime], seconds: float) -> int:
    """The most batches that any span of that length has."""
    return max(sum(first <= one < first + timedelta(seconds=seconds) for one in times) for first in times)


@pytest.mark.parametrize("restarts", [False, True])
@pytest.mark.parametrize("interval_seconds", [60, 86_400])
async def test_a_flood_of_seals_buys_few_transactions(world: World, restarts: bool, interval_seconds: float) -> None:
    """L4: full batches cost a transaction each five seconds, whatever the interval, and each restart cost one."""
    anchorer, steps = world.start("one", interval_seconds=interval_seconds, batch_max_sessions=2), 300
    for step in range(steps):
        world.seal(f"{step}-a", f"{step}-b", f"{step}-c")
        if restarts:
            anchorer = world.start("one", interval_seconds=interval_seconds, batch_max_sessions=2)
        anchorer._batch_due_at = 0.0
        await anchorer._round()
        world.chain.mine()
        world.clock.pass_seconds(interval_seconds / 15)
    times = [record.created_at for record in await world.batches.list(1000)]
    assert most_in(times, interval_seconds) == (1 if restarts else 4)
    assert len(times) == pytest.approx(steps / 15 * (1 if restarts else 4), rel=0.1), "as many as it may, no fewer"
    assert len(world.chain.sent) == len(times)


async def test_a_clock_that_is_set_back_does_not_stop_batches(world: World) -> None:
    for back in (0, 59, 3600, 10**7):
        world.clock.pass_seconds(-back)
        before = len(await world.states())
        for _ in range(31):
            anchorer = world.start("one", interval_seconds=60)
            world.seal(f"{back}-{world.clock.time}")
            await anchorer._round()
            world.chain.mine(2)
            world.clock.pass_seconds(4)
            world.lease.expires_at = 0
        assert len(await world.states()) > before


async def test_the_interval_is_kept_to_the_second(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """A batch is due an interval after the last one, not at the second round after that."""
    anchorer = world.start(interval_seconds=60)
    world.seal("a")
    await anchorer._round()
    world.chain.mine(2)
    await anchorer._round()
    world.clock.pass_seconds(59)
    anchorer._batch_due_at = 0.0
    world.seal("b")
    assert await anchorer._round() == pytest.approx(1, abs=0.1)
    assert len(await world.states()) == 1
    world.clock.pass_seconds(1)
    anchorer._batch_due_at = 0.0
    await anchorer._round()
    assert len(await world.states()) == 2


async def test_the_loop_ends_also_when_the_lease_cannot_be_let_go(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    anchorer = world.start(interval_seconds=60)
    task = asyncio.create_task(anchorer.run())
    await until(lambda: anchorer.status.chain_ok)
    monkeypatch.setattr(MemoryLease, "release", None)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_the_twin_of_the_chain_knows_a_wrong_setting(world: World) -> None:
    world.chain.wrong_setting = "CHAIN_CONTRACT"
    with pytest.raises(ChainMisconfiguredError, match="CHAIN_CONTRACT"):
        await world.chain.check()


async def test_roots_are_those_of_the_core(world: World) -> None:
    world.seal("a", "b", "c")
    hashes = [leaf.leaf_hash for leaf in await world.batches.unbatched(9)]
    await world.start().tick()
    assert (await world.batches.last()).root == merkle.root(hashes)


async def test_what_is_confirmed_and_then_moves_changes_its_block(world: World) -> None:
    anchorer = world.start()
    world.seal("a")
    await anchorer.tick()
    world.chain.mine(2)
    await anchorer.tick()
    (before,) = await world.batches.list(1)
    assert before.anchor.state is AnchorState.CONFIRMED
    world.chain.reorganise(2)
    await world.chain.broadcast(before.transactions[0])
    world.chain.mine()
    await anchorer.tick()
    (after,) = await world.batches.list(1)
    assert (after.anchor.state, anchorer.status.reorganisations) == (AnchorState.INCLUDED, 0)
    assert after.anchor.block_hash != before.anchor.block_hash
    world.chain.mine()
    await anchorer.tick()
    await world.check_all_is_anchored_once(["a"])


async def test_what_was_confirmed_stays_so_when_more_blocks_are_asked_for(world: World) -> None:
    anchorer = world.start()
    world.seal("a")
    await anchorer.tick()
    world.chain.mine(2)
    await anchorer.tick()
    world.chain.confirmations = 100
    await anchorer.tick()
    assert await world.states() == ["confirmed"]


async def test_what_was_confirmed_on_the_chain_of_older_settings_is_left_alone(world: World) -> None:
    anchorer = world.start()
    world.seal("a")
    await anchorer.tick()
    world.chain.mine(2)
    await anchorer.tick()
    world.chain = MemoryChain()
    world.chain.chain_id = 5
    world.chain.mine(9)
    await world.start(holder="replica-1").tick()
    assert (await world.states(), world.chain.sent) == (["confirmed"], [])


async def test_an_older_batch_that_got_into_a_higher_block_is_missed_there(world: World) -> None:
    """Its nonce was lost, so it came after the younger one, and may be lost again without that."""
    anchorer = world.start()
    for name in "ab":
        world.seal(name)
        await anchorer.tick()
        world.chain.mine(2)
        await anchorer.tick()
    world.chain.reorganise(4)
    world.chain.use_nonce()
    for _ in range(3):
        await anchorer.tick()
        world.chain.mine(2)
    await anchorer.tick()
    younger, older = await world.batches.list(2)
    assert older.anchor.block_number > younger.anchor.block_number
    assert await world.states() == ["confirmed", "confirmed"]
    head = (await world.chain.find(older.root, older.transactions)).head
    world.chain.reorganise(head - younger.anchor.block_number)
    await anchorer.tick()
    assert await world.states() == ["submitted", "confirmed"]
    world.chain.mine(2)
    await anchorer.tick()
    assert await world.states() == ["confirmed", "confirmed"]


async def test_where_the_newest_is_there_the_older_ones_are_not_asked_for(world: World) -> None:
    anchorer = world.start()
    for name in "abc":
        world.seal(name)
        await anchorer.tick()
        world.chain.mine(2)
        await anchorer.tick()
    asked: list[int] = []
    find = world.chain.find

    async def count(root: Any, transactions: Any, stored: Any) -> Any:
        asked.append(stored.block_number)
        return await find(root, transactions, stored)

    world.chain.find = count
    await anchorer.tick()
    assert asked == [5]
    await anchorer.tick(make_batch=False)
    assert asked == [5]


async def test_a_batch_that_fails_stops_no_later_one(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """M7: it was logged each round, and no later batch was confirmed or made."""
    anchorer = world.start()
    world.chain.confirmations = 3
    for name in ("a", "b"):
        world.seal(name)
        await anchorer.tick()
        world.chain.mine()
        await anchorer.tick()
    assert await world.states() == ["included", "included"]
    step = anchorer._step

    async def failing(record, token, **options):
        if record.sequence == 0:
            raise RuntimeError("not foreseen")
        return await step(record, token, **options)

    monkeypatch.setattr(anchorer, "_step", failing)
    world.chain.mine(3)
    world.seal("c")
    with capture_logs() as logs, pytest.raises(RuntimeError):
        await anchorer.tick()
    assert [(log["event"], log["sequence"]) for log in logs if log["log_level"] == "error"] == [
        ("background_item_skipped", 0)
    ]
    for _ in range(2):
        world.chain.mine()
        with pytest.raises(RuntimeError):
            await anchorer.tick()
    assert await world.states() == ["included", "confirmed", "included"]
