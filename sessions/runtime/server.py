"""The server: uvicorn's life cycle on uvloop, with connections of our own, ended gracefully by SIGTERM."""

import asyncio
import errno
import os
import signal
import socket
import ssl
import sys
from collections.abc import Generator
from contextlib import contextmanager, suppress
from dataclasses import replace
from functools import partial
from typing import Any, Final

import uvicorn
from starlette.types import ASGIApp

from sessions.runtime import memory, open_files
from sessions.runtime.http.connection import Connection
from sessions.runtime.http.connections import Connections
from sessions.runtime.settings import ServiceSettings

_BACKLOG: Final = 2048
_RECURSION_LIMIT: Final = 1000
_KEEPALIVE: Final = (
    (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
    (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 30),
    (socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 10),
    (socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 3),
    (socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, 60_000),
)
"""A client that is gone without a word is noticed within a minute; tcp(7): seconds, and the last in milliseconds."""


class Server(uvicorn.Server):
    """uvicorn's life cycle, ended gracefully, with a deadline for TLS handshakes in seconds."""

    def __init__(self, config: uvicorn.Config, handshake_seconds: float) -> None:
        super().__init__(config)
        self._handshake_seconds = handshake_seconds

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Like uvicorn's, but a TLS handshake has to end as soon as a request's head."""
        await self.lifespan.startup()
        if self.lifespan.should_exit:
            sys.exit(1)
        connection: Any = self.config.http_protocol_class
        protocol = partial(
            connection,
            config=self.config,
            server_state=self.server_state,
            app_state=self.lifespan.state,
        )
        secured: dict[str, Any] = {}
        if self.config.ssl is not None:
            secured = {"ssl": self.config.ssl, "ssl_handshake_timeout": self._handshake_seconds}
        loop = asyncio.get_running_loop()
        self.servers = [
            await loop.create_server(protocol, sock=one, backlog=self.config.backlog, **secured)
            for one in sockets or ()
        ]
        self.started = True

    @contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        """Like uvicorn's, but the signal is not raised again at the end: a graceful end is exit code 0."""
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self.handle_exit)
        yield


def listen(settings: ServiceSettings) -> socket.socket | None:
    """The listening socket; None, and a line for the operator, when it cannot be had."""
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    try:
        # `::` takes IPv4 as well, as the kernel's default is; Python's own is not.
        both = settings.host == "::" and socket.has_dualstack_ipv6()
        address = (settings.host, settings.port)
        listening = socket.create_server(address, family=family, backlog=_BACKLOG, dualstack_ipv6=both)
    except OSError as error:
        name = "PORT" if error.errno in (errno.EADDRINUSE, errno.EACCES) else "HOST"
        # create_server adds its own words to strerror, and a resolver's error number is none of the system's.
        reason = os.strerror(error.errno) if error.errno and error.errno > 0 else str(error)
        where = f"{settings.host}:{settings.port}"
        print(f"cannot listen: {name}: {where}: {reason}", file=sys.stderr)  # noqa: T201 - for the operator
        return None
    for level, option, value in _KEEPALIVE:  # connections inherit them
        listening.setsockopt(level, option, value)
    return listening


def configuration(app: ASGIApp, settings: ServiceSettings, tls: ssl.SSLContext | None) -> uvicorn.Config:
    """Return uvicorn's configuration. `tls` enables TLS; if it verifies clients, they have to show a certificate."""
    edge = replace(settings.edge(), connections_max=open_files.connections_max(settings.connections_max))
    mutual = tls is not None and tls.verify_mode is not ssl.CERT_NONE
    return uvicorn.Config(
        app,
        loop="uvloop",
        http=partial(Connection, Connections(edge), certificate_needed=mutual),  # type: ignore[arg-type]
        ws="none",
        lifespan="on",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_graceful_shutdown=settings.shutdown_seconds,
        ssl_context_factory=None if tls is None else (lambda _config, _default: tls),
    )


def serve(app: ASGIApp, settings: ServiceSettings, tls: ssl.SSLContext | None = None) -> int:
    """Serve until SIGTERM or SIGINT: requests in flight are answered, then the app's lifespan ends.

    Returns:
        The process's exit code: 0, or 1 if it cannot listen or the app could not start.
    """
    # A library of web3's sets this to 100,000 when it is imported, and then JSON that is nested deeply enough ends the
    # process with a segmentation fault where it should end in a RecursionError.
    sys.setrecursionlimit(_RECURSION_LIMIT)
    memory.settle()
    listening = listen(settings)
    if listening is None:
        return 1
    server = Server(configuration(app, settings, tls), settings.head_seconds)
    with listening, suppress(SystemExit):  # uvicorn's way to say that the app did not start, with a code of its own
        server.run(sockets=[listening])
    return 0 if server.started else 1
