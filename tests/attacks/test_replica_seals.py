"""A seal through one processor, while another one holds what it has acknowledged (R1, R2).

Nobody attacks: storage is killed, a wire is cut, a disk is full. What was acknowledged is in the recording all the same,
and a seal that was answered 202 is kept without another question.
"""

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from scripts.devstack.process import wait_until
from tests.attacks.pair import PATIENCE_SECONDS, Pair, names, paired, seen, whole


@pytest.fixture(scope="module")
def one_pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    with paired(tmp_path_factory.mktemp("seals") / "stack") as pair:
        yield pair


@pytest.fixture
def pair(one_pair: Pair) -> Iterator[Pair]:
    yield one_pair
    one_pair.heal()


def left_out(pair: Pair, sessions: list[str], count: int) -> dict[str, int]:
    """The sealed sessions that lack acknowledged chunks, and how many chunks they have."""
    return {one: pair.chunk_count(one) for one in sessions if pair.recorded(one) != whole(one, count)}


def missing_name(pair: Pair, session: str, chunk_count: int | None = None) -> str:
    """The one processor that a seal waits for, by the answer of A."""
    found: list[str] = []

    def waits() -> bool:
        answer = pair.a.seal(session, chunk_count)
        assert answer.status_code == 202, answer.text
        found[:] = answer.json().get("waiting_for", [])
        return len(found) == 1

    assert wait_until(waits, PATIENCE_SECONDS), found
    return found[0]


def test_a_seal_waits_for_a_processor_that_is_cut_off(pair: Pair) -> None:
    """R1a: the seal was answered 200, with 4 of 5 acknowledged chunks."""
    (session,) = names("cut-off", 1)
    pair.a.put(session, range(4), "stored")
    pair.b.cut()
    pair.b.put(session, [4], "spooled")
    answer = pair.a.seal(session)
    assert answer.status_code == 202, f"{answer.json()['manifest']['chunk_count']} of 5 chunks are sealed"
    assert seen(lambda: pair.status(session) == "open", 2)
    pair.b.mend()
    assert pair.until_sealed(session) == []
    assert pair.recorded(session) == whole(session, 5)


def test_storage_is_killed_while_both_hold_chunks(pair: Pair) -> None:
    """R1b: of 15 such sessions 9 were sealed with 6 of 12 acknowledged chunks."""
    sessions = names("both-hold", 15)
    with pair.storage_killed():
        for number, session in enumerate(sessions):
            one, other = pair.turns(number)
            one.put(session, range(6), "spooled")
            other.put(session, range(6, 12), "spooled")
            assert one.seal(session).status_code == 202
    assert pair.until_sealed(*sessions) == []
    assert left_out(pair, sessions, 12) == {}


def test_a_full_database_and_a_seal_through_the_other_processor(pair: Pair) -> None:
    """R1c: the seal was answered 200 at once, with the 4 of 8 chunks that storage had."""
    (session,) = names("full", 1)
    pair.a.put(session, range(4), "stored")
    with pair.storage_with(DATABASE_FREE_MIN_BYTES=str(2**62)):
        pair.a.put(session, range(4, 8), "spooled")
        answer = pair.b.seal(session)
        assert answer.status_code != 200, f"{answer.json()['manifest']['chunk_count']} of 8 chunks are sealed"
    assert pair.b.sealed(session)["chunk_count"] == 8
    assert pair.recorded(session) == whole(session, 8)


def test_storage_is_killed_and_the_last_chunk_goes_through_the_other(pair: Pair) -> None:
    """R1d: 14 of 18 such sessions were sealed without the last chunk."""
    sessions = names("last", 18)
    for session in sessions:
        pair.a.put(session, range(6), "stored")
    with pair.storage_killed():
        for number, session in enumerate(sessions):
            one, other = pair.turns(number)
            other.put(session, [6], "spooled")
            assert one.seal(session).status_code == 202
    assert pair.until_sealed(*sessions) == []
    assert left_out(pair, sessions, 7) == {}


