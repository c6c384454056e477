"""Reports: who a spool is, what it confirms and promises, and what it may not."""

import asyncio
import errno
import json
import re
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from sessions.core.types import CHUNK_MAX_BYTES_LIMIT, ChunkIndex, SessionId
from sessions.processor import reporting
from sessions.processor.acknowledged import Acknowledged
from sessions.processor.promises import Promises
from sessions.processor.reporting import ASKS_AT_ONCE, OWN_PROMISE_SECONDS, Identity, Reporter
from sessions.processor.spool import Spool
from sessions.processor.spool_room import SpoolRoom
from sessions.processor.spooling import Spooling
from sessions.processor.storage_answers import ReportAnswer
from sessions.processor.storage_client import StorageClient
from sessions.processor.storage_errors import RequestFailedError, UnheardError
from sessions.processor.storage_watch import StorageWatch
from sessions.runtime.errors import DomainError
from sessions.storage.processor_models import PROCESSOR_PATTERN
from sessions.storage.processor_routes import ReportModel
from tests.unit.processor.spools import MIB, segments_in
from tests.unit.storage.chunks import key

A, B, C = (SessionId(name) for name in "abc")
ASK, NEWER = "0" * 16, "1" * 16
AWAY = DomainError("storage-unavailable", "no connection", retry_after_seconds=1)


class Storage:
    """Answers reports with what it is told, and keeps them; each is one that storage takes."""

    def __init__(self) -> None:
        self.answer: ReportAnswer | Exception | None = answer()
        self.reports: list[dict[str, Any]] = []

    async def report(self, name: str, report: Mapping[str, Any]) -> ReportAnswer | None:
        ReportModel.model_validate(report)
        self.reports.append(json.loads(json.dumps(report)))
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer

    async def say_goodbye(self, name: str, report: Mapping[str, Any]) -> None:
        await self.report(name, report)

    async def reachable(self) -> None:
        return None

    @property
    def confirmed(self) -> list[tuple[str, str, int]]:
        return [(one["session_id"], one["ask_id"], one["floor"]) for one in self.reports[-1]["confirmed"]]


def answer(
    asks: Mapping[SessionId, str] | None = None,
    asked: Mapping[SessionId, str] | None = None,
    *,
    shredded: tuple[SessionId, ...] = (),
    uptime: float = 100.0,
    generation: str = "g",
    days: int = 0,
) -> ReportAnswer:
    return ReportAnswer(asks or {}, asked or {}, shredded, uptime, generation, days)


class Processor:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.storage = Storage()
        self.spool = Spool(segments_in(folder, MIB), SpoolRoom(8 * MIB, 0))
        self.spool.open()
        self.promises = Promises(folder / "promises.json")
        self.promises.load()
        self.watch = StorageWatch(self.storage.reachable, 0.2)
        self.identity = Identity(folder, "host")
        self.spooling = Spooling(self.spool, self.watch, self.promises, introduced=self.identity.introduced)
        self.acknowledged = Acknowledged()
        self.set_backs = 0
        self.reporter = Reporter(
            self.identity,
            self.spooling,
            self.storage,  # type: ignore[arg-type]
            self.acknowledged,
            (self.noted,),
        )

    def noted(self) -> None:
        self.set_backs += 1

    async def keep(self, session: SessionId, index: int = 0) -> None:
        await self.spooling.keep(session, ChunkIndex(index), b"envelope", 1)

    @property
    def saved(self) -> dict[str, Any]:
        file = self.folder / "promises.json"
        return json.loads(file.read_bytes()) if file.exists() else {}


@pytest.fixture
async def one(tmp_path: Path) -> AsyncIterator[Processor]:
    processor = Processor(tmp_path)
    yield processor
    await processor.spool.close()


async def _error(work) -> DomainError:
    with pytest.raises(DomainError) as caught:
        await work
    return caught.value


# Who it is


