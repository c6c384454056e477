"""Records through the real stack while faults happen, then judges. `scripts/chaos --minutes N --seed S`."""

import argparse
import asyncio
import contextlib
import hashlib
import json
import os
import random
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from scripts.devstack import clock, leaks, partition, process
from scripts.devstack.clock import HostClock
from scripts.devstack.mongod import Mongod
from scripts.devstack.process import free_port
from scripts.devstack.replica_set import ReplicaSet
from scripts.devstack.replicas import Replica, balanced, wait_balanced
from scripts.devstack.services import SERVICES
from scripts.devstack.stack import STACK_VARIABLE, Stack
from tests.chaos.faults import Saboteur
from tests.chaos.hostile import Hostile
from tests.chaos.ledger import Ledger
from tests.chaos.recorder import Asking, Ours, Plain, Recorder
from tests.chaos.schedule import Fault, Kind, draw
from tests.chaos.verdict import Judge, Verdict
from tests.chaos.wire import Wire

_MIB: Final = 1024 * 1024
_SPOOL_VOLUME_BYTES: Final = 128 * _MIB
_DATABASE_VOLUME_BYTES: Final = 6 * 1024 * _MIB
_RECORDED_BYTES_PER_SECOND: Final = 2 * _MIB
"""What three members come to hold in a second of the run, at most."""
_DATABASE_FREE_MIN_BYTES: Final = 1024 * _MIB
RECORDERS: Final = 16
_PAUSE_SECONDS: Final = 0.1
"""Between two chunks of one of a recorder's four workers, on average: real recorders do not send as fast as they can."""
_ANCHOR_SECONDS: Final = 240.0
_DRAIN_SECONDS: Final = 90.0
HOSTILE: Final = 2
_OF_THREE_OURS: Final = 2
_SHOWN: Final = 20
"""How many of each kind of what is wrong are shown."""


def _of_lane(lane: str) -> set[Kind]:
    return {kind for kind in Kind if kind.lane == lane}


@dataclass(slots=True)
class Outcome:
    """All that a run came to."""

    seed: int
    seconds: float
    faults: Counter[str] = field(default_factory=Counter)
    impossible: list[str] = field(default_factory=list)
    """Faults that cannot be done on this machine, and why."""
    ledger: Ledger = field(default_factory=Ledger)
    verdict: Verdict = field(default_factory=Verdict)

    @property
    def passed(self) -> bool:
        """Whether nothing at all is wrong."""
        return not self.verdict.wrong and not self.ledger.violations

    def document(self) -> dict[str, Any]:
        """The run as JSON."""
        verdict, ledger = self.verdict, self.ledger
        return {
            "seed": self.seed,
            "seconds": round(self.seconds),
            "passed": self.passed,
            "faults": dict(sorted(self.faults.items())),
            "impossible": self.impossible,
            "sessions": len(ledger.plans),
            "acknowledged_chunks": ledger.acknowledged_chunks(),
            **{kind: len(found) for kind, found in verdict.kinds.items()},
            "violations": len(ledger.violations),
            "given_up": len(ledger.given_up),
            "queued_seals": len(ledger.queued),
            "longest_stall_seconds": round(ledger.longest_stall_seconds, 1),
            "answers": dict(sorted(ledger.counts.items())),
            "figures": dict(sorted(verdict.figures.items())),
            "wrong": [
                f"{kind}: {text}"
                for kind, found in {**verdict.kinds, "violation": ledger.violations}.items()
                for text in found[:_SHOWN]
            ],
        }


@dataclass(frozen=True, slots=True)
class _Running:
    stack: Stack
    database: ReplicaSet
    services: dict[str, Replica]
    urls: list[str]
    """Where recorders reach the processors: one address each."""
    balancer: str
    tokens: dict[str, str]
    """Of those who wish the others ill, by role."""
    saboteur: Saboteur


