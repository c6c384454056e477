"""The quarantine's folder after a crash at any step, its bounds, and what shredding leaves of it: nothing."""

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sessions.core.types import SessionId
from sessions.processor import files, quarantine
from sessions.processor.quarantine import CONFLICT, Quarantine
from sessions.processor.spool_format import Kind, header
from tests.unit.processor.spools import MIB

A, B = SessionId("a"), SessionId("b")
DATA = header(Kind.ENVELOPE, b"payload" * 9) + b"payload" * 9
FACTS: dict[str, Any] = {
    "reason": "left-out",
    "session_id": A,
    "kind": "envelope",
    "index": 7,
    "by": "desk",
    "detail": "why",
    "key": {"wrapped": "c2VjcmV0"},
}
ENTRY_DISK_BYTES = 8192
"""What a small entry takes: a block for each of its two files."""


def _name(number: int = 0) -> str:
    return f"{1:016d}-{number:012d}"


def _opened(folder: Path, max_bytes: int = MIB) -> Quarantine:
    one = Quarantine(folder / "quarantine", max_bytes)
    one.open()
    return one


class CrashError(BaseException):
    """The process ends here."""


class Crashing:
    """Ends the process before the step of this number; 0 is the first."""

    def __init__(self, patch: pytest.MonkeyPatch, step: int) -> None:
        self.left = step
        for name in ("open", "write", "fsync", "pwrite", "fdatasync"):
            patch.setattr(files.os, name, self.counted(getattr(os, name)))
        for name in ("rename", "unlink"):
            patch.setattr(Path, name, self.counted(getattr(Path, name)))

    def counted(self, real: Callable[..., Any]) -> Callable[..., Any]:
        def step(*arguments: Any, **options: Any) -> Any:
            if self.left == 0:
                raise CrashError
            self.left -= 1
            return real(*arguments, **options)

        return step


def _steps(work: Callable[[], object], folder: Path) -> Iterator[int]:
    """Do it again and again, each time one step further before it ends; yield after each crash."""
    for step in range(100):
        with pytest.MonkeyPatch.context() as patch:
            crashing = Crashing(patch, step)
            try:
                work()
            except CrashError:
                pass
            else:
                assert step > 5
                return
            assert crashing.left == 0
        yield step
    raise AssertionError(folder)


def _whole(found: Quarantine, number: int = 0) -> None:
    one = found.entries[_name(number)]
    shown = {name: getattr(one, name) for name in FACTS if name not in ("detail", "key")}
    written = found.facts(one.name)
    assert shown | {"detail": written["detail"], "key": written["key"]} == FACTS
    assert (one.entry_bytes, one.disk_bytes) == (len(DATA), ENTRY_DISK_BYTES)


def test_an_entry_has_its_facts_after_a_crash_at_any_step(tmp_path: Path) -> None:
    """And while it is not there, it is in the spool still, and is kept again."""
    seen = set()
    for _ in _steps(lambda: _opened(tmp_path).keep(_name(), DATA, **FACTS), tmp_path):
        again = _opened(tmp_path)
        seen.add(len(again.entries))
        if again.entries:
            _whole(again)
            assert again.read(_name()) == DATA
        else:
            assert list((tmp_path / "quarantine").iterdir()) == [], "nor are facts left of it, with a key"
        again.keep(_name(), DATA, **FACTS)
        _whole(again)
        _whole(_opened(tmp_path))
        _opened(tmp_path).drop(_name())
    assert seen == {0, 1}
    _whole(_opened(tmp_path))


def test_what_is_dropped_is_gone_after_a_crash_at_any_step_and_a_repetition(tmp_path: Path) -> None:
    folder = tmp_path / "quarantine"

    def again() -> None:
        one = _opened(tmp_path)
        one.drop(_name())

    _opened(tmp_path).keep(_name(), DATA, **FACTS)
    seen = set()
    for _ in _steps(again, tmp_path):
        left = _opened(tmp_path)
        seen.add(tuple(left.entries))
        if left.entries:
            _whole(left)
        if not left.entries:
            assert list(folder.iterdir()) == [], "no key is left behind"
        left.drop(_name())
        assert (left.entries, left.used_bytes, list(folder.iterdir())) == ({}, 0, [])
        left.keep(_name(), DATA, **FACTS)
    assert seen == {(_name(),), ()}


def test_what_is_dropped_was_overwritten(tmp_path: Path) -> None:
    one = _opened(tmp_path)
    one.keep(_name(), DATA, **FACTS)
    with (
        (tmp_path / "quarantine" / f"{_name()}.entry").open("rb") as entry,
        (tmp_path / "quarantine" / f"{_name()}.json").open("rb") as facts,
    ):
        one.drop(_name())
        assert not any(entry.read())
        assert not any(facts.read()), "the wrapped key, too"


