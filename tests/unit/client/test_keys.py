"""The calls about keys: answers, loops, and what is not an answer."""

import pytest
from starlette.responses import JSONResponse

from sessions.client import AsyncClient, Client
from sessions.client import errors as e
from sessions.client.keys import key_status, rotation_step
from sessions.core import key_ring
from sessions.core.errors import FormatError
from sessions.core.key_ring import KeyRing, WrappedDek
from tests.unit.client.conftest import QUICK
from tests.unit.client.fake import TOKEN, Fake

STATUS = {
    "active": "new",
    "keks": [{"kek_id": "new", "in_file": True, "rings": 1}, {"kek_id": "old", "in_file": False, "rings": 4}],
    "recipient": "1" * 16,
    "recipients": [{"recipient": None, "rings": 2}, {"recipient": "1" * 16, "rings": 3}],
    "unsealed": ["a", "b"],
}
STEP = {"rings": 2, "rewrapped": 1, "overtaken": 0, "failed": [], "next_cursor": None}
FAILURE = {"session_id": "a", "kek_id": "old", "detail": "why"}


def test_reading_a_status() -> None:
    status = key_status({**STATUS, "new": 1})
    assert (status.rings_under_old_keks, status.rings_to_seal, status.outdated) == (4, 2, 4)
    assert key_status({**STATUS, "recipient": None}).rings_to_seal == 0
    assert [kek.in_file for kek in status.keks] == [True, False]


@pytest.mark.parametrize(
    "change",
    [
        {"active": None},
        {"keks": None},
        {"keks": [{"kek_id": "k", "in_file": 1, "rings": 1}]},
        {"keks": [{"kek_id": "k", "rings": 1}]},
        {"recipient": "x"},
        {"recipients": [{"recipient": "x", "rings": 1}]},
        {"recipients": [5]},
        {"unsealed": [5]},
    ],
)
def test_what_is_no_status(change: dict) -> None:
    with pytest.raises(FormatError):
        key_status(STATUS | change)


@pytest.mark.parametrize(
    "change", [{"rings": -1}, {"rewrapped": None}, {"failed": [{}]}, {"failed": {}}, {"next_cursor": 5}]
)
def test_what_is_no_step(change: dict) -> None:
    with pytest.raises(FormatError):
        rotation_step(STEP | change)


def _status(old: int) -> JSONResponse:
    return JSONResponse({**STATUS, "recipient": None, "keks": [{"kek_id": "old", "in_file": True, "rings": old}]})


async def test_a_rotation_goes_on_while_something_moves(client: AsyncClient, fake: Fake) -> None:
    """Another processor opens sessions under the old KEK, behind the walk."""
    fake.fault("GET", "/keys", _status(3), _status(1), _status(0))
    steps = [STEP | {"next_cursor": "c"}, STEP | {"overtaken": 1}, STEP]
    fake.fault("POST", "/keys/rotate", *(JSONResponse(step) for step in steps))
    seen: list[tuple[int, int]] = []
    done = await client.rotate_keys(lambda *at: seen.append(at))
    assert (done.rewrapped, done.overtaken, done.failed, done.status.outdated) == (3, 1, 0, 0)
    assert seen == [(2, 3), (4, 4), (6, 6)]


async def test_a_rotation_ends_when_nothing_moves(client: AsyncClient, fake: Fake) -> None:
    fake.fault("GET", "/keys", _status(3), _status(3))
    failed = STEP | {"rewrapped": 0, "failed": [FAILURE] * 80}
    fake.fault("POST", "/keys/rotate", JSONResponse(failed | {"next_cursor": "c"}), JSONResponse(failed))
    done = await client.rotate_keys()
    assert (done.failed, len(done.failures), done.failures[0].detail) == (160, 100, "why")


async def test_a_rotation_that_stands_still(client: AsyncClient, fake: Fake) -> None:
    fake.fault("GET", "/keys", _status(3))
    fake.fault("POST", "/keys/rotate", *(JSONResponse(STEP | {"next_cursor": "c"}) for _ in range(3)))
    with pytest.raises(e.BadAnswerError, match="does not come to an end"):
        await client.rotate_keys()


def test_the_same_without_asyncio(fake: Fake) -> None:
    ring = KeyRing("s", (WrappedDek(bytes(16), "k", b"wrapped"),))
    fake.fault("GET", "/s/keys", JSONResponse(key_ring.to_json(ring)))
    fake.fault("GET", "/t/keys", JSONResponse(key_ring.to_json(ring)))
    fake.fault("GET", "/api/v1/keys", _status(0), _status(0), _status(0))
    fake.fault("POST", "/keys/rotate", JSONResponse(STEP))
    with Client(fake.url, fake.url, token=TOKEN, retry=QUICK) as client:
        assert client.key_ring("s") == ring
        with pytest.raises(e.BadAnswerError, match="another session"):
            client.key_ring("t")
        assert client.key_status().active == "new"
        assert client.rotate_keys().rewrapped == 1
    with Client(fake.url, token=TOKEN) as client, pytest.raises(e.ClientError, match="needs session-storage"):
        client.key_ring("s")
