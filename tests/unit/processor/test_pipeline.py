"""Natural batching, with a storage that answers when it is told."""

import asyncio

import pytest

from sessions.core.types import SessionId
from sessions.processor import pipeline
from sessions.processor.pipeline import (
    JOIN_BYTES,
    JOIN_ENVELOPES,
    POST_BYTES,
    POST_ENVELOPES,
    POSTS_IN_FLIGHT,
    SMALL_BYTES,
    Submitter,
)
from sessions.processor.storage_answers import FrameAnswer
from sessions.runtime.errors import DomainError


class _Storage:
    """Holds each POST until its gate opens; `errors` are raised first, one for each POST."""

    def __init__(self, *errors: Exception) -> None:
        self.posts: list[list[bytes]] = []
        self.gates: list[asyncio.Event] = []
        self.errors = list(errors)

    async def submit(self, envelopes: list[bytes]) -> list[FrameAnswer]:
        self.posts.append(envelopes)
        self.gates.append(asyncio.Event())
        await self.gates[-1].wait()
        if self.errors:
            raise self.errors.pop(0)
        return [FrameAnswer("stored", envelope.hex(), None) for envelope in envelopes]

    def open(self) -> None:
        for gate in self.gates:
            gate.set()


async def _settle() -> None:
    for _ in range(8):
        await asyncio.sleep(0)


async def _drain(storage: _Storage, *tasks: asyncio.Task) -> list:
    pending = asyncio.gather(*tasks, return_exceptions=True)
    while not pending.done():
        storage.open()
        await asyncio.sleep(0.001)
    return await pending


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pipeline, "_RETRY_SECONDS", 0.001)
    monkeypatch.setattr(pipeline, "JOIN_SECONDS", 0.0)


def _start(submitter: Submitter, *envelopes: bytes) -> list[asyncio.Task[FrameAnswer]]:
    return [asyncio.create_task(submitter.submit(SessionId("s"), envelope)) for envelope in envelopes]


async def test_a_lone_envelope_waits_for_nothing() -> None:
    storage = _Storage()
    tasks = _start(Submitter(storage), b"a")
    await _settle()
    assert storage.posts == [[b"a"]]
    assert (await _drain(storage, *tasks))[0].envelope_sha256 == b"a".hex()


async def test_what_queues_up_while_posts_are_under_way_goes_together() -> None:
    storage, submitter = _Storage(), None
    submitter = Submitter(storage)
    tasks = []
    for number in range(POSTS_IN_FLIGHT + 5):
        tasks += _start(submitter, bytes([number]))
        await _settle()
    assert storage.posts == [[bytes([number])] for number in range(POSTS_IN_FLIGHT)]
    storage.gates[0].set()
    await _settle()
    assert storage.posts[POSTS_IN_FLIGHT] == [bytes([POSTS_IN_FLIGHT + number]) for number in range(5)]
    answers = await _drain(storage, *tasks)
    assert [answer.envelope_sha256 for answer in answers] == [bytes([number]).hex() for number in range(len(tasks))]


async def _busy(
    monkeypatch: pytest.MonkeyPatch, *envelopes: bytes, join_seconds: float = 60.0
) -> tuple[_Storage, Submitter, list[asyncio.Task[FrameAnswer]]]:
    """A POST of these envelopes is under way, and no other."""
    monkeypatch.setattr(pipeline, "JOIN_SECONDS", join_seconds)
    storage = _Storage()
    submitter = Submitter(storage)
    tasks = _start(submitter, *[b"first"] * POSTS_IN_FLIGHT)
    await _settle()
    tasks += _start(submitter, *envelopes)
    await _settle()
    storage.open()
    await _settle()
    assert storage.posts == [*[[b"first"]] * POSTS_IN_FLIGHT, list(envelopes)]
    del storage.posts[:POSTS_IN_FLIGHT], storage.gates[:POSTS_IN_FLIGHT]
    return storage, submitter, tasks


async def test_beside_a_post_fewer_than_it_has_wait_for_others(monkeypatch: pytest.MonkeyPatch) -> None:
    storage, submitter, tasks = await _busy(monkeypatch, b"a", b"b", b"c")
    tasks += _start(submitter, b"d", b"e")
    await _settle()
    assert len(storage.posts) == 1
    tasks += _start(submitter, b"f")
    await _settle()
    assert storage.posts[1:] == [[b"d", b"e", b"f"]]
    tasks += _start(submitter, b"z")
    storage.open()
    await _settle()
    assert storage.posts[2:] == [[b"z"]], "nothing is under way"
    await _drain(storage, *tasks)


async def test_beside_a_post_of_many_a_bounded_number_is_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    storage, submitter, tasks = await _busy(monkeypatch, *[b"x"] * (2 * JOIN_ENVELOPES))
    tasks += _start(submitter, *[b"x"] * (JOIN_ENVELOPES - 1))
    await _settle()
    assert len(storage.posts) == 1
    tasks += _start(submitter, b"y")
    await _settle()
    assert [len(post) for post in storage.posts[1:]] == [JOIN_ENVELOPES], "so many wait for no other"
    await _drain(storage, *tasks)