@contextlib.contextmanager
def _volume(folder: Path, size_bytes: int) -> Iterator[Path | None]:
    """A file system of its own on `folder`, that can be filled; None when this user may not mount one."""
    folder.mkdir(parents=True)
    mount = ["mount", "-t", "tmpfs", "-o", f"size={size_bytes},mode=700", "lucid-chaos", str(folder)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True, check=False).returncode:
        yield None
        return
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def _hostile_tokens(file: Path) -> dict[str, str]:
    """Tokens for the roles `record` and `processor`, added to the file that the services read now and then."""
    tokens = {role: f"lucid_{secrets.token_urlsafe(32)}" for role in ("record", "processor")}
    with file.open("a") as lines:
        for role, token in tokens.items():
            leaks.register("token", token)
            lines.write(f"hostile-{role} roles={role} sha256={hashlib.sha256(token.encode()).hexdigest()}\n")
    return tokens


@contextlib.asynccontextmanager
async def _running(
    folder: Path, kinds: set[Kind], outcome: Outcome, storage: Mapping[str, str]
) -> AsyncIterator["_Running"]:
    """Two processors and a storage with wires between all parts, on three mongods."""
    async with contextlib.AsyncExitStack() as everything:
        volumes: dict[str, Path] = {}
        database_bytes = _DATABASE_VOLUME_BYTES + int(outcome.seconds) * _RECORDED_BYTES_PER_SECOND
        sizes = {"spool": _SPOOL_VOLUME_BYTES, "database": database_bytes}
        for name, size in sizes.items():
            if everything.enter_context(_volume(folder / name, size)):
                volumes[name] = folder / name
        if not volumes.keys() >= sizes.keys():
            kinds -= _of_lane("disk")
            outcome.impossible.append("full disks: only root can mount volumes that can be filled")
        if problem := partition.problem():
            kinds.discard(Kind.PRIMARY_CUT_OFF)
            outcome.impossible.append(f"a primary that is cut off: {problem}")
        clocks: dict[str, HostClock] = {}
        if problem := clock.problem():
            kinds -= _of_lane("clock")
            outcome.impossible.append(f"clocks that leap: {problem}")
        else:
            clocks = {name: HostClock(folder / f"{name}.clock") for name in SERVICES}
        database = ReplicaSet(folder / "database")
        everything.callback(database.stop)
        await asyncio.to_thread(database.start)
        ports = {name: free_port() for name in ("storage", "processor", "chain")}
        targets = {"storage-1": "storage", "storage-2": "storage", "processor-1": "processor", "chain": "chain"}
        wires = {name: await everything.enter_async_context(Wire(ports[target])) for name, target in targets.items()}
        hosts = {name: clocks[name].environment() if name in clocks else {} for name in SERVICES}
        spools = {number: folder / "spool" / str(number) for number in (1, 2)}
        for spool in spools.values():
            spool.mkdir(mode=0o700)
        stack = Stack(
            folder / "stack",
            settings={
                "processor": {
                    **hosts["processor"],
                    "PORT": str(ports["processor"]),
                    "STORAGE_URL": wires["storage-1"].url,
                    "STORAGE_TIMEOUT_SECONDS": "10",
                    "SPOOL_DIR": str(spools[1]),
                    "SPOOL_FREE_MIN_BYTES": str(_SPOOL_VOLUME_BYTES // 8),
                },
                "storage": {
                    **hosts["storage"],
                    "PORT": str(ports["storage"]),
                    "CHAIN_RPC_URLS": wires["chain"].url,
                    "DATABASE_FREE_MIN_BYTES": str(_DATABASE_FREE_MIN_BYTES),
                    "ANCHOR_INTERVAL_SECONDS": "3",
                    **storage,
                },
            },
        )
        stack.mongod = Mongod(None, url=database.url)
        stack.anvil.port = ports["chain"]
        everything.callback(stack.stop)
        await asyncio.to_thread(stack.start)
        own = {"STORAGE_URL": wires["storage-2"].url, "SPOOL_DIR": str(spools[2])}
        services = {
            "storage": Replica.own(stack, "storage"),
            "processor-1": Replica.own(stack, "processor"),
            "processor-2": Replica.further(stack, "processor", "processor-2", own),
        }
        wires["processor-2"] = await everything.enter_async_context(Wire(services["processor-2"].port))
        await asyncio.to_thread(services["processor-2"].start)
        fronts = [wires["processor-1"], wires["processor-2"]]
        balancer = await _balancer(everything, stack, fronts, ports["storage"], outcome)
        saboteur = Saboteur(
            stack,
            database,
            services=services,
            wires=wires,
            clocks=clocks,
            volumes=volumes,
            keep_free=_DATABASE_FREE_MIN_BYTES // 2,
        )
        tokens = _hostile_tokens(stack.folder / "secrets" / "tokens")
        yield _Running(stack, database, services, [wire.url for wire in fronts], balancer, tokens, saboteur)


async def _balancer(
    everything: contextlib.AsyncExitStack, stack: Stack, fronts: list[Wire], storage_port: int, outcome: Outcome
) -> str:
    """HAProxy's address; that of the first processor where there is no HAProxy."""
    try:
        found = everything.enter_context(balanced(stack, [wire.port for wire in fronts], [storage_port] * 2))
    except FileNotFoundError:
        outcome.impossible.append("a balancer: haproxy not found (apt-get install haproxy)")
        return fronts[0].url
    assert await asyncio.to_thread(wait_balanced, found)
    return found.processors


def _recorders(seed: int, count: int, parts: _Running, ledger: Ledger) -> list[Recorder]:
    """Of each three: one that takes 202 for an answer, one that asks again, and our own client."""
    token, found = parts.stack.tokens["record"], list[Recorder]()
    for number in range(count):
        if number % 3 == _OF_THREE_OURS:
            found.append(Ours(number, seed, ledger, parts.balancer, token))
        else:
            found.append((Plain, Asking)[number % 3](number, seed, ledger, parts.urls, token))
    return found


async def _lane(faults: list[Fault], saboteur: Saboteur, outcome: Outcome, show: bool) -> None:
    for fault in faults:
        await asyncio.sleep(fault.after_seconds)
        if show:
            chunks = outcome.ledger.acknowledged_chunks()
            _say(f"  {chunks:>6} chunks, then {fault.kind.value} for {fault.seconds:.1f} s")
        await saboteur.do(fault)
        outcome.faults[fault.kind.value] += 1


async def run(
    seed: int,
    seconds: float,
    folder: Path,
    *,
    recorders: int = RECORDERS,
    hostile: int = 0,
    lanes: dict[str, list[Fault]] | None = None,
    storage: Mapping[str, str] | None = None,
    drain_seconds: float = _DRAIN_SECONDS,
    show: bool = False,
) -> Outcome:
    """One run in an empty folder, with the faults that the seed gives, or with those of `lanes`.

    `hostile` is how many clients wish the recorders ill; `storage` are further settings of session-storage;
    `drain_seconds` is how long spools may take to drain and queued seals to be put in force, once all is healed.
    """
    begun, outcome, kinds = time.monotonic(), Outcome(seed, seconds), set(Kind)
    async with _running(folder, kinds, outcome, storage or {}) as parts:
        lanes = draw(seed, frozenset(kinds), seconds) if lanes is None else lanes
        going = True
        ledger = outcome.ledger
        async with asyncio.TaskGroup() as recording:
            for recorder in _recorders(seed, recorders, parts, ledger):
                recording.create_task(recorder.run(lambda: going, _PAUSE_SECONDS))
            for number in range(hostile):
                one = Hostile(
                    number,
                    seed,
                    ledger,
                    processors=parts.urls,
                    storage=parts.stack.storage_url,
                    tokens=parts.tokens,
                )
                recording.create_task(one.run(lambda: going))
            async with asyncio.TaskGroup() as sabotage:
                for faults in lanes.values():
                    sabotage.create_task(_lane(faults, parts.saboteur, outcome, show))
                sabotage.create_task(asyncio.sleep(seconds))
            going = False
            if show:
                _say("no more faults; the recorders finish what they have begun")
        judge = Judge(parts.stack, parts.database.url, outcome.ledger)
        if show:
            _say("all is healed; the spools drain, and what was queued is sealed")
        processors = [one for one in parts.services.values() if one.service == "processor"]
        await asyncio.to_thread(judge.drain, processors, drain_seconds)
        if show:
            _say(f"comparing {outcome.ledger.acknowledged_chunks()} chunks of {len(outcome.ledger.plans)} sessions")
        outcome.verdict = await asyncio.to_thread(judge.judge, _ANCHOR_SECONDS)
    outcome.seconds = time.monotonic() - begun
    return outcome


async def _until_ended(seed: int, seconds: float, folder: Path, hostile: int) -> Outcome:
    """A run that SIGTERM ends in good order."""
    running = asyncio.current_task()
    assert running is not None
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, running.cancel)
    return await run(seed, seconds, folder, hostile=hostile, show=True)


