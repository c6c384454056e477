"""One recorder floods, fifty are slow: the p99 of each slow one stays within three times what it is when it is quiet.

`FAIRNESS_ROUNDS=60 scripts/test tests/e2e/test_fairness.py` measures for longer.
"""

import asyncio
import math
import os
import statistics
import sys
import time
from collections.abc import Iterator
from typing import Final, TypeAlias

import pytest

from bench.load import Connection
from scripts.devstack.stack import Stack
from tests.conftest import Figure, own_stack
from tests.e2e.conftest import session_name

SLOW: Final = 50
SLOW_BYTES: Final = 16 * 1024
INTERVAL_SECONDS: Final = 0.2
ROUNDS: Final = int(os.environ.get("FAIRNESS_ROUNDS", "14"))
"""So often it is quiet for a while and then flooded: what else the machine does falls on both alike.

More than two hundred times in each, so that the second in which the disk writes MongoDB's checkpoint, and nobody is
answered whether there is a flood or not, is less than one of a hundred.
"""
PHASE_SECONDS: Final = 3.75
WARM_SECONDS: Final = 2.0
"""At first nothing is measured: sessions are opened, and the services do much for the first time."""
SETTLE_SECONDS: Final = 0.35
"""At a phase's beginning what is measured belongs to neither: the flood has to start, or what is in flight to end."""
FLOOD_IN_FLIGHT: Final = 32
FLOOD_BYTES: Final = 1024 * 1024
BOUND: Final = 3.0

Times: TypeAlias = dict[str, list[float]]


async def put(connection: Connection, session: str, index: int, body: bytes) -> int:
    status, _ = await connection.request("PUT", f"/api/v1/sessions/{session}/chunks/{index}", body)
    return status


async def flood(url: str, token: str, session: str) -> None:
    """Send as fast as it goes while told to: a line of stdin starts it or stops it, its end ends it."""
    loop, on, ended = asyncio.get_running_loop(), asyncio.Event(), False
    sent = 0

    async def one(start: int) -> None:
        nonlocal sent
        connection = Connection(url, token)
        index, body = start, os.urandom(FLOOD_BYTES)
        while True:
            await on.wait()
            if ended:
                break
            status = await put(connection, session, index, body)
            assert status in (200, 201, 503), status
            index += FLOOD_IN_FLIGHT
            sent += 1
        await connection.close()

    sending = asyncio.gather(*map(one, range(FLOOD_IN_FLIGHT)))
    print("ready", flush=True)
    while await loop.run_in_executor(None, sys.stdin.readline):
        on.clear() if on.is_set() else on.set()
    ended = True
    on.set()
    await sending
    print(sent)


class Phases:
    """What a moment belongs to: quiet, flooded, or neither."""

    def __init__(self) -> None:
        self.ended = False
        self._name = ""
        self._began = math.inf

    def begin(self, name: str) -> None:
        self._name, self._began = name, time.monotonic()

    def of(self, moment: float) -> str | None:
        return self._name if moment >= self._began + SETTLE_SECONDS else None


async def _slow(url: str, token: str, prefix: str, number: int, phases: Phases) -> Times:
    """Seconds until each acknowledgement to one slow recorder, by phase."""
    times: Times = {"quiet": [], "flooded": []}
    connection = Connection(url, token)
    session, body = f"{prefix}-{number}", os.urandom(SLOW_BYTES)
    due, index = time.monotonic() + INTERVAL_SECONDS * number / SLOW, 0
    while not phases.ended:
        await asyncio.sleep(due - time.monotonic())
        began = time.monotonic()
        phase = phases.of(began)
        assert await put(connection, session, index, body) == 201
        ended = time.monotonic()
        if phase is not None:
            times[phase].append(ended - began)
        index += 1
        due = max(due + INTERVAL_SECONDS, ended)
    await connection.close()
    return times


async def _measured(url: str, token: str, flooding: asyncio.subprocess.Process) -> list[Times]:
    assert flooding.stdin is not None
    assert flooding.stdout is not None
    assert await flooding.stdout.readline() == b"ready\n"
    phases, prefix = Phases(), session_name("slow")
    slow = [asyncio.create_task(_slow(url, token, prefix, number, phases)) for number in range(SLOW)]
    await asyncio.sleep(WARM_SECONDS)
    for _ in range(ROUNDS):
        for name in ("quiet", "flooded"):
            phases.begin(name)
            await asyncio.sleep(PHASE_SECONDS)
            flooding.stdin.write(b"\n")
    phases.ended = True
    return await asyncio.gather(*slow)


async def _run(url: str, token: str) -> tuple[list[Times], int]:
    """What each slow recorder waited for, and how many MiB the flood sent."""
    code = "import asyncio, sys; from tests.e2e.test_fairness import flood; asyncio.run(flood(*sys.argv[1:]))"
    command = [sys.executable, "-c", code, url, token, session_name("flood")]
    pipe = asyncio.subprocess.PIPE
    flooding = await asyncio.create_subprocess_exec(*command, stdin=pipe, stdout=pipe)
    times = await _measured(url, token, flooding)
    told, _ = await flooding.communicate(b"")
    assert flooding.returncode == 0
    return times, int(told)


def p99(times: list[float]) -> float:
    return sorted(times)[math.ceil(0.99 * len(times)) - 1]


def _shown(times: list[float], all_times: list[float]) -> str:
    shown = {"median": statistics.median(all_times), "p99 of a half": statistics.median(times), "worst p99": max(times)}
    return ", ".join(f"{name} {1000 * value:.1f} ms" for name, value in shown.items())


@pytest.fixture
def fresh(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    yield from own_stack(tmp_path_factory)


def test_a_flood_does_not_starve_the_slow(fresh: Stack, figure: Figure) -> None:
    times, sent = asyncio.run(_run(fresh.processor_url, fresh.tokens["record"]))
    fewest = min(len(one[phase]) for one in times for phase in one)
    assert fewest > 5 * ROUNDS, "a machine that is so slow tells nothing"
    quiet, flooded = [p99(one["quiet"]) for one in times], [p99(one["flooded"]) for one in times]
    ratios = [beside / alone for beside, alone in zip(flooded, quiet, strict=True)]
    every = {phase: [value for one in times for value in one[phase]] for phase in ("quiet", "flooded")}
    figure(
        f"fifty slow recorders, {fewest} times each at least, quiet: {_shown(quiet, every['quiet'])}; beside a flood of"
        f" {sent * FLOOD_BYTES / 2**20 / (ROUNDS * PHASE_SECONDS):.0f} MiB/s: {_shown(flooded, every['flooded'])};"
        f" p99 to p99: median {statistics.median(ratios):.2f}, worst {max(ratios):.2f}"
    )
    assert max(ratios) < BOUND
