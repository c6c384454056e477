"""Which faults happen when: drawn from a seed, so that a run can be had again."""

import random
from dataclasses import dataclass
from enum import StrEnum
from typing import Final


class Kind(StrEnum):
    """What is done to the stack. The part before the colon is the lane: in one lane one fault follows the other."""

    PROCESSOR_1_KILL = "processor 1:SIGKILL"
    PROCESSOR_1_TERM = "processor 1:SIGTERM"
    PROCESSOR_1_STOP = "processor 1:SIGSTOP"
    PROCESSOR_2_KILL = "processor 2:SIGKILL"
    PROCESSOR_2_TERM = "processor 2:SIGTERM"
    PROCESSOR_2_STOP = "processor 2:SIGSTOP"
    STORAGE_KILL = "storage:SIGKILL"
    STORAGE_TERM = "storage:SIGTERM"
    STORAGE_STOP = "storage:SIGSTOP"
    PRIMARY_KILL = "mongod:primary SIGKILL"
    PRIMARY_TERM = "mongod:primary SIGTERM"
    PRIMARY_STOP = "mongod:primary SIGSTOP"
    PRIMARY_CUT_OFF = "mongod:primary cut off"
    PRIMARY_STEPS_DOWN = "mongod:primary steps down"
    SECONDARY_KILL = "mongod:secondary SIGKILL"
    CHAIN_STOP = "chain:SIGSTOP"
    CHAIN_RESTART = "chain:SIGTERM"
    CHAIN_REORGANISES = "chain:reorganisation"
    CHAIN_DROPS = "chain:transactions dropped"
    CHAIN_DEAR = "chain:fees above the cap"
    CHAIN_BROKE = "chain:balance empty"
    CHAIN_NONCE_TAKEN = "chain:nonce used by another"
    CHAIN_FORGETS = "chain:history lost"
    RECORDERS_1_CUT = "wire to processor 1:cut"
    RECORDERS_1_DEAF = "wire to processor 1:answers lost"
    RECORDERS_2_CUT = "wire to processor 2:cut"
    RECORDERS_2_DEAF = "wire to processor 2:answers lost"
    STORAGE_1_CUT = "wire of processor 1 to storage:cut"
    STORAGE_1_STALLED = "wire of processor 1 to storage:stalled"
    STORAGE_1_DEAF = "wire of processor 1 to storage:answers lost"
    STORAGE_2_CUT = "wire of processor 2 to storage:cut"
    STORAGE_2_STALLED = "wire of processor 2 to storage:stalled"
    STORAGE_2_DEAF = "wire of processor 2 to storage:answers lost"
    RPC_CUT = "wire to chain:cut"
    RPC_STALLED = "wire to chain:stalled"
    RPC_DEAF = "wire to chain:answers lost"
    SPOOL_FULL = "disk:spool's volume full"
    DATABASE_FULL = "disk:database's volume full"
    PROCESSOR_AHEAD = "clock:processors leap ahead"
    PROCESSOR_BACK = "clock:processors fall back"
    STORAGE_AHEAD = "clock:storage leaps ahead"
    STORAGE_BACK = "clock:storage falls back"

    @property
    def lane(self) -> str:
        """The part that it is done to."""
        return self.value.partition(":")[0]


@dataclass(frozen=True, slots=True)
class Fault:
    """One fault: how long after the one before it in its lane it begins, and how long it lasts, in seconds."""

    kind: Kind
    after_seconds: float
    seconds: float


_QUIET_SECONDS: Final = (3.0, 40.0)
_LASTS_SECONDS: Final = (0.5, 12.0)


def draw(seed: int, kinds: frozenset[Kind], seconds: float) -> dict[str, list[Fault]]:
    """The faults of a run, by lane; each lane is busy for about `seconds`, and each of its kinds comes in turn."""
    lanes: dict[str, list[Fault]] = {}
    for lane in sorted({kind.lane for kind in kinds}):
        draw = random.Random(f"{seed}/{lane}")
        own = sorted(kind for kind in kinds if kind.lane == lane)
        faults: list[Fault] = []
        turn: list[Kind] = []
        at = 0.0
        while True:
            if not turn:
                turn = draw.sample(own, len(own))
            low, high = _LASTS_SECONDS
            fault = Fault(turn.pop(), draw.uniform(*_QUIET_SECONDS), low + (high - low) * draw.random() ** 2)
            at += fault.after_seconds + fault.seconds
            if at > seconds:
                break
            faults.append(fault)
        lanes[lane] = faults
    return lanes
