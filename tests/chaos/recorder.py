"""Recorders that repeat each request until it is acknowledged, and note every answer.

Each has several addresses and changes between them at every request.
"""

import asyncio
import itertools
import random
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, Final

import httpx

from sessions.client.aio import AsyncClient
from sessions.client.errors import AnswerError, ClientError, SealQueuedError
from sessions.client.retry import RetryPolicy
from tests.chaos.content import Plan, plan
from tests.chaos.ledger import Ledger

_TIMEOUT_SECONDS: Final = 8.0
_RETRY_MAX_SECONDS: Final = 2.0
GIVE_UP_SECONDS: Final = 90.0
"""How long a request is repeated, in seconds. No fault lasts as long."""
_IN_FLIGHT: Final = 4
_LATER: Final = (408, 425, 429, 500, 502, 503, 504, 507)
"""Answers after which a recorder repeats. A 500 is a fault of ours all the same: see `Plain._send`."""


class RefusedError(Exception):
    """A service refused for good what it should have taken, or takes too long to take it."""


class Recorder(ABC):
    """Records one session after another."""

    def __init__(self, number: int, seed: int, ledger: Ledger) -> None:
        self._number, self._seed, self._ledger = number, seed, ledger
        self._draw = random.Random(f"{seed}/recorder/{number}")

    async def run(self, go_on: Callable[[], bool], pause_seconds: float) -> None:
        """Record sessions until told to stop; the one that is begun is finished."""
        number = 0
        try:
            while go_on():
                one = plan(self._seed, self._number, number)
                self._ledger.begin(one)
                try:
                    await self._session(one, pause_seconds)
                except* RefusedError as refused:
                    self._ledger.given_up.add(one.session_id)
                    self._ledger.violations += map(str, refused.exceptions)
                number += 1
        finally:
            await self.close()

    async def _session(self, one: Plan, pause_seconds: float) -> None:
        if one.metadata is not None and not one.opened_after:
            await self.open(one)
        order = list(range(one.chunk_count))
        for start in range(0, len(order), 16):  # out of order, but not by far
            piece = order[start : start + 16]
            self._draw.shuffle(piece)
            order[start : start + 16] = piece
        left = iter(order)
        done = itertools.count(1)

        async def work() -> None:
            for index in left:
                await self.chunk(one, index)
                if next(done) == one.opened_after and one.metadata is not None:
                    await self.open(one)
                await asyncio.sleep(pause_seconds * self._draw.random() * 2)

        async with asyncio.TaskGroup() as group:
            for _ in range(_IN_FLIGHT):
                group.create_task(work())
        await self.seal(one)

    @abstractmethod
    async def open(self, one: Plan) -> None:
        """Open the session with its metadata."""

    @abstractmethod
    async def chunk(self, one: Plan, index: int) -> None:
        """Send a chunk until it is acknowledged."""

    @abstractmethod
    async def seal(self, one: Plan) -> None:
        """Seal the session."""

    @abstractmethod
    async def close(self) -> None:
        """Close the connections."""


