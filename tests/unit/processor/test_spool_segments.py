"""The spool's files: what a crash leaves of them, at any byte."""

import hashlib
import json
import os
import shutil
import stat
import struct
import tempfile
import zlib
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, initialize, invariant, rule

from sessions.core.types import Buffer
from sessions.processor import spool_segments
from sessions.processor.spool_erasing import Place
from sessions.processor.spool_format import (
    HEADER_BYTES,
    MAGIC,
    Damage,
    Found,
    Kind,
    entry_bytes,
    header,
    payload_of,
    read_header,
    scan,
)
from sessions.processor.spool_segments import CorruptEntryError, Segments, SpoolFolderError
from tests.unit.processor.spools import segments_in

PAYLOADS = st.one_of(st.binary(max_size=40), st.just(MAGIC * 30), st.just(header(Kind.SEAL, b"inside") + b"insidf"))


def _opened(folder: Path, segment_bytes: int = 1000) -> Segments:
    segments = segments_in(folder, segment_bytes)
    segments.open()
    return segments


@pytest.fixture
def segments(tmp_path: Path) -> Iterator[Segments]:
    one = _opened(tmp_path)
    yield one
    one.close()


def _reopened(segments: Segments, folder: Path) -> tuple[Segments, dict[Place, bytes]]:
    segments.close()
    again = _opened(folder)
    found = list(again.recover())
    return again, {one.place: again.read(one.place) for one in found}


SENDERS = st.sampled_from([None, "desk-17", "k\u00fcche"])


@given(st.lists(st.tuples(st.sampled_from(Kind), st.binary(max_size=50), SENDERS), max_size=5))
def test_what_is_written_is_found(entries: list[tuple[Kind, bytes, str | None]]) -> None:
    data = b"".join(header(kind, payload, by) + payload for kind, payload, by in entries)
    found = list(scan(data))
    assert all(isinstance(one, Found) for one in found)
    for one, (kind, payload, by) in zip(found, entries, strict=True):
        assert one.header.entry_bytes == entry_bytes(payload, by)
        entry = data[one.offset : one.offset + one.header.entry_bytes]
        assert one.header.fits(entry[HEADER_BYTES:])
        assert one.header.sender(entry[HEADER_BYTES:]) == by
        assert payload_of(entry) == (kind, payload)
        assert payload_of(entry + b"x") is None


def test_an_entry_without_a_sender_is_as_version_0_1_0_wrote_it() -> None:
    head = struct.pack(">4sB3sI32s", b"LSP1", 2, bytes(3), 1, hashlib.sha256(b"x").digest())
    assert header(Kind.ENVELOPE, b"x") == head + struct.pack(">I", zlib.crc32(head))


def test_a_sender_that_is_damaged_or_too_long() -> None:
    entry = bytearray(header(Kind.SEAL, b"x", "desk") + b"x")
    entry[HEADER_BYTES] ^= 1
    assert payload_of(bytes(entry)) is None, "it is part of the content"
    long = header(Kind.SEAL, b"x", "d" * 300) + b"x"
    assert (len(long), payload_of(long)) == (entry_bytes(b"x", "d" * 300), (Kind.SEAL, b"x"))
    head = struct.pack(">4sBB2sI32s", MAGIC, 3, 5, bytes(2), 4, bytes(32))
    assert read_header(head + struct.pack(">I", zlib.crc32(head))) is None, "a sender longer than the content"


