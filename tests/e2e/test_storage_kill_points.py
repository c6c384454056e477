"""SIGKILL at every named point of storage's write path: what is left is known, and is made good.

Storage dies again and again in each test: a start is the recovery from one death and the way to the next. So a point is
struck at a pass that the recovery from the last one does not come to.
"""

import os
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any

import httpx
import pytest
from pymongo import MongoClient

from scripts.devstack.process import wait_until
from scripts.devstack.stack import Stack
from sessions.storage.killpoints import Point
from tests.conftest import own_stack
from tests.e2e.conftest import Api, session_name
from tests.e2e.inside import Inside, Left
from tests.e2e.killing import CHUNKS, arm, check, disarm, has_died, launch_armed, put_all

SESSIONS = "/api/v1/sessions"
# Two of them are more than storage hands to its driver at once.
LARGE = [b"one", b"two", *(os.urandom(5 * 1024 * 1024) for _ in range(2)), b"last"]
# Each point with the pass at which it strikes. Here: which chunk is on its way, and what its repeat is answered.
INGEST = (
    (Point.OPENING_STORED, 1, 0, 201),
    (Point.CHUNK_NOTED, 2, 1, 201),
    (Point.CHUNK_BODIES_STORED, 2, 2, 201),  # a part of the body
    (Point.CHUNK_BODIES_STORED, 4, 3, 201),  # the whole body
    (Point.CHUNK_RECORDS_STORED, 2, 4, 200),
    (Point.CHUNK_CONFLICT_FOUND, 2, 4, 200),
)
# How many records and parts of bodies are left of the chunk.
UNCOVERED = ((Point.CHUNK_UNCOVERED, 1, (1, 1)), (Point.CHUNK_RECORD_REMOVED, 2, (0, 1)))
# How many chunks are said to be in the session (too many are refused), whether anybody asks again, and the state left.
SEAL = (
    (Point.SEAL_ORDERED, 1, len(CHUNKS), True, "sealing"),
    (Point.SEAL_TILES_STORED, 2, len(CHUNKS), False, "sealing"),
    (Point.SEAL_STORED, 2, len(CHUNKS), True, "sealed"),
    (Point.SEAL_TILES_DROPPED, 1, len(CHUNKS) + 1, True, "sealing"),
    (Point.SEAL_REOPENED, 2, len(CHUNKS) + 1, True, "open"),
)
BATCH = (
    (Point.BATCH_STORED, 1, Left("pending", batch_placed=False, session_placed=False)),
    (Point.BATCH_SESSIONS_PLACED, 2, Left("pending", batch_placed=False, session_placed=True)),
    (Point.BATCH_PLACED, 1, Left("pending", batch_placed=True, session_placed=True)),
    (Point.TRANSACTION_SIGNED, 2, Left("pending", batch_placed=True, session_placed=True)),
    (Point.TRANSACTION_STORED, 2, Left("submitted", True, True, 1, "nowhere")),
    (Point.TRANSACTION_BROADCAST, 1, Left("submitted", True, True, 1, "pool")),
)
BLOCK = (
    (Point.ANCHOR_FOUND, 1, Left("submitted", True, True, 1, "block")),
    (Point.ANCHOR_INCLUDED, 2, Left("included", True, True, 1, "block")),
    (Point.ANCHOR_CONFIRMED, 2, Left("confirmed", True, True, 1, "block")),
    (Point.ANCHOR_TAKEN_BACK, 1, Left("submitted", True, True, 1, "nowhere")),
)
STUCK = (
    (Point.TRANSACTION_SIGNED, 2, Left("submitted", True, True, 1, "pool")),
    (Point.TRANSACTION_STORED, 3, Left("submitted", True, True, 2, "nowhere")),
)
# How many bodies are left, and whether the session is marked as being shredded.
SHRED = (
    (Point.SHRED_KEYS_DELETED, 1, (len(CHUNKS), True)),
    (Point.SHRED_BODIES_DELETED, 3, (0, True)),
    (Point.SHRED_FINISHED, 3, (0, False)),
)


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    # Without a spool a recorder hears of each death of storage.
    settings = {"processor": {"SPOOL": "off"}, "storage": {"ANCHOR_INTERVAL_SECONDS": "0.2"}}
    for one in own_stack(tmp_path_factory, settings=settings):
        one.anvil.call("evm_setIntervalMining", 0)
        yield one