async def test_beside_a_post_of_large_ones_small_ones_do_not_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    storage, submitter, tasks = await _busy(monkeypatch, *[bytes(SMALL_BYTES + 1)] * 3)
    tasks += _start(submitter, bytes(SMALL_BYTES))
    await _settle()
    assert storage.posts[1:] == [[bytes(SMALL_BYTES)]]
    await _drain(storage, *tasks)


async def test_beside_a_post_of_large_ones_large_ones_wait_for_others(monkeypatch: pytest.MonkeyPatch) -> None:
    storage, submitter, tasks = await _busy(monkeypatch, *[bytes(SMALL_BYTES + 1)] * 3)
    tasks += _start(submitter, bytes(SMALL_BYTES + 1))
    await _settle()
    assert len(storage.posts) == 1
    tasks += _start(submitter, bytes(JOIN_BYTES - SMALL_BYTES - 1))
    await _settle()
    assert [len(post) for post in storage.posts[1:]] == [2], "so many bytes wait for no other"
    await _drain(storage, *tasks)


async def test_beside_a_post_a_large_one_waits_for_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    storage, submitter, tasks = await _busy(monkeypatch, *[b"small"] * 3)
    tasks.append(asyncio.create_task(submitter.submit(SessionId("u"), bytes(JOIN_BYTES - 1))))
    await _settle()
    assert len(storage.posts) == 1
    tasks.append(asyncio.create_task(submitter.submit(SessionId("t"), b"z")))
    await _settle()
    assert [len(post) for post in storage.posts[1:]] == [2]
    await _drain(storage, *tasks)


async def test_beside_a_post_nothing_waits_for_long(monkeypatch: pytest.MonkeyPatch) -> None:
    storage, submitter, tasks = await _busy(monkeypatch, *[b"small"] * 3, join_seconds=0.02)
    tasks += _start(submitter, b"a", b"b")
    await _settle()
    assert len(storage.posts) == 1
    async with asyncio.timeout(5):
        while len(storage.posts) == 1:
            await asyncio.sleep(0.001)
    assert storage.posts[1:] == [[b"a", b"b"]]
    await _drain(storage, *tasks)


async def test_a_post_has_a_bound_in_bytes() -> None:
    storage = _Storage()
    submitter = Submitter(storage)
    blockers = _start(submitter, b"1", b"2")
    await _settle()
    half = bytes(POST_BYTES // 2)
    tasks = _start(submitter, half, half, b"x", bytes(POST_BYTES + 1), b"y", b"z")
    await _drain(storage, *blockers, *tasks)
    sizes = [list(map(len, post)) for post in storage.posts[2:]]
    assert sizes == [[POST_BYTES // 2] * 2, [1], [POST_BYTES + 1], [1, 1]]


async def test_a_post_has_a_bound_in_envelopes() -> None:
    storage = _Storage()
    submitter = Submitter(storage)
    tasks = _start(submitter, b"1", b"2")
    await _settle()
    tasks += _start(submitter, *[b"x"] * (POST_ENVELOPES + 3))
    await _drain(storage, *tasks)
    assert [len(post) for post in storage.posts] == [1, 1, POST_ENVELOPES, 3]


def _unavailable(retry_after_seconds: int | None = 1) -> DomainError:
    return DomainError("storage-unavailable", "away", retry_after_seconds=retry_after_seconds)


async def test_what_may_be_repeated_is_repeated() -> None:
    storage = _Storage(_unavailable(), _unavailable())
    (answer,) = await _drain(storage, *_start(Submitter(storage), b"a"))
    assert answer.result == "stored"
    assert storage.posts == [[b"a"]] * 3


async def test_but_not_for_ever_and_every_waiter_gets_the_failure() -> None:
    storage = _Storage(*[_unavailable() for _ in range(9)])
    submitter = Submitter(storage)
    blockers = _start(submitter, b"1", b"2")
    await _settle()
    tasks = _start(submitter, b"a", b"b", b"c")
    results = await _drain(storage, *blockers, *tasks)
    assert [result.code for result in results] == ["storage-unavailable"] * 5
    assert storage.posts.count([b"a", b"b", b"c"]) == 3
    assert (await _drain(storage, *_start(submitter, b"after")))[0].result == "stored"


@pytest.mark.parametrize("error", [_unavailable(None), DomainError("bad-envelope", "odd"), RuntimeError("bug")])
async def test_what_cannot_get_better_is_not_repeated(error: Exception) -> None:
    storage = _Storage(error)
    (result,) = await _drain(storage, *_start(Submitter(storage), b"a"))
    assert result is error
    assert len(storage.posts) == 1


@pytest.mark.parametrize("errors", [[], [DomainError("bad-envelope", "odd")]])
async def test_a_recorder_that_goes_away_does_not_break_the_batch(errors: list[Exception]) -> None:
    storage = _Storage()
    submitter = Submitter(storage)
    blockers = _start(submitter, b"1", b"2")
    await _settle()
    queued, under_way, other = _start(submitter, b"queued", b"under way", b"other")
    await _settle()
    queued.cancel()
    storage.open()
    await _settle()
    under_way.cancel()
    await _settle()
    storage.errors = list(errors)
    results = await _drain(storage, *blockers, queued, under_way, other)
    assert storage.posts[2] == [b"queued", b"under way", b"other"]
    assert [type(result) for result in results[2:4]] == [asyncio.CancelledError] * 2
    assert type(results[4]) is (DomainError if errors else FrameAnswer)
