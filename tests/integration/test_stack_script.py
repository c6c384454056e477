"""`scripts/stack` as a person uses it, the Stack class as fault tests use it, and what `scripts/test` decides."""

import argparse
import json
import os
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from scripts.devstack import cli, clock, run_tests
from scripts.devstack.anvil import Anvil
from scripts.devstack.folder import BusyError, hold
from scripts.devstack.mongod import Mongod
from scripts.devstack.process import ROOT, Process, StartError, free_port, start, wait_until
from scripts.devstack.services import answers
from scripts.devstack.stack import PARTS, Stack


def _script(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "scripts.devstack.cli", *arguments],
        env=os.environ | environment,
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def _demo(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "scripts.devstack.demo", *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=170,
        check=False,
    )


def _running_in(folder: Path) -> list[str]:
    """Processes that name the folder, in their command or their environment."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            said = (entry / "cmdline").read_bytes() + (entry / "environ").read_bytes()
        except OSError:
            continue
        if str(folder).encode() in said:
            found.append(entry.name)
    return found


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The folder of a stack that `scripts/stack start` started."""
    folder = tmp_path_factory.mktemp("script") / "stack"
    began = _script("start", "--dir", str(folder), "--env", "processor:LOG_LEVEL=DEBUG")
    assert began.returncode == 0, began.stderr
    yield folder
    _script("stop", "--dir", str(folder))
    assert _running_in(folder) == []


class TestScript:
    def test_start_writes_all_that_a_client_needs(self, folder: Path) -> None:
        file = folder / "stack.json"
        written = json.loads(file.read_text())
        assert stat.S_IMODE(file.stat().st_mode) == 0o600
        assert {"record", "replay", "audit", "admin", "processor"} == written["tokens"].keys()
        assert written["pids"].keys() == set(PARTS) - ({"mongod"} if os.environ.get("MONGODB_URL") else set())
        assert written["env"]["processor"]["LOG_LEVEL"] == "DEBUG"
        assert written["env"]["storage"]["CHAIN_CONTRACT"] == written["contract"]
        for service in ("processor", "storage"):
            assert answers(written[f"{service}_url"] + "/readyz")
        code = Anvil(folder / "chain", port=int(written["rpc_url"].rpartition(":")[2])).call(
            "eth_getCode", written["contract"], "latest"
        )
        assert len(code) > 2

    def test_start_again_says_that_it_runs(self, folder: Path) -> None:
        before = (folder / "stack.json").read_text()
        again = _script("start", "--dir", str(folder))
        assert (again.returncode, "runs already" in again.stdout) == (0, True)
        assert (folder / "stack.json").read_text() == before

    def test_status_is_a_table_without_secrets(self, folder: Path) -> None:
        shown = _script("status", "--dir", str(folder))
        assert shown.returncode == 0, shown.stdout
        assert [line.split()[0] for line in shown.stdout.splitlines()] == list(PARTS)
        assert "lucid_" not in shown.stdout

    def test_a_part_that_is_down_shows_and_start_begins_anew(self, folder: Path) -> None:
        known = Stack.load(folder)
        assert known is not None
        known.kill("storage")
        shown = _script("status", "--dir", str(folder))
        assert shown.returncode == 1
        assert "down" in shown.stdout
        again = _script("start", "--dir", str(folder))
        assert again.returncode == 0, again.stderr
        assert "stale (storage ended)" in again.stderr
        assert _script("status", "--dir", str(folder)).returncode == 0

    def test_secrets_are_their_owners_alone(self, folder: Path) -> None:
        for path in (folder / "secrets").iterdir():
            assert stat.S_IMODE(path.stat().st_mode) == 0o600, path


