"""The command line as a user has it: a program, an environment, exit codes, 80 columns."""

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from scripts.devstack.anvil import Anvil
from scripts.devstack.stack import Stack
from tests.e2e.conftest import UNKNOWN_TOKEN, Api, session_name

CLI = Path(sys.executable).with_name("lucid-sessions")
COLUMNS = 80
OK, FAILED, USAGE, UNREACHABLE, NOT_AUTHORISED, NOT_FOUND, REFUSED, VERIFICATION, IN_PART = range(9)


@dataclass
class Shell:
    """Runs `lucid-sessions` as each role, and checks what every run has in common."""

    stack: Stack

    def __call__(
        self, *arguments: str | Path, role: str | None = None, given: bytes = b"", expect: int = OK, urls: bool = True
    ) -> subprocess.CompletedProcess[str]:
        environment = {
            name: value for name, value in os.environ.items() if not name.startswith("LUCID_") or "TEST_RUN" in name
        }
        if urls:
            environment["LUCID_PROCESSOR_URL"] = self.stack.processor_url
            environment["LUCID_STORAGE_URL"] = self.stack.storage_url
        if role is not None:
            environment["LUCID_TOKEN"] = self.stack.tokens.get(role, UNKNOWN_TOKEN)
        ran = subprocess.run(
            [CLI, *arguments], input=given, env=environment, capture_output=True, timeout=90, check=False
        )
        done = subprocess.CompletedProcess(
            ran.args, ran.returncode, ran.stdout.decode(errors="replace"), ran.stderr.decode()
        )
        assert done.returncode == expect, done.stdout + done.stderr
        assert "Traceback" not in done.stderr
        for token in (*self.stack.tokens.values(), UNKNOWN_TOKEN):
            assert token not in done.stdout + done.stderr
        if expect not in (OK, VERIFICATION, IN_PART):
            assert len(done.stderr.strip().splitlines()) <= 3, done.stderr
            assert "error: " in done.stderr
        return done


def narrow(text: str) -> None:
    """Every line fits a terminal of 80 columns."""
    wide = [line for line in text.splitlines() if len(line) > COLUMNS]
    assert wide == []


@pytest.fixture(scope="module")
def shell(stack: Stack) -> Shell:
    return Shell(stack)


@dataclass
class Kept:
    """A session that was recorded, and what a third party has of it."""

    name: str
    source: Path
    receipt: Path
    envelopes: Path


def _keep(shell: Shell, folder: Path, content: bytes) -> Kept:
    folder.mkdir()
    name, source = session_name("cli"), folder / "recording.bin"
    source.write_bytes(content)
    shell("record", source, "--session", name, "--chunk-bytes", "1000", "--metadata", '{"by":"cli"}', role="record")
    receipt, envelopes = folder / "receipt.json", folder / "envelopes"
    shell("receipt", name, "-o", receipt, "--wait", "60", role="audit")
    # `envelopes` asks for the status, too: a token of storage's reader does both.
    shell("envelopes", name, envelopes, role="audit")
    return Kept(name, source, receipt, envelopes)


@pytest.fixture(scope="module")
def kept(shell: Shell, tmp_path_factory: pytest.TempPathFactory) -> Kept:
    return _keep(shell, tmp_path_factory.mktemp("cli") / "kept", os.urandom(3500) + b"a" * 2000)


@pytest.fixture(scope="module")
def other(shell: Shell, tmp_path_factory: pytest.TempPathFactory) -> Kept:
    return _keep(shell, tmp_path_factory.mktemp("cli") / "other", b"another recording" * 100)