@pytest.mark.parametrize("chunk_count", [10, None])
def test_a_seal_that_is_queued_is_kept(pair: Pair, chunk_count: int | None) -> None:
    """R2: A drained first, its order was refused (`chunks-missing`: they were B's) and dropped; nobody sealed."""
    (session,) = names("kept", 1)
    pair.a.cut()
    pair.b.cut()
    for index in range(10):
        pair.turns(index)[0].put(session, [index], "spooled")
    assert pair.a.seal(session, chunk_count).status_code == 202
    pair.a.mend()
    assert wait_until(pair.a.drained, PATIENCE_SECONDS)
    assert seen(lambda: pair.status(session) == "open", 1), f"sealed with {pair.chunk_count(session)} of 10 chunks"
    pair.b.mend()
    assert pair.until_sealed(session) == [], "the order was answered 202, and is gone"
    assert pair.recorded(session) == whole(session, 10)


@pytest.mark.parametrize("counted", [True, False])
def test_queued_seals_are_kept_when_storage_is_killed(pair: Pair, counted: bool) -> None:
    """R2: nothing was cut, and 10 of 36 sessions, of those with a count 9 of 15, stayed open with all their chunks."""
    sessions = names("alternate", 15)
    with pair.storage_killed():
        for number, session in enumerate(sessions):
            for index in range(12):
                pair.turns(index)[0].put(session, [index], "spooled")
            assert pair.turns(number)[0].seal(session, 12 if counted else None).status_code == 202
    assert pair.until_sealed(*sessions) == [], "the orders were answered 202, and are gone"
    assert left_out(pair, sessions, 12) == {}


def test_an_idle_session_waits_for_a_processor_that_is_cut_off(pair: Pair) -> None:
    """R4 with two processors: it was sealed as idle while B held an acknowledged chunk."""
    (session,) = names("idle", 1)
    with pair.storage_with(SESSION_IDLE_SEAL_SECONDS="3"):
        pair.a.put(session, [0], "stored")
        pair.b.cut()
        pair.b.put(session, [1], "spooled")
        assert seen(lambda: pair.status(session) == "open", 9), f"sealed with {pair.chunk_count(session)} of 2 chunks"
        pair.b.mend()
        assert pair.until_sealed(session) == []
        manifest = pair.storage("GET", f"/sessions/{session}/manifest").json()
        assert (manifest["chunk_count"], manifest["sealed_by"]) == (2, "idle")
    assert pair.recorded(session) == whole(session, 2)


def test_a_seal_with_a_count_is_not_refused_while_a_processor_is_missing(pair: Pair) -> None:
    """R2: the answer was 409 `chunks-missing` at once, for chunks that B had acknowledged."""
    held, never = names("count", 2)
    for session in (held, never):
        pair.a.put(session, range(4), "stored")
    pair.b.cut()
    pair.b.put(held, [4], "spooled")
    for session in (held, never):
        answer = pair.a.seal(session, 5)
        assert answer.status_code == 202, answer.text
    pair.b.mend()
    assert pair.a.sealed(held, 5)["chunk_count"] == 5
    assert pair.recorded(held) == whole(held, 5)
    # Everybody has been heard: chunk 4 was never sent, so now the order is refused, and the session stays open.
    assert wait_until(lambda: pair.a.seal(never, 5).status_code != 202, PATIENCE_SECONDS)
    refused = pair.a.seal(never, 5)
    assert (refused.status_code, refused.json()["code"]) == (409, "chunks-missing")
    pair.a.put(never, [4], "stored")
    assert pair.a.sealed(never, 5)["chunk_count"] == 5


def test_orders_with_a_wrong_count_do_not_stop_the_right_one(pair: Pair) -> None:
    """R2: a stranger's order with too large a count waits as well, and is refused; the recorder's is kept."""
    (session,) = names("orders", 1)
    pair.a.put(session, range(4), "stored")
    pair.b.cut()
    pair.b.put(session, [4], "spooled")
    with ThreadPoolExecutor(4) as pool:  # an answer may take as long as a processor is waited for before a 202
        answers = list(pool.map(lambda count: pair.a.seal(session, count), (7, 5, 9, 6)))
    assert [answer.status_code for answer in answers] == [202] * 4, answers[0].text
    pair.b.mend()
    assert pair.until_sealed(session) == []
    assert pair.recorded(session) == whole(session, 5)


