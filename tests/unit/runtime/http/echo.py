"""A small application behind our server, on a real socket, in a thread of its own, on uvloop as services are."""

import asyncio
import socket
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import uvicorn
from starlette.requests import Request
from starlette.types import Receive, Scope, Send

from sessions.runtime import body, server
from sessions.runtime.budget import ByteBudget
from sessions.runtime.errors import DomainError
from sessions.runtime.settings import ServiceSettings

LIMIT = 4 * 1024 * 1024


class Echo:
    """Answers with the body that it was sent, or with the code of what was wrong with it."""

    def __init__(self) -> None:
        self.budget = ByteBudget(LIMIT)
        self.seen: list[bytes | str] = []
        self.scopes: list[Scope] = []
        self.open = True

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        self.scopes.append(scope)
        while not self.open:
            await asyncio.sleep(0.005)
        status, content = 200, b""
        if scope["path"] == "/unread":
            status = 204
        elif scope["path"] == "/endless":
            await self._endless(send)
            return
        else:
            try:
                async with body.bounded(Request(scope, receive), self.budget, LIMIT, "recorder") as found:
                    content = bytes(found)
                self.seen.append(content)
            except DomainError as error:
                status, content = 400, error.code.encode()
                self.seen.append(error.code)
        headers = [(b"content-length", str(len(content)).encode())]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": content})

    async def _endless(self, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        for _ in range(2000):
            await send({"type": "http.response.body", "body": bytes(65536), "more_body": True})
            await asyncio.sleep(0)
        await send({"type": "http.response.body"})


@asynccontextmanager
async def serving(app: Any, **settings: Any) -> AsyncIterator[tuple[str, int]]:
    """Serve an app as a service is, but for its lifespan; gives host and port."""
    told = ServiceSettings(service_name="x", port=0, tokens_file=Path("x"), **settings)
    config = server.configuration(app, told, None)
    config.lifespan = "off"
    listening = socket.create_server(("127.0.0.1", 0), backlog=512)
    running = uvicorn.Server(config)
    thread = threading.Thread(target=running.run, args=([listening],))
    thread.start()
    try:
        while not running.started:
            await asyncio.sleep(0.005)
        yield listening.getsockname()
    finally:
        running.should_exit = True
        await asyncio.to_thread(thread.join)
        listening.close()


@asynccontextmanager
async def served(**settings: Any) -> AsyncIterator[tuple[Echo, asyncio.StreamReader, asyncio.StreamWriter]]:
    """The application, and one connection to it."""
    app = Echo()
    async with serving(app, **settings) as address:
        reader, writer = await asyncio.open_connection(*address)
        try:
            yield app, reader, writer
        finally:
            writer.close()


async def told(data: bytes, *, end: bool = False, **settings: Any) -> tuple[Echo, bytes]:
    """Send bytes over a connection of their own; return the application, and all that came until the end.

    With `end` the client says that it sends no more.
    """
    async with served(**settings) as (app, reader, writer), asyncio.timeout(10):
        writer.write(data)
        if end:
            writer.write_eof()
        return app, await reader.read()
