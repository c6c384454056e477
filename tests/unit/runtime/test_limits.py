"""How much a token may ask, and how often one may guess."""

import asyncio

import pytest
from fastapi import APIRouter, Depends

from sessions.runtime import limits
from sessions.runtime.auth import Authenticator, Role, allow
from sessions.runtime.errors import DomainError
from sessions.runtime.limits import FAILURES_BURST, LIMITED, Bucket, Failures, Limits, Usage
from tests.unit.runtime.apps import app_of, client_of
from tests.unit.runtime.test_auth import _entry


class Clock:
    now = 1000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(limits, "time", clock)
    return clock


def test_a_bucket_gives_its_burst_and_then_its_rate(clock: Clock) -> None:
    bucket = Bucket(4, 8)
    assert [bucket.take() for _ in range(8)] == [0] * 8
    assert bucket.take() == pytest.approx(0.25)
    clock.now += 0.125
    assert bucket.take() == pytest.approx(0.125)
    clock.now += 0.125
    assert bucket.take() == 0
    clock.now += 1000
    assert [bucket.take() > 0 for _ in range(9)] == [False] * 8 + [True]


def test_a_token_that_asks_too_often_is_told_when_to_come_back(clock: Clock) -> None:
    usage = Usage(Limits(rate_per_second=2))
    usage.enter()
    usage.enter()
    before = LIMITED.labels("rate")._value.get()
    with pytest.raises(DomainError, match="slow down") as caught:
        usage.enter()
    assert (caught.value.code, caught.value.retry_after_seconds) == ("too-many-requests", 1)
    assert LIMITED.labels("rate")._value.get() == before + 1
    assert usage.in_flight == 2  # the one that was refused is none
    clock.now += 0.5
    usage.enter()


def test_requests_in_flight_are_counted_until_they_are_answered() -> None:
    usage = Usage(Limits(connections_max=2))
    leave = usage.enter()
    usage.enter()
    with pytest.raises(DomainError, match="2 requests in flight") as caught:
        usage.enter()
    assert caught.value.code == "too-many-requests"
    leave()
    usage.enter()


def test_0_is_no_limit(clock: Clock) -> None:
    usage = Usage(Limits())
    for _ in range(10_000):
        usage.enter()


def test_guesses_are_limited_and_then_tell_nothing(clock: Clock) -> None:
    failures = Failures(1, 2)
    codes = [failures.refusal("why").code for _ in range(3)]
    assert codes == ["unauthorized", "unauthorized", "too-many-requests"]
    assert failures.refusal("why").retry_after_seconds == 1
    assert "why" not in str(failures.refusal("why"))
    clock.now += 1
    assert failures.refusal("why").code == "unauthorized"


def _routes(gate: asyncio.Event) -> APIRouter:
    routes = APIRouter(prefix="/api/v1", dependencies=[Depends(allow(Role.AUDIT))])

    @routes.get("/quick")
    async def quick() -> str:
        return "seen"

    @routes.get("/slow")
    async def slow() -> str:
        await gate.wait()
        return "seen"

    @routes.get("/crash")
    async def crash() -> None:
        raise RuntimeError("boom")

    return routes


_A, _B = ({"authorization": f"Bearer {token}"} for token in "ab")


async def test_one_token_at_its_limit_leaves_the_others_alone(clock: Clock) -> None:
    known = Authenticator([_entry("a", Role.AUDIT), _entry("b", Role.AUDIT)], Limits(rate_per_second=3))
    async with client_of(app_of(_routes(asyncio.Event()), authenticator=known)) as client:
        answers = [await client.get("/api/v1/quick", headers=_A) for _ in range(4)]
        assert [answer.status_code for answer in answers] == [200, 200, 200, 429]
        assert (answers[3].json()["code"], answers[3].headers["retry-after"]) == ("too-many-requests", "1")
        assert answers[3].headers["content-type"] == "application/problem+json"
        assert (await client.get("/api/v1/quick", headers=_B)).status_code == 200
        known.replace([_entry("a", Role.AUDIT)])  # a file that is read again is no way around it
        assert (await client.get("/api/v1/quick", headers=_A)).status_code == 429
        assert known._accounts.keys() == {"a"}


async def test_a_request_is_in_flight_until_it_is_answered_whichever_way() -> None:
    gate = asyncio.Event()
    known = Authenticator([_entry("a", Role.AUDIT), _entry("b", Role.RECORD)], Limits(connections_max=1))
    async with client_of(app_of(_routes(gate), authenticator=known)) as client:
        for path, status in (("quick", 200), ("crash", 500), ("quick", 200)):
            assert (await client.get(f"/api/v1/{path}", headers=_A)).status_code == status
        for _ in range(2):
            assert (await client.get("/api/v1/quick", headers=_B)).status_code == 403
        slow = asyncio.create_task(client.get("/api/v1/slow", headers=_A))
        await asyncio.sleep(0.05)
        refused = await client.get("/api/v1/quick", headers=_A)
        assert (refused.status_code, refused.json()["code"]) == (429, "too-many-requests")
        gate.set()
        assert (await slow).status_code == 200
        assert (await client.get("/api/v1/quick", headers=_A)).status_code == 200
        gate.clear()
        gone = asyncio.create_task(client.get("/api/v1/slow", headers=_A))
        await asyncio.sleep(0.05)
        gone.cancel()
        await asyncio.gather(gone, return_exceptions=True)
        assert (await client.get("/api/v1/quick", headers=_A)).status_code == 200


async def test_guessing_does_not_lock_out_who_has_a_token(clock: Clock) -> None:
    known = Authenticator([_entry("a", Role.AUDIT)])
    async with client_of(app_of(_routes(asyncio.Event()), authenticator=known)) as client:
        for _ in range(FAILURES_BURST):
            assert (await client.get("/api/v1/quick", headers=_B)).status_code == 401
        for headers in (_B, {}):
            refused = await client.get("/api/v1/quick", headers=headers)
            assert (refused.status_code, refused.headers["retry-after"]) == (429, "1")
        assert (await client.get("/api/v1/quick", headers=_A)).status_code == 200
