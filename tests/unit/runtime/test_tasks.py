import asyncio
from contextlib import suppress

import pytest

from sessions.runtime import tasks


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