class TestScriptFails:
    def test_nothing_runs(self, tmp_path: Path) -> None:
        assert _script("status", "--dir", str(tmp_path)).returncode == 1
        stopped = _script("stop", "--dir", str(tmp_path))
        assert (stopped.returncode, "none runs" in stopped.stdout) == (0, True)

    def test_a_service_that_cannot_start(self, tmp_path: Path) -> None:
        failed = _script("start", "--dir", str(tmp_path), "--env", "storage:CHAIN_ID=none")
        assert failed.returncode == 1
        first, *tail = failed.stderr.splitlines()
        assert first.startswith("stack: storage did not start: it ended with status")
        assert "CHAIN_ID" in "".join(tail)
        assert _running_in(tmp_path) == []
        assert not (tmp_path / "stack.json").exists()

    def test_mongod_without_its_libraries(self, tmp_path: Path) -> None:
        program = tmp_path / "bin" / "mongod"
        program.parent.mkdir()
        program.write_text(
            "#!/bin/sh\necho 'mongod: error while loading shared libraries: libcurl.so.4: cannot open' >&2\nexit 127\n"
        )
        program.chmod(0o755)
        path = f"{program.parent}:{os.environ['PATH']}"
        failed = _script("start", "--dir", str(tmp_path / "stack"), PATH=path, MONGODB_URL="")
        assert failed.returncode == 1
        assert "libcurl.so.4 is missing: apt-get install libcurl4" in failed.stderr

    def test_a_foreign_mongod_that_is_away(self, tmp_path: Path) -> None:
        failed = _script("start", "--dir", str(tmp_path), MONGODB_URL="mongodb://127.0.0.1:1/")
        assert failed.returncode == 1
        assert "MONGODB_URL is set, and nothing answers there" in failed.stderr

    def test_files_of_somebody_else_stay(self, tmp_path: Path) -> None:
        (tmp_path / "mongo").mkdir()
        (tmp_path / "mongo" / "precious").touch()
        failed = _script("start", "--dir", str(tmp_path))
        assert (failed.returncode, "somebody else" in failed.stderr) == (1, True)
        assert (tmp_path / "mongo" / "precious").exists()

    @pytest.mark.parametrize("text", ["LOG_LEVEL=DEBUG", "mongod:X=1", "storage:lower=1", "storage:X"])
    def test_a_setting_that_is_none(self, text: str) -> None:
        with pytest.raises(argparse.ArgumentTypeError, match="is not processor:NAME=VALUE"):
            cli._setting(text)

    def test_interrupted_half_way_nothing_is_left(self, tmp_path: Path) -> None:
        with subprocess.Popen(
            [sys.executable, "-m", "scripts.devstack.cli", "start", "--dir", str(tmp_path)],
            cwd=ROOT,
            stderr=subprocess.PIPE,
        ) as starting:
            assert wait_until((tmp_path / "anvil.log").exists, 30)
            starting.send_signal(signal.SIGTERM)
            assert starting.wait(60) == 130
        assert _running_in(tmp_path) == []

    def test_killed_half_way_it_can_still_be_stopped(self, tmp_path: Path) -> None:
        with subprocess.Popen(
            [sys.executable, "-m", "scripts.devstack.cli", "start", "--dir", str(tmp_path)], cwd=ROOT
        ) as starting:
            assert wait_until((tmp_path / "stack.json").exists, 30)
            starting.kill()
        assert _running_in(tmp_path) != []
        assert _script("stop", "--dir", str(tmp_path)).returncode == 0
        # A part that came up between the last write and the kill is found by its mark alone.
        assert wait_until(lambda: _running_in(tmp_path) == [], 10)


