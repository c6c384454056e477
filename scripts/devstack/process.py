"""Processes that outlive the script which started them, and are found again by pid and start time."""

import contextlib
import errno
import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parents[2]
START_SECONDS: Final = 90.0
"""Of a machine that has other things to do besides; what ends instead of starting is seen at once."""
STOP_SECONDS: Final = 20.0
TAIL_LINES: Final = 20
_POLL_SECONDS: Final = 0.02

# A child must be reaped by the process that started it; another process only sees it vanish.
_children: dict[int, subprocess.Popen[bytes]] = {}


class StartError(RuntimeError):
    """A part that did not start: `str()` is one line, `tail` the end of its log."""

    def __init__(self, part: str, reason: str, tail: str = "") -> None:
        super().__init__(f"{part} did not start: {reason}")
        self.part, self.tail = part, tail
        if tail:
            self.add_note(f"the end of its log:\n{tail}")


@dataclass(frozen=True, slots=True)
class Process:
    """A running program. `started` is its start time in clock ticks since boot, so that a reused pid is not it."""

    pid: int
    started: int

    @property
    def alive(self) -> bool:
        """Whether this very process still runs; one that ended and waits to be reaped does not."""
        if child := _children.get(self.pid):
            child.poll()
        found = _stat(self.pid)
        return found is not None and found == ("", self.started)

    def send(self, number: signal.Signals) -> None:
        """Send a signal, if it still runs."""
        if self.alive:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def stop(self, number: signal.Signals = signal.SIGTERM, seconds: float = STOP_SECONDS) -> bool:
        """Send `number`, wait for the end, and kill what has not ended after `seconds`.

        Returns:
            Whether it ended by itself.
        """
        self.send(number)
        self.send(signal.SIGCONT)  # a stopped process would not hear anything else
        ended = wait_until(lambda: not self.alive, seconds)
        if not ended:
            self.send(signal.SIGKILL)
            wait_until(lambda: not self.alive, seconds)
        if not self.alive and (child := _children.pop(self.pid, None)):
            child.wait()
        return ended

    def command(self) -> str:
        """Its command line, as far as a reader needs it."""
        with contextlib.suppress(OSError):
            return (
                Path(f"/proc/{self.pid}/cmdline")
                .read_bytes()
                .replace(b"\0", b" ")
                .decode(errors="replace")[:60]
                .strip()
            )
        return "?"

    def exit_status(self) -> int | None:
        """Its exit status (minus the signal's number, if one ended it); None when it runs or was not ours."""
        child = _children.get(self.pid)
        return None if child is None else child.poll()


def _stat(pid: int) -> tuple[str, int] | None:
    """State ("" or "ended") and start time of a pid; see proc(5)."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return ("ended" if fields[0] in "ZX" else ""), int(fields[19])


def marked(variable: str, value: str) -> list[Process]:
    """All processes that were started with this variable in their environment, but not the one that asks."""
    mark, found = f"{variable}={value}".encode(), []
    for folder in Path("/proc").glob("[0-9]*"):
        pid = int(folder.name)
        with contextlib.suppress(OSError):
            if pid != os.getpid() and mark in (folder / "environ").read_bytes().split(b"\0") and (stat := _stat(pid)):
                found.append(Process(pid, stat[1]))
    return found


def start(command: Sequence[str | Path], log: Path, environment: Mapping[str, str], cwd: Path = ROOT) -> Process:
    """Start a program in a session of its own, with its output appended to `log`."""
    with log.open("ab") as output:
        child = subprocess.Popen(
            [str(word) for word in command],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            cwd=cwd,
            env=dict(environment),
            start_new_session=True,
        )
    _children[child.pid] = child
    found = _stat(child.pid)
    return Process(child.pid, found[1] if found else 0)


def listens(process: Process, port: int) -> bool:
    """Whether it is this process that has the TCP port, and not another one that was quicker; see proc(5)."""
    wanted, listening = f":{port:04X}", "0A"
    tables = [table for table in (Path("/proc/net/tcp"), Path("/proc/net/tcp6")) if table.exists()]
    rows = [line.split() for table in tables for line in table.read_text().splitlines()[1:]]
    sockets = {f"socket:[{row[9]}]" for row in rows if row[1].endswith(wanted) and row[3] == listening}
    with contextlib.suppress(OSError):
        for descriptor in Path(f"/proc/{process.pid}/fd").iterdir():
            with contextlib.suppress(OSError):
                if str(descriptor.readlink()) in sockets:
                    return True
    return False


def free_port() -> int:
    """A TCP port on 127.0.0.1 that is free now; whoever binds it may come too late, and tries another."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


def wait_until(true: Callable[[], bool], seconds: float) -> bool:
    """Ask until the answer is true, for at most `seconds`."""
    end = time.monotonic() + seconds
    while not true():
        if time.monotonic() > end:
            return False
        time.sleep(_POLL_SECONDS)
    return True


def wait_ready(part: str, process: Process, log: Path, ready: Callable[[], bool], seconds: float) -> None:
    """Wait until a part that was just started is ready.

    Raises:
        StartError: it ended, or is not ready after `seconds`.
    """
    if wait_until(lambda: not process.alive or ready(), seconds) and process.alive:
        return
    status = process.exit_status()
    if process.alive:
        reason = f"it is not ready after {seconds:g} s"
    elif port_was_taken(log):
        reason = os.strerror(errno.EADDRINUSE)
    else:
        reason = f"it ended with status {status}"
    raise StartError(part, reason, tail(log))


def port_was_taken(log: Path) -> bool:
    """Whether a log ends with the complaint that the port is taken."""
    return "address already in use" in tail(log).lower()


def tail(log: Path, lines: int = TAIL_LINES) -> str:
    """The last lines of a log."""
    if not log.exists():
        return ""
    with log.open("rb") as file:
        file.seek(max(0, file.seek(0, os.SEEK_END) - 64 * 1024))
        return "\n".join(file.read().decode(errors="replace").splitlines()[-lines:])
