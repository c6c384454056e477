"""`-o FILE`: new files are complete and the owner's, no link is followed, and devices and pipes are written into."""

import os
import stat
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from scripts.devstack.process import ROOT
from sessions.client.errors import TargetError, TargetTakenError
from sessions.client.targets import open_out


def _mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_a_new_file_is_the_owners_alone(tmp_path: Path) -> None:
    """L2: plaintext with 0644."""
    target = tmp_path / "out"
    before = os.umask(0)
    try:
        with open_out(target) as write:
            write(b"one")
            assert not target.exists()
            assert _mode(tmp_path / "out.part") == 0o600
    finally:
        os.umask(before)
    assert (target.read_bytes(), _mode(target)) == (b"one", 0o600)
    with pytest.raises(TargetTakenError), open_out(target):
        pass
    with open_out(target, overwrite=True) as write:
        write(b"two")
    assert target.read_bytes() == b"two"


def test_what_others_may_read_has_the_usual_mode(tmp_path: Path) -> None:
    before = os.umask(0o022)
    try:
        with open_out(tmp_path / "receipt", mode=0o666) as write:
            write(b"{}")
    finally:
        os.umask(before)
    assert _mode(tmp_path / "receipt") == 0o644


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_part_that_is_a_link_is_not_followed(tmp_path: Path, overwrite: bool) -> None:
    """L2: it overwrote what the link names, and the result was the link."""
    precious = tmp_path / "precious"
    precious.write_bytes(b"precious")
    (tmp_path / "out.part").symlink_to(precious)
    with open_out(tmp_path / "out", overwrite=overwrite) as write:
        write(b"one")
    assert precious.read_bytes() == b"precious"
    assert not (tmp_path / "out").is_symlink()
    assert (tmp_path / "out").read_bytes() == b"one"


@pytest.mark.parametrize("there", [True, False])
@pytest.mark.parametrize("overwrite", [False, True])
def test_a_target_that_is_a_link_is_refused(tmp_path: Path, there: bool, overwrite: bool) -> None:
    precious = tmp_path / "precious"
    if there:
        precious.write_bytes(b"precious")
    (tmp_path / "out").symlink_to(precious)
    with pytest.raises(TargetError, match="is a link"), open_out(tmp_path / "out", overwrite=overwrite) as write:
        write(b"one")
    assert precious.exists() == there
    assert not (tmp_path / "out.part").exists()


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_pipe_is_written_into(tmp_path: Path, overwrite: bool) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    came: list[bytes] = []
    reading = threading.Thread(target=lambda: came.append(pipe.read_bytes()))
    reading.start()
    with open_out(pipe, overwrite=overwrite) as write:
        write(b"one")
        write(b"two")
    reading.join(5)
    assert came == [b"onetwo"]
    assert stat.S_ISFIFO(pipe.lstat().st_mode)


def test_a_device_is_written_into() -> None:
    with open_out("/dev/null") as write:
        write(b"one")
    assert stat.S_ISCHR(Path("/dev/null").lstat().st_mode)
    if Path("/dev/full").exists():
        with pytest.raises(TargetError, match="No space left"), open_out("/dev/full") as write:
            write(b"one")


@pytest.mark.root
def test_a_pipe_of_somebody_else_is_refused(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    os.chown(pipe, 12345, 12345)
    with pytest.raises(TargetError, match="belongs to another user"), open_out(pipe):
        pass


@pytest.mark.parametrize("name", ["/dev/stdout", "/dev/fd/1", "/proc/self/fd/1"])
@pytest.mark.parametrize("to", ["pipe", "file"])
def test_standard_output_by_its_name(tmp_path: Path, name: str, to: str) -> None:
    code = f"from sessions.client.targets import open_out\nwith open_out({name!r}) as write: write(b'one')"
    if to == "pipe":
        done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, check=True, timeout=30)
        assert done.stdout == b"one"
        return
    with (tmp_path / "out").open("wb") as file:
        file.write(b"before ")
        file.flush()
        subprocess.run([sys.executable, "-c", code], cwd=ROOT, stdout=file, check=True, timeout=30)
    assert (tmp_path / "out").read_bytes() == b"before one"


def test_a_folder_is_no_target(tmp_path: Path) -> None:
    with pytest.raises(TargetError), open_out(tmp_path, overwrite=True):
        pass
    with pytest.raises(TargetError), open_out(tmp_path / "nowhere" / "out"):
        pass


def test_what_fails_leaves_nothing(tmp_path: Path) -> None:
    def fail() -> None:
        with open_out(tmp_path / "out") as write:
            write(b"one")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert list(tmp_path.iterdir()) == []