def test_a_spool_has_a_name_that_stays_with_its_folder(tmp_path: Path) -> None:
    first = Identity(tmp_path, "my host/é!")
    assert first.name.startswith("myhost-")
    assert (Identity(tmp_path, "other").name, first.introduced) == (first.name, False)
    first.introduce()
    assert Identity(tmp_path, "other").introduced
    first.withdraw()
    assert not Identity(tmp_path, "other").introduced


@pytest.mark.parametrize("host", ["", "...", "-", "x" * 300, "a b", "$ne", "\u00e9", "\uff48", "\u0663"])
def test_a_name_is_one_that_storage_takes_whatever_the_host_is_called(tmp_path: Path, host: str) -> None:
    assert re.fullmatch(PROCESSOR_PATTERN, Identity(tmp_path, host).name)


def test_two_folders_have_two_names(tmp_path: Path) -> None:
    for name in "ab":
        (tmp_path / name).mkdir()
    assert Identity(tmp_path / "a", "host").name != Identity(tmp_path / "b", "host").name


@pytest.mark.parametrize("content", [b"", b"[]", b"null", b"{}", b'{"name": "x"}', b"\xff"])
def test_a_damaged_name_is_an_error(tmp_path: Path, content: bytes) -> None:
    """Under another name storage would wait for the old one, and not for this."""
    (tmp_path / "processor.json").write_bytes(content)
    with pytest.raises(ValueError):
        Identity(tmp_path, "host")


async def test_a_process_that_was_replaced_takes_another_name(one: Processor) -> None:
    await one.reporter.report()
    await one.keep(A)
    one.promises.bind(B, ASK)
    before = one.identity.name
    one.storage.answer = DomainError("processor-replaced", "another process reports")
    with capture_logs() as logs:
        assert await one.reporter.report()
    assert [entry["event"] for entry in logs] == ["processor_renamed"]
    assert re.fullmatch(PROCESSOR_PATTERN, one.identity.name)
    assert one.identity.name != before
    again = Identity(one.folder, "x")
    assert (again.name, again.introduced) == (one.identity.name, False)
    assert (await _error(one.keep(A, 1))).code == "storage-unavailable"
    assert B in one.promises
    one.storage.answer = answer(asked={B: ASK})
    await one.reporter.report()
    await one.keep(A, 1)
    assert B in one.promises


async def test_a_name_that_cannot_be_written_takes_nothing_into_the_spool(
    one: Processor, monkeypatch: pytest.MonkeyPatch
) -> None:
    await one.reporter.report()
    one.storage.answer = DomainError("processor-replaced", "another process reports")

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(reporting, "write_durably", full)
        with pytest.raises(OSError, match="No space"):
            await one.reporter.report()
    assert (await _error(one.keep(A))).code == "storage-unavailable"
    one.storage.answer = answer()
    await one.reporter.report()
    await one.keep(A)
    assert Identity(one.folder, "x").name == one.identity.name


async def test_before_storage_knows_a_spool_it_takes_nothing(one: Processor) -> None:
    """R1: a seal would not wait for it."""
    assert (await _error(one.keep(A))).code == "storage-unavailable"
    assert (await _error(one.spooling.open(A, None, None))).code == "storage-unavailable"  # type: ignore[arg-type]
    one.storage.answer = AWAY
    await _error(one.reporter.report())
    assert (await _error(one.keep(A))).code == "storage-unavailable"
    one.storage.answer = answer()
    await one.reporter.report()
    await one.keep(A)
    assert Identity(one.folder, "x").introduced
    again = Spooling(one.spool, one.watch, one.promises, introduced=Identity(one.folder, "x").introduced)
    await again.keep(B, ChunkIndex(0), b"envelope", 1)


async def test_a_storage_that_is_older_has_no_reports_and_no_claims(one: Processor) -> None:
    one.storage.answer = None
    assert not await one.reporter.report()
    assert one.reporter.older
    assert one.reporter.claims(A, keep=True, wait=True) == {}
    assert await one.reporter.promise_own(A)
    assert A not in one.promises
    await one.keep(A)
    one.storage.answer = answer()
    await one.reporter.report()
    assert not one.reporter.older


