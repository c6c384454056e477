"""A recorder that does not give up: it repeats every request until it is acknowledged, and notes what it was told."""

import asyncio
import random
import time
from collections.abc import Callable
from typing import Any, Final

import httpx

from tests.chaos.content import Plan, plan
from tests.chaos.ledger import Ledger

_TIMEOUT_SECONDS: Final = 8.0
_RETRY_MAX_SECONDS: Final = 2.0
_IN_FLIGHT: Final = 4
_LATER: Final = (408, 425, 429, 500, 502, 503, 504, 507)
"""Answers after which a recorder repeats. A 500 is a fault of ours all the same: see `Recorder._send`."""


class RefusedError(Exception):
    """A service refused for good what it should have taken."""


class Recorder:
    """Records one session after another."""

    def __init__(self, number: int, seed: int, url: str, token: str, ledger: Ledger) -> None:
        self._number, self._seed, self._ledger = number, seed, ledger
        self._draw = random.Random(f"{seed}/recorder/{number}")
        headers = {"authorization": f"Bearer {token}"}
        self._http = httpx.AsyncClient(base_url=url, headers=headers, timeout=_TIMEOUT_SECONDS, trust_env=False)

    async def run(self, go_on: Callable[[], bool], pause_seconds: float) -> None:
        """Record sessions until told to stop; the one that is begun is finished."""
        async with self._http:
            number = 0
            while go_on():
                await self._session(plan(self._seed, self._number, number), pause_seconds)
                number += 1

    async def _session(self, one: Plan, pause_seconds: float) -> None:
        self._ledger.begin(one)
        await self._send("PUT", f"/api/v1/sessions/{one.session_id}", (200, 201), json={"metadata": {"seed": "chaos"}})
        order = list(range(one.chunk_count))
        for start in range(0, len(order), 16):  # out of order, but not by far
            piece = order[start : start + 16]
            self._draw.shuffle(piece)
            order[start : start + 16] = piece
        left = iter(order)

        async def work() -> None:
            for index in left:
                await self._chunk(one, index)
                await asyncio.sleep(pause_seconds * self._draw.random() * 2)

        async with asyncio.TaskGroup() as group:
            for _ in range(_IN_FLIGHT):
                group.create_task(work())
        await self._seal(one)

    async def _chunk(self, one: Plan, index: int) -> None:
        path, data, begun = f"/api/v1/sessions/{one.session_id}/chunks/{index}", one.chunk(index), time.monotonic()
        for _ in range(2 if self._draw.random() < 0.1 else 1):
            answer = await self._send("PUT", path, (200, 201), content=data)
            self._ledger.acknowledged(one, index, answer.json(), begun)
            begun = time.monotonic()
        if self._draw.random() < 0.02:
            other = await self._send("PUT", path, (409, 201, 200), content=data + b"?")
            said = other.json()
            if other.status_code != httpx.codes.CONFLICT:
                # While storage is away nobody knows what it has at this index: such a chunk is quarantined later. It is
                # there already (200) when the first answer was lost.
                if said["durability"] != "spooled":
                    self._ledger.violations.append(f"{path}: other content was stored at a taken index")
                self._ledger.counts["other content in quarantine"] += 1
            else:
                self._ledger.counts[f"refused {said['code']}"] += 1

    async def _seal(self, one: Plan) -> None:
        path = f"/api/v1/sessions/{one.session_id}"
        while True:
            answer = await self._send("POST", f"{path}/seal", (200, 202, 409), json={"chunk_count": one.chunk_count})
            if answer.status_code == httpx.codes.OK:
                self._ledger.sealed(one, answer.json()["manifest_sha256"])
                return
            # Queued, or chunks that are acknowledged are still on their way: both end.
            self._ledger.counts[f"seal {answer.status_code}"] += 1
            await asyncio.sleep(1)

    async def _send(self, method: str, path: str, wanted: tuple[int, ...], **options: Any) -> httpx.Response:
        attempt = 0
        while True:
            attempt += 1
            pause = min(0.1 * 2**attempt, _RETRY_MAX_SECONDS) * (0.5 + self._draw.random())
            try:
                answer = await self._http.request(method, path, **options)
            except httpx.TransportError as error:
                self._ledger.counts[f"no answer ({type(error).__name__})"] += 1
            else:
                if answer.status_code in wanted:
                    return answer
                self._ledger.counts[f"answer {answer.status_code}"] += 1
                said = f"{method} {path}: {answer.status_code} {answer.text[:300]}"
                if answer.status_code not in _LATER:
                    self._ledger.violations.append(said)
                    raise RefusedError(said)
                if answer.status_code == httpx.codes.INTERNAL_SERVER_ERROR:
                    self._ledger.violations.append(said)
                elif "retry-after" not in answer.headers:
                    self._ledger.violations.append(f"{method} {path}: {answer.status_code} without Retry-After")
            await asyncio.sleep(pause)
