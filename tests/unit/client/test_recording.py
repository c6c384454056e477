"""Recording: chunks in flight, faults on the way, resumption, and all that must be refused."""

import asyncio
import io
import os
import signal
import threading
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.responses import JSONResponse

from sessions.client import AsyncClient, Client, RetryPolicy
from sessions.client import errors as e
from sessions.client.answers import SessionStatus
from sessions.client.errors import BusyError, SealQueuedError
from sessions.client.recording import Progress, Resume
from sessions.client.source import pieces
from sessions.core.types import SessionId
from tests.unit.client.conftest import QUICK
from tests.unit.client.fake import TOKEN, Cut, Fake, problem

DATA = bytes(range(256)) * 9


def stored(fake: Fake, name: str = "s") -> bytes:
    session = fake.sessions[name]
    return b"".join(session.chunks[index] for index in sorted(session.chunks))


def sent(fake: Fake, since: int = 0) -> list[int]:
    return [
        int(path.rsplit("/", 1)[1]) for method, path in fake.requests[since:] if method == "PUT" and "chunks" in path
    ]


async def _iterate(data: bytes, step: int):
    for at in range(0, len(data), step):
        yield data[at : at + step]


@pytest.fixture
def file(tmp_path) -> Path:
    path = tmp_path / "recording"
    path.write_bytes(DATA)
    return path


