"""An honest recorder while others attack: `scripts/siege`. Ratios of latency, answers, and memory of each service."""

import argparse
import asyncio
import contextlib
import hashlib
import json
import secrets
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from bench.load import Connection
from bench.results import percentile
from bench.usage import forget_peak, peak_mib
from scripts.devstack import leaks
from scripts.devstack.stack import ROOT, Stack
from tests.siege.attackers import KINDS
from tests.siege.half_core import half_a_core

_KIB: Final = 1024
_CHUNK_BYTES: Final = 16 * _KIB
_PER_SECOND: Final = 40
_SESSIONS: Final = 8
GRACE_SECONDS: Final = 10.0
"""Seconds after the start of an attack in which the recorder may get a 503."""
COMPOSE: Final[dict[str, dict[str, str]]] = {
    "processor": {"INFLIGHT_MAX_BYTES": "134217728", "REPLAY_MAX_BYTES": "67108864"},
    "storage": {"INFLIGHT_MAX_BYTES": "134217728"},
}
LIMIT_MIB: Final = {"processor": 640, "storage": 640}
"""What compose gives each service."""


@dataclass(slots=True)
class Seen:
    """A recorder's results: seconds for each chunk since it was due, and answers that were not 200 or 201."""

    latencies: list[float] = field(default_factory=list)
    others: Counter[str] = field(default_factory=Counter)
    late_others: Counter[str] = field(default_factory=Counter)
    """Those after `GRACE_SECONDS`."""


async def record(url: str, token: str, seconds: float, grace_seconds: float) -> Seen:
    """Record chunks of some sessions at an even pace. Latencies within the grace are not counted."""
    seen, prefix, begin = Seen(), secrets.token_hex(4), time.perf_counter()
    body = memoryview(secrets.token_bytes(_CHUNK_BYTES))

    async def session(number: int) -> None:
        connection = Connection(url, token)
        index, due, gap = 0, begin + number / _PER_SECOND, _SESSIONS / _PER_SECOND
        while due < begin + seconds:
            await asyncio.sleep(max(0.0, due - time.perf_counter()))
            other = ""
            try:
                async with asyncio.timeout(30):
                    path = f"/api/v1/sessions/{prefix}-{number}/chunks/{index}"
                    status, _ = await connection.request("PUT", path, body)
                if status in (200, 201):
                    index += 1
                else:
                    other = str(status)
            except (OSError, EOFError, TimeoutError) as error:
                other = type(error).__name__
                await _close(connection)
                connection = Connection(url, token)
            late = time.perf_counter() - begin > grace_seconds
            if other:
                (seen.late_others if late else seen.others)[other] += 1
            elif due - begin > grace_seconds:
                seen.latencies.append(time.perf_counter() - due)
            due += gap
        await _close(connection)

    async with asyncio.TaskGroup() as group:
        for number in range(_SESSIONS):
            group.create_task(session(number))
    return seen


async def _close(connection: Connection) -> None:
    with contextlib.suppress(OSError):
        await connection.close()


@contextlib.contextmanager
def attackers(kind: str, order: dict[str, Any], group: Path | None) -> Iterator[None]:
    """One kind of attack for the time of the block."""
    command = [sys.executable, "-m", "tests.siege.attackers"]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, cwd=ROOT)
    try:
        assert process.stdin is not None
        process.stdin.write(json.dumps({**order, "kind": kind, "group": str(group or "")}).encode())
        process.stdin.close()
        yield
    finally:
        process.kill()
        process.wait()


def hostile_token(stack: Stack) -> str:
    """A token of the roles record, replay and audit, added to the file that the services read now and then."""
    token = f"lucid_{secrets.token_urlsafe(32)}"
    leaks.register("token", token)
    for service in ("processor", "storage"):
        line = f"hostile roles=record,replay,audit sha256={hashlib.sha256(token.encode()).hexdigest()}\n"
        file = Path(stack.env[service]["TOKENS_FILE"])
        if line not in file.read_text():
            with file.open("a") as lines:
                lines.write(line)
    time.sleep(3)  # they look every two seconds
    return token


@dataclass(frozen=True, slots=True)
class Round:
    """One attack once. Latencies are p99 in milliseconds, memory in MiB."""

    kind: str
    quiet_ms: float
    attacked_ms: float
    refused: dict[str, int]
    refused_late: dict[str, int]
    peaks: dict[str, float]

    @property
    def ratio(self) -> float:
        """How many times as long a chunk took, at the 99th percentile."""
        return self.attacked_ms / self.quiet_ms