# What it says


async def test_what_a_report_says(one: Processor) -> None:
    await one.reporter.report()
    first = one.storage.reports[-1].pop("run")
    assert re.fullmatch(r"[0-9a-f]{16}", first)
    assert one.storage.reports[-1] == {
        "chunk_max_bytes": CHUNK_MAX_BYTES_LIMIT,
        "holdings": {
            "spooled_entries": 0,
            "spooled_bytes": 0,
            "spooled_sessions": 0,
            "spooled_seals": 0,
            "quarantined_entries": 0,
        },
        "confirmed": [],
        "promised": [],
        "quarantined": [],
        "after": None,
    }
    await one.keep(A)
    await one.keep(B)
    one.spool.quarantine.keep("0" * 16 + "-" + "0" * 12, b"x", reason="conflict", session_id=C)
    one.spool.quarantine.keep("0" * 16 + "-" + "1" * 12, b"x", reason="damaged")
    one.promises.bind(C, ASK)
    await one.reporter.report()
    assert one.storage.reports[-1].pop("run") == first
    assert one.storage.reports[-1] == {
        "chunk_max_bytes": CHUNK_MAX_BYTES_LIMIT,
        "holdings": {
            "spooled_entries": 2,
            "spooled_bytes": one.spool.used_bytes,
            "spooled_sessions": 2,
            "spooled_seals": 0,
            "quarantined_entries": 2,
        },
        "confirmed": [],
        "promised": ["c"],
        "quarantined": ["c"],
        "after": None,
    }


async def test_lists_that_are_longer_than_a_report_go_in_turns(one: Processor, monkeypatch: pytest.MonkeyPatch) -> None:
    """What no report names would bind for good, and what was shredded would stay on the disk."""
    monkeypatch.setattr(reporting, "MAX_LISTED", 3)
    names = [SessionId(f"s{number}") for number in range(8)]
    for number, name in enumerate(names):
        one.promises.bind(name, ASK)
        one.spool.quarantine.keep(f"{1:016d}-{number:012d}", b"x", reason="conflict", session_id=name)
    one.storage.answer = answer(asked=dict.fromkeys(names, ASK))
    seen: dict[str, set[str]] = {"promised": set(), "quarantined": set()}
    for _ in range(3):
        await one.reporter.report()
        for part, found in seen.items():
            found.update(one.storage.reports[-1][part])
    assert seen == {"promised": set(names), "quarantined": set(names)}
    one.storage.answer = answer()
    for _ in range(3):
        await one.reporter.report()
    assert len(one.promises) == 0


# What it confirms


async def test_a_question_is_promised_and_written_before_it_is_confirmed(one: Processor) -> None:
    one.acknowledged.note(A, 6)
    one.storage.answer = answer({A: ASK})
    assert await one.reporter.report(), "there is something to say at once"
    assert (one.storage.reports[-1]["confirmed"], A in one.promises, one.saved) == ([], True, {"a": [ASK, 0.0]})
    one.storage.answer = answer(asked={A: ASK})
    assert not await one.reporter.report()
    assert (one.storage.confirmed, one.storage.reports[-1]["promised"]) == ([("a", ASK, 7)], ["a"])
    await one.reporter.report()
    assert one.storage.confirmed == [], "once"
    one.storage.answer = answer()
    await one.reporter.report()
    assert A not in one.promises


async def test_nothing_is_confirmed_of_a_session_that_the_spool_holds(one: Processor) -> None:
    await one.reporter.report()
    await one.keep(A)
    one.storage.answer = answer({A: ASK})
    for _ in range(3):
        assert not await one.reporter.report()
        assert one.storage.confirmed == []
    assert A not in one.promises
    await one.spool.delivered(list(one.spool.sessions[A].waiting()))
    assert await one.reporter.report()
    await one.reporter.report()
    assert one.storage.confirmed == [("a", ASK, 0)]


