"""SIGKILL at every named point of the processor's write path: what was acknowledged is there, byte for byte."""

from collections.abc import Callable, Iterator

import httpx
import pytest

from scripts.devstack.process import wait_until
from scripts.devstack.stack import Stack
from sessions.processor.killpoints import Point
from tests.conftest import own_stack
from tests.e2e.conftest import Api, session_name
from tests.e2e.killing import CHUNKS, arm, check, disarm, has_died, launch_armed, put_all

# What a repeat of the chunk that died with the process is answered: 201 when it was not durable, 200 when it was.
STORAGE_THERE = {Point.CHUNK_SEALED: 201, Point.CHUNK_STORED: 200}
STORAGE_AWAY = {
    Point.SPOOL_SEGMENT_BEGUN: 201,
    Point.SPOOL_BEFORE_WRITE: 201,
    # Written and not yet on the disk: a killed process leaves it to the system, a power failure may not.
    Point.SPOOL_BEFORE_FSYNC: 200,
    Point.SPOOL_AFTER_FSYNC: 200,
    Point.OPENING_SPOOLED: 201,
    Point.CHUNK_SPOOLED: 200,
}
DRAINING = (
    Point.DRAIN_BEFORE_OPENING,
    Point.DRAIN_AFTER_OPENING,
    Point.DRAIN_BEFORE_POST,
    Point.DRAIN_AFTER_POST,
    Point.DRAIN_AFTER_SEAL,
    Point.DRAIN_BEFORE_DROP,
)


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    yield from own_stack(tmp_path_factory)


@pytest.fixture
def api(stack: Stack) -> Iterator[Api]:
    one = Api(stack)
    yield one
    one.close()
    disarm(stack)


def _dies(stack: Stack, put: Callable[[], object]) -> None:
    with pytest.raises(httpx.TransportError):
        put()
    _has_died(stack)


def _has_died(stack: Stack) -> None:
    has_died(stack, "processor")
    stack.resume("processor")


def test_every_point_is_tried() -> None:
    assert {*STORAGE_THERE, *STORAGE_AWAY, *DRAINING, Point.SEAL_SPOOLED} == set(Point)


@pytest.mark.parametrize("point", STORAGE_THERE)
def test_while_storage_is_there(stack: Stack, api: Api, point: Point) -> None:
    session = session_name("kill")
    arm(stack, "processor", point)
    _dies(stack, lambda: api.put_chunk(session, 0, CHUNKS[0]))
    again = api.put_chunk(session, 0, CHUNKS[0])
    assert again.status_code == STORAGE_THERE[point]
    check(api, session, [again.json()["leaf_hash"], *put_all(api, session, 1)])


@pytest.mark.parametrize("point", STORAGE_AWAY)
def test_while_storage_is_away(stack: Stack, api: Api, point: Point) -> None:
    session = session_name("kill")
    # An opening goes before each first chunk, and through the same points.
    passes = 2 if point.startswith("spool-") and point is not Point.SPOOL_SEGMENT_BEGUN else 1
    arm(stack, "processor", point, passes)
    stack.kill("storage")
    _dies(stack, lambda: api.put_chunk(session, 0, CHUNKS[0]))
    again = api.put_chunk(session, 0, CHUNKS[0])
    assert (again.status_code, again.json()["durability"]) == (STORAGE_AWAY[point], "spooled")
    leaves = [again.json()["leaf_hash"], *put_all(api, session, 1)]
    stack.resume("storage")
    check(api, session, leaves)


def test_while_a_seal_is_kept(stack: Stack, api: Api) -> None:
    session = session_name("kill")
    arm(stack, "processor", Point.SEAL_SPOOLED)
    stack.kill("storage")
    leaves = put_all(api, session)
    seal = f"/api/v1/sessions/{session}/seal"
    _dies(stack, lambda: api.processor("POST", seal, json={"chunk_count": len(CHUNKS)}))
    stack.resume("storage")
    assert wait_until(lambda: api.storage("GET", f"/api/v1/sessions/{session}").json().get("status") == "sealed", 30)
    check(api, session, leaves)


@pytest.mark.parametrize("point", DRAINING)
def test_while_the_spool_drains(stack: Stack, api: Api, point: Point) -> None:
    session = session_name("kill")
    stack.kill("storage")
    leaves = put_all(api, session)
    queued = api.processor("POST", f"/api/v1/sessions/{session}/seal", json={"chunk_count": len(CHUNKS)})
    assert queued.status_code == 202
    stack.kill("processor")
    stack.resume("storage")
    launch_armed(stack, "processor", point)
    _has_died(stack)
    assert wait_until(lambda: api.storage("GET", f"/api/v1/sessions/{session}").json().get("status") == "sealed", 30)
    check(api, session, leaves)
