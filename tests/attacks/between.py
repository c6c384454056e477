"""An HTTP proxy between chunk-processor and session-storage: it answers in storage's place where a test says so."""

import http.client
import json
import socket
import threading
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Final, Self

_HOP_BY_HOP: Final = ("connection", "content-length", "host", "keep-alive", "transfer-encoding", "date", "server")
_SILENCE_SECONDS: Final = 40.0
_REPORTS: Final = "/api/v1/processors"
"""What processors say of themselves names sessions, too: no rule about a session is about these."""


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer; status 0 ends the connection without one, after `after_seconds`."""

    status: int
    content: bytes = b""
    headers: Mapping[str, str] = field(default_factory=lambda: {"content-type": "text/html"})
    after_seconds: float = 0


def problem(status: int, code: str, **headers: str) -> Answer:
    """A problem document, as the services answer."""
    body = {"type": "about:blank", "title": code, "status": status, "code": code, "detail": "so says the proxy"}
    return Answer(status, json.dumps(body).encode(), {"content-type": "application/problem+json", **headers})


RESET: Final = Answer(0)
SILENCE: Final = Answer(0, after_seconds=_SILENCE_SECONDS)


@dataclass(frozen=True, slots=True)
class _Rule:
    session: bytes
    methods: tuple[str, ...]
    answer: Answer | None
    delay_seconds: float

    def concerns(self, method: str, path: str, body: bytes) -> bool:
        if path.startswith(_REPORTS) or (self.methods and method not in self.methods):
            return False
        return self.session in path.encode() or self.session in body


class Between:
    """Passes everything on to a port of this machine, except what its rules say of single sessions."""

    def __init__(self, target_port: int) -> None:
        self.target_port = target_port
        self.met: Counter[str] = Counter()
        """Requests that met a rule, by session."""
        self._rules: list[_Rule] = []
        self._healed = threading.Event()
        self._cut = False
        self._lock = threading.Lock()
        self._open: set[socket.socket] = set()
        self._server = _Server(self)
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05})

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._server.shutdown()
        self._thread.join()
        self.heal()
        self._reset()
        self._server.server_close()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def poison(self, session: str, answer: Answer, *methods: str) -> None:
        """Answer all requests that concern a session, or those of some methods, in storage's place."""
        self._rules.append(_Rule(session.encode(), methods, answer, answer.after_seconds))

    def delay(self, session: str, seconds: float, *methods: str) -> None:
        """Pass on what concerns a session, but late."""
        self._rules.append(_Rule(session.encode(), methods, None, seconds))

    def heal(self) -> None:
        """Forget all rules; what a rule holds up ends now."""
        self._rules = []
        self._healed.set()
        self._healed = threading.Event()

    @contextmanager
    def cut(self) -> Iterator[None]:
        """Reset all connections, and new ones at once."""
        self._cut = True
        self._reset()
        try:
            yield
        finally:
            self._cut = False

    def _reset(self) -> None:
        with self._lock:
            for one in self._open:
                with suppress(OSError):
                    one.shutdown(socket.SHUT_RDWR)

    def enter(self, connection: socket.socket) -> bool:
        """Whether a new connection is served."""
        with self._lock:
            self._open.add(connection)
        return not self._cut

    def leave(self, connection: socket.socket) -> None:
        with self._lock:
            self._open.discard(connection)

    def answer(self, method: str, path: str, headers: Mapping[str, str], body: bytes) -> Answer:
        for rule in self._rules:
            if rule.concerns(method, path, body):
                self.met[rule.session.decode()] += 1
                self._healed.wait(rule.delay_seconds)
                if rule.answer is not None:
                    return rule.answer
                break
        return self._forward(method, path, headers, body)

    def _forward(self, method: str, path: str, headers: Mapping[str, str], body: bytes) -> Answer:
        onward = http.client.HTTPConnection("127.0.0.1", self.target_port, timeout=60)
        own = {name: value for name, value in headers.items() if name.lower() not in _HOP_BY_HOP}
        try:
            onward.request(method, path, body, own)
            answer = onward.getresponse()
            kept = {name: value for name, value in answer.getheaders() if name.lower() not in _HOP_BY_HOP}
            return Answer(answer.status, answer.read(), kept)
        except (OSError, http.client.HTTPException):
            return RESET
        finally:
            onward.close()


class _Server(ThreadingHTTPServer):
    daemon_threads = False
    request_queue_size = 128

    def __init__(self, wire: Between) -> None:
        self.wire = wire
        super().__init__(("127.0.0.1", 0), _Handler)

    def handle_error(self, *_: object) -> None:
        """A connection that was reset is no news."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = -1
    server: _Server

    def handle(self) -> None:
        try:
            if self.server.wire.enter(self.connection):
                super().handle()
        finally:
            self.server.wire.leave(self.connection)

    def _serve(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        answer = self.server.wire.answer(self.command, self.path, dict(self.headers.items()), body)
        if answer.status == 0:
            self.close_connection = True
            self.connection.shutdown(socket.SHUT_RDWR)
            return
        self.send_response_only(answer.status)
        for name, value in answer.headers.items():
            self.send_header(name, value)
        self.send_header("content-length", str(len(answer.content)))
        self.end_headers()
        self.wfile.write(answer.content)

    def do_GET(self) -> None:
        self._serve()

    def do_PUT(self) -> None:
        self._serve()

    def do_POST(self) -> None:
        self._serve()

    def do_DELETE(self) -> None:
        self._serve()

    def log_message(self, *_: object) -> None:
        """Nothing of this is news."""