def test_a_processor_that_is_forgotten_is_waited_for_no_longer(pair: Pair) -> None:
    """R1: nobody could know that B was missing, nor decide that it would never be back."""
    (session,) = names("forgotten", 1)
    pair.a.put(session, range(4), "stored")
    pair.b.cut()
    pair.b.put(session, [4], "spooled")
    name = missing_name(pair, session)
    assert wait_until(
        lambda: {one["name"]: one["state"] for one in pair.processors()}[name] == "missing", PATIENCE_SECONDS
    )
    assert pair.storage("DELETE", f"/processors/{name}", "audit").status_code == 403
    assert pair.storage("DELETE", f"/processors/{name}", "admin").status_code in (200, 204)
    assert pair.until_sealed(session) == []
    assert pair.recorded(session) == whole(session, 4)
    pair.b.mend()
    # What it held is a loss: it is kept aside, and can be read by an admin.
    assert wait_until(lambda: session in pair.b.ask("GET", "/spool", "admin").text, PATIENCE_SECONDS)
    assert pair.b.replica.metric("lucid_spool_quarantine_entries") >= 1
    assert wait_until(lambda: {one["state"] for one in pair.processors()} == {"present"}, PATIENCE_SECONDS)


def test_a_processor_that_is_missing_for_too_long_is_named(pair: Pair) -> None:
    """R1: the seal left out what B had acknowledged, and nothing said so."""
    (session,) = names("lost", 1)
    with pair.storage_with(PROCESSOR_WAIT_SECONDS="12"):
        pair.a.put(session, range(4), "stored")
        pair.b.put(session, [4], "stored")
        pair.b.cut()
        pair.b.put(session, [5], "spooled")
        pair.a.sealed(session)
        answer = pair.a.seal(session)
        assert (answer.status_code, answer.json()["manifest"]["chunk_count"]) == (200, 5)
        (name,) = [one["name"] for one in pair.processors() if one["state"] == "lost"]
        assert name in answer.text
        assert name in pair.storage("GET", f"/sessions/{session}").text
        lines = pair.stack.log("storage").read_text().splitlines()
        assert any(session in line and name in line for line in lines)
    # It is back: what it held is kept aside, and the recording stays as it was sealed.
    assert wait_until(lambda: session in pair.b.ask("GET", "/spool", "admin").text, PATIENCE_SECONDS)
    assert pair.recorded(session) == whole(session, 5)


def test_a_chunk_after_the_seal_was_asked_for_is_recorded_or_refused(pair: Pair) -> None:
    """R1: chunks that B acknowledged with 201 after the seal at A were in no recording."""
    sessions = names("after", 12)
    sent = dict.fromkeys(sessions, 3)
    refused: set[str] = set()

    def send(session: str, times: int) -> None:
        for _ in range(times):
            if session not in refused:
                answer = pair.b.send(session, sent[session])
                assert answer.status_code in (201, 409, 503), answer.text
                if answer.status_code == 201:
                    sent[session] += 1
                else:
                    refused.add(session)

    for session in sessions:
        pair.a.put(session, range(3), "stored")
    pair.b.cut()
    with ThreadPoolExecutor(len(sessions)) as pool:
        asked = []
        for number, session in enumerate(sessions):
            send(session, number % 3)
            asked.append(pool.submit(pair.a.seal, session))
        for _ in range(3):
            time.sleep(0.2)
            for session in sessions:
                send(session, 1)
    pair.b.mend()
    for _ in range(10):
        for session in sessions:
            send(session, 1)
    assert {one.result().status_code for one in asked} <= {200, 202}
    assert pair.until_sealed(*sessions) == []
    lacking = {
        one: (pair.chunk_count(one), sent[one]) for one in sessions if pair.recorded(one) != whole(one, sent[one])
    }
    assert lacking == {}, "sealed and acknowledged chunks, by session"


def test_chunks_and_seals_race_without_a_fault(pair: Pair) -> None:
    """Nothing is cut: a chunk through B and a seal through A at once; who is told 201 is in the recording."""
    sessions = names("race", 10)
    with ThreadPoolExecutor(2) as pool:
        for session in sessions:
            pair.a.put(session, [0], "stored")
            later = pool.submit(pair.b.send, session, 1)
            sealing = pool.submit(pair.a.seal, session)
            count = 2 if later.result().status_code == 201 else 1
            assert sealing.result().status_code in (200, 202)
            assert pair.until_sealed(session) == []
            assert pair.recorded(session) == whole(session, count)