class TestStack:
    def test_kill_and_resume(self, stack: Stack) -> None:
        for part in ("storage", "processor", "anvil", "mongod"):
            if stack.process(part) is None:
                continue  # MONGODB_URL: not ours to kill
            stack.kill(part, signal.SIGTERM if part == "anvil" else signal.SIGKILL)
            assert not stack.alive()[part]
            stack.resume(part)
            assert stack.alive()[part]
        assert wait_until(lambda: answers(f"{stack.storage_url}/readyz"), 30)
        assert wait_until(lambda: answers(f"{stack.processor_url}/readyz"), 30)

    def test_the_chain_outlives_a_restart(self, stack: Stack) -> None:
        block = stack.anvil.call("eth_getBlockByNumber", "0x1", False)["hash"]
        stack.restart("anvil")
        assert stack.anvil.call("eth_getBlockByNumber", "0x1", False)["hash"] == block
        assert stack.anvil.call("eth_getCode", stack.contract, "latest") != "0x"

    def test_a_chain_that_is_lost_gets_the_contract_again(self, tmp_path: Path) -> None:
        own = Stack(tmp_path)
        own.start()
        try:
            contract = own.contract
            own.kill("anvil", signal.SIGKILL)
            own.resume("anvil")
            assert own.contract == contract
            assert own.anvil.call("eth_getCode", contract, "latest") != "0x"
        finally:
            own.stop()

    def test_a_service_gets_further_settings(self, stack: Stack) -> None:
        before = stack.process("processor")
        stack.restart("processor", {"LOG_LEVEL": "DEBUG"})
        assert stack.process("processor") != before
        stack.restart("processor", {"LOG_LEVEL": "INFO"})
        assert Stack.load(stack.folder).env["processor"]["LOG_LEVEL"] == "INFO"

    def test_a_stopped_service_goes_on(self, stack: Stack) -> None:
        stack.kill("storage", signal.SIGSTOP)
        assert not answers(f"{stack.storage_url}/livez", seconds=0.3)
        stack.kill("storage", signal.SIGCONT)
        assert wait_until(lambda: answers(f"{stack.storage_url}/livez"), 10)

    def test_one_script_at_a_time(self, stack: Stack) -> None:
        with hold(stack.folder), pytest.raises(BusyError, match="another start or stop"):
            Stack(stack.folder).start()


class TestDemo:
    @pytest.mark.parametrize("content", [b"", b"x", None], ids=["empty", "one byte", "made"])
    def test_the_whole_job(self, tmp_path: Path, content: bytes | None) -> None:
        given = tmp_path / "a recording.bin"
        if content is not None:
            given.write_bytes(content)
        done = _demo("--dir", str(tmp_path / "demo"), *([] if content is None else [str(given)]))
        assert done.returncode == 0, done.stdout + done.stderr
        recordings = 1 if content is not None else 2
        assert done.stdout.count("identical, byte for byte") == recordings
        assert done.stdout.count("[proven] the batch root is on chain 31337") == recordings
        assert len(list((tmp_path / "demo" / "receipts").iterdir())) == recordings
        tampered = done.stdout.count("[failed] the envelopes are exactly those that were sealed")
        assert tampered == (0 if content == b"" else recordings)
        before_next_steps = done.stdout.partition("\nDone in")[0].replace(str(tmp_path), "")
        assert max(map(len, before_next_steps.splitlines())) <= 80
        assert _running_in(tmp_path) == []

    def test_a_file_that_is_none(self, tmp_path: Path) -> None:
        failed = _demo("--dir", str(tmp_path / "demo"), str(tmp_path))
        assert (failed.returncode, "is not a file" in failed.stderr) == (1, True)

    def test_interrupted_nothing_is_left(self, tmp_path: Path) -> None:
        with subprocess.Popen(
            [sys.executable, "-m", "scripts.devstack.demo", "--dir", str(tmp_path)],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        ) as demo:
            assert wait_until((tmp_path / "processor.log").exists, 30)
            demo.send_signal(signal.SIGINT)
            assert demo.wait(60) == 130
        assert _running_in(tmp_path) == []