def _say(text: str) -> None:
    print(f"{time.strftime('%H:%M:%S')} {text}", file=sys.stderr, flush=True)


def table(outcome: Outcome) -> str:
    """The run for people, of 80 columns."""
    document = outcome.document()
    lines = [f"seed {outcome.seed}, {document['seconds']} s: {'passed' if outcome.passed else 'FAILED'}", ""]
    lines += [f"{'fault':<44}times", *(f"{kind:<44}{count:>5}" for kind, count in document["faults"].items())]
    lines += [f"{'all faults':<44}{sum(outcome.faults.values()):>5}", ""]
    plain = ["sessions", "acknowledged_chunks", *outcome.verdict.kinds, "violations", "given_up", "queued_seals"]
    lines += [f"{name.replace('_', ' '):<44}{document[name]:>9}" for name in plain]
    lines += [f"{'longest stall of a chunk, s':<44}{document['longest_stall_seconds']:>9}"]
    lines += [f"{name:<44}{count:>9}" for name, count in (document["answers"] | document["figures"]).items()]
    return "\n".join([*lines, *document["impossible"], *document["wrong"]])


def main(arguments: list[str]) -> int:
    """The command line; the exit status."""
    parser = argparse.ArgumentParser(prog="scripts/chaos", description="Break the real stack while it records.")
    parser.add_argument("--minutes", type=float, default=3.0, help="how long faults go on (default 3)")
    parser.add_argument("--seed", type=int, help="of an earlier run, to have its faults again (default: a new one)")
    parser.add_argument("--peaceful", action="store_true", help="without clients that wish the others ill")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there as well")
    parser.add_argument("--keep", action="store_true", help="keep data and logs, and say where")
    given = parser.parse_args(arguments)
    seed = random.SystemRandom().randrange(10**6) if given.seed is None else given.seed
    print(f"seed {seed}")
    folder = Path(tempfile.mkdtemp(prefix="lucid-chaos-"))
    try:
        outcome = asyncio.run(_until_ended(seed, given.minutes * 60, folder, 0 if given.peaceful else HOSTILE))
    except asyncio.CancelledError:
        return 1
    finally:
        for stray in process.marked(STACK_VARIABLE, str(folder / "stack")):  # a fault was just being undone
            stray.stop()
        if given.keep:
            print(f"logs: {folder}")
        else:
            shutil.rmtree(folder, ignore_errors=True)
    print(table(outcome))
    if given.json:
        given.json.write_text(json.dumps(outcome.document(), indent=2) + "\n")
    return 0 if outcome.passed else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