class TestRecorder:
    def test_record_status_replay(self, shell: Shell, tmp_path: Path) -> None:
        name, source, back = session_name("cli"), tmp_path / "in.bin", tmp_path / "out.bin"
        source.write_bytes(os.urandom(12_345))
        shown = shell("record", source, "--session", name, "--chunk-bytes", "5000", role="record").stdout
        narrow(shown)
        assert "it covers every chunk" in shown
        shown = shell("status", name, role="audit").stdout
        narrow(shown)
        assert dict(line.split(None, 1) for line in shown.splitlines())["status"] == "sealed"
        shell("replay", name, "-o", back, role="replay")
        assert back.read_bytes() == source.read_bytes()
        shell("replay", name, "-o", back, role="replay", expect=REFUSED)
        shell("replay", name, "-o", back, "--force", "--start", "5001", role="replay")
        assert back.read_bytes() == source.read_bytes()[5001:]

    def test_from_a_pipe_into_a_pipe(self, shell: Shell, stack: Stack) -> None:
        name = session_name("cli")
        shell("record", "-", "--session", name, "--chunk-bytes", "4", given=b"from a pipe\x00\xff", role="record")
        ran = subprocess.run(
            [CLI, "--processor-url", stack.processor_url, "replay", name],
            env={**os.environ, "LUCID_TOKEN": stack.tokens["replay"]},
            capture_output=True,
            timeout=60,
            check=True,
        )
        assert ran.stdout == b"from a pipe\x00\xff"

    def test_a_closed_stdout_is_no_error(self, stack: Stack, kept: Kept) -> None:
        """B50."""
        ran = subprocess.run(
            ["bash", "-c", 'exec "$0" "$@" >&-', CLI, "--processor-url", stack.processor_url, "status", kept.name],
            env={**os.environ, "LUCID_TOKEN": stack.tokens["record"]},
            stderr=subprocess.PIPE,
            timeout=60,
            check=False,
        )
        assert (ran.returncode, ran.stderr) == (0, b"")

    def test_a_sealed_session_takes_no_recording(self, shell: Shell, kept: Kept) -> None:
        again = ("record", kept.source, "--session", kept.name, "--chunk-bytes", "1000")
        assert "session-sealed" in shell(*again, role="record", expect=REFUSED).stderr

    def test_a_recording_goes_on_where_it_ended(self, shell: Shell, api: Api, tmp_path: Path) -> None:
        name, source = session_name("cli"), tmp_path / "in.bin"
        content = os.urandom(5500)
        source.write_bytes(content)
        for index in range(3):
            assert api.put_chunk(name, index, content[index * 1000 : (index + 1) * 1000]).status_code == 201
        said = json.loads(
            shell("record", source, "--session", name, "--chunk-bytes", "1000", "--json", role="record").stdout
        )
        # The last one that is there is sent again: it says whether this is the same recording.
        assert (said["sent"], said["chunk_count"]) == (4, 6)
        shell("replay", name, "-o", tmp_path / "out.bin", role="replay")
        assert (tmp_path / "out.bin").read_bytes() == content

    def test_record_another_file_under_the_same_name(self, shell: Shell, kept: Kept, tmp_path: Path) -> None:
        source = tmp_path / "other.bin"
        source.write_bytes(os.urandom(5500))
        shell(
            "record",
            source,
            "--session",
            kept.name,
            "--chunk-bytes",
            "1000",
            "--no-resume",
            role="record",
            expect=REFUSED,
        )

    def test_seal(self, shell: Shell, stack: Stack) -> None:
        name = session_name("cli")
        shell("seal", name, role="record", expect=NOT_FOUND)
        shell("record", "-", "--session", name, given=b"sealed", role="record")
        narrow(shell("seal", name, "--chunk-count", "1", role="record").stdout)
        shell("seal", name, "--chunk-count", "2", role="record", expect=REFUSED)

    def test_what_is_not_there_or_not_allowed(self, shell: Shell, kept: Kept, tmp_path: Path) -> None:
        shell("status", session_name("none"), role="audit", expect=NOT_FOUND)
        shell("replay", session_name("none"), "-o", tmp_path / "x", role="replay", expect=NOT_FOUND)
        assert not (tmp_path / "x").exists()
        shell("status", kept.name, role=None, expect=NOT_AUTHORISED)
        shell("status", kept.name, role="nobody", expect=NOT_AUTHORISED)
        shell("replay", kept.name, "-o", tmp_path / "x", role="record", expect=NOT_AUTHORISED)
        shell("status", "-not-a-name", role="audit", expect=USAGE)
        shell("status", "not a name", role="audit", expect=USAGE)
        assert "no such file (give a file" in shell("record", tmp_path / "no-file", role="record", expect=FAILED).stderr
        gone = ("--processor-url", "http://127.0.0.1:1", "--retry-seconds", "0")
        shell(*gone, "status", kept.name, role="audit", expect=UNREACHABLE)


class TestAuditor:
    def test_list(self, shell: Shell, kept: Kept, other: Kept) -> None:
        shown = shell("list", "--limit", "5", "--status", "sealed", role="audit").stdout
        narrow(shown)
        assert other.name in shown
        found = json.loads(shell("list", "--json", role="audit").stdout)["sessions"]
        assert {kept.name, other.name} <= {one["session_id"] for one in found}
        assert [one["opened_at"] for one in found] == sorted((one["opened_at"] for one in found), reverse=True)

    def test_receipt_of_an_open_session(self, shell: Shell, api: Api) -> None:
        name = session_name("cli")
        assert api.put_chunk(name, 0, b"open").status_code == 201
        shell("receipt", name, role="audit", expect=REFUSED)
        shell("proof", name, "0", role="audit", expect=REFUSED)

    def test_proof(self, shell: Shell, kept: Kept, tmp_path: Path) -> None:
        file = tmp_path / "proof.json"
        shell("proof", kept.name, "3", "-o", file, role="audit")
        proof = json.loads(file.read_text())
        manifest = json.loads(kept.receipt.read_text())["manifest"]
        assert (proof["index"], proof["root"], proof["tree_size"]) == (3, manifest["root"], 6)
        shell("proof", kept.name, "6", role="audit", expect=NOT_FOUND)
        shell("proof", kept.name, "-1", role="audit", expect=USAGE)

    def test_receipt_twice_is_the_same(self, shell: Shell, kept: Kept) -> None:
        assert json.loads(shell("receipt", kept.name, role="audit").stdout) == json.loads(kept.receipt.read_text())


