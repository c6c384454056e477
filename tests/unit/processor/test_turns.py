"""Work on the event loop, one piece a turn."""

import asyncio

from sessions.processor.turns import Turns


async def test_one_in_each_turn_of_the_loop_in_order() -> None:
    turns, order = Turns(), list[str]()

    async def work(number: int) -> None:
        await turns.mine()
        order.append(f"work {number}")

    async def others() -> None:
        for number in range(4):
            order.append(f"turn {number}")
            await asyncio.sleep(0)

    await asyncio.gather(*(work(number) for number in range(3)), others())
    assert [entry for entry in order if entry.startswith("work")] == ["work 0", "work 1", "work 2"]
    first, second, third = (order.index(f"work {number}") for number in range(3))
    assert any(entry.startswith("turn") for entry in order[first:second])
    assert any(entry.startswith("turn") for entry in order[second:third])


async def test_nobody_waits_when_nobody_is_there() -> None:
    turns = Turns()
    for _ in range(3):
        waiting = turns.mine()
        try:
            waiting.send(None)
        except StopIteration:
            pass
        else:
            raise AssertionError("it waited")
        await asyncio.sleep(0)
        await asyncio.sleep(0)


async def test_who_gave_up_costs_no_turn() -> None:
    turns = Turns()
    await turns.mine()
    gone, stays = asyncio.create_task(turns.mine()), asyncio.create_task(turns.mine())
    await asyncio.sleep(0)
    gone.cancel()
    await asyncio.wait_for(stays, 5)
    await asyncio.sleep(0)
    await asyncio.wait_for(turns.mine(), 5)