def test_what_could_not_be_dropped_is_known_still(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Shredding is repeated until it is done; what is not known any more would stay."""

    def refuse(*_: object, **__: object) -> None:
        raise OSError(5, "Input/output error")

    one = _opened(tmp_path)
    one.keep(_name(), DATA, **FACTS)
    for fails in ("fdatasync", "fsync"):
        with monkeypatch.context() as patch:
            patch.setattr(files.os, fails, refuse)
            with pytest.raises(OSError, match="Input/output"):
                one.drop(_name())
        assert list(one.of_session(A)) == [one.entries[_name()]]
        assert one.used_bytes == ENTRY_DISK_BYTES
    one.drop(_name())
    one.drop(_name())
    assert (list(one.of_session(A)), one.used_bytes) == ([], 0)


@pytest.mark.parametrize("fails", ["write", "fsync", "rename"])
def test_what_could_not_be_kept_is_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fails: str) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    one = _opened(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(Path if fails == "rename" else files.os, fails, refuse)
        with pytest.raises(OSError, match="No space"):
            one.keep(_name(), DATA, **FACTS)
    assert (one.entries, one.used_bytes) == ({}, 0)
    one.keep(_name(), DATA, **FACTS)
    _whole(_opened(tmp_path))


def test_repeated_it_is_kept_as_it_was_at_first(tmp_path: Path) -> None:
    one = _opened(tmp_path)
    first = one.keep(_name(), DATA, **FACTS)
    assert one.keep(_name(), b"other", reason="damaged") is first
    assert one.used_bytes == ENTRY_DISK_BYTES


@pytest.mark.parametrize(
    "facts",
    [
        b"",
        b"[]",
        b"{}",
        b"\xff",
        b'{"session_id": "../x"}',
        b'{"session_id": null, "later": 1}',
        json.dumps({**FACTS, "index": "7"}).encode(),
        json.dumps({**FACTS, "by": ["desk"]}).encode(),
    ],
)
def test_facts_that_cannot_be_read_cost_themselves(tmp_path: Path, facts: bytes) -> None:
    one = _opened(tmp_path)
    one.keep(_name(0), DATA, **FACTS)
    one.keep(_name(1), DATA, **FACTS)
    (tmp_path / "quarantine" / f"{_name(0)}.json").write_bytes(facts)
    again = _opened(tmp_path)
    assert (again.entries[_name(0)].reason, again.entries[_name(0)].entry_bytes) == ("unknown", len(DATA))
    _whole(again, 1)
    assert not again.is_full_for(None)
    assert again.floor(A) == 8


def test_other_files_are_left_alone(tmp_path: Path) -> None:
    folder = tmp_path / "quarantine"
    folder.mkdir()
    names = ["notes.txt", "x.json", "0-0.json", f"{_name()}.json.bak", f"{_name()}x.entry"]
    for name in names:
        (folder / name).write_text("an operator's")
    assert _opened(tmp_path).entries == {}
    assert sorted(file.name for file in folder.iterdir()) == sorted(names)


def test_segments_are_numbered_beyond_what_is_quarantined(tmp_path: Path) -> None:
    """Else a name could be taken twice."""
    one = _opened(tmp_path)
    one.keep(f"{41:016d}-{0:012d}", DATA, **FACTS)
    one.keep(_name(), DATA, **FACTS)
    assert _opened(tmp_path).last_segment == 41


def test_one_token_has_a_share_and_all_together_have_the_whole(tmp_path: Path) -> None:
    """M5: who fills the quarantine stops themselves, and no other."""
    one = _opened(tmp_path, 100_000)
    for number in range(4):
        assert not one.is_full_for("greedy")
        one.keep(_name(number), b"x", reason=CONFLICT, by="greedy")
    assert one.is_full_for("greedy")
    assert [one.is_full_for(by) for by in ("other", None)] == [False, False]
    for number, by in enumerate(("b", "c", "d"), 10):
        one.keep(_name(number), bytes(20_000 - 48), reason=CONFLICT, by=by)
        assert one.is_full_for(by) == (one.used_bytes >= 100_000)
    assert one.used_bytes == 4 * 8192 + 3 * (20_480 + 4096)
    assert [one.is_full_for(by) for by in ("b", "c", "d", "new", None)] == [True, True, True, False, False]
    again = _opened(tmp_path, 100_000)
    assert [again.is_full_for(by) for by in ("greedy", "b", "new")] == [True, True, False]
    again.drop(_name(0))
    assert not again.is_full_for("greedy")
    assert not again.is_full_for("b")


def test_an_entry_counts_what_its_files_take_on_the_disk(tmp_path: Path) -> None:
    """A chunk of one byte counted 130 bytes and took 8 KiB: 1 GiB of them would have taken 66 GiB."""
    one = _opened(tmp_path, 10 * MIB)
    key = {"wrapped": "x" * 5000}
    for number, (size, by, taken) in enumerate([(1, "a", 8192), (4096, "b", 8192), (4097, "c", 12_288)]):
        one.keep(_name(number), bytes(size), reason=CONFLICT, by=by)
        assert one.entries[_name(number)].disk_bytes == taken
    one.keep(_name(9), b"x", reason=CONFLICT, by="d", key=key)
    assert one.entries[_name(9)].disk_bytes == 4096 + 8192, "facts, too"
    again = _opened(tmp_path, 10 * MIB)
    assert again.entries == one.entries
    assert again.used_bytes == one.used_bytes == 8192 + 8192 + 12_288 + 12_288


def test_a_full_quarantine_takes_nothing_more(tmp_path: Path) -> None:
    one = _opened(tmp_path, 3 * ENTRY_DISK_BYTES)
    for number in range(3):
        one.keep(_name(number), DATA, **FACTS)
    with pytest.raises(OSError, match="the quarantine is full"):
        one.keep(_name(3), DATA, **FACTS)
    assert one.keep(_name(0), DATA, **FACTS) is one.entries[_name(0)]
    assert (len(one.entries), len(list((tmp_path / "quarantine").iterdir()))) == (3, 6)
    one.drop(_name(0))
    one.keep(_name(3), DATA, **FACTS)


def test_the_number_of_entries_is_bounded_however_large_the_quarantine_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(quarantine, "MAX_ENTRIES", 8)
    one = _opened(tmp_path, 8 * 100 * MIB)
    for number in range(8):
        assert one.is_full_for("desk") == (number >= 2)
        one.keep(_name(number), DATA, **FACTS)
    with pytest.raises(OSError, match="full"):
        one.keep(_name(8), DATA, **FACTS)


def test_the_floor_is_of_envelopes_that_nothing_replaces(tmp_path: Path) -> None:
    one = _opened(tmp_path)
    facts = [
        ("left-out", "envelope", 3, A),
        ("undeliverable", "envelope", 5, A),
        (CONFLICT, "envelope", 9, A),
        ("metadata-refused", "opening", None, A),
        ("left-out", "envelope", 20, B),
        ("damaged", "", None, None),
    ]
    for number, (reason, kind, index, session) in enumerate(facts):
        one.keep(_name(number), DATA, reason=reason, kind=kind, index=index, session_id=session)
    assert (one.floor(A), one.floor(B), one.floor(SessionId("c"))) == (6, 21, 0)
    assert one.has_left_out
    assert sorted(one.sessions()) == [A, B]
    for number in (0, 1, 4):
        one.drop(_name(number))
    assert (one.floor(A), one.has_left_out, one.sessions()) == (0, False, [A])


@settings(deadline=None, max_examples=25)
@given(
    st.lists(
        st.tuples(st.integers(0, 5), st.booleans(), st.sampled_from([A, B, None]), st.sampled_from(["p", "q", None])),
        max_size=30,
    )
)
def test_what_is_looked_up_is_what_is_added_up(
    tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[int, bool, SessionId | None, str | None]]
) -> None:
    folder = tmp_path_factory.mktemp("quarantine")
    max_bytes = 4 * ENTRY_DISK_BYTES
    one = _opened(folder, max_bytes)
    for number, keeps, session, by in steps:
        full = len(one.entries) == 4 and _name(number) not in one.entries
        if keeps and full:
            with pytest.raises(OSError, match="full"):
                one.keep(_name(number), bytes(10), reason="left-out")
        elif keeps:
            one.keep(_name(number), bytes(10), reason="left-out", session_id=session, by=by, index=number)
        else:
            one.drop(_name(number))
    for found in (one, _opened(folder, max_bytes)):
        everything = list(found.entries.values())
        assert found.used_bytes == ENTRY_DISK_BYTES * len(everything)
        for session in (A, B):
            mine = [entry for entry in everything if entry.session_id == session]
            assert sorted(entry.name for entry in found.of_session(session)) == sorted(entry.name for entry in mine)
        for by in ("p", "q", None):
            used = sum(entry.disk_bytes for entry in everything if entry.by == by)
            assert found.is_full_for(by) == (used >= max_bytes // 4 or (used > 0 and found.used_bytes >= max_bytes))
        assert set(found.sessions()) == {entry.session_id for entry in everything} - {None}