class TestVerify:
    """No service is asked: neither address nor token is given."""

    def test_the_right_receipt(self, shell: Shell, stack: Stack, kept: Kept, tmp_path: Path) -> None:
        metadata = tmp_path / "metadata.json"
        metadata.write_text('{ "by": "cli" }')
        shown = shell(
            *("verify", kept.receipt, "--recording-envelopes", kept.envelopes, "--metadata", metadata),
            *("--rpc", stack.rpc_url, "--publisher", stack.publisher, "--contract", stack.contract),
            urls=False,
        ).stdout
        narrow(shown)
        assert "[x]" not in shown
        assert "[ ]" not in shown
        assert "verdict: " in shown

    def test_without_the_chain_it_is_proven_in_part(self, shell: Shell, kept: Kept) -> None:
        shell("verify", kept.receipt, urls=False)
        shell("verify", kept.receipt, "--require-anchor", urls=False, expect=IN_PART)

    def test_one_altered_byte(self, shell: Shell, stack: Stack, kept: Kept, tmp_path: Path) -> None:
        for file in kept.envelopes.iterdir():
            (tmp_path / file.name).write_bytes(file.read_bytes())
        victim = tmp_path / "000000000002.lse"
        data = bytearray(victim.read_bytes())
        data[len(data) // 2] ^= 1
        victim.write_bytes(data)
        shown = shell(
            *("verify", kept.receipt, "--recording-envelopes", tmp_path, "--rpc", stack.rpc_url, "--json"),
            urls=False,
            expect=VERIFICATION,
        )
        failed = [step["text"] for step in json.loads(shown.stdout)["steps"] if step["outcome"] == "failed"]
        assert len(failed) == 1
        assert "2" in failed[0]

    def test_one_envelope_less(self, shell: Shell, kept: Kept, tmp_path: Path) -> None:
        for file in sorted(kept.envelopes.glob("*.lse"))[:-1]:
            (tmp_path / file.name).write_bytes(file.read_bytes())
        shell("verify", kept.receipt, "--recording-envelopes", tmp_path, urls=False, expect=VERIFICATION)

    def test_the_receipt_of_another_session(self, shell: Shell, kept: Kept, other: Kept) -> None:
        shell("verify", other.receipt, "--recording-envelopes", kept.envelopes, urls=False, expect=VERIFICATION)

    def test_other_metadata(self, shell: Shell, kept: Kept, tmp_path: Path) -> None:
        metadata = tmp_path / "metadata.json"
        metadata.write_text('{"by":"somebody else"}')
        shell("verify", kept.receipt, "--metadata", metadata, urls=False, expect=VERIFICATION)

    @pytest.mark.parametrize("member", ["root", "sealed_at", "chunk_count", "metadata_sha256"])
    def test_a_changed_manifest(self, shell: Shell, kept: Kept, tmp_path: Path, member: str) -> None:
        receipt = json.loads(kept.receipt.read_text())
        changed = {
            "root": "0" * 64,
            "metadata_sha256": "0" * 64,
            "sealed_at": "2020-01-01T00:00:00.000Z",
            "chunk_count": 5,
        }
        receipt["manifest"][member] = changed[member]
        file = tmp_path / "receipt.json"
        file.write_text(json.dumps(receipt))
        shell("verify", file, urls=False, expect=VERIFICATION)

    def test_a_publisher_that_is_another(self, shell: Shell, stack: Stack, kept: Kept) -> None:
        stranger = stack.anvil.accounts[5][0]
        shell(
            *("verify", kept.receipt, "--rpc", stack.rpc_url, "--publisher", stranger), urls=False, expect=VERIFICATION
        )

    def test_a_chain_without_the_anchor(self, shell: Shell, kept: Kept, tmp_path: Path) -> None:
        fresh = Anvil(tmp_path / "chain")
        fresh.start()
        try:
            shown = shell("verify", kept.receipt, "--rpc", fresh.url, urls=False, expect=VERIFICATION)
            assert "[x]" in shown.stdout
        finally:
            fresh.stop()

    def test_a_chain_that_is_away(self, shell: Shell, kept: Kept) -> None:
        shell("verify", kept.receipt, "--rpc", "http://127.0.0.1:1", urls=False, expect=UNREACHABLE)

    def test_what_is_no_receipt(self, shell: Shell, tmp_path: Path) -> None:
        file = tmp_path / "receipt.json"
        file.write_text("{}")
        shell("verify", file, urls=False, expect=VERIFICATION)
        shell("verify", tmp_path / "none", urls=False, expect=FAILED)
