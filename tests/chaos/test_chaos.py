"""The real stack under faults, in short; `scripts/chaos` does it for longer."""

import asyncio
import os
from dataclasses import replace
from pathlib import Path

import pytest
from bson import Binary
from pymongo import MongoClient

from scripts.devstack.stack import Stack
from tests.altering import altered_end
from tests.chaos import recorder, run
from tests.chaos.content import Plan, plan
from tests.chaos.ledger import Ledger
from tests.chaos.recorder import Asking
from tests.chaos.schedule import Fault, Kind, draw
from tests.chaos.verdict import Judge
from tests.conftest import Figure

SECONDS = float(os.environ.get("LUCID_CHAOS_SECONDS", "45"))
RECORDERS = 6
SEED = int(os.environ.get("LUCID_CHAOS_SEED", "1"))


@pytest.mark.timeout(SECONDS + 500)
def test_nothing_acknowledged_is_lost(tmp_path: Path, figure: Figure) -> None:
    outcome = asyncio.run(run.run(SEED, SECONDS, tmp_path / "run", recorders=RECORDERS, hostile=run.HOSTILE))
    figure(run.table(outcome))
    assert outcome.passed, run.table(outcome)
    assert not (os.environ.get("CI") and outcome.impossible)
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


@pytest.mark.timeout(400)
def test_what_a_processor_holds_that_is_away_for_too_long(
    tmp_path: Path, figure: Figure, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Longer than PROCESSOR_WAIT_SECONDS: sessions are sealed without what it holds, and each names the processor.

    The sessions are short and sealed without a count, so that storage cannot notice missing chunks at the end.
    """

    def short(seed: int, number: int, session: int) -> Plan:
        drawn = plan(seed, number, session)
        return replace(drawn, chunk_count=2 + drawn.chunk_count % 4, counted=False, opened_after=0)

    monkeypatch.setattr(recorder, "plan", short)
    lanes = {"wire": [Fault(Kind.STORAGE_2_CUT, 4, 36)]}
    wait = {"PROCESSOR_WAIT_SECONDS": "12"}
    outcome = asyncio.run(
        run.run(SEED, 0, tmp_path / "run", recorders=3 * RECORDERS, lanes=lanes, storage=wait, drain_seconds=20)
    )
    verdict = outcome.verdict
    without = {text.partition("/")[0] for text in verdict.left_out}
    assert without, "nothing was left out: the processor was not away for long enough"
    assert verdict.figures["left out, and the session names a processor"] == len(without)
    assert not verdict.lost + verdict.altered + verdict.unreadable + verdict.duplicated + verdict.undrained
    figure(f"a processor is away for 36 s, and waited for 12 s: {len(without)} sessions name it as missing")


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
    seeds = (int.from_bytes(os.urandom(4), "big") for _ in range(1000))
    seed = next(one for one in seeds if (drawn := plan(one, 0, 0)).metadata is not None and not drawn.opened_after)
    asking = Asking(0, seed, ledger, [stack.processor_url], stack.tokens["record"])
    await asking.run(lambda: next(going, False), 0)
    return ledger


def _verdict(stack: Stack, ledger: Ledger) -> dict[str, list[str]]:
    """What is found, without kinds of which nothing is."""
    judge = Judge(stack, stack.mongodb_url, ledger)
    judge.drain([], 0)
    for session in ledger.plans:
        judge._session(session, 0)
    return {kind: found for kind, found in judge.verdict.kinds.items() if found and kind != "unproven"}


async def test_what_is_lost_altered_or_foreign_is_seen(stack: Stack, recorded: Ledger) -> None:
    """A harness that cannot fail would prove nothing."""
    ((session, was),) = recorded.plans.items()

    async def seen() -> dict[str, int]:
        found = await asyncio.to_thread(_verdict, stack, recorded)
        return {kind: len(texts) for kind, texts in found.items()}

    assert await seen() == {}
    last = max(recorded.stored[session])
    recorded.stored[session][last + 1] = "00"
    assert await seen() == {"left_out": 1}
    del recorded.stored[session][last + 1]
    digest, recorded.stored[session][last] = recorded.stored[session][last], "00"
    assert await seen() == {"altered": 1}
    recorded.stored[session][last] = digest
    recorded.plans[session] = replace(was, chunk_count=was.chunk_count - 1)
    assert await seen() == {"duplicated": 1}
    recorded.plans[session] = was
    said, recorded.metadata[session] = recorded.metadata[session], {"case": "another"}
    assert await seen() == {"metadata": 1}
    recorded.metadata[session] = said
    with MongoClient(stack.mongodb_url) as client:
        bodies = client[stack.env["storage"]["MONGODB_DATABASE"]]["bodies"]
        body = bodies.find_one({"_id.s": session})
        bodies.update_one({"_id": body["_id"]}, {"$set": {"data": Binary(altered_end(body["data"]))}})
    assert await seen() == {"unreadable": 1, "altered": 2}  # a replay, the record, and the root


async def test_what_is_not_sealed_is_seen(stack: Stack) -> None:
    ledger, one = Ledger(), Plan(f"chaos-open-{os.urandom(4).hex()}", 2)
    recorder = Asking(0, 0, ledger, [stack.processor_url], stack.tokens["record"])
    ledger.begin(one)
    await recorder.chunk(one, 0)
    await recorder.close()
    found = await asyncio.to_thread(_verdict, stack, ledger)
    assert found.keys() == {"unkept"}
    ledger.spooled[one.session_id].add(1)
    found = await asyncio.to_thread(_verdict, stack, ledger)
    assert found.keys() == {"unkept", "lost"}


async def test_answers_that_differ_are_noted(recorded: Ledger) -> None:
    ((_, was),) = recorded.plans.items()
    recorded.acknowledged(was, 0, {"durability": "stored", "envelope_sha256": "ff"}, 0)
    recorded.sealed(was, "ff")
    assert [one.partition(": ")[2] for one in recorded.violations] == [
        "two acknowledgements name different envelopes",
        "two seals name different manifests",
    ]
