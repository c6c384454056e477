"""The real stack under faults, in short; `scripts/chaos` does it for longer."""

import asyncio
import os
from pathlib import Path

import pytest
from bson import Binary
from pymongo import MongoClient

from scripts.devstack.stack import Stack
from tests.altering import altered_end
from tests.chaos import run
from tests.chaos.content import Plan, plan
from tests.chaos.ledger import Ledger
from tests.chaos.recorder import Recorder
from tests.chaos.schedule import Fault, Kind, draw
from tests.chaos.verdict import Judge, Verdict
from tests.conftest import Figure

SECONDS = float(os.environ.get("LUCID_CHAOS_SECONDS", "45"))
RECORDERS = 6
SEED = int(os.environ.get("LUCID_CHAOS_SEED", "1"))


@pytest.mark.timeout(SECONDS + 500)
def test_nothing_acknowledged_is_lost(tmp_path: Path, figure: Figure) -> None:
    outcome = asyncio.run(run.run(SEED, SECONDS, tmp_path / "run", recorders=RECORDERS))
    figure(run.table(outcome))
    assert outcome.passed, run.table(outcome)
    assert not (os.environ.get("CI") and outcome.left_out)
    assert outcome.ledger.acknowledged_chunks() > 0
    assert sum(outcome.faults.values()) > SECONDS / 10


@pytest.mark.timeout(400)
def test_the_primary_of_three_is_killed_ten_times(tmp_path: Path, figure: Figure) -> None:
    lanes = {"mongod": [Fault(Kind.PRIMARY_KILL, 1.5, 0.5)] * 10}
    outcome = asyncio.run(run.run(SEED, 0, tmp_path / "run", recorders=RECORDERS, lanes=lanes))
    assert outcome.passed, run.table(outcome)
    assert outcome.faults.total() == 10
    figure(
        f"primary killed ten times: {outcome.ledger.acknowledged_chunks()} chunks acknowledged, none lost, "
        f"longest stall {outcome.ledger.longest_stall_seconds:.1f} s"
    )


def test_the_same_seed_gives_the_same_faults_and_the_same_content() -> None:
    kinds = frozenset(Kind)
    assert draw(7, kinds, 600) == draw(7, kinds, 600) != draw(8, kinds, 600)
    lanes = draw(7, kinds, 1200)
    assert {fault.kind for faults in lanes.values() for fault in faults} == kinds
    assert sum(map(len, lanes.values())) > 200
    assert plan(7, 1, 2).whole() == plan(7, 1, 2).whole() != plan(7, 1, 3).whole()


@pytest.fixture
async def recorded(stack: Stack) -> Ledger:
    """One small session, as a recorder of the harness records it."""
    ledger, going = Ledger(), iter((True,))
    seed = int.from_bytes(os.urandom(4), "big")
    recorder = Recorder(0, seed, stack.processor_url, stack.tokens["record"], ledger)
    await recorder.run(lambda: next(going, False), 0)
    return ledger


def _verdict(stack: Stack, ledger: Ledger) -> Verdict:
    judge = Judge(stack, stack.mongodb_url, ledger)
    for session in ledger.plans:
        judge._session(session, 0)
    return judge.verdict


async def test_what_is_lost_altered_or_foreign_is_seen(stack: Stack, recorded: Ledger) -> None:
    """A harness that cannot fail would prove nothing."""
    ((session, was),) = recorded.plans.items()
    found = await asyncio.to_thread(_verdict, stack, recorded)
    assert not found.lost + found.altered + found.duplicated
    last = max(recorded.stored[session])
    recorded.stored[session][last + 1] = "00"
    assert len((await asyncio.to_thread(_verdict, stack, recorded)).lost) == 1
    del recorded.stored[session][last + 1]
    recorded.stored[session][last] = "00"
    assert len((await asyncio.to_thread(_verdict, stack, recorded)).altered) == 1
    recorded.plans[session] = Plan(session, was.chunk_count - 1)
    assert (await asyncio.to_thread(_verdict, stack, recorded)).duplicated
    recorded.plans[session] = was
    with MongoClient(stack.mongodb_url) as client:
        bodies = client[stack.env["storage"]["MONGODB_DATABASE"]]["bodies"]
        body = bodies.find_one({"_id.s": session})
        bodies.update_one({"_id": body["_id"]}, {"$set": {"data": Binary(altered_end(body["data"]))}})
    assert (await asyncio.to_thread(_verdict, stack, recorded)).lost


async def test_answers_that_differ_are_noted(recorded: Ledger) -> None:
    ((_, was),) = recorded.plans.items()
    recorded.acknowledged(was, 0, {"durability": "stored", "envelope_sha256": "ff"}, 0)
    recorded.sealed(was, "ff")
    assert [one.partition(": ")[2] for one in recorded.violations] == [
        "two acknowledgements name different envelopes",
        "two seals name different manifests",
    ]
