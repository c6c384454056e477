import asyncio
import random

import pytest

from sessions.runtime.budget import ByteBudget
from sessions.runtime.errors import DomainError


async def _settle() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


async def test_first_come_first_served() -> None:
    budget, order = ByteBudget(10), []
    gates = {name: asyncio.Event() for name in "abcd"}

    async def hold(name: str, size: int) -> None:
        async with budget.reserve(size):
            order.append(name)
            await gates[name].wait()

    tasks = []
    for name, size in (("a", 6), ("b", 8), ("c", 1), ("d", 2)):
        tasks.append(asyncio.create_task(hold(name, size)))
        await _settle()
    assert order == ["a"]  # c would fit, but b was first
    gates["a"].set()
    await _settle()
    assert order == ["a", "b", "c"]
    assert budget.used_bytes == 9
    gates["b"].set()
    await _settle()
    assert order == ["a", "b", "c", "d"]
    gates["c"].set()
    gates["d"].set()
    await asyncio.gather(*tasks)
    assert budget.used_bytes == 0


async def test_who_waits_too_long_is_told_to_come_back() -> None:
    budget = ByteBudget(10, wait_seconds=0.02)
    async with budget.reserve(10):
        with pytest.raises(DomainError) as caught:
            async with budget.reserve(1):
                pass
        assert (caught.value.code, caught.value.retry_after_seconds) == ("overloaded", 1)
        assert budget.is_exhausted
        assert budget.used_bytes == 10
    assert budget.used_bytes == 0
    async with budget.reserve(10):
        assert budget.used_bytes == 10


async def test_more_than_the_whole_is_the_whole() -> None:
    budget = ByteBudget(10)
    async with budget.reserve(11):
        assert budget.used_bytes == 10
    async with budget.reserve(0):
        assert budget.used_bytes == 0


async def test_a_block_that_fails_gives_its_bytes_back() -> None:
    budget = ByteBudget(10)
    with pytest.raises(KeyError):
        async with budget.reserve(4):
            raise KeyError
    assert budget.used_bytes == 0


async def test_a_large_waiter_that_leaves_lets_the_smaller_ones_in() -> None:
    budget = ByteBudget(10)

    async def take(size: int) -> None:
        async with budget.reserve(size):
            pass

    async with budget.reserve(5):
        large = asyncio.create_task(take(10))
        await _settle()
        small = asyncio.create_task(take(3))
        await _settle()
        assert not small.done()
        large.cancel()
        await small
        assert large.cancelled()
        assert budget.used_bytes == 5
    assert budget.used_bytes == 0


async def test_cancelled_in_the_moment_of_the_grant() -> None:
    budget = ByteBudget(10)

    async def take() -> None:
        async with budget.reserve(10):
            await asyncio.sleep(0)

    async with budget.reserve(10):
        waiting = asyncio.create_task(take())
        await _settle()
    waiting.cancel()  # the bytes are its own by now, it has not run yet
    await asyncio.gather(waiting, return_exceptions=True)
    assert budget.used_bytes == 0


@pytest.mark.parametrize("seed", range(5))
async def test_whatever_happens_all_bytes_come_back(seed: int) -> None:
    dice = random.Random(seed)
    budget = ByteBudget(100, wait_seconds=0.01)
    most = 0

    async def take() -> None:
        nonlocal most
        async with budget.reserve(dice.randrange(130), dice.choice("abc")):
            most = max(most, budget.used_bytes)
            await asyncio.sleep(dice.random() / 200)

    tasks = [asyncio.create_task(take()) for _ in range(120)]
    for _ in range(40):
        await asyncio.sleep(dice.random() / 1000)
        dice.choice(tasks).cancel()
    results = await asyncio.gather(*tasks, return_exceptions=True)
    assert {type(result) for result in results} <= {type(None), DomainError, asyncio.CancelledError}
    assert budget.used_bytes == 0
    assert 0 < most <= 100
    async with budget.reserve(100):
        pass


