"""The connections to session-storage, against real sockets."""

import asyncio
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest

from sessions.processor import wire
from sessions.processor.wire import BrokenOffError, NoAnswerInTimeError, NoConnectionError, NoRoomError, Wire

_OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\nx-a: b\r\n\r\nok"
Answers = Callable[[int, int], bytes | None]
"""What to answer to a connection's request, both counted from 0; None: close without an answer."""


class _Server:
    def __init__(self, answers: Answers) -> None:
        self.answers = answers
        self.connections = self.closed = 0
        self.requests: list[bytes] = []

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        number, self.connections = self.connections, self.connections + 1
        count = 0
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                length = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
                self.requests.append(head + await reader.readexactly(length))
                answer = self.answers(number, count)
                count += 1
                if answer is None:
                    break
                writer.write(answer)
                await writer.drain()
        except (asyncio.IncompleteReadError, asyncio.CancelledError, ConnectionError):
            pass
        finally:
            writer.close()
            await asyncio.gather(writer.wait_closed(), return_exceptions=True)
            self.closed += 1


@asynccontextmanager
async def _against(answers: Answers, seconds: float = 5, path: str = "") -> AsyncIterator[tuple[Wire, _Server]]:
    server = _Server(answers)
    listening = await asyncio.start_server(server.serve, "127.0.0.1", 0)
    port = listening.sockets[0].getsockname()[1]
    ours = Wire(f"http://127.0.0.1:{port}{path}", {"authorization": "Bearer t"}, seconds, None)
    try:
        yield ours, server
    finally:
        ours.close()
        listening.close()
        async with asyncio.timeout(5):
            while server.closed < server.connections:
                await asyncio.sleep(0.001)


async def test_what_is_sent_and_what_comes_back() -> None:
    async with _against(lambda _, __: _OK, path="/under/") as (ours, server):
        answer = await ours.request("POST", "/x", [b"one", memoryview(b"two")], {"x-request-id": "r"})
        assert (answer.status, answer.content, answer.headers["x-a"]) == (200, b"ok", "b")
        (request,) = server.requests
        head, _, body = request.partition(b"\r\n\r\n")
        assert body == b"onetwo"
        lines = head.split(b"\r\n")
        assert lines[0] == b"POST /under/x HTTP/1.1"
        assert lines[1].startswith(b"host: 127.0.0.1:")
        assert lines[2:] == [b"authorization: Bearer t", b"x-request-id: r", b"content-length: 6"]


async def test_a_connection_is_kept_and_two_requests_have_two() -> None:
    async with _against(lambda _, __: _OK) as (ours, server):
        for _ in range(3):
            await ours.request("POST", "/")
        assert server.connections == 1
        await asyncio.gather(ours.request("POST", "/"), ours.request("POST", "/"))
        assert server.connections == 2


async def test_one_that_is_idle_for_long_is_not_used_again(monkeypatch: pytest.MonkeyPatch) -> None:
    async with _against(lambda _, __: _OK) as (ours, server):
        await ours.request("POST", "/")
        monkeypatch.setattr(wire, "KEEP_ALIVE_SECONDS", -1.0)
        await ours.request("POST", "/")
        assert server.connections == 2


@pytest.mark.parametrize("said", [True, False])
async def test_one_that_the_server_closes_is_not_used_again(said: bool) -> None:
    closing = _OK.replace(b"x-a: b", b"connection: close")
    answers = iter([closing if said else _OK, None, _OK])
    async with _against(lambda _, __: next(answers)) as (ours, server):
        await ours.request("POST", "/")
        if not said:  # it closes after a request that it did not answer
            with pytest.raises(BrokenOffError, match="closed the connection without an answer"):
                await ours.request("POST", "/")
        else:
            next(answers)
        assert (await ours.request("POST", "/")).status == 200
        assert server.connections == 2


async def test_one_that_was_closed_while_it_was_idle_is_not_used_again() -> None:
    async with _against(lambda _, __: _OK) as (ours, server):
        await ours.request("POST", "/")
        ours._idle[0].connection_lost(None)
        assert (await ours.request("POST", "/")).status == 200
        assert server.connections == 2