def one_round(
    stack: Stack,
    kind: str,
    order: dict[str, Any],
    group: Path | None,
    *,
    seconds: float,
    grace_seconds: float = GRACE_SECONDS,
) -> Round:
    """Record in peace, then under attack."""
    token = stack.tokens["record"]
    quiet = asyncio.run(record(stack.processor_url, token, seconds, 1.0))
    for service in stack.services.values():
        forget_peak(service.pid)
    with attackers(kind, order, group):
        seen = asyncio.run(record(stack.processor_url, token, grace_seconds + seconds, grace_seconds))
    peaks = {name: peak_mib(service.pid) for name, service in stack.services.items()}
    time.sleep(1)
    p99 = [percentile(one.latencies or [float("inf")], 0.99) * 1000 for one in (quiet, seen)]
    return Round(kind, p99[0], p99[1], dict(seen.others), dict(seen.late_others), peaks)


@contextlib.contextmanager
def besieged(folder: Path) -> Iterator[tuple[Stack, dict[str, Any]]]:
    """The stack with compose's bounds, a long recording in it, and what attackers have to know."""
    stack = Stack(folder, settings=COMPOSE)
    stack.start()
    try:
        token, session = hostile_token(stack), f"long-{secrets.token_hex(4)}"

        async def recorded() -> None:
            connection = Connection(stack.processor_url, stack.tokens["record"])
            for index in range(32):
                path = f"/api/v1/sessions/{session}/chunks/{index}"
                status, _ = await connection.request("PUT", path, secrets.token_bytes(_KIB * _KIB))
                assert status == 201
            await connection.close()

        asyncio.run(recorded())
        yield (
            stack,
            {
                "processor": stack.processor_url,
                "storage": stack.storage_url,
                "token": token,
                "session": session,
            },
        )
    finally:
        stack.stop()


def table(rounds: list[Round]) -> list[str]:
    """Medians of each kind for people, of 80 columns."""
    lines = [
        f"{'attack':<20}{'quiet':>8}{'attacked':>10}{'ratio':>7}{'503 late':>10}{'MiB proc.':>10}{'MiB stor.':>10}"
    ]
    for kind in dict.fromkeys(one.kind for one in rounds):
        of = [one for one in rounds if one.kind == kind]
        late = sum(sum(one.refused_late.values()) for one in of)
        lines.append(
            f"{kind:<20}{statistics.median(one.quiet_ms for one in of):>8.1f}"
            f"{statistics.median(one.attacked_ms for one in of):>10.1f}"
            f"{statistics.median(one.ratio for one in of):>7.2f}{late:>10}"
            f"{max(one.peaks['processor'] for one in of):>10.0f}{max(one.peaks['storage'] for one in of):>10.0f}"
        )
    return lines


def passed(rounds: list[Round]) -> bool:
    """Return whether the recorder was kept from nothing, and memory stayed within compose's bounds."""
    kinds = {one.kind for one in rounds}
    slow = [k for k in kinds if statistics.median(one.ratio for one in rounds if one.kind == k) > 3]
    refused = [one for one in rounds if one.refused_late]
    large = [one for one in rounds if any(one.peaks[name] >= limit for name, limit in LIMIT_MIB.items())]
    return not (slow or refused or large)


def main(arguments: list[str]) -> int:
    """The command line; the exit status."""
    parser = argparse.ArgumentParser(prog="scripts/siege", description="An honest recorder while others attack.")
    parser.add_argument("--rounds", type=int, default=5, help="how often each attack is made (default 5)")
    parser.add_argument("--seconds", type=float, default=20.0, help="how long each is measured (default 20)")
    parser.add_argument("--only", choices=tuple(KINDS), action="append", help="make this attack alone; may come again")
    given, rounds = parser.parse_args(arguments), list[Round]()
    with tempfile.TemporaryDirectory(prefix="lucid-siege-") as folder, half_a_core() as group:
        if group is None:
            print("attackers get more than half a core: this user may make no control group")
        with besieged(Path(folder) / "stack") as (stack, order):
            for number in range(given.rounds):
                for kind in given.only or KINDS:
                    rounds.append(one_round(stack, kind, order, group, seconds=given.seconds))
                    last = rounds[-1]
                    print(
                        f"{number + 1} {kind}: {last.quiet_ms:.1f} -> {last.attacked_ms:.1f} ms, x {last.ratio:.2f}, "
                        f"refused {last.refused}, after 10 s {last.refused_late}, {last.peaks}",
                        file=sys.stderr,
                        flush=True,
                    )
    print("p99 of a chunk of 16 KiB in ms, median; resident memory at most")
    print("\n".join(table(rounds)))
    return 0 if passed(rounds) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