@pytest.fixture
def api(stack: Stack) -> Iterator[Api]:
    one = Api(stack)
    yield one
    one.close()
    disarm(stack)


@pytest.fixture
def inside(stack: Stack) -> Iterator[Inside]:
    with MongoClient[dict[str, Any]](stack.mongodb_url, tz_aware=True) as client:
        one = Inside(stack, client[stack.env["storage"]["MONGODB_DATABASE"]])
        one.leases_run_out()
        yield one


Attempt = Iterator[None]
"""Comes to its death, looks at what that left, yields until storage is there again, and looks at what is made of it."""


def _one_after_the_other(stack: Stack, deaths: Iterable[tuple[Point, int, Attempt]]) -> None:
    last: Attempt = iter(())
    for point, at_pass, attempt in deaths:
        arm(stack, "storage", point, at_pass)
        next(last, None)
        next(attempt)
        last = attempt
    stack.resume("storage")
    next(last, None)


def _dies(api: Api, act: Callable[[], httpx.Response]) -> None:
    answer = act()
    assert (answer.status_code, answer.json()["code"]) == (503, "storage-unavailable")
    has_died(api.stack, "storage")


def test_every_point_is_tried() -> None:
    tried = (*INGEST, *UNCOVERED, *SEAL, *BATCH, *BLOCK, *STUCK, *SHRED)
    assert {Point.ANCHOR_LEASE_TAKEN, *(one[0] for one in tried)} == set(Point)


def test_a_session_and_its_chunks(stack: Stack, api: Api, inside: Inside) -> None:
    session, leaves = session_name("kill"), [""] * len(LARGE)

    def put(index: int, repeated: int) -> Attempt:
        _dies(api, lambda: api.put_chunk(session, index, LARGE[index]))
        assert inside.chunk_documents(session, index)[0] == (repeated == 200)
        yield
        again = api.put_chunk(session, index, LARGE[index])
        assert again.status_code == repeated
        leaves[index] = again.json()["leaf_hash"]

    _one_after_the_other(stack, ((point, at_pass, put(index, code)) for point, at_pass, index, code in INGEST))
    check(api, session, leaves, LARGE)
    inside.check_anchored(api, session)


def test_a_chunk_that_a_seal_left_out(stack: Stack, api: Api, inside: Inside) -> None:
    def put(left: tuple[int, int]) -> Attempt:
        session, late = session_name("kill"), len(CHUNKS)
        leaves = put_all(api, session)
        with ThreadPoolExecutor(1) as pool, inside.slow_records():
            putting = pool.submit(_dies, api, lambda: api.put_chunk(session, late, b"late"))
            assert wait_until(lambda: inside.chunk_documents(session, late) == (0, 1), 30)
            assert _seal(api, session).status_code == 200
            putting.result()
        assert inside.chunk_documents(session, late) == left
        yield
        again = api.put_chunk(session, late, b"late")
        assert (again.status_code, again.json()["code"]) == (409, "session-sealed")
        listed = api.storage("GET", f"{SESSIONS}/{session}/chunks").json()["chunks"]
        assert [chunk["index"] for chunk in listed] == list(range(late))
        check(api, session, leaves)
        inside.check_anchored(api, session)

    _one_after_the_other(stack, ((point, at_pass, put(left)) for point, at_pass, left in UNCOVERED))


def _seal(api: Api, session: str, chunk_count: int = len(CHUNKS)) -> httpx.Response:
    return api.processor("POST", f"{SESSIONS}/{session}/seal", json={"chunk_count": chunk_count})


def test_a_seal(stack: Stack, api: Api, inside: Inside) -> None:
    def seal(chunk_count: int, status: str, *, asked_again: bool) -> Attempt:
        session = session_name("kill")
        leaves = put_all(api, session)
        _dies(api, lambda: _seal(api, session, chunk_count))
        assert inside.session(session)["status"] == status
        if not asked_again:
            inside.seal_was_ordered_before(session, timedelta(seconds=31))
        yield
        if not asked_again:
            assert wait_until(lambda: inside.session(session)["status"] == "sealed", 30)
        # What is asked for now counts, not what was asked for then.
        assert _seal(api, session).status_code == 200
        check(api, session, leaves)
        inside.check_anchored(api, session)

    _one_after_the_other(
        stack,
        (
            (point, at_pass, seal(chunk_count, status, asked_again=again))
            for point, at_pass, chunk_count, again, status in SEAL
        ),
    )


