"""Real HTTP servers for tests of the processor: session-storage on its twins, and one that says what it is told."""

import asyncio
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Generator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import uvicorn
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from sessions.runtime import server
from sessions.runtime.auth import Authenticator, Principal, Role
from sessions.runtime.budget import ByteBudget
from sessions.runtime.settings import ServiceSettings
from sessions.storage import audit_routes, key_routes, processor_routes, routes, submit
from sessions.storage.chunk_limits import ChunkLimits
from sessions.storage.mongo import Readiness
from tests.unit.runtime.apps import app_of
from tests.unit.storage.chunks import House, ample_disk

MIB = 1024 * 1024
TOKEN = "storage-token"


class _Quiet(uvicorn.Server):
    @contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        yield


@asynccontextmanager
async def serving(app: Any, lifespan: str = "off") -> AsyncIterator[str]:
    """Serve an app on a free port of the loopback; gives its URL."""
    config = uvicorn.Config(app, http="httptools", ws="none", lifespan=lifespan, log_config=None, access_log=False)
    async with quiet_server(config) as listening:
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"


@asynccontextmanager
async def served_as_ours(app: Any) -> AsyncIterator[tuple[str, int]]:
    """Serve an app as a service is, but for its lifespan; gives host and port."""
    config = server.configuration(app, ServiceSettings(service_name="x", port=0, tokens_file=Path("x")), None)
    config.lifespan = "off"
    async with quiet_server(config) as listening:
        yield listening.getsockname()


@asynccontextmanager
async def quiet_server(config: uvicorn.Config) -> AsyncIterator[socket.socket]:
    """Serve on a free port of the loopback, within this process and its event loop."""
    # With the protocol named, asyncio switches Nagle's algorithm off, and an answer does not wait for an ACK.
    listening = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listening.bind(("127.0.0.1", 0))
    listening.listen(512)
    quiet = _Quiet(config)
    running = asyncio.create_task(quiet.serve(sockets=[listening]))
    try:
        while not quiet.started:
            await asyncio.sleep(0.005)
        yield listening
    finally:
        quiet.should_exit = True
        await running
        listening.close()


Answer = Callable[[Request], Awaitable[Response]]


@dataclass
class Script:
    """A server that answers with what is next in `answers`, the last one for good; it keeps the requests."""

    answers: list[Response | Answer] = field(default_factory=list)
    requests: list[tuple[str, str, dict[str, str], bytes]] = field(default_factory=list)

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        request = Request(scope, receive)
        body = await request.body()
        target = request.url.path + (f"?{request.url.query}" if request.url.query else "")
        self.requests.append((request.method, target, dict(request.headers), body))
        answer = self.answers[0] if len(self.answers) == 1 else self.answers.pop(0)
        response = answer if isinstance(answer, Response) else await answer(request)
        await response(scope, receive, send)

    def problem(self, status: int, code: str, **members: Any) -> None:
        headers = {"retry-after": str(members.pop("retry_after"))} if "retry_after" in members else None
        body = {
            "type": "x",
            "title": "x",
            "status": status,
            "detail": "why",
            "code": code,
            "request_id": "r",
            **members,
        }
        self.answers.append(JSONResponse(body, status, headers, "application/problem+json"))

    def json(self, value: Any, status: int = 200) -> None:
        self.answers.append(JSONResponse(value, status))


class OneToken(Authenticator):
    def __init__(self) -> None:
        super().__init__([])

    def authenticate(self, authorization: str | None) -> Principal:
        assert authorization == f"Bearer {TOKEN}"
        return Principal("processor", frozenset({Role.PROCESSOR}))


def storage_app(house: House, chunk_max_bytes: int = 64 * MIB) -> Any:
    """session-storage on twins."""
    readiness = Readiness(None)
    readiness.established.set()
    limit = submit.body_limit(chunk_max_bytes)
    endpoint = submit.SubmitEndpoint(
        house.intake,
        OneToken(),
        readiness=readiness,
        disk=ample_disk(),
        budget=ByteBudget(4 * limit),
        limit_bytes=limit,
    )
    return app_of(
        routes.router(house.ledger, house.shredder, house.evidence, readiness, house.reads),
        key_routes.router(house.ledger, house.rings, readiness, house.reads),
        processor_routes.router(
            house.registry, house.sessions, house.uptime, house.terms, readiness, limits=ChunkLimits(MIB)
        ),
        audit_routes.router(house.trail, house.events, house.ledger, readiness, house.reads),
        authenticator=OneToken(),
        audit=house.audit,
        hot_routes=[submit.route(endpoint)],
    )