@given(st.lists(PAYLOADS, min_size=1, max_size=4), st.data())
def test_a_damaged_header_costs_its_entry_and_no_other(payloads: list[bytes], data: st.DataObject) -> None:
    parts = [header(Kind.ENVELOPE, payload) + payload for payload in payloads]
    hit = data.draw(st.integers(0, len(parts) - 1))
    at = data.draw(st.integers(0, HEADER_BYTES - 1))
    bit = 1 << data.draw(st.integers(0, 7))
    parts[hit] = parts[hit][:at] + bytes([parts[hit][at] ^ bit]) + parts[hit][at + 1 :]
    starts = [sum(map(len, parts[:number])) for number in range(len(parts))]
    whole = b"".join(parts)
    found = list(scan(whole))
    kept = {one.offset for one in found if isinstance(one, Found)}
    assert kept >= {start for number, start in enumerate(starts) if number != hit}
    assert starts[hit] not in kept
    ends = 0
    for one in found:  # nothing is passed over
        assert (one.offset if isinstance(one, Found) else one.start) == ends
        ends = one.offset + one.header.entry_bytes if isinstance(one, Found) else one.end
    assert ends == len(whole)
    assert any(isinstance(one, Damage) and one.start == starts[hit] for one in found)


@given(st.binary(max_size=200))
def test_noise_is_damage(noise: bytes) -> None:
    found = list(scan(noise))
    assert all(isinstance(one, Damage) for one in found)
    assert sum(one.end - one.start for one in found if isinstance(one, Damage)) == len(noise)


def test_a_header_of_another_kind_or_with_other_zeros_is_none() -> None:
    good = header(Kind.SEAL, b"x")
    assert read_header(good) is not None
    assert read_header(good[:4] + b"\x09" + good[5:]) is None
    assert read_header(good[:6] + b"\x01" + good[7:]) is None
    assert read_header(good[:-1]) is None


def test_files_are_for_us_alone(segments: Segments, tmp_path: Path) -> None:
    segments.append([(Kind.SEAL, b"x")])
    for file in tmp_path.iterdir():
        assert stat.S_IMODE(file.stat().st_mode) == (0o700 if file.is_dir() else 0o600)


def test_a_segment_ends_where_it_should_and_goes_when_it_is_dropped(segments: Segments, tmp_path: Path) -> None:
    first, second = segments.append([(Kind.SEAL, bytes(2000))]), segments.append([(Kind.SEAL, b"x")])
    assert (first[0].segment, second[0].segment) == (1, 2)
    segments.drop(1)
    assert [file.name for file in tmp_path.glob("*.seg")] == ["0000000000000002.seg"]
    with pytest.raises(FileNotFoundError):
        segments.read(first[0])
    segments.drop(2)
    assert segments.sizes == {}
    assert segments.append([(Kind.SEAL, b"y")])[0].segment == 3


def test_two_processors_cannot_have_one_folder(segments: Segments, tmp_path: Path) -> None:
    with pytest.raises(SpoolFolderError, match="in use by another processor"):
        segments_in(tmp_path).open()
    segments.close()
    _opened(tmp_path).close()


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(SpoolFolderError, match="make it"):
        segments_in(tmp_path / "none").open()


def test_a_torn_tail_is_cut_and_the_rest_kept(segments: Segments, tmp_path: Path) -> None:
    places = segments.append([(Kind.SEAL, b"one"), (Kind.ENVELOPE, b"two")])
    path = tmp_path / "0000000000000001.seg"
    whole = path.read_bytes()
    for cut in range(1, places[1].entry_bytes):
        path.write_bytes(whole[:-cut])
        segments, found = _reopened(segments, tmp_path)
        assert found == {places[0]: b"one"}
        assert path.read_bytes() == whole[: places[1].offset]
    assert segments.quarantine.entries == {}
    segments.close()


def test_a_damaged_entry_is_set_aside_and_the_rest_goes_on(segments: Segments, tmp_path: Path) -> None:
    places = segments.append([(Kind.SEAL, b"one"), (Kind.SEAL, b"two"), (Kind.SEAL, b"three")])
    path = tmp_path / "0000000000000001.seg"
    data = bytearray(path.read_bytes())
    data[places[1].offset + HEADER_BYTES] ^= 1
    path.write_bytes(data)
    segments, found = _reopened(segments, tmp_path)
    assert found == {places[0]: b"one", places[2]: b"three"}
    assert list(segments.quarantine.entries) == [places[1].name]
    (kept,) = (tmp_path / "quarantine").glob("*.entry")
    facts = json.loads(kept.with_suffix(".json").read_bytes())
    assert (facts["name"], facts["reason"]) == (places[1].name, "damaged")
    end = places[1].offset + places[1].entry_bytes
    assert kept.read_bytes() == data[places[1].offset : end]
    with pytest.raises(CorruptEntryError):
        segments.read(places[1])
    segments, _ = _reopened(segments, tmp_path)
    assert list(segments.quarantine.entries) == [places[1].name], "the same once more"
    segments.close()


