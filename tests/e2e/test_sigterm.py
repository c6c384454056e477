"""SIGTERM while requests are under way: each is answered, the exit code is 0, nothing acknowledged is lost."""

import hashlib
import os
import signal
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import Any, Self
from urllib.parse import urlsplit

import httpx
import pytest

from scripts.devstack.process import wait_until
from scripts.devstack.stack import Part, Stack
from sessions.core import envelope, frames
from sessions.core.envelope import Codec, Header
from sessions.core.types import ChunkIndex, DekId, SessionId
from tests.e2e.conftest import Api, session_name

UPLOADS = 8
PIECES = 10
ACKNOWLEDGED = (200, 201)


class SlowUpload:
    """A request whose body goes out in pieces, over a socket of its own."""

    def __init__(self, url: str, method: str, path: str, token: str, body: bytes) -> None:
        address = urlsplit(url)
        self._socket = socket.create_connection((address.hostname, address.port), timeout=30)
        self._pieces = [body[at : at + -(-len(body) // PIECES)] for at in range(0, len(body), -(-len(body) // PIECES))]
        head = f"{method} {path} HTTP/1.1\r\nHost: {address.netloc}\r\nAuthorization: Bearer {token}\r\n"
        head += f"Content-Type: application/octet-stream\r\nContent-Length: {len(body)}\r\n\r\n"
        self._socket.sendall(head.encode())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def send(self, count: int) -> None:
        for piece in self._pieces[:count]:
            self._socket.sendall(piece)
        del self._pieces[:count]

    def answer(self) -> tuple[int, bytes]:
        """Status and body of the answer, read until the server closes the connection."""
        data = b""
        while got := self._socket.recv(65536):
            data += got
        head, _, body = data.partition(b"\r\n\r\n")
        assert head, "the connection was closed without an answer"
        return int(head.split(b" ", 2)[1]), body


@pytest.fixture
def stop(stack: Stack) -> Iterator[Any]:
    """Sends SIGTERM to a part, gives a function that waits for its end; starts it again afterwards."""
    stopped: list[Part] = []

    def send(part: Part) -> Any:
        running = stack.process(part)
        assert running is not None
        stopped.append(part)
        running.send(signal.SIGTERM)

        def wait() -> int | None:
            assert wait_until(lambda: not running.alive, 40)
            return running.exit_status()

        return wait

    yield send
    for part in stopped:
        if not stack.alive()[part]:
            stack.resume(part)


def _refuses(url: str) -> bool:
    address = urlsplit(url)
    try:
        socket.create_connection((address.hostname, address.port), timeout=1).close()
    except OSError:
        return True
    return False


def test_the_processor_answers_slow_uploads(stack: Stack, api: Api, stop: Any) -> None:
    session = session_name("sigterm")
    contents = [os.urandom(200_000 + index) for index in range(UPLOADS)]
    with ExitStack() as open_uploads:
        uploads = [
            open_uploads.enter_context(
                SlowUpload(
                    stack.processor_url,
                    "PUT",
                    f"/api/v1/sessions/{session}/chunks/{index}",
                    stack.tokens["record"],
                    content,
                )
            )
            for index, content in enumerate(contents)
        ]
        for upload in uploads:
            upload.send(PIECES // 2)
        time.sleep(0.3)
        ended = stop("processor")
        assert wait_until(lambda: _refuses(stack.processor_url), 10)
        for _ in range(PIECES // 2):
            for upload in uploads:
                upload.send(1)
            time.sleep(0.1)
        with ThreadPoolExecutor(UPLOADS) as pool:
            answers = list(pool.map(SlowUpload.answer, uploads))
    assert [status for status, _ in answers] == [201] * UPLOADS
    assert ended() == 0
    assert "service_stopped" in stack.log("processor").read_text()

    stack.resume("processor")
    for index, content in enumerate(contents):
        back = api.processor("GET", f"/api/v1/sessions/{session}/chunks/{index}", "replay")
        assert back.content == content
        assert api.put_chunk(session, index, content).status_code == 200
    sealed = api.processor("POST", f"/api/v1/sessions/{session}/seal", json={"chunk_count": UPLOADS})
    assert sealed.status_code == 200


def test_an_upload_that_never_ends_does_not_hold_up_the_end(stack: Stack, api: Api, stop: Any) -> None:
    """After SHUTDOWN_SECONDS the process ends all the same, and the chunk was never acknowledged."""
    stack.restart("processor", {"SHUTDOWN_SECONDS": "2"})
    session = session_name("sigterm")
    with SlowUpload(
        stack.processor_url,
        "PUT",
        f"/api/v1/sessions/{session}/chunks/0",
        stack.tokens["record"],
        bytes(1000),
    ) as upload:
        upload.send(PIECES - 1)
        time.sleep(0.2)
        began = time.monotonic()
        assert stop("processor")() == 0
        assert time.monotonic() - began < 15
    stack.resume("processor")
    stack.restart("processor", {"SHUTDOWN_SECONDS": "30"})
    assert api.processor("GET", f"/api/v1/sessions/{session}").status_code == 404


def _frame(session: str, index: int, size: int, dek_id: DekId) -> tuple[bytes, bytes]:
    """An envelope in a frame. Storage has no key, so any bytes pass for ciphertext."""
    header = Header(
        codec=Codec.STORED,
        dek_id=dek_id,
        nonce=os.urandom(12),
        index=ChunkIndex(index),
        plaintext_bytes=size,
        session_id=SessionId(session),
    )
    data = header.to_bytes() + os.urandom(size + 16)
    envelope.parse(data)
    return data, frames.join([data])


def test_storage_answers_slow_requests(stack: Stack, api: Api, stop: Any) -> None:
    session = session_name("sigterm")
    assert api.processor("PUT", f"/api/v1/sessions/{session}", json={}).status_code == 201
    (key,) = api.storage("GET", f"/api/v1/sessions/{session}").json()["key_ids"]
    made = [_frame(session, index, 150_000, DekId(bytes.fromhex(key["dek_id"]))) for index in range(UPLOADS)]
    with ExitStack() as open_uploads:
        uploads = [
            open_uploads.enter_context(
                SlowUpload(stack.storage_url, "POST", "/api/v1/envelopes", stack.tokens["processor"], framed)
            )
            for _, framed in made
        ]
        for upload in uploads:
            upload.send(PIECES // 2)
        time.sleep(0.3)
        ended = stop("storage")
        assert wait_until(lambda: _refuses(stack.storage_url), 10)
        for upload in uploads:
            upload.send(PIECES)
        with ThreadPoolExecutor(UPLOADS) as pool:
            answers = list(pool.map(SlowUpload.answer, uploads))
    for (data, _), (status, body) in zip(made, answers, strict=True):
        assert status == 200
        assert b'"stored"' in body
        assert hashlib.sha256(data).hexdigest().encode() in body
    assert ended() == 0
    stack.resume("storage")
    for index, (data, _) in enumerate(made):
        assert api.storage("GET", f"/api/v1/sessions/{session}/chunks/{index}/envelope").content == data


def test_recording_while_storage_is_restarted(stack: Stack, api: Api, stop: Any) -> None:
    """Recorders go on through the processor, which keeps what it cannot hand over, and none is refused."""
    session = session_name("sigterm")
    assert api.processor("PUT", f"/api/v1/sessions/{session}", json={}).status_code == 201
    contents: dict[int, bytes] = {}
    answers: dict[int, httpx.Response] = {}
    done = threading.Event()

    def record(recorder: int) -> None:
        with httpx.Client(timeout=60, trust_env=False) as http:
            index = recorder
            while not done.is_set():
                contents[index] = os.urandom(20_000)
                answers[index] = http.put(
                    f"{stack.processor_url}/api/v1/sessions/{session}/chunks/{index}",
                    content=contents[index],
                    headers={"Authorization": f"Bearer {stack.tokens['record']}"},
                )
                index += UPLOADS
                time.sleep(0.05)  # each is read back, one by one

    with ThreadPoolExecutor(UPLOADS) as pool:
        recorders = [pool.submit(record, number) for number in range(UPLOADS)]
        try:
            assert wait_until(lambda: len(answers) > 50, 20)
            ended = stop("storage")
            assert ended() == 0
            assert wait_until(lambda: any("spooled" in answer.text for answer in list(answers.values())), 20)
            stack.resume("storage")
            count = len(answers)
            assert wait_until(lambda: len(answers) > count + 50, 20)
        finally:
            done.set()
        for recorder in recorders:
            recorder.result()

    assert {answer.status_code for answer in answers.values()} <= set(ACKNOWLEDGED)
    spooled = sum(answer.json()["durability"] == "spooled" for answer in answers.values())
    print(f"{len(answers)} chunks, {spooled} of them kept in the spool while storage was away")
    for index, content in contents.items():
        back = api.processor("GET", f"/api/v1/sessions/{session}/chunks/{index}", "replay")
        assert back.content == content
    url = f"/api/v1/sessions/{session}"
    assert wait_until(lambda: api.processor("GET", url).json()["chunk_count"] == len(answers), 20)
    status = api.processor("GET", f"/api/v1/sessions/{session}").json()
    assert status["chunk_count"] == len(answers)
