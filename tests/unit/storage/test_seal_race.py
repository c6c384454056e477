"""Writers and sealers, step by step in many orders: nothing is acknowledged that the seal does not cover.

Every access to a store waits for its turn, and a dice chooses whose turn is next, so all that can happen between two
accesses of one does happen. Each seed is one order of events, and the same at each run.
"""

import asyncio
import random
from typing import Any

import pytest

from sessions.core import frames, merkle
from sessions.core.envelope import missing_leaf_input
from sessions.core.merkle import leaf_hash
from sessions.core.types import SessionId
from sessions.runtime.errors import DomainError
from sessions.storage import ingest, sealing
from sessions.storage.ingest import FrameResult, Intake
from sessions.storage.sealing import Sealer, covers, sealed_manifest
from sessions.storage.store import SessionStatus
from tests.unit.storage.chunks import House, new_chunk

A = SessionId("a")
_ACKNOWLEDGED = (FrameResult.STORED, FrameResult.EXISTS)


class _Turns:
    """Hands out turns, in an order that the seed decides."""

    def __init__(self, seed: int) -> None:
        self._dice = random.Random(seed)
        self._waiting: list[asyncio.Future[None]] = []

    async def wait(self) -> None:
        turn = asyncio.get_running_loop().create_future()
        self._waiting.append(turn)
        await turn

    async def run(self, *works: Any) -> list[Any]:
        tasks = [asyncio.ensure_future(work) for work in works]
        while not all(task.done() for task in tasks):
            for _ in range(4):  # let everybody come to their next access
                await asyncio.sleep(0)
            if self._waiting:
                self._waiting.pop(self._dice.randrange(len(self._waiting))).set_result(None)
        return [task.result() for task in tasks]


class _Stepped:
    """A store each access of which waits for its turn, and is one step."""

    def __init__(self, store: Any, turns: _Turns) -> None:
        self._store, self._turns = store, turns

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._store, name)

        async def step(*arguments: Any) -> Any:
            await self._turns.wait()
            return await method(*arguments)

        return step


async def _at_once(work: Any, /, *arguments: Any, **options: Any) -> Any:
    return work(*arguments, **options)


@pytest.mark.parametrize("sealed_by", ["recorder", "idle"])
@pytest.mark.parametrize("block", range(4))
async def test_nothing_is_acknowledged_and_uncovered(monkeypatch, block: int, sealed_by: str) -> None:
    monkeypatch.setattr(ingest, "_SEALING_POLL_SECONDS", 0)
    monkeypatch.setattr(sealing.asyncio, "to_thread", _at_once)
    outcomes: set[str] = set()
    for seed in range(150 * block, 150 * (block + 1)):
        outcomes |= await _one_order(seed, sealed_by)
    # The orders are worth something only if they lead to everything that there is.
    assert {"stored", "sealed", "closed"} <= outcomes


async def _one_order(seed: int, sealed_by: str) -> set[str]:
    house, turns = House(), _Turns(seed)
    await house.session("a", 0, 2)
    sessions, chunks, tiles = (_Stepped(store, turns) for store in (house.sessions, house.chunks, house.tiles))
    acknowledged: set[int] = set()
    seen: set[str] = set()

    async def write(index: int) -> None:
        body = frames.join([new_chunk("a", index).envelope])
        for _ in range(2):  # a recorder repeats
            answer = (await Intake(sessions, chunks, house.activity).submit(body))[0]
            seen.add(answer.result.value)
            if answer.result in _ACKNOWLEDGED:
                acknowledged.add(index)

    async def seal() -> None:
        for _ in range(3):
            try:
                await Sealer(sessions, chunks, tiles).seal(A, None, sealed_by)
            except DomainError as error:
                seen.add(error.code)
                assert error.code in ("chunks-missing", "session-open"), error.code  # noqa: PT017
            else:
                return

    await turns.run(write(1), seal(), write(3), seal(), write(4), seal(), write(6))
    record, stored = house.sessions.records[A], house.chunks.records[A]
    assert acknowledged <= stored.keys(), f"order {seed}"
    if record.status is SessionStatus.SEALED:
        seen.add("closed")
        manifest = sealed_manifest(record)
        uncovered = [index for index in acknowledged if not covers(manifest, index)]
        assert not uncovered, f"order {seed}: {uncovered} acknowledged, and not covered"
        leaves = [
            stored[index].fingerprint.leaf_hash if covers(manifest, index) else leaf_hash(missing_leaf_input(A, index))
            for index in range(manifest.chunk_count)
        ]
        assert manifest.root == merkle.root(leaves), f"order {seed}"
        assert record.seal is not None
        assert {attempt for _, attempt, _, _ in house.tiles.tiles} <= {record.seal.tiles_attempt}, f"order {seed}"
    return seen
