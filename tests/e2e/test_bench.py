"""The benchmark runs, in short: nothing is claimed of its figures here."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from bench import tools
from bench.corpus import make
from bench.tools import Borg, Restic, Tool, ToolError
from scripts.devstack.process import ROOT


def test_a_short_run(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "bench", "--quick", "--only", "recording", "--only", "sealing", "--profile"]
    command += ["--json", str(tmp_path / "figures.json"), "--plots", str(tmp_path / "plots")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert max(map(len, done.stdout.splitlines())) <= 80
    assert "64 KiB x 8" in done.stdout
    found = json.loads((tmp_path / "figures.json").read_text())
    for name in ("ours 64 KiB x 8 | speed", "bare 1 MiB x 16 | speed", "ours replay | speed", "seal 10000 | time"):
        assert found["figures"][name]["median"] > 0
    for figure in ("ours 8 MiB x 1 | CPU processor", "ours 8 MiB x 1 | memory storage", "lag processor | p99"):
        assert figure in found["figures"]
    for who in ("ours", "bare"):
        assert 0 <= found["figures"][f"{who} 8 MiB x 1 | stolen"]["median"] < 100
    stages = {name: one["median"] for name, one in found["figures"].items() if name.startswith("profile 64 KiB x 8 | ")}
    assert stages["profile 64 KiB x 8 | processor | zstd, AES-GCM"] > 1
    assert 99 < sum(stages.values()) < 201, "of each of the two services all of its time"
    assert {path.name for path in (tmp_path / "plots").iterdir()} == {"bench-recording.svg", "bench-sealing.svg"}


def test_two_versions(tmp_path: Path) -> None:
    figures = tmp_path / "figures.json"
    command = [sys.executable, "-m", "bench", "--quick", "--only", "recording", "--against", str(ROOT)]
    done = subprocess.run([*command, "--json", str(figures)], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("now / before") == 3
    found = json.loads(figures.read_text())
    for version in ("figures", "before"):
        for cell in ("64 KiB x 8", "64 KiB x 64", "1 MiB x 16"):
            for figure in ("speed", "CPU processor", "CPU storage"):
                assert found[version][f"ours {cell} | {figure}"]["median"] > 0
    command = [sys.executable, "-m", "bench", "--markdown", str(figures)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.count("| now / before |") == 3


def test_a_version_that_cannot_be_had(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "bench", "--quick", "--only", "recording", "--against", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (1, "")
    assert "has no sessions/storage/main.py" in done.stderr


def test_a_slower_disk(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "bench", "--quick", "--only", "latency", "--fsync-ms", "20"]
    command += ["--json", str(tmp_path / "figures.json")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "figures.json").read_text())
    assert found["command"] == "scripts/bench --quick --only latency --fsync-ms 20"
    assert found["figures"]["bare paced | p50"]["median"] > 20
    assert found["figures"]["hops paced | p50"]["median"] > 20
    assert found["figures"]["ours paced | p50"]["median"] > 20
    assert "stolen of the CPU time asked for" in done.stdout


def test_a_slower_disk_needs_a_compiler(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "bench", "--quick", "--fsync-ms", "20", "--json", str(tmp_path / "figures.json")]
    environment = {**os.environ, "PATH": str(tmp_path)}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (1, "")
    assert "--fsync-ms needs a C compiler, cc" in done.stderr
    (tmp_path / "cc").write_text("#!/bin/sh\necho no room >&2\nexit 1\n")
    (tmp_path / "cc").chmod(0o755)
    environment["PATH"] = f"{tmp_path}:/bin"
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (1, "")
    assert "the C compiler fails: no room" in done.stderr
    assert not (tmp_path / "figures.json").exists()


def test_a_folder_without_anything_is_refused(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "bench", "--corpus", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "holds no file with anything in it" in done.stderr


@pytest.mark.rivals
@pytest.mark.parametrize("tool", [Restic(), Borg()], ids=lambda tool: tool.name)
def test_a_rival_gives_back_what_it_took(tool: Tool, tmp_path: Path) -> None:
    source = make(tmp_path / "corpus", 6)
    assert tool.backup(source, tmp_path) > 0
    assert tool.restore(tmp_path, tmp_path / "restored") > 0
    restored = {path.name: path.read_bytes() for path in (tmp_path / "restored").rglob("recording-*")}
    assert restored == {path.name: path.read_bytes() for path in source.files}
    assert tools.version(tool.name).startswith(tool.name)
    with pytest.raises(ToolError, match=tool.name):
        tool.restore(tmp_path / "nothing", tmp_path / "restored")