async def test_nothing_is_confirmed_while_something_is_on_its_way_to_the_disk(one: Processor) -> None:
    await one.reporter.report()
    putting = asyncio.create_task(one.keep(A))
    await asyncio.sleep(0)
    assert A not in one.spool.sessions
    assert one.spool.holds(A)
    one.storage.answer = answer({A: ASK})
    await one.reporter.report()
    await putting
    await one.reporter.report()
    assert one.storage.confirmed == []
    assert A not in one.promises


async def test_a_write_that_fails_holds_nothing(one: Processor, monkeypatch: pytest.MonkeyPatch) -> None:
    await one.reporter.report()

    def refuse(*_: object) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(one.spool._segments, "append", refuse)
    await _error(one.keep(A))
    assert not one.spool.holds(A)


async def test_an_order_to_seal_is_nothing_that_the_spool_holds(one: Processor) -> None:
    """Else the processors of two orders would wait for each other."""
    await one.reporter.report()
    await one.spooling.orders.keep(A, 3)
    assert A in one.spool.sessions
    assert not one.spool.holds(A)
    one.storage.answer = answer({A: ASK})
    assert await one.reporter.report()


@pytest.mark.parametrize("what", ["opening", "envelope", "key", "seal"])
async def test_a_session_that_is_promised_is_kept_out(one: Processor, what: str) -> None:
    one.storage.answer = answer({A: ASK})
    await one.reporter.report()
    works = {
        "opening": lambda: one.spooling.open(A, {"x": 1}, key()),
        "envelope": lambda: one.keep(A),
        "key": lambda: one.spooling.keep_key(A, key()),
        "seal": lambda: one.spooling.orders.keep(A, 1),
    }
    if what == "seal":
        assert await works[what]() == 0
    else:
        error = await _error(works[what]())
        assert (error.code, error.retry_after_seconds) == ("storage-unavailable", 2)
    assert not one.spool.holds(A)
    await one.keep(B)