async def test_who_asks_for_much_waits_for_itself() -> None:
    budget = ByteBudget(100)
    served: list[str] = []
    all_wait = asyncio.Event()

    async def take(owner: str, size: int) -> None:
        async with budget.reserve(size, owner):
            served.append(owner)
            await all_wait.wait()

    flood = [asyncio.create_task(take("flood", 50)) for _ in range(20)]
    await _settle()
    slow = [asyncio.create_task(take(f"slow-{number}", 10)) for number in range(5)]
    await _settle()
    all_wait.set()
    await asyncio.gather(*flood, *slow)
    assert sorted(served[2:7]) == [f"slow-{number}" for number in range(5)]


async def test_those_who_wait_take_turns() -> None:
    budget = ByteBudget(10)
    served: list[str] = []

    async def take(owner: str) -> None:
        async with budget.reserve(10, owner):
            served.append(owner)

    async with budget.reserve(10, "first"):
        tasks = [asyncio.create_task(take(owner)) for owner in ("a", "a", "a", "b", "c")]
        await _settle()
    await asyncio.gather(*tasks)
    assert served == ["a", "b", "c", "a", "a"]


async def test_nothing_is_an_amount_too() -> None:
    budget = ByteBudget(10)
    async with budget.reserve(0, "a"), budget.reserve(0, "a"), budget.reserve(5, "a"):
        assert budget.used_bytes == 5
    assert budget.used_bytes == 0


async def test_parts_of_one_owner_take_turns_and_are_no_more_turns_for_it() -> None:
    """A token with a thousand sessions has as many turns as one with a single session."""
    budget = ByteBudget(10)
    served: list[str] = []

    async def take(owner: str, part: str) -> None:
        async with budget.reserve(10, owner, part):
            served.append(owner + part)

    async with budget.reserve(10, "first"):
        waiting = [("a", "1"), ("a", "1"), ("a", "2"), ("a", "3"), ("b", "1"), ("b", "1")]
        tasks = [asyncio.create_task(take(*one)) for one in waiting]
        await _settle()
        assert budget.is_exhausted
    await asyncio.gather(*tasks)
    assert served == ["a1", "b1", "a2", "b1", "a3", "a1"]
    assert not budget.is_exhausted, "nobody was refused"


async def test_an_owner_holds_no_more_than_its_bound() -> None:
    budget = ByteBudget(100, wait_seconds=0.02, owner_max_bytes=50)
    async with budget.reserve(40, "a", "1"):
        with pytest.raises(DomainError):
            async with budget.reserve(20, "a", "2"):
                pass
        async with budget.reserve(60, "b"):  # alone it may be more
            assert budget.used_bytes == 100


async def test_who_may_hold_no_more_keeps_nobody_waiting() -> None:
    budget = ByteBudget(100, wait_seconds=1, owner_max_bytes=50)
    async with budget.reserve(50, "a"):
        waiting = asyncio.create_task(budget.acquire(10, "a"))
        await _settle()
        async with asyncio.timeout(0.1), budget.reserve(50, "b"):
            pass
    await waiting
    assert budget.used_bytes == 10


async def test_a_reservation_grows_by_steps() -> None:
    budget = ByteBudget(10 * 1024 * 1024)
    async with budget.reserve(0, "a") as room:
        assert room.try_grow(1, 5 * 1024 * 1024)
        assert room.size_bytes == 64 * 1024
        assert room.try_grow(64 * 1024 + 1, 5 * 1024 * 1024)
        assert room.size_bytes == 128 * 1024
        await room.grow(3 * 1024 * 1024)
        assert room.try_grow(3 * 1024 * 1024 + 1, 3 * 1024 * 1024 + 7)
        assert budget.used_bytes == room.size_bytes == 3 * 1024 * 1024 + 7
        async with budget.reserve(7 * 1024 * 1024 - 7, "b"):
            assert not room.try_grow(4 * 1024 * 1024, 5 * 1024 * 1024)
    assert budget.used_bytes == 0