class Plain(Recorder):
    """HTTP alone, as docs/recorders.md describes it: 202 to a seal means done, and it never asks again."""

    asks_again = False

    def __init__(self, number: int, seed: int, ledger: Ledger, urls: Sequence[str], token: str) -> None:
        super().__init__(number, seed, ledger)
        self._urls = itertools.cycle(urls[number % len(urls) :] + urls[: number % len(urls)])
        headers = {"authorization": f"Bearer {token}"}
        self._http = httpx.AsyncClient(headers=headers, timeout=_TIMEOUT_SECONDS, trust_env=False)

    async def close(self) -> None:
        await self._http.aclose()

    async def open(self, one: Plan) -> None:
        path = f"/api/v1/sessions/{one.session_id}"
        await self._send("PUT", path, (200, 201), json={"metadata": one.metadata})
        self._ledger.opened(one)

    async def chunk(self, one: Plan, index: int) -> None:
        path, data, begun = f"/api/v1/sessions/{one.session_id}/chunks/{index}", one.chunk(index), time.monotonic()
        for _ in range(2 if self._draw.random() < 0.1 else 1):
            answer = await self._send("PUT", path, (200, 201), content=data)
            self._ledger.acknowledged(one, index, answer.json(), begun)
            begun = time.monotonic()
        # Where a chunk is spooled by one processor, another one cannot know of it. What is sent there may come first.
        if index in self._ledger.stored[one.session_id] and self._draw.random() < 0.02:
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

    async def seal(self, one: Plan) -> None:
        path = f"/api/v1/sessions/{one.session_id}"
        end = time.monotonic() + GIVE_UP_SECONDS
        while True:
            answer = await self._send("POST", f"{path}/seal", (200, 202, 409), json=one.seal_body)
            said = answer.json()
            if answer.status_code == httpx.codes.OK:
                self._ledger.sealed(one, said["manifest_sha256"])
                return
            self._ledger.counts[f"seal {said.get('code', answer.status_code)}"] += 1
            # A seal needs the database, storage and all processors at the same time, and faults can prevent that for
            # minutes. The verdict checks after the last fault that the session was sealed.
            if answer.status_code == httpx.codes.ACCEPTED and (not self.asks_again or time.monotonic() > end):
                self._ledger.counts["seal 202 for as long as was asked"] += self.asks_again
                self._ledger.queued.add(one.session_id)
                return
            if said.get("code") == "chunks-missing":  # as the page says: send those, seal again
                self._ledger.violations.append(f"{path}: a seal was refused, and all its chunks are acknowledged")
                for first, last in said["missing"]:
                    for index in range(first, min(last + 1, one.chunk_count)):
                        await self.chunk(one, index)
            elif answer.status_code == httpx.codes.CONFLICT:
                raise RefusedError(f"POST {path}/seal: 409 {answer.text[:300]}")
            if time.monotonic() > end:
                raise RefusedError(f"POST {path}/seal: {answer.status_code} for {GIVE_UP_SECONDS:g} s")
            await asyncio.sleep(1)

    async def _send(self, method: str, path: str, wanted: tuple[int, ...], **options: Any) -> httpx.Response:
        attempt, end, said = 0, time.monotonic() + GIVE_UP_SECONDS, "no answer"
        while time.monotonic() < end:
            attempt += 1
            pause = min(0.1 * 2**attempt, _RETRY_MAX_SECONDS) * (0.5 + self._draw.random())
            try:
                answer = await self._http.request(method, next(self._urls) + path, **options)
            except httpx.TransportError as error:
                self._ledger.counts[f"no answer ({type(error).__name__})"] += 1
            else:
                if answer.status_code in wanted:
                    return answer
                self._ledger.counts[f"answer {answer.status_code}"] += 1
                said = f"{answer.status_code} {answer.text[:300]}"
                if answer.status_code not in _LATER:
                    raise RefusedError(f"{method} {path}: {said}")
                if answer.status_code == httpx.codes.INTERNAL_SERVER_ERROR:
                    self._ledger.violations.append(f"{method} {path}: {said}")
                elif "retry-after" not in answer.headers:
                    self._ledger.violations.append(f"{method} {path}: {answer.status_code} without Retry-After")
            await asyncio.sleep(pause)
        raise RefusedError(f"{method} {path}: not done in {GIVE_UP_SECONDS:g} s, last: {said}")


class Asking(Plain):
    """A plain recorder that asks for the seal until the answer is 200, for at most `GIVE_UP_SECONDS`."""

    asks_again = True


class Ours(Recorder):
    """`sessions.client`, which has one address: the balancer's."""

    def __init__(self, number: int, seed: int, ledger: Ledger, url: str, token: str) -> None:
        super().__init__(number, seed, ledger)
        self._client = AsyncClient(url, token=token, retry=RetryPolicy(budget_seconds=GIVE_UP_SECONDS))

    async def close(self) -> None:
        await self._client.close()

    def _refused(self, what: str, error: ClientError) -> RefusedError:
        code = f" {error.code}" if isinstance(error, AnswerError) else ""
        return RefusedError(f"our client, {what}: {type(error).__name__}{code}: {error}")

    async def open(self, one: Plan) -> None:
        try:
            await self._client.open_session(one.session_id, one.metadata)
        except ClientError as error:
            raise self._refused(f"open {one.session_id}", error) from error
        self._ledger.opened(one)

    async def chunk(self, one: Plan, index: int) -> None:
        begun = time.monotonic()
        try:
            ack = await self._client.put_chunk(one.session_id, index, one.chunk(index))
        except ClientError as error:
            raise self._refused(f"chunk {one.session_id}/{index}", error) from error
        said = {"durability": ack.durability, "envelope_sha256": ack.envelope_sha256.hex()}
        self._ledger.acknowledged(one, index, said, begun)

    async def seal(self, one: Plan) -> None:
        try:
            sealed = await self._client.seal(one.session_id, one.chunk_count if one.counted else None)
        except SealQueuedError:
            self._ledger.queued.add(one.session_id)
        except ClientError as error:
            raise self._refused(f"seal {one.session_id}", error) from error
        else:
            self._ledger.sealed(one, sealed.manifest_sha256.hex())