async def test_an_opening_is_not_let_in_because_it_asked_before_the_promise(
    one: Processor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It reads what the spool has; meanwhile that is delivered, and the session is promised."""
    await one.reporter.report()
    await one.spooling.open(A, None, key())
    openings = one.spooling.openings

    async def slow(session: SessionId) -> list[dict[str, Any]]:
        found = await openings(session)
        await one.spool.delivered(list(one.spool.sessions[A].waiting()))
        one.storage.answer = answer({A: ASK})
        assert await one.reporter.report()
        return found

    monkeypatch.setattr(one.spooling, "openings", slow)
    assert (await _error(one.spooling.open(A, {"x": 1}, key()))).code == "storage-unavailable"
    assert not one.spool.holds(A)
    await one.reporter.report()
    assert one.storage.confirmed == [("a", ASK, 0)]


async def test_a_promise_that_cannot_be_written_is_not_confirmed(
    one: Processor, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse() -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(one.promises, "save", refuse)
    one.storage.answer = answer({A: ASK})
    with capture_logs() as logs:
        assert not await one.reporter.report()
    assert [entry["event"] for entry in logs] == ["promises_not_saved"]
    assert not await one.reporter.report()
    assert one.storage.confirmed == []
    monkeypatch.undo()
    assert await one.reporter.report()
    await one.reporter.report()
    assert one.storage.confirmed == [("a", ASK, 0)]


async def test_an_answer_that_got_lost_is_repeated(one: Processor) -> None:
    one.storage.answer = answer({A: ASK})
    await one.reporter.report()
    one.storage.answer = AWAY
    for _ in range(2):
        await _error(one.reporter.report())
        assert one.storage.confirmed == [("a", ASK, 0)]
    one.storage.answer = answer(asked={A: ASK})
    await one.reporter.report()
    assert one.storage.confirmed == [("a", ASK, 0)]


async def test_a_newer_question_is_answered_as_such(one: Processor) -> None:
    one.storage.answer = answer({A: ASK})
    await one.reporter.report()
    one.storage.answer = answer({A: NEWER}, {A: NEWER})
    assert await one.reporter.report()
    assert one.storage.confirmed == [("a", ASK, 0)]
    await one.reporter.report()
    assert (one.storage.confirmed, one.saved) == ([("a", NEWER, 0)], {"a": [NEWER, 0.0]})


async def test_what_storage_does_not_take_is_not_said_at_once_again_and_again(one: Processor) -> None:
    """It asks the same for ever: then it is answered with each report, each second, and not in a loop."""
    one.storage.answer = answer({A: ASK}, {A: ASK})
    assert await one.reporter.report()
    for _ in range(3):
        assert not await one.reporter.report()
        assert one.storage.confirmed == [("a", ASK, 0)]


async def test_a_promise_of_the_process_before_this_one_binds(one: Processor) -> None:
    one.storage.answer = answer({A: ASK})
    await one.reporter.report()
    await one.spool.close()
    again = Processor(one.folder)
    again.spooling.introduced = True
    assert (await _error(again.keep(A))).code == "storage-unavailable"
    again.storage.answer = answer(asked={A: ASK})
    await again.reporter.report()
    assert again.storage.reports[-1]["promised"] == ["a"]
    assert A in again.promises
    again.storage.answer = answer()
    await again.reporter.report()
    await again.keep(A)
    await again.spool.close()


async def test_pages_of_questions_are_walked_and_begun_again(one: Processor) -> None:
    names = [SessionId(f"s{number:04d}") for number in range(ASKS_AT_ONCE)]
    one.storage.answer = answer(dict.fromkeys(names, ASK))
    await one.reporter.report()
    await one.reporter.report()
    assert (one.storage.reports[-1]["after"], len(one.storage.confirmed)) == (names[-1], ASKS_AT_ONCE)
    one.storage.answer = answer({SessionId("z"): ASK})
    await one.reporter.report()
    await one.reporter.report()
    assert one.storage.reports[-1]["after"] is None


async def test_beyond_so_many_promises_questions_wait(one: Processor, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sessions.processor.promises.MAX_PROMISES", 1)
    one.storage.answer = answer({A: ASK, B: ASK}, {A: ASK})
    await one.reporter.report()
    await one.reporter.report()
    assert one.storage.confirmed == [("a", ASK, 0)]
    assert B not in one.promises


async def test_the_floor_is_of_what_was_acknowledged_and_of_what_was_left_out(one: Processor) -> None:
    one.acknowledged.note(A, 3)
    for index, reason in ((9, "left-out"), (20, "conflict"), (7, "undeliverable")):
        name = f"{1:016d}-{index:012d}"
        one.spool.quarantine.keep(name, b"x", reason=reason, session_id=A, index=index, kind="envelope")
    assert (one.reporter.floor(A), one.reporter.floor(B)) == (10, 0)
    one.acknowledged.note(A, 30)
    assert one.reporter.floor(A) == 31
    one.acknowledged.forget(A)
    for name in (f"{1:016d}-{9:012d}", f"{1:016d}-{7:012d}"):
        one.spool.quarantine.drop(name)
    assert one.reporter.floor(A) == 0


# Orders of its own


async def test_an_order_of_its_own_is_a_promise_that_lasts_longer_than_the_order_counts(one: Processor) -> None:
    one.acknowledged.note(A, 4)
    one.storage.answer = answer(uptime=500.0)
    await one.reporter.report()
    assert await one.reporter.promise_own(A)
    claims = one.reporter.claims(A, keep=True, wait=False)
    said = {"floor": 5, "until_seconds": 530.0, "generation": answer().generation, "keep": True, "wait": False}
    assert claims == {"processor": one.identity.name, **said}
    (promise,) = one.promises.page(0, 9).values()
    assert promise.until_seconds == 500.0 + OWN_PROMISE_SECONDS
    assert (await _error(one.keep(A))).code == "storage-unavailable"
    for uptime, bound in ((530.0, True), (559.9, True), (560.0, False)):
        one.storage.answer = answer(uptime=uptime)
        await one.reporter.report()
        assert (A in one.promises) == bound


async def test_no_order_of_its_own_for_what_the_spool_holds(one: Processor) -> None:
    await one.reporter.report()
    await one.keep(A)
    assert not await one.reporter.promise_own(A)
    assert A not in one.promises


async def test_no_order_of_its_own_before_storage_has_answered(one: Processor, monkeypatch: pytest.MonkeyPatch) -> None:
    """And that does not mean that storage is away: all chunks would go to the spool."""
    monkeypatch.setattr(reporting, "REPORT_SECONDS", 0.01)
    error = await _error(one.reporter.promise_own(A))
    assert isinstance(error, RequestFailedError)
    assert not one.watch.lost(error)
    assert not one.watch.away


# A set-back


@pytest.mark.parametrize(("uptime", "generation", "noticed"), [(99.9, "g", 1), (100.0, "h", 1), (100.0, "g", 0)])
async def test_a_set_back_is_noticed_by_falling_uptime_and_by_another_generation(
    one: Processor, uptime: float, generation: str, noticed: int
) -> None:
    await one.reporter.report()
    one.storage.answer = answer(uptime=uptime, generation=generation)
    with capture_logs() as logs:
        await one.reporter.report()
        await one.reporter.report()
    assert (one.set_backs, [entry["event"] for entry in logs]) == (noticed, ["storage_set_back"] * noticed)


# Shredded sessions, and retention


async def test_what_was_shredded_is_deleted_from_the_quarantine_and_the_spool(one: Processor) -> None:
    await one.reporter.report()
    await one.keep(A)
    name = f"{1:016d}-{5:012d}"
    one.spool.quarantine.keep(name, b"x" * 99, reason="conflict", session_id=A, key={"wrapped": "x"})
    one.storage.answer = answer(shredded=(A,))
    await one.reporter.report()
    assert (one.spool.sessions, one.spool.quarantined, one.spool.quarantine.used_bytes) == ({}, 0, 0)
    assert list((one.folder / "quarantine").iterdir()) == []
    assert list(one.folder.glob("*.seg")) == []


async def test_what_cannot_be_deleted_is_tried_again(one: Processor, monkeypatch: pytest.MonkeyPatch) -> None:
    name = f"{1:016d}-{5:012d}"
    one.spool.quarantine.keep(name, b"x" * 99, reason="conflict", session_id=A)

    def refuse(*_: object) -> None:
        raise OSError(5, "Input/output error")

    one.storage.answer = answer(shredded=(A,))
    with monkeypatch.context() as patch, capture_logs() as logs:
        patch.setattr("sessions.processor.quarantine.erase", refuse)
        await one.reporter.report()
    assert [entry["event"] for entry in logs] == ["spool_not_shredded"]
    await one.reporter.report()
    assert one.storage.reports[-1]["quarantined"] == ["a"]
    assert list((one.folder / "quarantine").iterdir()) == []


async def test_terms_that_storage_would_refuse_are_refused_once_it_has_told_them(one: Processor) -> None:
    one.storage.answer = answer(days=30)
    await one.reporter.report()
    error = await _error(one.spooling.open(A, {"retention": {"retain_days": 7}}, key()))
    assert (error.code, error.members["least_days"]) == ("retention-too-short", 30)
    assert await one.spooling.open(A, {"retention": {"retain_days": 30}}, key())


# How it runs


async def test_reports_go_on_whatever_is_answered(one: Processor, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reporting, "REPORT_SECONDS", 0.001)
    one.storage.answer = DomainError("overloaded", "too many processors")
    with capture_logs() as logs:
        running = asyncio.create_task(one.reporter.run())
        async with asyncio.timeout(2):
            while len(one.storage.reports) < 3:
                await asyncio.sleep(0.001)
            assert not one.watch.away
            one.storage.answer = AWAY
            reports = len(one.storage.reports)
            while len(one.storage.reports) < reports + 3:
                await asyncio.sleep(0.001)
            assert not one.watch.away, "that is found out by what waits for an answer"
            one.watch.lost(AWAY)
        await asyncio.sleep(0.01)
        sent = len(one.storage.reports)
        await asyncio.sleep(0.02)
        assert len(one.storage.reports) == sent, "while it is away it is not asked"
        one.storage.answer = answer({A: ASK})
        one.watch.gone.clear()
        one.watch.back.set()
        async with asyncio.timeout(2):
            while not one.storage.confirmed:
                await asyncio.sleep(0.001)
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
    assert {entry["event"] for entry in logs} == {"report_failed", "storage_away"}


# How it ends


async def test_one_that_holds_nothing_says_that_it_leaves(one: Processor) -> None:
    await one.reporter.report()
    await one.reporter.leave()
    assert one.storage.reports[-1]["leaving"] is True
    assert not Identity(one.folder, "x").introduced, "storage will not wait for what the next process takes"


@pytest.mark.parametrize("what", ["chunk", "seal", "promise", "left out", "away", "never met"])
async def test_one_that_is_to_be_waited_for_does_not_leave(one: Processor, what: str) -> None:
    if what != "never met":
        await one.reporter.report()
    if what == "chunk":
        await one.keep(A)
    elif what == "seal":
        await one.spooling.orders.keep(A, 1)
    elif what == "promise":
        one.promises.bind(A, ASK)
    elif what == "left out":
        one.spool.quarantine.keep("0" * 16 + "-" + "0" * 12, b"x", reason="left-out", session_id=A, index=0)
    elif what == "away":
        one.watch.lost(AWAY)
    sent = len(one.storage.reports)
    await one.reporter.leave()
    assert len(one.storage.reports) == sent
    assert Identity(one.folder, "x").introduced == (what != "never met")


@pytest.mark.parametrize(
    ("error", "known"),
    [
        (UnheardError("no connection"), True),
        (AWAY, False),
        (RequestFailedError("its answer is lost"), False),
        (DomainError("overloaded", "x"), False),
    ],
)
async def test_one_whose_goodbye_was_not_heard_is_known_still(one: Processor, error: DomainError, known: bool) -> None:
    await one.reporter.report()
    one.storage.answer = error
    assert await _error(one.reporter.leave()) is error
    assert Identity(one.folder, "x").introduced == known


async def test_one_whose_goodbye_was_heard_by_a_storage_that_then_ended_is_not_known(one: Processor) -> None:
    """A repeat would find nobody, and seem never to have been heard."""
    await one.reporter.report()
    heard: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heard.append(await reader.readuntil(b"\r\n\r\n"))
        server.close()
        writer.transport.abort()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    async with StorageClient(url, "t", 5) as client:
        one.reporter._storage = client
        error = await _error(one.reporter.leave())
        assert (len(heard), isinstance(error, RequestFailedError)) == (1, True)
        assert not Identity(one.folder, "x").introduced
        one.identity.introduce()
        assert isinstance(await _error(one.reporter.leave()), UnheardError)
        assert Identity(one.folder, "x").introduced, "nobody has heard it"


async def test_it_does_not_leave_when_it_cannot_be_noted(one: Processor, monkeypatch: pytest.MonkeyPatch) -> None:
    await one.reporter.report()

    def refuse(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(reporting, "write_durably", refuse)
    sent = len(one.storage.reports)
    with pytest.raises(OSError, match="No space"):
        await one.reporter.leave()
    assert len(one.storage.reports) == sent