def test_damage_in_an_older_segment_is_found_when_it_is_read(segments: Segments, tmp_path: Path) -> None:
    (place,) = segments.append([(Kind.ENVELOPE, bytes(2000))])
    segments.append([(Kind.SEAL, b"x")])
    path = tmp_path / "0000000000000001.seg"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    segments.close()
    again = _opened(tmp_path)
    assert place in {one.place for one in again.recover()}
    with pytest.raises(CorruptEntryError):
        again.read(place)
    again.close()


def test_room_that_was_never_written_is_no_entry(segments: Segments, tmp_path: Path) -> None:
    (place,) = segments.append([(Kind.SEAL, b"one")])
    with (tmp_path / "0000000000000001.seg").open("ab") as file:
        file.write(bytes(4096))
    segments, found = _reopened(segments, tmp_path)
    assert (found, segments.quarantine.entries) == ({place: b"one"}, {})
    segments.close()


def test_what_is_set_aside_is_a_segment_of_its_own(segments: Segments, tmp_path: Path) -> None:
    """As docs/operations.md says: put back under a segment's name, it is delivered again."""
    (place,) = segments.append([(Kind.SEAL, b"one")])
    (tmp_path / "quarantine").rmdir()  # by somebody who was through with what was in it
    segments.quarantine.keep(place.name, segments.raw(place), reason="left-out", session_id="a")
    segments.drop(1)
    segments.close()
    (tmp_path / "quarantine" / f"{place.name}.entry").rename(tmp_path / "0000000000000007.seg")
    again = _opened(tmp_path)
    assert [again.read(one.place) for one in again.recover()] == [b"one"]
    assert list((tmp_path / "quarantine").iterdir()) == [], "the facts, with a key, are not left behind"
    again.close()


@pytest.mark.parametrize("fails", ["writev", "fdatasync"])
def test_a_write_that_fails_leaves_nothing(
    segments: Segments, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fails: str
) -> None:
    (place,) = segments.append([(Kind.SEAL, b"one")])
    with monkeypatch.context() as patch:

        def refuse(*_: object) -> None:
            raise OSError(28, "No space left on device")

        patch.setattr(spool_segments.os, fails, refuse)
        with pytest.raises(OSError, match="No space"):
            segments.append([(Kind.SEAL, b"two")])
    (later,) = segments.append([(Kind.SEAL, b"three")])
    assert later.segment == 2, "what a failed fsync left is not written to again"
    segments, found = _reopened(segments, tmp_path)
    assert found == {place: b"one", later: b"three"}
    segments.close()


@pytest.mark.parametrize("failure", [MemoryError, KeyboardInterrupt])
def test_whatever_interrupts_a_write_leaves_nothing(
    segments: Segments, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failure: type[BaseException]
) -> None:
    """The file was longer than known, and what came next was looked for at the wrong place."""
    (place,) = segments.append([(Kind.SEAL, b"one")])
    real = spool_segments.header

    def fails(kind: Kind, payload: Buffer) -> bytes:
        if payload == b"three":
            raise failure
        return real(kind, payload)

    monkeypatch.setattr(spool_segments, "header", fails)
    with pytest.raises(failure):
        segments.append([(Kind.SEAL, b"two"), (Kind.SEAL, b"three")])
    (later,) = segments.append([(Kind.SEAL, b"four")])
    assert segments.read(later) == b"four"
    segments, found = _reopened(segments, tmp_path)
    assert found == {place: b"one", later: b"four"}
    segments.close()