async def test_bytes_that_nobody_asked_for_end_the_connection() -> None:
    async with _against(lambda _, __: _OK + b"more") as (ours, server):
        await ours.request("POST", "/")
        await asyncio.sleep(0.05)
        await ours.request("POST", "/")
        assert server.connections == 2


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (b"SSH-2.0-OpenSSH\r\n", "not an HTTP answer"),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 100000\r\n\r\n" + bytes(5000), "an answer of more than 4096 bytes"),
    ],
)
async def test_no_answer_of_a_server(answer: bytes, said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wire, "ANSWER_MAX_BYTES", 4096)
    async with _against(lambda _, __: answer) as (ours, _):
        with pytest.raises(BrokenOffError, match=said):
            await ours.request("POST", "/")


async def test_an_answer_of_another_protocol_is_none_to_go_on_with() -> None:
    switching = b"HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: x\r\n\r\n"
    async with _against(lambda number, _: switching if number == 0 else _OK) as (ours, server):
        assert (await ours.request("POST", "/")).status == 101
        assert (await ours.request("POST", "/")).status == 200
        assert server.connections == 2


async def test_no_answer_in_time() -> None:
    async with _against(lambda number, _: b"" if number == 0 else _OK, 0.05) as (ours, server):
        with pytest.raises(NoAnswerInTimeError):
            await ours.request("POST", "/")
        await ours.request("POST", "/")
        assert server.connections == 2, "the answer that may still come is nobody's"


async def test_no_connection() -> None:
    with pytest.raises(NoConnectionError):
        await Wire("http://127.0.0.1:1", {}, 5, None).request("POST", "/")


async def test_no_connection_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wire, "CONNECT_SECONDS", 0.0)
    with socket.create_server(("127.0.0.1", 0)) as listening:
        ours = Wire(f"http://127.0.0.1:{listening.getsockname()[1]}", {}, 5, None)
        with pytest.raises(NoConnectionError, match="in time"):
            await ours.request("POST", "/")


async def test_who_gives_up_leaves_no_connection_to_be_used() -> None:
    async with _against(lambda number, _: b"" if number == 0 else _OK) as (ours, server):
        waiting = asyncio.create_task(ours.request("POST", "/"))
        await asyncio.sleep(0.05)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        await ours.request("POST", "/")
        assert server.connections == 2


async def test_so_many_connections_and_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wire, "CONNECTIONS_MAX", 2)
    async with _against(lambda _, __: _OK) as (ours, server):
        answers = await asyncio.gather(*(ours.request("GET", "/") for _ in range(20)))
        assert [answer.content for answer in answers] == [b"ok"] * 20
        assert server.connections == 2


async def test_the_wait_for_a_connection_is_not_taken_for_a_server_that_does_not_answer(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(wire, "CONNECTIONS_MAX", 1)
    async with _against(lambda number, _: b"" if number == 0 else _OK, 0.2) as (ours, server):
        first = asyncio.create_task(ours.request("GET", "/", timeout_seconds=5))
        await asyncio.sleep(0)
        with pytest.raises(NoRoomError, match="all connections are in use"):
            await ours.request("GET", "/", timeout_seconds=0.01)
        asyncio.get_running_loop().call_later(0.1, first.cancel)
        assert (await ours.request("GET", "/", timeout_seconds=0.05)).status == 200, "its time begins with its exchange"
        assert server.connections == 2


async def test_a_pool_with_a_limit_of_its_own() -> None:
    async with _against(lambda _, __: _OK) as (ours, server):
        small = Wire(f"http://127.0.0.1:{ours._dialer._port}", {}, 5, None, 3)
        await asyncio.gather(*(small.request("GET", "/") for _ in range(20)))
        assert server.connections == 3
        small.close()


async def test_a_time_of_its_own() -> None:
    async with _against(lambda _, __: b"", 20) as (ours, _):
        with pytest.raises(NoAnswerInTimeError):
            await ours.request("GET", "/", timeout_seconds=0.05)


async def test_an_answer_in_many_pieces() -> None:
    body = bytes(range(256)) * 4096
    head = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body)
    async with _against(lambda _, __: head + body) as (ours, _):
        answer = await ours.request("GET", "/?a=b")
        assert (answer.content, answer.headers["content-length"]) == (body, str(len(body)))
        with pytest.raises(ValueError, match="Expecting value"):
            answer.json()