@pytest.mark.parametrize("kind", ["path", "text", "file", "memory", "small pieces", "large pieces", "pipe"])
@pytest.mark.parametrize("chunk_bytes", [1000, 2304, 256, 5000])
async def test_every_kind_of_source(client: AsyncClient, fake: Fake, file: Path, kind, chunk_bytes) -> None:
    source = {
        "path": lambda: file,
        "text": lambda: str(file),
        "file": lambda: io.BytesIO(DATA),
        "memory": lambda: io.BufferedReader(io.BytesIO(DATA)),
        "small pieces": lambda: _iterate(DATA, 7),
        "large pieces": lambda: _iterate(DATA, 2100),
        "pipe": lambda: _pipe(DATA),
    }[kind]()
    seen: list[Progress] = []
    done = await client.record(source, "s", chunk_bytes=chunk_bytes, metadata={"a": 1}, progress=seen.append)
    if kind == "pipe":
        source.close()
    assert stored(fake) == DATA
    assert done.root_checked
    assert done.plaintext_bytes == len(DATA)
    assert done.chunk_count == done.sent == -(-len(DATA) // chunk_bytes) == seen[-1].chunks
    assert seen[-1].bytes_done == len(DATA)
    assert fake.sessions["s"].metadata == {"a": 1}


async def test_an_empty_recording(client: AsyncClient, fake: Fake) -> None:
    done = await client.record(io.BytesIO(b""), "s")
    assert (done.chunk_count, done.plaintext_bytes, done.root_checked) == (0, 0, True)


async def test_several_in_flight_and_no_more(client: AsyncClient, fake: Fake) -> None:
    fake.pause_seconds = 0.01
    await client.record(io.BytesIO(DATA), "s", chunk_bytes=100, in_flight=3)
    assert 1 < fake.most_in_flight <= 3
    assert stored(fake) == DATA


async def test_memory_is_bounded_while_the_service_is_slow(client: AsyncClient, fake: Fake) -> None:
    given_out = 0

    async def source():
        nonlocal given_out
        while given_out < 50:
            given_out += 1
            yield b"x" * 100

    fake.fault("PUT", "/chunks/0", *[problem(503, "overloaded", {"retry-after": "1"})])
    task = asyncio.create_task(client.record(source(), "s", chunk_bytes=100, in_flight=4))
    await asyncio.sleep(0.5)
    assert given_out <= 6
    assert (await task).chunk_count == 50


async def test_faults_on_the_way(client: AsyncClient, fake: Fake) -> None:
    fake.fault("PUT", "/chunks/1", problem(503, "overloaded"), Cut(b"{", 100), problem(507, "overloaded"))
    fake.fault("PUT", "/chunks/2", problem(502, ""), problem(429, ""), problem(504, ""))
    fake.fault("POST", "/seal", Cut(b"{", 100))
    fake.fault("GET", "/s", problem(503, "storage-unavailable"))
    done = await client.record(io.BytesIO(DATA), "s", chunk_bytes=500)
    assert stored(fake) == DATA
    assert done.root_checked


async def test_a_chunk_that_was_kept_before_the_connection_broke(client: AsyncClient, fake: Fake) -> None:
    await client.put_chunk("s", 0, DATA[:500])
    fake.fault("GET", "/s", problem(404, "session-not-found"))
    assert (await client.record(io.BytesIO(DATA), "s", chunk_bytes=500)).chunk_count == 5


def _pipe(data: bytes):
    read, write = os.pipe()
    threading.Thread(target=lambda: (os.write(write, data), os.close(write))).start()
    return os.fdopen(read, "rb", buffering=0)


@pytest.mark.parametrize("kind", ["file", "pipe", "iterator"])
async def test_resuming(client: AsyncClient, fake: Fake, file: Path, kind) -> None:
    fake.fault("PUT", "/chunks/7", problem(400, "digest-mismatch"))
    with pytest.raises(e.RefusedError):
        await client.record(file, "s", chunk_bytes=200, in_flight=1)
    for index in (1, 2, 4):
        fake.sessions["s"].chunks.pop(index, None)
    assert sorted(fake.sessions["s"].chunks)[:4] == [0, 3, 5, 6]
    top = max(fake.sessions["s"].chunks)
    since = len(fake.requests)
    source = {"file": lambda: file, "pipe": lambda: _pipe(DATA), "iterator": lambda: _iterate(DATA, 77)}[kind]()
    done = await client.record(source, "s", chunk_bytes=200)
    if kind == "pipe":
        source.close()
    assert stored(fake) == DATA
    assert {1, 2, 4} <= set(sent(fake, since))
    assert not {0, 3, 5} & set(sent(fake, since))
    assert top in sent(fake, since)
    assert done.chunk_count == 12
    assert done.plaintext_bytes == len(DATA)
    assert not done.root_checked


async def test_resuming_when_all_was_sent(client: AsyncClient, fake: Fake, file: Path) -> None:
    fake.fault("POST", "/seal", problem(400, "invalid-request"))
    with pytest.raises(e.RefusedError):
        await client.record(file, "s", chunk_bytes=1000)
    since = len(fake.requests)
    done = await client.record(file, "s", chunk_bytes=1000)
    assert sent(fake, since) == [2]
    assert (done.chunk_count, done.plaintext_bytes) == (3, len(DATA))


async def test_resuming_within_a_file_that_is_not_at_its_start(client: AsyncClient, fake: Fake) -> None:
    for index in range(3):
        await client.put_chunk("s", index, DATA[index * 100 : index * 100 + 100])
    source = io.BytesIO(b"before" + DATA)
    source.seek(6)
    await client.record(source, "s", chunk_bytes=100)
    assert stored(fake) == DATA


async def test_resuming_when_the_list_of_gaps_is_cut_off(client: AsyncClient, fake: Fake, file: Path) -> None:
    for index in (0, 2, 4, 9):
        await client.put_chunk("s", index, DATA[index * 200 : index * 200 + 200])
    fake.fault("GET", "/s", JSONResponse({**fake._status("s"), "missing": [[1, 1]], "missing_truncated": True}))
    since = len(fake.requests)
    await client.record(file, "s", chunk_bytes=200)
    assert stored(fake) == DATA
    assert sorted(sent(fake, since)) == [1, *range(2, 12)]


@pytest.mark.parametrize("chunk_bytes", [100, 2000])
async def test_another_chunk_size_is_refused(client: AsyncClient, fake: Fake, file: Path, chunk_bytes) -> None:
    for index in range(2):
        await client.put_chunk("s", index, DATA[index * 200 : index * 200 + 200])
    with pytest.raises(e.SourceChangedError, match="not chunks of") as caught:
        await client.record(file, "s", chunk_bytes=chunk_bytes)
    assert "same file" in caught.value.hint


async def test_another_recording_is_refused(client: AsyncClient, fake: Fake) -> None:
    for index in range(2):
        await client.put_chunk("s", index, DATA[index * 200 : index * 200 + 200])
    with pytest.raises(e.RefusedError) as caught:
        await client.record(io.BytesIO(b"?" * 3000), "s", chunk_bytes=200)
    assert caught.value.code == "chunk-conflict"
    with pytest.raises(e.SourceChangedError, match="not chunks of"):
        await client.record(io.BytesIO(DATA[:150]), "s", chunk_bytes=200)
    with pytest.raises(e.SourceChangedError, match="more than this recording"):
        await client.record(_iterate(DATA[:200], 50), "s", chunk_bytes=200)
    assert len(fake.sessions["s"].chunks) == 2


@pytest.mark.parametrize(("resume", "code"), [(True, "session-sealed"), (False, "session-sealed")])
async def test_a_sealed_session_is_refused(client: AsyncClient, fake: Fake, file: Path, resume, code) -> None:
    await client.record(file, "s")
    with pytest.raises(e.RefusedError) as caught:
        await client.record(file, "s", resume=resume)
    assert caught.value.code == code
    fake.fault("GET", "/s", JSONResponse({**fake._status("s"), "status": "shredded"}))
    with pytest.raises(e.RefusedError) as caught:
        await client.record(file, "s", resume=resume)
    assert caught.value.code == "session-shredded"


async def test_without_resume_an_open_session_is_refused(client: AsyncClient, fake: Fake, file: Path) -> None:
    await client.open_session("s")
    with pytest.raises(e.RefusedError, match="exists already"):
        await client.record(file, "s", resume=False)


async def test_a_seal_that_does_not_cover_what_was_acknowledged(client: AsyncClient, fake: Fake, file: Path) -> None:
    await client.record(io.BytesIO(DATA[:-1]), "t", chunk_bytes=1000)
    await client.record(io.BytesIO(DATA[::-1]), "u", chunk_bytes=1000)
    for other, words in (("t", "were sealed"), ("u", "not that of the chunks")):
        answer = fake._seal(other, fake.sessions[other], None)
        body = answer.body.replace(b'"session_id":"%b"' % other.encode(), b'"session_id":"s"')
        from sessions.core import manifest as manifests

        changed = manifests.from_json(__import__("json").loads(body)["manifest"])
        fake.fault(
            "POST",
            "/s/seal",
            JSONResponse(
                {
                    "manifest": changed.to_json(),
                    "manifest_sha256": changed.sha256().hex(),
                    "root": changed.root.hex(),
                }
            ),
        )
        with pytest.raises(e.BadAnswerError, match=words):
            await client.record(file, "s", chunk_bytes=1000)
        fake.sessions.pop("s")


async def test_sources_that_cannot_be_read(client: AsyncClient, fake: Fake, tmp_path) -> None:
    class Broken(io.RawIOBase):
        def readable(self) -> bool:
            return True

        def read(self, _size: int = -1) -> bytes:
            raise OSError(5, "Input/output error")

    class Unseekable(io.BytesIO):
        def tell(self) -> int:
            raise OSError(29, "Illegal seek")

    with pytest.raises(e.SourceError, match="No such file"):
        await client.record(tmp_path / "none", "s")
    with pytest.raises(e.SourceError, match="Input/output"):
        await client.record(Broken(), "s")
    with pytest.raises(e.SourceError, match="Illegal"):
        await client.record(Unseekable(), "s")
    with pytest.raises(ValueError, match="at least one byte"):
        await client.record(io.BytesIO(), "s", chunk_bytes=0)


async def test_an_iterator_that_fails_stops_the_recording(client: AsyncClient, fake: Fake) -> None:
    async def source():
        yield b"x" * 1000
        raise RuntimeError("the camera fell over")

    with pytest.raises(RuntimeError, match="camera"):
        await client.record(source(), "s", chunk_bytes=100)
    assert fake.sessions["s"].manifest is None


def test_interrupting_a_synchronous_recording(fake: Fake) -> None:
    """Ctrl-C while a pipe says nothing: neither a hang, nor a thread that the exit waits for, nor a lost task."""
    read, write = os.pipe()
    source = os.fdopen(read, "rb", buffering=0)
    main = threading.main_thread().ident
    assert main is not None
    timer = threading.Timer(0.3, lambda: signal.pthread_kill(main, signal.SIGINT))
    with Client(fake.url, token=TOKEN, retry=QUICK) as client:
        client.put_chunk("s", 0, b"x")
        timer.start()
        with pytest.raises(KeyboardInterrupt):
            client.record(source, "t")
    readers = [thread for thread in threading.enumerate() if thread.name == "lucid-read"]
    assert all(thread.daemon for thread in readers)
    os.close(write)
    for thread in readers:
        thread.join(5)
    source.close()
    client.close()


def test_closing_ends_what_is_under_way(fake: Fake) -> None:
    client = Client(fake.url, token=TOKEN, retry=QUICK)
    work = asyncio.run_coroutine_threadsafe(asyncio.sleep(60), client._loop)
    client.close()
    assert work.cancelled()


async def test_what_is_read_after_the_interruption_goes_nowhere(client: AsyncClient, fake: Fake) -> None:
    read, write = os.pipe()
    source = os.fdopen(read, "rb", buffering=0)
    task = asyncio.create_task(client.record(source, "s"))
    while not any(method == "PUT" for method, _ in fake.requests):
        await asyncio.sleep(0.01)
    await asyncio.sleep(0.05)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    os.close(write)
    await asyncio.sleep(0.1)
    source.close()
    assert not fake.sessions["s"].chunks


async def test_gives_up_when_the_time_is_up(fake: Fake) -> None:
    fake.fault("PUT", "/chunks/1", *[problem(503, "overloaded")] * 1000)
    policy = RetryPolicy(budget_seconds=0.2, wait_initial_seconds=0.01)
    async with AsyncClient(fake.url, token=TOKEN, retry=policy) as client:
        with pytest.raises(e.BusyError):
            await client.record(io.BytesIO(DATA), "s", chunk_bytes=500)
    assert fake.sessions["s"].manifest is None


@given(st.integers(1, 40), st.integers(1, 12), st.data())
def test_what_resume_leaves_out_is_stored(size: int, chunk_bytes: int, data: st.DataObject) -> None:
    total = -(-size // chunk_bytes)
    have = data.draw(st.sets(st.integers(0, total - 1)))
    status = _status_of(have, size, chunk_bytes)
    resume = Resume(status, chunk_bytes, size)
    asked, index = [], 0
    while index < total:
        index = resume.next_needed(index)
        asked.append(index)
        index += 1
    assert asked == sorted(set(asked))
    assert set(range(total)) - set(asked) <= have
    assert {index for index in asked if index in have} <= {max(have, default=0)}


def _status_of(have: set[int], size: int, chunk_bytes: int) -> SessionStatus:
    top = max(have, default=-1) + 1
    return SessionStatus(
        session_id=SessionId("s"),
        status="open",
        chunk_count=len(have),
        plaintext_bytes=sum(min(chunk_bytes, size - index * chunk_bytes) for index in have),
        envelope_bytes=0,
        opened_at="",
        sealed_at=None,
        root=None,
        anchor=None,
        next_index=top,
        missing=tuple((index, index) for index in range(top) if index not in have),
        missing_truncated=False,
    )


@given(st.binary(max_size=200), st.integers(1, 50), st.integers(1, 60))
async def test_pieces_are_the_source(data: bytes, chunk_bytes: int, step: int) -> None:
    for source in (io.BytesIO(data), _iterate(data, step)):
        cut = pieces(source, chunk_bytes)
        got = []
        while piece := await cut.read():
            got.append(piece)
        await cut.close()
        assert got == [data[at : at + chunk_bytes] for at in range(0, len(data), chunk_bytes)]


async def test_a_seal_that_waits_for_storage(client: AsyncClient, fake: Fake) -> None:
    queued = {"session_id": "s", "status": "seal-queued", "chunk_count": 5, "spooled_chunks": 5}
    fake.fault("POST", "/seal", *[JSONResponse(queued, 202) for _ in range(3)])
    assert (await client.record(io.BytesIO(DATA), "s", chunk_bytes=500)).root_checked
    assert fake.requests.count(("POST", "/api/v1/sessions/s/seal")) == 4


async def test_a_seal_that_waits_for_longer_than_we_do(fake: Fake) -> None:
    fake.fault("POST", "/seal", *[JSONResponse({}, 202) for _ in range(30)])
    patience = RetryPolicy(budget_seconds=0.05, wait_initial_seconds=0.01, wait_max_seconds=0.01)
    async with AsyncClient(fake.url, fake.url, token=TOKEN, retry=patience) as one:
        with pytest.raises(SealQueuedError, match="kept and waits for session-storage"):
            await one.record(io.BytesIO(DATA), "s", chunk_bytes=500)
    assert stored(fake) == DATA


async def test_a_session_that_begins_while_storage_is_away(fake: Fake) -> None:
    fake.fault("GET", "/s", problem(503, "storage-unavailable"))
    async with AsyncClient(fake.url, fake.url, token=TOKEN, retry=RetryPolicy(budget_seconds=0)) as one:
        assert (await one.record(io.BytesIO(DATA), "s", chunk_bytes=500)).root_checked
        fake.fault("GET", "/t", problem(503, "storage-unavailable"))
        with pytest.raises(BusyError):
            await one.record(io.BytesIO(DATA), "t", chunk_bytes=500, resume=False)
