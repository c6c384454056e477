"""A few questions of one token at a time, and what waits gives its turn back."""

import asyncio

import pytest
from fastapi import APIRouter, Depends

from sessions.runtime import turns
from sessions.runtime.auth import Authenticator, Role, allow
from sessions.runtime.errors import DomainError
from sessions.runtime.json_route import JsonRoute
from sessions.runtime.limits import LIMITED
from sessions.runtime.turns import AT_ONCE, PAUSE_SECONDS, Traffic, Turns
from tests.unit.runtime.apps import app_of, client_of
from tests.unit.runtime.test_auth import _entry


async def test_so_many_at_once_and_the_others_in_order() -> None:
    line, began, go = Turns(Traffic()), list[int](), asyncio.Event()

    async def question(number: int) -> None:
        async with line.turn():
            began.append(number)
            await go.wait()

    tasks = [asyncio.create_task(question(number)) for number in range(AT_ONCE + 2)]
    await asyncio.sleep(0.01)
    assert began == list(range(AT_ONCE))
    go.set()
    await asyncio.gather(*tasks)
    assert began == list(range(AT_ONCE + 2))


async def test_what_waits_for_something_else_lets_the_next_begin(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(turns, "TURN_SECONDS", 0.02)
    line, go = Turns(Traffic()), asyncio.Event()

    async def seal() -> None:
        async with line.turn():
            await go.wait()

    waiting = [asyncio.create_task(seal()) for _ in range(3 * AT_ONCE)]
    async with asyncio.timeout(1), line.turn():
        pass
    go.set()
    await asyncio.gather(*waiting)
    assert line._free._value == AT_ONCE  # each turn came back once


@pytest.mark.parametrize("coming", [False, True])
async def test_while_chunks_come_in_they_have_the_time_between_turns(coming: bool) -> None:
    traffic = Traffic()
    line, loop = Turns(traffic), asyncio.get_running_loop()
    if coming:
        traffic.note()

    async def question() -> None:
        async with line.turn():
            await asyncio.sleep(0.02)

    await asyncio.gather(*(question() for _ in range(AT_ONCE)))
    began = loop.time()
    async with line.turn():
        pass
    assert (loop.time() - began >= PAUSE_SECONDS / 2) == coming
    await asyncio.sleep(2 * PAUSE_SECONDS)
    assert line._free._value == AT_ONCE


def test_traffic_is_that_of_the_last_moment(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1000.0
    monkeypatch.setattr(turns.time, "monotonic", lambda: now)
    traffic = Traffic()
    assert not traffic.is_coming
    traffic.note()
    now += 0.09
    assert traffic.is_coming
    now += 0.02
    assert not traffic.is_coming


@pytest.mark.parametrize("how", ["error", "cancelled", "cancelled in line"])
async def test_a_turn_comes_back_whichever_way_its_question_ends(how: str) -> None:
    line, go = Turns(Traffic()), asyncio.Event()

    async def question() -> None:
        async with line.turn():
            if how == "error":
                raise ValueError
            await go.wait()

    tasks = [asyncio.create_task(question()) for _ in range(AT_ONCE + (how == "cancelled in line"))]
    await asyncio.sleep(0.01)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    assert line._free._value == AT_ONCE


async def test_a_question_does_not_wait_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(turns, "WAIT_SECONDS", 0.02)
    before = LIMITED.labels("turns")._value.get()
    line, go = Turns(Traffic()), asyncio.Event()

    async def question() -> None:
        async with line.turn():
            await go.wait()

    holding = [asyncio.create_task(question()) for _ in range(AT_ONCE)]
    await asyncio.sleep(0.01)
    with pytest.raises(DomainError, match="2 questions at a time") as caught:
        await question()
    assert (caught.value.code, caught.value.retry_after_seconds) == ("too-many-requests", 1)
    assert LIMITED.labels("turns")._value.get() == before + 1
    go.set()
    await asyncio.gather(*holding)


@pytest.mark.parametrize(("role", "together"), [(Role.AUDIT, AT_ONCE), (Role.PROCESSOR, 20)])
async def test_a_token_that_asks_a_lot_leaves_the_others_their_turns(role: Role, together: int) -> None:
    """A processor asks for many recorders, each of which takes turns at the processor."""
    known = Authenticator([_entry("a", role), _entry("b", Role.AUDIT)])
    gate, running = asyncio.Event(), list[str]()
    routes = APIRouter(dependencies=[Depends(allow(role, Role.AUDIT))], route_class=JsonRoute)

    @routes.get("/slow/{name}")
    async def slow(name: str) -> None:
        running.append(name)
        await gate.wait()

    def asked(name: str) -> dict[str, str]:
        return {"authorization": f"Bearer {name}"}

    async with client_of(app_of(routes, authenticator=known)) as client:
        many = [asyncio.create_task(client.get("/slow/a", headers=asked("a"))) for _ in range(20)]
        await asyncio.sleep(0.05)
        assert running == ["a"] * together
        other = asyncio.create_task(client.get("/slow/b", headers=asked("b")))
        await asyncio.sleep(0.03)
        assert running[-1] == "b"
        gate.set()
        assert {answer.status_code for answer in await asyncio.gather(*many, other)} == {200}
