"""record, status, seal, replay, and the errors that every command shares."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from starlette.responses import Response

from sessions.cli import output
from sessions.cli.main import main
from tests.unit.cli.conftest import Run
from tests.unit.client.fake import TOKEN, Cut, Fake, problem

DATA = bytes(range(256)) * 20


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "recording"
    path.write_bytes(DATA)
    return path


def test_from_a_file_and_back(run: Run, fake: Fake, file: Path, tmp_path: Path) -> None:
    done = run("record", file, "--session", "s", "--chunk-bytes", 1000, "--metadata", '{"who": "me"}')
    assert done.code == 0
    assert "chunks        6 (6 sent now)" in done.out
    assert "it covers every chunk" in done.out
    assert fake.sessions["s"].metadata == {"who": "me"}
    back = run("replay", "s", "-o", tmp_path / "back")
    assert (back.code, back.out, back.err) == (0, "", f"{output.size(len(DATA))} of session s\n")
    assert (tmp_path / "back").read_bytes() == DATA
    again = run("replay", "s", "-o", tmp_path / "back")
    assert again.code == 6
    assert "exists already" in again.err
    forced = run("replay", "s", "-o", tmp_path / "back", "--force", "--start", 5000, "--json")
    assert json.loads(forced.out) == {"session_id": "s", "file": str(tmp_path / "back"), "start": 5000, "bytes": 120}
    assert max(map(len, done.out.splitlines())) <= 80


def test_json_is_one_document(run: Run, file: Path) -> None:
    record = json.loads(run("record", file, "--session", "s", "--json").out)
    assert (record["session_id"], record["chunk_count"], record["root_checked"]) == ("s", 1, True)
    status = json.loads(run("status", "s", "--json").out)
    assert (status["next_index"], status["missing"], status["anchor"]["state"]) == (1, [], "pending")
    assert status["root"] == record["seal"]["root"] == record["seal"]["manifest"]["root"]
    seal = json.loads(run("seal", "s", "--json").out)
    assert seal["manifest"]["session_id"] == "s"
    assert json.loads(run("list", "--json").out)["sessions"][0]["session_id"] == "s"


def test_from_stdin_under_a_made_up_id(run: Run, fake: Fake) -> None:
    done = run("record", "-", stdin=DATA)
    (name,) = fake.sessions
    assert re.fullmatch(r"\d{8}T\d{6}Z-[0-9a-f]{12}", name)
    assert done.err.splitlines()[0] == f"session {name}"
    assert f"session       {name}" in done.out
    assert b"".join(fake.sessions[name].chunks.values()) == DATA


def test_status_and_seal_for_people(run: Run, fake: Fake) -> None:
    from tests.unit.client.fake import FakeSession

    fake.sessions["s"] = FakeSession({0: b"a", 3: b"b", 5: b"c"})
    shown = run("status", "s").out
    assert "missing     1-2, 4\n" in shown
    assert "anchor" not in shown
    refused = run("seal", "s")
    assert refused.code == 6
    assert "chunks-missing" in refused.err
    fake.sessions["s"] = FakeSession(dict.fromkeys(range(1, 60, 2), b"a"))
    assert "and more" in run("status", "s").out
    fake.sessions["s"] = FakeSession({0: b"a"})
    assert "chunks     1\n" in run("seal", "s", "--chunk-count", 1).out
    assert run("seal", "s", "--chunk-count", 1).code == 0


def test_an_interrupted_recording_tells_how_to_go_on(run: Run, fake: Fake, file: Path) -> None:
    fake.fault("PUT", "/chunks/3", *[problem(503, "overloaded")] * 9)
    first = run("--retry-seconds", 0, "record", file, "--session", "s", "--chunk-bytes", 1000)
    assert first.code == 3
    assert "to go on, give --session s to the same command" in first.err
    assert 0 in fake.sessions["s"].chunks
    fake.faults.clear()
    second = run("record", file, "--session", "s", "--chunk-bytes", 1000)
    assert second.code == 0
    assert "no, some were sent earlier" in second.out or "yes" in second.out
    assert run("record", file, "--session", "s").code == 6


@pytest.mark.parametrize(
    ("answer", "code"),
    [
        (problem(401, "unauthorized"), 4),
        (problem(403, "forbidden"), 4),
        (problem(404, "session-not-found"), 5),
        (problem(409, "session-open"), 6),
        (problem(410, "session-shredded"), 6),
        (problem(503, "database-unavailable", {"retry-after": "60"}), 3),
        (problem(500, "internal"), 3),
        (Response("not json"), 1),
        (Cut(b"{", 99), 3),
    ],
)
def test_each_error_is_a_line_and_a_code(run: Run, fake: Fake, answer, code) -> None:
    fake.fault("GET", "/s", answer)
    done = run("--retry-seconds", 0, "status", "s")
    assert (done.code, done.out) == (code, "")
    assert done.err.startswith("error: ")
    assert done.err.count("\n") == 1
    assert TOKEN not in done.err


def test_nobody_there(bare: Run) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        url = f"http://127.0.0.1:{taken.getsockname()[1]}"
    done = bare("--processor-url", url, "--retry-seconds", 0, "status", "s")
    assert done.code == 3
    assert done.err.endswith("(is the service running, and is its URL right?)\n")


def test_no_token(bare: Run, fake: Fake) -> None:
    done = bare("--processor-url", fake.url, "status", "s")
    assert done.code == 4
    assert "check LUCID_TOKEN or LUCID_TOKEN_FILE" in done.err


@pytest.mark.parametrize(
    ("content", "code"),
    [
        (f"# the recorder's\n{TOKEN}\n\n", 5),
        ("", 2),
        (f"{TOKEN}\n{TOKEN}\n", 2),
        ("name roles=audit sha256=00\n", 2),
        (b"\xff\xfe", 1),
        (None, 1),
    ],
)
def test_the_token_file(bare: Run, fake: Fake, tmp_path: Path, monkeypatch, *, content, code) -> None:
    path = tmp_path / "token"
    if content is not None:
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    monkeypatch.setenv("LUCID_TOKEN_FILE", str(path))
    done = bare("--processor-url", fake.url, "status", "nobody")
    assert done.code == code
    assert TOKEN not in done.err


@pytest.mark.parametrize(
    "arguments",
    [
        ("bogus",),
        ("record",),
        ("record", "f", "--bogus"),
        ("record", "f", "--chunk-bytes", "0"),
        ("record", "f", "--in-flight", "x"),
        ("record", "f", "--metadata", "[1]"),
        ("record", "f", "--metadata", "{"),
        ("record", "f", "--session", "a/b"),
        ("status", "../etc/passwd"),
        ("replay", "s", "--json"),
        ("--processor-url",),
    ],
)
def test_usage(run: Run, arguments) -> None:
    done = run(*arguments)
    assert done.code == 2
    assert done.out == ""
    errors = [line for line in done.err.splitlines() if not line.startswith("session ")]
    assert len(errors) == 1
    assert errors[0].startswith("error: ")


def test_files_that_are_not_there(run: Run, tmp_path: Path) -> None:
    assert run("record", tmp_path / "none").code == 1
    assert "cannot read the metadata file" in run("record", "-", "--metadata", f"@{tmp_path}/none").err
    (tmp_path / "metadata").write_text('{"a": 1}')
    assert run("record", "-", "--metadata", f"@{tmp_path}/metadata").code == 0
    assert run("--processor-url", "nonsense", "status", "s").code == 1


def test_no_command_is_help(run: Run) -> None:
    for arguments in ((), ("keys",), ("tokens",)):
        done = run(*arguments)
        assert done.code == 2
        assert "Usage: " in done.out + done.err


@pytest.mark.parametrize(
    "command",
    [
        "",
        "record",
        "status",
        "seal",
        "replay",
        "list",
        "receipt",
        "proof",
        "envelopes",
        "verify",
        "deploy-contract",
        "shard-setup",
        "keys new",
        "tokens new",
    ],
)
def test_help_fits_80_columns(run: Run, monkeypatch, command) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    done = run(*command.split(), "--help")
    assert done.code == 0
    assert "Usage: lucid-sessions" in done.out
    assert max(map(len, done.out.splitlines())) <= 80
    if not command:
        assert "  7    verification failed\n" in done.out


def test_replay_to_stdout_is_the_recording_and_nothing_else(program, fake: Fake, file: Path) -> None:
    assert program("record", "-", "--session", "s", "--chunk-bytes", 999, input=DATA).returncode == 0
    done = program("replay", "s")
    assert (done.returncode, done.stdout) == (0, DATA)
    assert program("replay", "s", "--start", 5000).stdout == DATA[5000:]


def test_a_reader_that_goes_away(fake: Fake, program) -> None:
    program("record", "-", "--session", "s", input=DATA * 200)
    environment = {**os.environ, "LUCID_PROCESSOR_URL": fake.url, "LUCID_TOKEN": TOKEN}
    with subprocess.Popen(
        [sys.executable, "-m", "sessions.cli.main", "replay", "s"],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.read(10)
        process.stdout.close()
        assert process.stderr.read() == b""
        assert process.wait(20) == 1


def test_a_reader_that_was_never_there() -> None:
    read, write = os.pipe()
    os.close(read)
    command = [sys.executable, "-m", "sessions.cli.main", "keys", "new"]
    done = subprocess.run(command, stdout=write, stderr=subprocess.PIPE, timeout=60, check=False)
    os.close(write)
    assert (done.returncode, done.stderr) == (1, b"")


def test_a_reader_that_leaves_before_the_last_flush(run: Run, monkeypatch, tmp_path: Path) -> None:
    class Gone:
        def __init__(self, descriptor: int) -> None:
            self.fileno = lambda: descriptor

        def flush(self) -> None:
            raise BrokenPipeError

    with (tmp_path / "out").open("wb") as file:
        monkeypatch.setattr(sys, "stdout", Gone(file.fileno()))
        assert main(["keys", "new", "--out", str(tmp_path / "key")]) == 1
        monkeypatch.undo()


def test_ctrl_c(fake: Fake) -> None:
    environment = {**os.environ, "LUCID_PROCESSOR_URL": fake.url, "LUCID_TOKEN": TOKEN}
    with subprocess.Popen(
        [sys.executable, "-m", "sessions.cli.main", "record", "-", "--session", "s"],
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        deadline = time.monotonic() + 20
        while "s" not in fake.sessions:
            assert time.monotonic() < deadline
            time.sleep(0.02)
        time.sleep(0.2)
        process.send_signal(signal.SIGINT)
        assert process.wait(20) == 130
        assert process.stderr is not None
        assert process.stderr.read().decode().splitlines() == ["session s", "error: interrupted"]


def test_a_terminal_sees_a_bar_and_no_recording(run: Run, fake: Fake, file: Path, monkeypatch) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", "80")
    done = run("record", file, "--session", "s", "--chunk-bytes", 1000)
    assert "record" in done.err
    assert done.out.startswith("session")
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    refused = run("replay", "s")
    assert refused.code == 2
    assert "not for a terminal" in refused.err


def test_an_error_that_nobody_foresaw_is_a_line_too(run: Run, monkeypatch) -> None:
    def fails(*_args: object, **_options: object) -> None:
        raise OSError(5, "Input/output\nerror", "disk")

    monkeypatch.setattr(output, "document", fails)
    run("record", "-", "--session", "s")
    done = run("status", "s", "--json")
    assert (done.code, done.err) == (1, "error: disk: Input/output error\n")


@pytest.mark.parametrize(
    ("count", "text"),
    [(0, "0 B"), (1023, "1023 B"), (1024, "1.0 KiB"), (5 * 1024**3, "5.0 GiB"), (1024**6, "1024.0 PiB")],
)
def test_sizes(count, text) -> None:
    assert output.size(count) == text


def test_help_starts_without_the_http_client() -> None:
    code = """
import sys
from sessions.cli.main import main
main(["--help"])
print([name for name in ("httpx", "rich", "asyncio", "web3", "fastapi", "ssl") if name in sys.modules], file=sys.stderr)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr == "[]\n"
