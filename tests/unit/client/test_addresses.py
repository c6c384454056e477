"""A name of which the first address swallows connections: clients go on to the next one (B30)."""

import http.server
import socket
import threading
import time
from typing import Any

import pytest

from sessions.client.retry import RetryPolicy
from sessions.client.rpc import JsonRpc
from sessions.client.transport import Transport
from tests.unit.processor.test_addresses import swallowing

_ANSWER = b'{"jsonrpc":"2.0","id":1,"result":"0x1"}'


class _Handler(http.server.BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        self.rfile.read(int(self.headers.get("content-length", 0)))
        self.send_response(200)
        self.send_header("Content-Length", str(len(_ANSWER)))
        self.end_headers()
        self.wfile.write(_ANSWER)

    do_GET = do_POST  # noqa: N815 - the name that http.server asks for

    def log_message(self, *_: Any) -> None:
        pass


async def test_each_address_gets_its_own_try(monkeypatch: pytest.MonkeyPatch) -> None:
    truly = socket.getaddrinfo

    def resolve(host: Any, port: Any, *rest: Any, **names: Any) -> Any:
        if host in ("name.lab", b"name.lab"):
            return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (one, int(port))) for one in ("127.0.0.2", "127.0.0.3")]
        return truly(host, port, *rest, **names)

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    with swallowing("127.0.0.2") as port, http.server.ThreadingHTTPServer(("127.0.0.3", port), _Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        begun = time.monotonic()
        transport = Transport("x", f"http://name.lab:{port}", None, RetryPolicy(budget_seconds=0))
        assert await transport.json("GET", "/", lambda value, _: value["result"]) == "0x1"
        await transport.close()
        assert time.monotonic() - begun < 3
        begun = time.monotonic()
        with JsonRpc(f"http://name.lab:{port}") as node:
            assert node.chain_id() == 1
        assert time.monotonic() - begun < 8
        server.shutdown()