def _anchored_once(api: Api, inside: Inside, session: str, left: Left) -> Attempt:
    """From the death on: what was signed is what is anchored."""
    has_died(api.stack, "storage")
    assert inside.left(session) == left
    signed = inside.batch(session)["transactions"]
    inside.leases_run_out()
    yield
    inside.check_anchored(api, session)
    anchored = inside.batch(session)["transactions"]
    assert len(anchored) == 1
    assert signed in ([], anchored)


def test_a_batch_and_its_transaction(stack: Stack, api: Api, inside: Inside) -> None:
    def anchor(left: Left) -> Attempt:
        session = session_name("kill")
        api.record(session, CHUNKS)
        yield from _anchored_once(api, inside, session, left)

    _one_after_the_other(stack, ((point, at_pass, anchor(left)) for point, at_pass, left in BATCH))


def test_a_transaction_and_its_block(stack: Stack, api: Api, inside: Inside) -> None:
    def anchor(point: Point, left: Left) -> Attempt:
        session = session_name("kill")
        api.record(session, CHUNKS)
        inside.in_a_block(session)
        if point in (Point.ANCHOR_CONFIRMED, Point.ANCHOR_TAKEN_BACK):
            assert wait_until(lambda: inside.state(session) == "included", 30)
            inside.mine() if point is Point.ANCHOR_CONFIRMED else inside.lose_a_block()
        yield from _anchored_once(api, inside, session, left)

    _one_after_the_other(stack, ((point, at_pass, anchor(point, left)) for point, at_pass, left in BLOCK))


def test_a_transaction_in_the_place_of_one_that_is_stuck(stack: Stack, api: Api, inside: Inside) -> None:
    def replace(left: Left) -> Attempt:
        session = session_name("kill")
        api.record(session, CHUNKS)
        assert wait_until(lambda: inside.waits_for_a_block(session), 30)
        (stuck,) = inside.batch(session)["transactions"]
        inside.was_submitted_before(session, timedelta(seconds=301))
        has_died(stack, "storage")
        assert inside.left(session) == left
        inside.leases_run_out()
        yield
        assert wait_until(lambda: inside.left(session) == left._replace(signed=2, where="pool"), 30)
        inside.check_anchored(api, session)
        batch = inside.batch(session)
        first, second = batch["transactions"]
        assert (first, first["nonce"], batch["anchor"]["transaction"]) == (stuck, second["nonce"], second["hash"])

    _one_after_the_other(stack, ((point, at_pass, replace(left)) for point, at_pass, left in STUCK))


def test_a_lease_outlives_its_holder(stack: Stack, api: Api, inside: Inside) -> None:
    session = session_name("kill")
    stack.kill("storage")
    inside.leases_run_out()
    launch_armed(stack, "storage", Point.ANCHOR_LEASE_TAKEN)
    has_died(stack, "storage")
    stack.resume("storage")
    api.record(session, CHUNKS)
    time.sleep(1)  # five intervals of the anchorer
    assert inside.state(session) is None
    assert "lucid_anchor_leader 0.0" in api.storage("GET", "/metrics", None).text
    inside.check_anchored(api, session)


def test_a_shredding(stack: Stack, api: Api, inside: Inside) -> None:
    def shred(left: tuple[int, bool]) -> Attempt:
        session = session_name("kill")
        path = f"{SESSIONS}/{session}"
        api.record(session, CHUNKS)
        inside.check_anchored(api, session)
        _dies(api, lambda: api.processor("DELETE", path, "admin"))
        found = inside.session(session)
        assert (found["status"], found["keys"]) == ("shredded", [])
        assert (inside.bodies(session), "shredding" in found) == left
        yield
        # Nobody has to ask again.
        assert wait_until(lambda: "shredding" not in inside.session(session) and inside.bodies(session) == 0, 30)
        again = api.processor("DELETE", path, "admin")
        assert again.status_code == 200
        assert inside.session(session)["shredded_at"] == found["shredded_at"]
        gone = api.processor("GET", f"{path}/content", "replay")
        assert (gone.status_code, gone.json()["shredded_at"]) == (410, again.json()["shredded_at"])
        inside.check_anchored(api, session)

    _one_after_the_other(stack, ((point, at_pass, shred(left)) for point, at_pass, left in SHRED))