def test_a_segment_whose_name_is_not_on_the_disk_is_not_written_to(
    segments: Segments, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(5, "Input/output error")

    with monkeypatch.context() as patch:
        patch.setattr(spool_segments.os, "fsync", refuse)
        with pytest.raises(OSError, match="Input/output"):
            segments.append([(Kind.SEAL, b"one")])
    assert (segments.sizes, segments.current()) == ({}, None)
    (place,) = segments.append([(Kind.SEAL, b"two")])
    assert place.segment == 2
    segments, found = _reopened(segments, tmp_path)
    assert (found, sorted(segments.sizes)) == ({place: b"two"}, [2])
    segments.close()


def test_what_is_erased_is_zeros_and_costs_no_other(segments: Segments, tmp_path: Path) -> None:
    """A start passes over it: zeros hold nothing."""
    places = segments.append([(Kind.SEAL, b"one"), (Kind.OPENING, b"two, with a key"), (Kind.SEAL, b"three")])
    (later,) = segments.append([(Kind.OPENING, bytes(2000))])
    segments.erase([places[1], later, Place(99, 0, 50)])
    data = (tmp_path / "0000000000000001.seg").read_bytes()
    assert b"two" not in data
    with pytest.raises(CorruptEntryError):
        segments.read(places[1])
    segments, found = _reopened(segments, tmp_path)
    assert found == {places[0]: b"one", places[2]: b"three"}
    assert segments.quarantine.entries == {}
    segments.close()


class Crashes(RuleBasedStateMachine):
    """Segments against a model, with crashes that leave any part of what was not acknowledged."""

    acknowledged = Bundle("acknowledged")

    @initialize()
    def begin(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="spool-"))
        self.segments = _opened(self.folder, 200)
        self.model: dict[Place, bytes] = {}

    @rule(target=acknowledged, payload=st.binary(max_size=80), kind=st.sampled_from(Kind))
    def append(self, payload: bytes, kind: Kind) -> Place:
        (place,) = self.segments.append([(kind, payload)])
        self.model[place] = payload
        return place

    @rule(payloads=st.lists(st.binary(max_size=80), min_size=1, max_size=3), left=st.floats(0, 1))
    def crash_while_writing(self, payloads: list[bytes], left: float) -> None:
        before = dict(self.segments.sizes)
        places = self.segments.append([(Kind.ENVELOPE, payload) for payload in payloads])
        number = places[0].segment
        start, end = before.get(number, 0), self.segments.sizes[number]
        os.truncate(self.folder / f"{number:016d}.seg", start + int(left * (end - start)))
        self.restart(dict(zip(places, payloads, strict=True)))

    @rule()
    def crash(self) -> None:
        self.restart({})

    def restart(self, unanswered: dict[Place, bytes]) -> None:
        self.segments.close()
        self.segments = _opened(self.folder, 200)
        found = {one.place: self.segments.read(one.place) for one in self.segments.recover()}
        assert self.model.items() <= found.items(), "nothing acknowledged is lost"
        assert found.items() <= (self.model | unanswered).items(), "and nothing else is there"
        self.model = found

    @rule(data=st.data())
    def drain_a_segment(self, data: st.DataObject) -> None:
        if self.model:
            number = data.draw(st.sampled_from(sorted({place.segment for place in self.model})))
            self.segments.drop(number)
            self.model = {place: payload for place, payload in self.model.items() if place.segment != number}

    @invariant()
    def all_is_readable(self) -> None:
        for place, payload in getattr(self, "model", {}).items():
            assert self.segments.read(place) == payload

    def teardown(self) -> None:
        if hasattr(self, "segments"):
            self.segments.close()
            assert self.segments.quarantine.entries == {}
            shutil.rmtree(self.folder)


TestCrashes = Crashes.TestCase
TestCrashes.settings = settings(max_examples=60, stateful_step_count=20, deadline=None)