class TestParts:
    def test_a_reused_pid_is_not_the_process(self) -> None:
        assert not Process(os.getpid(), started=1).alive

    def test_a_process_that_does_not_hear(self, tmp_path: Path) -> None:
        script = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('up', flush=True); time.sleep(60)"
        log = tmp_path / "log"
        deaf = start([sys.executable, "-c", script], log, os.environ)
        assert wait_until(lambda: "up" in log.read_text(), 10)
        assert not deaf.stop(seconds=0.2)
        assert not deaf.alive

    def test_a_taken_port_is_changed_for_another(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.delenv("MONGODB_URL", raising=False)
        first, second = Mongod(tmp_path / "a" / "mongo"), Mongod(tmp_path / "b" / "mongo")
        first.start()
        ports = iter([first.port, another := free_port()])
        monkeypatch.setattr("scripts.devstack.process.free_port", lambda: next(ports))
        try:
            second.start()
            assert second.port == another
        finally:
            second.stop()
            first.stop()

    def test_anvil_that_ends_at_once(self, tmp_path: Path) -> None:
        with pytest.raises(StartError, match="anvil did not start: it ended with status 2") as failed:
            Anvil(tmp_path / "chain", extra=("--no-such-option",)).start()
        assert "--no-such-option" in failed.value.tail


class TestRunTests:
    def test_a_group_without_its_program_is_left_out_by_name(self) -> None:
        left_out, problem = run_tests.choose_groups(
            {"odd": lambda: run_tests.programs_problem("sh", "no-such-program"), "even": lambda: ""}, in_ci=False
        )
        assert left_out == {"odd": "no-such-program not found (apt-get install no-such-program)"}
        assert problem == ""

    def test_in_ci_nothing_is_left_out(self) -> None:
        left_out, problem = run_tests.choose_groups({"odd": lambda: "no such thing"}, in_ci=True)
        assert left_out == {}
        assert "the group 'odd' cannot run" in problem

    @pytest.mark.clocks
    def test_clocks_move_only_with_the_library(self, monkeypatch: pytest.MonkeyPatch) -> None:
        assert run_tests.GROUPS["clocks"]() == ""
        monkeypatch.setattr(clock, "_LIBRARY", "lib/no-such-folder/*")
        assert run_tests.GROUPS["clocks"]() == "libfaketime not found (apt-get install libfaketime)"

    @pytest.mark.parametrize(
        ("programs", "reason"),
        [
            ({}, "docker, docker-registry, npm not found (apt-get install docker-registry docker.io npm)"),
            ({"docker": "exit 1"}, "docker version says: nothing"),
            ({"docker": "echo it is away >&2; exit 1"}, "docker version says: it is away"),
            ({"docker": "echo linux/amd64"}, "linux/arm64 cannot be built or run"),
            ({"docker": "echo linux/amd64 linux/arm64"}, "the engine builds for one platform only"),
            ({"docker": "echo linux/amd64 linux/arm64 io.containerd.snapshotter"}, ""),
        ],
    )
    def test_why_containers_cannot_run_here(
        self, programs: dict[str, str], reason: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(os, "geteuid", lambda: 0)
        for name, text in ({"docker-registry": "", "npm": ""} | programs if programs else {}).items():
            (tmp_path / name).write_text(f"#!/bin/sh\n{text}\n")
            (tmp_path / name).chmod(0o755)
        monkeypatch.setenv("PATH", str(tmp_path))
        assert run_tests.containers_problem().startswith(reason or "")
        assert bool(run_tests.containers_problem()) == bool(reason)
        monkeypatch.setattr(os, "geteuid", lambda: 1000)
        assert bool(run_tests.containers_problem())

    def test_a_group_is_added_to_the_markers_that_were_asked_for(self) -> None:
        assert run_tests._deselect(["-m", "a or b", "x"], ["c"]) == ["-m", "(a or b) and not c", "x"]
        assert run_tests._deselect(["x"], ["c", "d"]) == ["-m", "not c and not d", "x"]

    def test_of_a_run_that_failed_the_logs_stay_and_what_is_small(self, tmp_path: Path) -> None:
        large, elsewhere = b"x" * 100_000, tmp_path / "elsewhere"
        elsewhere.write_bytes(large)
        run = tmp_path / "run"
        (run / "mongo").mkdir(parents=True)
        for name in ("mongod.log", "mongo/journal", "answer.json"):
            (run / name).write_bytes(large if name != "answer.json" else b"{}")
        (run / "linked").symlink_to(elsewhere)
        run_tests.keep_logs(run)
        kept = sorted(path.name for path in run.rglob("*"))
        assert kept == ["answer.json", "linked", "mongo", "mongod.log"]
        assert elsewhere.read_bytes() == large

    def test_what_a_test_leaves_running_is_found(self, tmp_path: Path) -> None:
        left = start(["sleep", "60"], tmp_path / "log", os.environ | {"LUCID_TEST_RUN": "mine"})
        time.sleep(0.1)
        assert run_tests.end_leftovers("mine") == [f"{left.pid} (sleep 60)"]
        assert wait_until(lambda: not left.alive, 5)
        assert run_tests.end_leftovers("mine") == []
