"""The server as a process: how it ends, and with which exit code."""

import signal
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest

from sessions.runtime import server
from sessions.runtime.settings import ServiceSettings

_PROGRAM = """
import sys
from pathlib import Path
from sessions.runtime import server
from sessions.runtime.settings import ServiceSettings

class App:
    async def __call__(self, scope, receive, send):
        if scope["type"] == "lifespan":
            await receive()
            if "broken" in sys.argv:
                await send({"type": "lifespan.startup.failed", "message": "no"})
                return
            await send({"type": "lifespan.startup.complete"})
            print("started", flush=True)
            await receive()
            print("stopped", flush=True)
            await send({"type": "lifespan.shutdown.complete"})
        else:
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": b"served"})

host = "::" if "::" in sys.argv else "127.0.0.1"
settings = ServiceSettings(service_name="x", host=host, port=int(sys.argv[1]), tokens_file=Path("x"))
sys.exit(server.serve(App(), settings))
"""


def _start(port: int, *arguments: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", _PROGRAM, str(port), *arguments]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_graceful_end_is_exit_code_0(number: signal.Signals) -> None:
    port = _free_port()
    with _start(port) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "started\n"
        for _ in range(100):
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{port}/") as answer:
                    assert answer.read() == b"served"
                    assert "server" not in answer.headers
                break
            except OSError:
                time.sleep(0.02)
        else:
            pytest.fail("it does not listen")
        process.send_signal(number)
        output, errors = process.communicate(timeout=20)
    assert (process.returncode, output, errors) == (0, "stopped\n", "")


def test_an_app_that_cannot_start_is_exit_code_1() -> None:
    with _start(_free_port(), "broken") as process:
        process.communicate(timeout=20)
    assert process.returncode == 1


def test_a_port_that_is_taken_is_exit_code_1() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with _start(taken.getsockname()[1]) as process:
            output, errors = process.communicate(timeout=20)
    assert (process.returncode, output) == (1, "")
    assert errors.startswith("cannot listen: PORT: 127.0.0.1:")
    assert errors.count("\n") == 1


@pytest.mark.parametrize("address", ["127.0.0.1", "[::1]"])
def test_all_addresses_of_both_families(address: str) -> None:
    """B31: `HOST=::` refused connections over IPv4."""
    port = _free_port()
    with _start(port, "::") as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "started\n"
        try:
            _served(f"http://{address}:{port}/")
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(10)


def _served(url: str) -> None:
    for _ in range(100):
        try:
            with urllib.request.urlopen(url) as answer:
                assert answer.read() == b"served"
                return
        except OSError:
            time.sleep(0.02)
    pytest.fail("it does not listen")


def test_a_client_that_is_gone_without_a_word_is_noticed() -> None:
    settings = ServiceSettings(service_name="x", host="127.0.0.1", port=0, tokens_file=Path("x"))
    listening = server.listen(settings)
    assert listening is not None
    with listening, socket.create_connection(listening.getsockname()):
        accepted, _ = listening.accept()
        with accepted:
            assert accepted.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
            options = (socket.TCP_KEEPIDLE, socket.TCP_KEEPINTVL, socket.TCP_KEEPCNT, socket.TCP_USER_TIMEOUT)
            found = [accepted.getsockopt(socket.IPPROTO_TCP, option) for option in options]
            assert found == [30, 10, 3, 60_000]


@pytest.mark.parametrize(("limit", "room"), [("ulimit -n 1024", 768), ("ulimit -Sn 300", 4096), ("ulimit -n 100", 1)])
def test_connections_leave_room_for_files(limit: str, room: int) -> None:
    """The soft limit is raised; below the hard one the bound on connections goes down, and it is said."""
    program = "from sessions.runtime import open_files; print(open_files.connections_max(4096))"
    command = ["sh", "-c", f'{limit} && exec "$0" -c "{program}"', sys.executable]
    done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=True)
    said = done.stdout.splitlines()
    assert said[-1] == str(room)
    assert (len(said) > 1 and "few_open_files" in said[0]) == (room < 4096)
