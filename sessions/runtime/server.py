"""The server: uvicorn on uvloop and httptools, ended gracefully by SIGTERM."""

import signal
from collections.abc import Generator
from contextlib import contextmanager

import uvicorn
from starlette.types import ASGIApp

from sessions.runtime.settings import ServiceSettings


class _Server(uvicorn.Server):
    @contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        """Like uvicorn's, but the signal is not raised again at the end: a graceful end is exit code 0."""
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self.handle_exit)
        yield


def serve(app: ASGIApp, settings: ServiceSettings) -> int:
    """Serve until SIGTERM or SIGINT: requests in flight are answered, then the app's lifespan ends.

    Returns:
        The process's exit code: 0, or 1 if the app could not start.
    """
    server = _Server(
        uvicorn.Config(
            app,
            host=settings.host,
            port=settings.port,
            loop="uvloop",
            http="httptools",
            ws="none",
            lifespan="on",
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,
            timeout_graceful_shutdown=settings.shutdown_seconds,
        )
    )
    server.run()
    return 0 if server.started else 1
