"""Verifying without a node: what is said, what is left open; and the check of a folder of envelopes."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from sessions.client import envelope_check
from sessions.client.envelope_check import LEAF_HASHES_FILE, check_envelopes
from sessions.client.verifying import Outcome, Report, Request, _utc, verify
from sessions.core.errors import VerificationError
from sessions.core.manifest import Manifest
from sessions.core.receipt import Anchor, AnchorState
from tests.unit.client.fake import Fake, FakeSession, seal_chunk

PUBLISHER = b"\x11" * 20


def anchor(state: AnchorState = AnchorState.CONFIRMED) -> Anchor:
    return Anchor(
        state=state,
        chain_id=1,
        contract=b"\x22" * 20,
        publisher=PUBLISHER,
        transaction=b"\x33" * 32,
        block_number=5,
        block_hash=b"\x44" * 32,
        block_timestamp=6,
    )


@pytest.fixture
def services() -> Fake:
    one = Fake(anchor=anchor())
    one.sessions["s"] = FakeSession({index: b"%d" % index * (index + 1) for index in range(9)}, {"who": "me"})
    one.seal("s")
    return one


def write(services: Fake, folder: Path, name: str = "s") -> Manifest:
    """The envelopes and the list of leaves; the names say nothing about the index."""
    session = services.sessions[name]
    folder.mkdir(exist_ok=True)
    for index, data in session.chunks.items():
        (folder / f"{97 * (index + 3) % 1009:04d}.bin").write_bytes(seal_chunk(name, index, data))
    lines = [f"{index} {services.ack(name, index)['leaf_hash']}\n" for index in session.chunks]
    (folder / LEAF_HASHES_FILE).write_text("".join(lines))
    assert session.manifest is not None
    return session.manifest


def path_of(folder: Path, index: int) -> Path:
    return folder / f"{97 * (index + 3) % 1009:04d}.bin"


def told(report: Report, outcome: Outcome) -> str:
    return "\n".join(step.text for step in report.steps if step.outcome is outcome)


def run(services: Fake, **options) -> Report:
    return verify(Request(json.dumps(services.receipt("s").to_json()).encode(), **options))


def test_it_says_what_it_left_out(services: Fake) -> None:
    report = run(services)
    assert report.verdict == "proven in part"
    assert "not checked: that the batch root is on the chain (no --rpc)" in told(report, Outcome.NOT_CHECKED)
    assert "not checked: the recorder's metadata" in told(report, Outcome.NOT_CHECKED)
    assert "no --recording-envelopes" in told(report, Outcome.NOT_CHECKED)
    assert f"said to be published by 0x{PUBLISHER.hex()}: whether" in told(report, Outcome.NOTE)
    assert "session 2 of 3" in told(report, Outcome.PROVEN)
    assert "by the recorder" in told(report, Outcome.PROVEN)


def test_gaps_are_told(services: Fake) -> None:
    for index in (1, 4, 5):
        del services.sessions["s"].chunks[index]
    services.seal("s", missing=((1, 1), (4, 5)))
    report = run(services)
    assert "chunks 1, 4-5 never arrived" in told(report, Outcome.NOTE)
    assert "after the recorder fell silent" in told(report, Outcome.PROVEN)


def test_many_gaps_are_told_in_short(services: Fake) -> None:
    session = services.sessions["s"]
    session.chunks = dict.fromkeys(range(1, 60, 2), b"x")
    services.seal("s", missing=tuple((index, index) for index in range(0, 59, 2)))
    assert "and 20 more ranges" in told(run(services), Outcome.NOTE)


@pytest.mark.parametrize("state", [AnchorState.PENDING, AnchorState.SUBMITTED])
def test_what_is_not_anchored_yet(services: Fake, state) -> None:
    services.anchor = anchor(state) if state is not AnchorState.PENDING else Anchor()
    report = run(services, node_url="http://127.0.0.1:9")
    assert report.verdict == "proven in part"
    assert "not anchored yet" in told(report, Outcome.NOT_CHECKED)


def test_another_publisher_or_contract_than_expected(services: Fake) -> None:
    report = run(services, publisher=b"\x99" * 20, contract=b"\x98" * 20, node_url="http://127.0.0.1:9")
    assert told(report, Outcome.FAILED).count("expected was 0x9") == 2
    assert run(services, publisher=PUBLISHER, contract=b"\x22" * 20).verdict == "proven in part"
    services.anchor = Anchor(state=AnchorState.CONFIRMED)
    report = run(services, publisher=b"\x99" * 20)
    assert report.verdict == "proven in part"
    assert "published" not in told(report, Outcome.NOTE)


def test_metadata(services: Fake) -> None:
    assert "the metadata is that" in told(run(services, metadata=b'{"who": "me"}'), Outcome.PROVEN)
    for other in (b'{"who": "you"}', b"[]", b"{", b'{"who": NaN}', b'{"who": 9007199254740993}'):
        assert "the metadata is that of the session: " in told(run(services, metadata=other), Outcome.FAILED)


@pytest.mark.parametrize("data", [b"", b"{}", b"\xff\xfe", b"[" * 100_000, b'{"version": 1, "version": 1}'])
def test_files_that_are_no_receipt(data) -> None:
    report = verify(Request(data))
    assert report.failed
    assert report.receipt is None
    assert "the file is not a receipt" in told(report, Outcome.FAILED)


@pytest.mark.parametrize(
    ("member", "value"),
    [
        (("manifest", "chunk_count"), 10),
        (("manifest", "root"), "00" * 32),
        (("manifest", "sealed_at"), "2026-01-30T11:00:00.000Z"),
        (("batch", "root"), "00" * 32),
        (("batch", "index"), 0),
        (("batch", "path"), []),
    ],
)
def test_a_changed_receipt(services: Fake, member, value) -> None:
    receipt = services.receipt("s").to_json()
    receipt[member[0]][member[1]] = value
    report = verify(Request(json.dumps(receipt).encode(), publisher=PUBLISHER))
    assert report.failed
    assert "in the batch with root" in told(report, Outcome.FAILED)


def test_the_right_envelopes(services: Fake, tmp_path: Path) -> None:
    write(services, tmp_path)
    report = run(services, envelopes=tmp_path)
    assert not report.failed
    assert "the envelopes are exactly those" in told(report, Outcome.PROVEN)


def test_the_right_envelopes_of_a_session_with_gaps(services: Fake, tmp_path: Path) -> None:
    for index in (0, 3, 4):
        del services.sessions["s"].chunks[index]
    services.seal("s", missing=((0, 0), (3, 4)))
    manifest = write(services, tmp_path)
    assert check_envelopes(manifest, tmp_path) == 6
    path_of(tmp_path, 5).unlink()
    with pytest.raises(VerificationError, match="chunk 5 is missing"):
        check_envelopes(manifest, tmp_path)


def _drop(folder: Path) -> None:
    for index in (4, 7):
        path_of(folder, index).unlink()


def _twice(folder: Path) -> None:
    (folder / "zz-copy").write_bytes(path_of(folder, 3).read_bytes())


def _other_session(folder: Path) -> None:
    (folder / "extra").write_bytes(seal_chunk("t", 4, b"x"))


def _beyond(folder: Path) -> None:
    (folder / "extra").write_bytes(seal_chunk("s", 9, b"x"))


def _alter(folder: Path) -> None:
    for index in (6, 2):
        data = bytearray(path_of(folder, index).read_bytes())
        data[-1] ^= 1
        path_of(folder, index).write_bytes(data)


def _alter_and_list(folder: Path) -> None:
    _alter(folder)
    (folder / LEAF_HASHES_FILE).unlink()


def _alter_and_forge_list(folder: Path) -> None:
    _alter(folder)
    (folder / LEAF_HASHES_FILE).write_text("0 zz\n")


def _swap_list(folder: Path) -> None:
    _alter(folder)
    (folder / LEAF_HASHES_FILE).write_text("".join(f"{index} {'00' * 32}\n" for index in range(9)))


def _cut(folder: Path) -> None:
    path = path_of(folder, 1)
    path.write_bytes(path.read_bytes()[:-1])


def _junk(folder: Path) -> None:
    (folder / "notes.txt").write_text("notes")


def _huge(folder: Path) -> None:
    with (folder / "huge").open("wb") as file:
        file.truncate(100 * 1024 * 1024)


def _empty(folder: Path) -> None:
    for path in folder.iterdir():
        path.unlink()


@pytest.mark.parametrize(
    ("act", "words"),
    [
        (_drop, "chunk 4 is missing"),
        (_twice, "chunk 3 is there twice: zz-copy and 0582.bin"),
        (_other_session, "extra is foreign: it is chunk 4 of session t"),
        (_beyond, "extra is foreign: chunk 9 of a session of 9 chunks"),
        (_alter, "chunk 2 is altered"),
        (_alter_and_list, "a chunk is altered"),
        (_alter_and_forge_list, "a chunk is altered"),
        (_swap_list, "a chunk is altered"),
        (_cut, "0388.bin is foreign or altered"),
        (_junk, "notes.txt is foreign or altered"),
        (_huge, "huge is foreign: it is larger"),
        (_empty, "chunk 0 is missing"),
    ],
)
def test_the_first_wrong_envelope_is_named(services: Fake, tmp_path: Path, act, words) -> None:
    manifest = write(services, tmp_path)
    act(tmp_path)
    with pytest.raises(VerificationError) as caught:
        check_envelopes(manifest, tmp_path)
    assert words in str(caught.value)
    assert words in told(run(services, envelopes=tmp_path), Outcome.FAILED)


def test_a_chunk_that_was_sealed_as_missing(services: Fake, tmp_path: Path) -> None:
    late = services.sessions["s"].chunks.pop(4)
    manifest = services.seal("s", missing=((4, 4),))
    services.sessions["s"].chunks[4] = late
    write(services, tmp_path)
    with pytest.raises(VerificationError, match="chunk 4 is foreign: the session was sealed without it"):
        check_envelopes(manifest, tmp_path)


@pytest.mark.parametrize("member", ["plaintext_bytes", "envelope_bytes"])
def test_sizes_that_do_not_agree(services: Fake, tmp_path: Path, member) -> None:
    import dataclasses

    manifest = dataclasses.replace(write(services, tmp_path), **{member: 1})
    with pytest.raises(VerificationError, match="the manifest says"):
        check_envelopes(manifest, tmp_path)


def test_a_manifest_that_claims_gaps_without_end(services: Fake, tmp_path: Path) -> None:
    import dataclasses

    huge = 2**53 - 1
    manifest = dataclasses.replace(write(services, tmp_path), chunk_count=huge, missing=((9, huge - 1),))
    with pytest.raises(VerificationError, match="too many to check"):
        check_envelopes(manifest, tmp_path)
    manifest = dataclasses.replace(manifest, missing=())
    with pytest.raises(VerificationError, match="chunk 9 is missing"):
        check_envelopes(manifest, tmp_path)


def test_a_file_that_vanishes_is_not_a_riddle(services: Fake, tmp_path: Path, monkeypatch) -> None:
    write(services, tmp_path)
    header = envelope_check.envelopes.parse(seal_chunk("s", 3, b"")).header
    _empty(tmp_path)
    assert envelope_check._first(tmp_path, header) == "a file that is gone now"


def test_an_empty_session_and_an_empty_folder(tmp_path: Path) -> None:
    services = Fake()
    services.sessions["s"] = FakeSession()
    assert check_envelopes(services.seal("s"), tmp_path) == 0


def test_a_folder_that_is_none(services: Fake, tmp_path: Path) -> None:
    with pytest.raises(OSError, match="No such file"):
        run(services, envelopes=tmp_path / "none")


def test_times_beyond_any_calendar() -> None:
    assert _utc(0) == "1970-01-01 00:00:00 UTC"
    assert "second 18446744073709551615" in _utc(2**64 - 1)


def test_nothing_of_the_services_is_loaded() -> None:
    code = """
import sys
import sessions.client.verifying
loaded = {name for name in sys.modules if name.startswith("sessions.")}
print(sorted(loaded - {name for name in loaded if name.startswith("sessions.core")}))
print([name for name in ("fastapi", "pymongo", "web3", "uvicorn", "cryptography") if name in sys.modules])
"""
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.splitlines()
    assert set(json.loads(out[0].replace("'", '"'))) == {
        "sessions.client",
        "sessions.client.envelope_check",
        "sessions.client.errors",
        "sessions.client.rpc",
        "sessions.client.proxies",
        "sessions.client.urls",
        "sessions.client.verifying",
    }
    assert out[1] == "[]"
