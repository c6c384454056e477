"""Replaying: whole, from a byte on, and over connections that break."""

import io
from pathlib import Path

import pytest
from starlette.responses import Response

from sessions.client import AsyncClient, RetryPolicy
from sessions.client import errors as e
from tests.unit.client.fake import TOKEN, Cut, Fake, problem

DATA = bytes(range(250)) * 400


@pytest.fixture(autouse=True)
async def recording(client: AsyncClient, fake: Fake) -> None:
    await client.record(io.BytesIO(DATA), "s", chunk_bytes=30_000)


@pytest.mark.parametrize("start", [None, 0, 1, 99_999])
async def test_whole_or_from_a_byte_on(client: AsyncClient, tmp_path: Path, start) -> None:
    out, seen = io.BytesIO(), []
    count = await client.replay("s", out, start=start, progress=lambda *done: seen.append(done))
    assert out.getvalue() == DATA[start or 0 :]
    assert count == len(out.getvalue())
    assert seen[-1] == (len(DATA), len(DATA))


async def test_a_broken_connection_is_taken_up_again(client: AsyncClient, fake: Fake) -> None:
    size = len(DATA)
    fake.fault(
        "GET",
        "/content",
        Cut(DATA[:10], size),
        problem(503, "storage-unavailable"),
        Cut(DATA[10:5000], size - 10, 206, {"content-range": f"bytes 10-{size - 1}/{size}"}),
        Cut(b"", size - 5000, 206, {"content-range": f"bytes 5000-{size - 1}/{size}"}),
    )
    out = io.BytesIO()
    assert await client.replay("s", out) == size
    assert out.getvalue() == DATA
    ranges = [headers.get("range") for headers in fake.headers[-5:]]
    assert ranges == [None, "bytes=10-", "bytes=10-", "bytes=5000-", "bytes=5000-"]


async def test_a_service_that_ignores_ranges(client: AsyncClient, fake: Fake) -> None:
    fake.fault("GET", "/content", Cut(DATA[:90_000], len(DATA)), Response(DATA))
    out = io.BytesIO()
    await client.replay("s", out)
    assert out.getvalue() == DATA


async def test_a_body_that_ends_early_without_an_error(client: AsyncClient, fake: Fake) -> None:
    fake.fault("GET", "/content", Response(DATA[7:99], 206, {"content-range": f"bytes 7-{len(DATA) - 1}/{len(DATA)}"}))
    out = io.BytesIO()
    await client.replay("s", out, start=7)
    assert out.getvalue() == DATA[7:]


async def test_progress_renews_the_patience(fake: Fake) -> None:
    size = len(DATA)
    parts = [
        Cut(DATA[at : at + 1000], size - at, 206, {"content-range": f"bytes {at}-{size - 1}/*"})
        for at in range(1000, 30_000, 1000)
    ]
    fake.fault("GET", "/content", Cut(DATA[:1000], size), *parts)
    policy = RetryPolicy(budget_seconds=0.15, wait_initial_seconds=0.05, wait_max_seconds=0.05)
    async with AsyncClient(fake.url, token=TOKEN, retry=policy) as client:
        out = io.BytesIO()
        await client.replay("s", out)
    assert out.getvalue() == DATA


async def test_it_ends_when_no_connection_holds(fake: Fake) -> None:
    fake.fault("GET", "/content", *[Cut(b"", 10)] * 1000)
    policy = RetryPolicy(budget_seconds=0.1, wait_initial_seconds=0.01)
    async with AsyncClient(fake.url, token=TOKEN, retry=policy) as client:
        with pytest.raises(e.UnreachableError):
            await client.replay("s", io.BytesIO())


async def test_a_connection_that_breaks_after_the_last_byte(client: AsyncClient, fake: Fake) -> None:
    size = len(DATA)
    fake.fault("GET", "/content", Cut(DATA[5:], size, 206, {"content-range": f"bytes 5-{size - 1}/{size}"}))
    asked = len(fake.requests)
    out = io.BytesIO()
    assert await client.replay("s", out, start=5) == size - 5
    assert len(fake.requests) == asked + 1


@pytest.mark.parametrize("header", ["bytes 3-9/10", "bytes */10", "", "bytes 5-x/9"])
async def test_another_range_than_asked_for(client: AsyncClient, fake: Fake, header) -> None:
    fake.fault("GET", "/content", Response(b"x", 206, {"content-range": header}))
    with pytest.raises(e.BadAnswerError, match="byte 5 was asked for"):
        await client.replay("s", io.BytesIO(), start=5)


async def test_what_is_refused(client: AsyncClient, fake: Fake) -> None:
    with pytest.raises(e.RefusedError):
        await client.replay("s", io.BytesIO(), start=len(DATA))
    with pytest.raises(e.NotFoundError):
        await client.replay("nobody", io.BytesIO())


async def test_a_file_appears_when_it_is_complete(client: AsyncClient, fake: Fake, tmp_path: Path) -> None:
    target = tmp_path / "out"
    fake.fault("GET", "/content", problem(409, "chunks-missing"))
    with pytest.raises(e.RefusedError):
        await client.replay("s", target)
    assert not list(tmp_path.iterdir())
    await client.replay("s", target)
    assert target.read_bytes() == DATA
    with pytest.raises(e.TargetTakenError, match="exists already"):
        await client.replay("s", target)
    await client.replay("s", str(target), start=99_000, overwrite=True)
    assert target.read_bytes() == DATA[99_000:]
    with pytest.raises(e.TargetError, match="cannot write"):
        await client.replay("s", tmp_path / "no" / "folder")


async def test_targets_that_fail(client: AsyncClient) -> None:
    class Full(io.RawIOBase):
        def write(self, _data) -> int:
            raise OSError(28, "No space left on device")

    class Gone(io.RawIOBase):
        def write(self, _data) -> int:
            raise BrokenPipeError

    with pytest.raises(e.TargetError, match="No space"):
        await client.replay("s", Full())
    with pytest.raises(BrokenPipeError):
        await client.replay("s", Gone())
