"""The server: uvicorn's life cycle on uvloop, with connections of our own, ended gracefully by SIGTERM."""

import errno
import os
import signal
import socket
import ssl
import sys
from collections.abc import Generator
from contextlib import contextmanager, suppress
from functools import partial
from typing import Final

import uvicorn
from starlette.types import ASGIApp

from sessions.runtime import memory
from sessions.runtime.http.connection import Connection
from sessions.runtime.http.connections import Connections
from sessions.runtime.settings import ServiceSettings

_BACKLOG: Final = 2048
_RECURSION_LIMIT: Final = 1000


class _Server(uvicorn.Server):
    @contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        """Like uvicorn's, but the signal is not raised again at the end: a graceful end is exit code 0."""
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self.handle_exit)
        yield


def _listen(settings: ServiceSettings) -> socket.socket | None:
    """The listening socket; None, and a line for the operator, when it cannot be had."""
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    try:
        # `::` takes IPv4 as well, as the kernel's default is; Python's own is not.
        both = settings.host == "::" and socket.has_dualstack_ipv6()
        address = (settings.host, settings.port)
        return socket.create_server(address, family=family, backlog=_BACKLOG, dualstack_ipv6=both)
    except OSError as error:
        name = "PORT" if error.errno in (errno.EADDRINUSE, errno.EACCES) else "HOST"
        # create_server adds its own words to strerror, and a resolver's error number is none of the system's.
        reason = os.strerror(error.errno) if error.errno and error.errno > 0 else str(error)
        where = f"{settings.host}:{settings.port}"
        print(f"cannot listen: {name}: {where}: {reason}", file=sys.stderr)  # noqa: T201 - for the operator
        return None


def configuration(app: ASGIApp, settings: ServiceSettings, tls: ssl.SSLContext | None) -> uvicorn.Config:
    """How to serve; with `tls` over TLS and, if that looks at clients' certificates, to those that show one."""
    mutual = tls is not None and tls.verify_mode is not ssl.CERT_NONE
    return uvicorn.Config(
        app,
        loop="uvloop",
        http=partial(Connection, Connections(settings.edge()), certificate_needed=mutual),  # type: ignore[arg-type]
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
    listening = _listen(settings)
    if listening is None:
        return 1
    server = _Server(configuration(app, settings, tls))
    with listening, suppress(SystemExit):  # uvicorn's way to say that the app did not start, with a code of its own
        server.run(sockets=[listening])
    return 0 if server.started else 1
