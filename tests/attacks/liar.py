"""Those who stand on the wires: an RPC node that answers falsely, and a relay that writes down what passes."""

import json
import socket
import threading
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Lie = Callable[[list[Any], Callable[[], Any]], Any]
"""What to answer, of the parameters and of what gives the truth."""


class Liar:
    """A server of JSON-RPC before a real node: it lies about some methods, and passes on the others."""

    def __init__(self, truth_url: str) -> None:
        self._truth_url = truth_url
        self.lies: dict[str, Lie] = {}
        self.asked: list[str] = []
        self.url = ""

    def answer(self, request: dict[str, Any]) -> dict[str, Any]:
        def truth() -> Any:
            body = json.dumps(request).encode()
            forward = urllib.request.Request(self._truth_url, body, {"Content-Type": "application/json"})
            with urllib.request.urlopen(forward, timeout=10) as answer:
                return json.load(answer)

        method = request["method"]
        self.asked.append(method)
        if method not in self.lies:
            return truth()
        result = self.lies[method](request["params"], lambda: truth()["result"])
        return {"jsonrpc": "2.0", "id": request["id"], "result": result}


@contextmanager
def lying(truth_url: str) -> Iterator[Liar]:
    """A liar at work."""
    liar = Liar(truth_url)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            body = json.dumps(liar.answer(request)).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Nothing of this is news."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        liar.url = f"http://127.0.0.1:{server.server_address[1]}"
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield liar
        finally:
            server.shutdown()
            thread.join()


class Relay:
    """Passes on what comes, both ways, and keeps a copy."""

    def __init__(self, port: int) -> None:
        self.port = 0
        self.heard = bytearray()
        self._to = port
        self._open: list[socket.socket] = []
        self._threads: list[threading.Thread] = []

    def accept(self, listening: socket.socket) -> None:
        while True:
            try:
                near, _ = listening.accept()
            except OSError:  # it was shut down
                return
            try:
                far = socket.create_connection(("127.0.0.1", self._to))
            except OSError:  # what it leads to is not there yet, or not any more
                near.close()
                continue
            self._open += [near, far]
            for source, target in ((near, far), (far, near)):
                self._start(self._pump, source, target)

    def _pump(self, source: socket.socket, target: socket.socket) -> None:
        with suppress(OSError):
            while data := source.recv(65536):
                self.heard += data
                target.sendall(data)
        with suppress(OSError):
            target.shutdown(socket.SHUT_WR)

    def _start(self, act: Callable[..., None], *given: Any) -> None:
        thread = threading.Thread(target=act, args=given)
        self._threads.append(thread)
        thread.start()

    def run(self, listening: socket.socket) -> None:
        self.port = listening.getsockname()[1]
        self._start(self.accept, listening)

    def close(self) -> None:
        for one in self._open:
            with suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
        for thread in list(self._threads):
            thread.join()
        for one in self._open:
            one.close()


@contextmanager
def listening_before(port: int) -> Iterator[Relay]:
    """A relay before a port of this machine."""
    relay = Relay(port)
    with socket.create_server(("127.0.0.1", 0)) as listening:
        relay.run(listening)
        try:
            yield relay
        finally:
            listening.shutdown(socket.SHUT_RDWR)
            relay.close()
